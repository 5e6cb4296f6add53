//! A request with little time beside launches that take long: between their steps, with the same answer, and counted.

use crate::client;
use crate::events::of_kind;
use crate::fixture;
use crate::served::{Served, binary, limited, settings};
use crate::tensors::{Tensors, outputs, repeated};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const QUICK: &str = "mlp-0";

/// Fifty steps, and a hundred items of it keep the device busy for long.
const SLOW: &str = "mobilenet_v2_035-0";

/// Milliseconds to deadlines: a few steps of the slow one are over before the first, or on a machine with much else to do before a later one.
const LITTLE: [u64; 7] = [5, 10, 20, 40, 80, 160, 320];

fn start(folder: &std::path::Path, interrupt: bool) -> Served {
    fixture::place(folder, &[QUICK, SLOW]);
    let mut settings = settings(folder);
    settings.interrupt = interrupt;
    let served = Served::with(settings);
    served.wait_ready();
    served
}

/// Asks the slow one again and again, and the quick one with little time until `enough`, for a minute at most. The quick one's answers.
fn hurry(served: &Served, enough: impl Fn(u16) -> bool) -> Vec<Tensors> {
    let inputs = |name| fixture::case(name).sets.remove(0).inputs;
    let many = repeated(&inputs(SLOW), 100);
    let hurried = LITTLE.map(|ms| limited(&binary(QUICK, &inputs(QUICK)), 1000 * ms));
    // What lanes of so many items take to stand back is known from the first of them.
    served.answer(SLOW, &many);
    let (over, begun) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                served.answer(SLOW, &many);
            }
        });
        let mut answers = Vec::new();
        for hurried in hurried.iter().cycle() {
            let answer = served.send(hurried);
            let status = answer.status;
            answers.extend((status == 200).then(|| outputs(&answer)));
            if enough(status) || begun.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        answers
    })
}

#[test]
fn a_request_with_little_time_goes_between_the_steps_of_a_long_launch_and_answers_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    let served = start(folder.path(), true);
    let alone = served.answer(QUICK, &fixture::case(QUICK).sets.remove(0).inputs);
    let stood_back = || served.sample("tessera_stood_back_seconds_total") > 0.0;
    let answers = hurry(&served, |status| status == 200 && stood_back());
    assert!(!answers.is_empty() && answers.iter().all(|answer| *answer == alone));
    assert!(stood_back() && served.sample("tessera_interruptions_total") >= 1.0);
    client::eventually("it is told of", || !of_kind(&served, "interrupted").is_empty());
    let told = of_kind(&served, "interrupted").remove(0);
    assert!(told["device"].as_str().unwrap().starts_with("cpu"), "{told}");
    assert!(told["numbers"]["launches"].as_u64() >= Some(1), "{told}");
}

#[test]
fn no_launch_stands_back_where_that_is_turned_off() {
    let folder = tempfile::tempdir().unwrap();
    let served = start(folder.path(), false);
    let refused = std::cell::Cell::new(0);
    hurry(&served, |status| {
        refused.set(refused.get() + u32::from(status == 504));
        refused.get() == 20
    });
    assert_eq!((refused.get(), served.sample("tessera_interruptions_total")), (20, 0.0));
}
