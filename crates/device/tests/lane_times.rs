//! What the CPU device tells of each lane of a launch.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;
use tessera_core::{LaunchId, PartitionId, Precision};
use tessera_device::conformance::{Case, bell, cases};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, Finished, Lane, LaneRequest, Launch, Room};

fn case() -> Case {
    cases().into_iter().find(|case| case.name == "gemm 17×64×128").expect("the suite has it")
}

/// Launches of two lanes on one core: the first carries so many items, the second one; the weights of each are random ones times a factor.
fn launches(items: u32, scales: [f32; 2], count: usize) -> Vec<Finished> {
    let (wake, bell) = bell();
    let options = CpuOptions { cores: Cores::These(vec![0]), partitions: None, memory_limit: None };
    let device = CpuDevice::open(&options, wake).unwrap();
    let case = case();
    let mut random = StdRng::seed_from_u64(3);
    let layout = case.layout(device.pack_target(Precision::Fp32).unwrap());
    let weights = case.random_weights(&mut random);
    let slots = scales.map(|scale| {
        let packed = case.pack(&scaled(&weights, scale), &layout);
        device.upload(case.plan.key.class, &layout, packed).unwrap()
    });
    let room = Room { lanes: 2, items: items + 1 };
    let program = device.compile(&case.plan, &layout, room, PartitionId(0)).unwrap();
    let inputs = case.inputs(&mut random);
    let lane = |slot: usize, items: u32| {
        let inputs = inputs.iter().map(|input| input.repeat(items as usize).into()).collect();
        Lane { slot: slots[slot].clone(), requests: vec![LaneRequest { items, inputs }] }
    };
    let mut finished = Vec::new();
    for id in 0..count as u64 {
        let lanes = vec![lane(0, items), lane(1, 1)];
        device.submit(Launch { id: LaunchId(id), program, lanes, urgent: false }).unwrap();
        while finished.len() as u64 == id {
            bell.recv_timeout(Duration::from_secs(60)).expect("the device wakes us");
            finished.extend(device.poll());
        }
    }
    finished
}

fn scaled(weights: &[Vec<u8>], scale: f32) -> Vec<Vec<u8>> {
    let tensor =
        |bytes: &Vec<u8>| floats(bytes).into_iter().flat_map(|x| (x * scale).to_le_bytes()).collect();
    weights.iter().map(tensor).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn median(launches: &[Finished], lane: usize) -> Duration {
    let mut took: Vec<Duration> = launches.iter().map(|launch| launch.lanes[lane]).collect();
    took.sort_unstable();
    took[took.len() / 2]
}

#[test]
fn a_lane_of_more_items_is_told_to_have_taken_longer() {
    // Of many launches most are not disturbed, whatever else this machine does.
    let launches = launches(32, [1.0; 2], 101);
    let longer = launches.iter().filter(|launch| launch.lanes[0] > 4 * launch.lanes[1]).count();
    assert!(longer > 60, "the lane of 32 items took longer in {longer} of 101 launches only");
    assert!(
        launches.iter().all(|launch| launch.lanes.iter().sum::<Duration>() <= launch.took),
        "on one core"
    );
}

#[test]
fn steps_are_timed_in_some_launches_and_fit_into_their_lanes() {
    let launches = launches(1, [1.0; 2], 130);
    let sampled: Vec<_> =
        launches.iter().filter_map(|launch| Some((launch, launch.steps.as_ref()?))).collect();
    assert_eq!(sampled.len(), 2, "the first, and one in 128");
    for (launch, steps) in sampled {
        for (lane, steps) in launch.lanes.iter().zip(steps) {
            let sum: Duration = steps.iter().sum();
            assert!(sum <= *lane && sum > Duration::ZERO, "{sum:?} of {lane:?}");
        }
    }
}

/// Whether denormal numbers take longer depends on the processor; where they do, that is to be the lane's own.
#[test]
fn denormal_weights_are_computed_as_they_are_and_cost_their_own_lane_alone() {
    // Powers of two, which change no digit; the case ends in a cut at 6, which small weights stay below.
    let (denormal, small) = (f32::from_bits(1 << 19), 2f32.powi(-10));
    let beside_one_alike = launches(1, [small; 2], 101);
    let beside_denormals = launches(1, [denormal, small], 101);
    let answer = |launch: &Finished, lane: usize| launch.answers[lane][0].as_ref().unwrap()[0].clone();
    let (alike, mixed) = (&beside_one_alike[0], &beside_denormals[0]);
    assert_eq!(answer(alike, 1), answer(mixed, 1), "the neighbour's bits");
    let (tiny, whole) = (floats(&answer(mixed, 0)), floats(&answer(alike, 0)));
    assert!(
        tiny.iter().any(|x| x.is_subnormal()),
        "flushed to zero, or not denormal at all: {:?}",
        &tiny[..4]
    );
    // 2^-130 has 19 bits below it, and each of the 64 sums of an output may lose half of the last.
    let part = |x: f32, of: f32| f64::from(x) / f64::from(of);
    let off = |(tiny, whole): (&f32, &f32)| (part(*tiny, denormal) - part(*whole, small)).abs();
    let worst = tiny.iter().zip(&whole).map(off).fold(0.0, f64::max);
    assert!(worst < 1e-3, "off by {worst} of the same weights in full size");
    let [slow, neighbour] = [0, 1].map(|lane| median(&beside_denormals, lane));
    let usual = median(&beside_one_alike, 1);
    println!(
        "a lane of denormal weights takes {slow:?}, its neighbour {neighbour:?}, and {usual:?} beside one like it"
    );
    assert!(neighbour < 2 * usual, "its neighbour is told to have taken {neighbour:?} instead of {usual:?}");
}
