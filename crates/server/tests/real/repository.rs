//! Tenants come, change and go while others are served, and what is wrong with one stays its own affair.

use crate::client::{eventually, json_request};
use crate::events::of_kind;
use crate::fixture::{self, case, place, replaced};
use crate::served::{Served, binary, place_blocker, settings};
use crate::tensors::{Tensors, assert_right, bits, outputs, relative_error};
use crate::weights::{self, safetensors};
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tessera_core::ClassId;
use tessera_device::around::Around;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, DeviceError, Slot};
use tessera_planner::{Packed, SlotLayout, Tensor};
use tessera_server::devices::Open;

impl Served {
    fn is_right(&self, tenant: &str, fixture: &str) {
        let question = &case(fixture).sets[0];
        assert_right(tenant, &self.answer(tenant, &question.inputs), &question.answer);
    }

    /// Waits until a tenant answers a fixture's question as that fixture does.
    fn becomes(&self, tenant: &str, fixture: &str) {
        let question = &case(fixture).sets[0];
        let right = || {
            let answer = self.ask(tenant, &question.inputs);
            answer.status == 200 && are_near(&outputs(&answer), &question.answer)
        };
        eventually(&format!("{tenant} answers as {fixture}"), right);
    }

    /// Waits until a request for a tenant is refused so, and the reason holds these words.
    fn refuses(&self, tenant: &str, status: u16, words: &str) {
        let inputs = &case("mlp-0").sets[0].inputs;
        let refused = || {
            let answer = self.ask(tenant, inputs);
            answer.status == status && answer.json()["error"].as_str().unwrap().contains(words)
        };
        eventually(&format!("{tenant} is refused with {status} and `{words}`"), refused);
        assert_ne!(self.get(&format!("/v2/models/{tenant}/ready")).status, 200, "{tenant}");
    }
}

fn are_near(got: &Tensors, want: &Tensors) -> bool {
    let shapes =
        |tensors: &Tensors| -> Vec<Vec<usize>> { tensors.iter().map(|(_, t)| t.dims().to_vec()).collect() };
    shapes(got) == shapes(want) && relative_error(got, want) < 1e-5
}

/// Writes a file, and the folders that it is in.
fn write(at: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, content).unwrap();
}

#[test]
fn a_bad_model_tells_its_callers_why_and_stops_nobody() {
    let repository = tempfile::tempdir().unwrap();
    let at = |file: &str| repository.path().join(file);
    place(repository.path(), &["mlp-0"]);
    let model = fs::read(fixture::path("mlp-1.onnx")).unwrap();
    let random: Vec<u8> = (0u32..5000).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    write(&at("empty.onnx"), "");
    write(&at("random.onnx"), random);
    write(&at("truncated.onnx"), &model[..5000]);
    write(&at("unknown-operator.onnx"), replaced(&model, b"\x04Gemm", b"\x04Gomm"));
    let iris = fs::read(fixture::path("torch_export/iris.onnx")).unwrap();
    write(&at("data-missing/model.onnx"), &iris);
    write(&at("data-short/model.onnx"), &iris);
    write(&at("data-short/iris.onnx.data"), [0; 10]);
    write(&at("data-outside/model.onnx"), replaced(&iris, b"iris.onnx.data", b"../outside.bin"));
    write(&at("outside.bin"), [0; 1 << 16]);
    write(&at("typo/model.onnx"), &model);
    write(&at("typo/tenant.toml"), "slo = 3");
    write(&at("nothing/README"), "no model");
    let served = Served::start(repository.path());
    for (tenant, words) in [
        ("empty", "the file is empty"),
        ("random", "not an ONNX model"),
        ("truncated", "not an ONNX model"),
        ("unknown-operator", "Gomm"),
        ("data-missing", "iris.onnx.data"),
        ("data-short", "bytes"),
        ("data-outside", "outside"),
        ("typo", "unknown field `slo`"),
        ("nothing", "no model in this folder"),
    ] {
        served.refuses(tenant, 503, words);
        served.is_right("mlp-0", "mlp-0");
    }
    // A bad one is no reason to call the server unready; one that is mended is served.
    assert_eq!(served.get("/v2/health/ready").status, 200);
    case("mlp-1").place(&at("truncated.onnx"));
    served.becomes("truncated", "mlp-1");
}

#[test]
fn who_answers_as_before_a_bad_change_is_listed_with_what_is_wrong_with_it() {
    let repository = tempfile::tempdir().unwrap();
    let at = |file: &str| repository.path().join(file);
    place(repository.path(), &["mlp-0"]);
    case("mlp-1").place(&at("typo/model.onnx"));
    let served = Served::start(repository.path());
    let reason = |tenant: &str| {
        let index = served.send(&json_request("/v2/repository/index", "")).json();
        let listed =
            index.as_array().unwrap().iter().find(|listed| listed["name"] == tenant).unwrap().clone();
        assert_eq!(listed["state"], "READY", "{listed}");
        listed["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!((reason("mlp-0"), reason("typo")), (String::new(), String::new()));
    write(&at("mlp-0.onnx"), "no model");
    write(&at("typo/tenant.toml"), "slo = 3");
    eventually("the bad file is told of", || reason("mlp-0").contains("not an ONNX model"));
    eventually("the bad terms are told of", || reason("typo").contains("unknown field `slo`"));
    assert!(reason("mlp-0").starts_with("answers as it was loaded before"), "{}", reason("mlp-0"));
    served.is_right("mlp-0", "mlp-0");
    served.is_right("typo", "mlp-1");
    case("mlp-1").place(&at("mlp-0.onnx"));
    fs::remove_file(at("typo/tenant.toml")).unwrap();
    served.becomes("mlp-0", "mlp-1");
    eventually("nothing is wrong any more", || reason("mlp-0").is_empty() && reason("typo").is_empty());
}

#[test]
fn a_repository_that_is_away_for_a_while_fails_nobody_and_loads_nobody_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (here, away) = (folder.path().join("models"), folder.path().join("away"));
    fs::create_dir(&here).unwrap();
    place(&here, &["mlp-0", "mlp-1"]);
    let served = Served::start(&here);
    fs::rename(&here, &away).unwrap();
    // Many looks at a folder that is not there.
    std::thread::sleep(20 * settings(&here).poll_interval);
    served.is_right("mlp-0", "mlp-0");
    fs::rename(&away, &here).unwrap();
    // Who comes now was seen, and so was the rest.
    case("lstm-0").place(&here.join("late.onnx"));
    served.becomes("late", "lstm-0");
    assert_eq!(of_kind(&served, "load_failed"), Vec::<serde_json::Value>::new());
    assert_eq!(of_kind(&served, "loaded").len(), 3);
}

#[test]
fn ready_means_that_every_tenant_answers_or_says_why_not() {
    let repository = tempfile::tempdir().unwrap();
    place(
        repository.path(),
        &["mlp-0", "lstm-0", "resnet26_narrow-0", "timm_test_vit", "mobilenet_v2_035-0"],
    );
    write(&repository.path().join("bad.onnx"), "");
    let served = Served::with(settings(repository.path()));
    let mut before = Vec::new();
    loop {
        let health = served.get("/v2/health/ready");
        if health.status == 200 {
            break;
        }
        before.push(health.json()["error"].as_str().unwrap().to_owned());
    }
    assert!(before.iter().all(|why| why.starts_with("loading: ")), "{before:?}");
    for tenant in ["mlp-0", "lstm-0", "resnet26_narrow-0", "timm_test_vit", "mobilenet_v2_035-0"] {
        served.is_right(tenant, tenant);
    }
    served.refuses("bad", 503, "the file is empty");
}

#[test]
fn a_tenant_of_weights_only_answers_as_its_model_did_and_shares_its_bases_launches() {
    let repository = tempfile::tempdir().unwrap();
    let at = |file: &str| repository.path().join(file);
    place(repository.path(), &["block_fresh"]);
    place_blocker(repository.path());
    let tuned = weights::of("block_tuned");
    write(&at("tuned/tenant.toml"), "base = \"block_fresh\"");
    write(&at("tuned/3/model.safetensors"), safetensors(&tuned));
    // What does not fit is named, and disturbs nobody.
    let missing = tuned[1..].to_vec();
    let extra = [&tuned[..], &[("surplus".to_owned(), tuned[0].1.clone())]].concat();
    let mut misshapen = tuned.clone();
    let dims = [&[1], misshapen[0].1.dims()].concat();
    misshapen[0].1 = Tensor::new(misshapen[0].1.dtype(), dims, misshapen[0].1.bytes().to_vec()).unwrap();
    for (name, dict) in [("missing", &missing), ("extra", &extra), ("misshapen", &misshapen)] {
        write(&at(&format!("{name}/tenant.toml")), "base = \"block_fresh\"");
        write(&at(&format!("{name}/model.safetensors")), safetensors(dict));
    }
    let served = Served::start(repository.path());
    served.is_right("tuned", "block_tuned");
    served.is_right("block_fresh", "block_fresh");
    let ask = |tenant: &str, fixture: &str| binary(tenant, &case(fixture).sets[0].inputs);
    let both = served.together(&[ask("block_fresh", "block_fresh"), ask("tuned", "block_tuned")]);
    assert_eq!((both.launches, both.lanes), (1.0, 2.0));
    served.refuses("missing", 503, &format!("missing: `{}`", tuned[0].0));
    served.refuses("extra", 503, "surplus");
    served.refuses("misshapen", 503, &format!("wrong shape: `{}`", tuned[0].0));
    served.is_right("tuned", "block_tuned");
}

#[test]
fn a_base_that_vanishes_leaves_its_dependents_serving() {
    let repository = tempfile::tempdir().unwrap();
    let at = |file: &str| repository.path().join(file);
    place(repository.path(), &["block_fresh"]);
    let weights = safetensors(&weights::of("block_tuned"));
    write(&at("tuned/tenant.toml"), "base = \"block_fresh\"");
    write(&at("tuned/model.safetensors"), &weights);
    let served = Served::start(repository.path());
    fs::remove_file(at("block_fresh.onnx")).unwrap();
    served.refuses("block_fresh", 404, "unknown model");
    served.is_right("tuned", "block_tuned");
    // Who comes now is told what is missing, and is served once it is there.
    write(&at("late/tenant.toml"), "base = \"block_fresh\"");
    write(&at("late/model.safetensors"), &weights);
    served.refuses("late", 503, "its base `block_fresh` is not in the repository");
    served.is_right("tuned", "block_tuned");
    place(repository.path(), &["block_fresh"]);
    served.becomes("late", "block_tuned");
    served.is_right("tuned", "block_tuned");
}

#[test]
fn two_tenants_of_one_name_are_told_so_and_the_one_that_served_goes_on() {
    let repository = tempfile::tempdir().unwrap();
    let at = |file: &str| repository.path().join(file);
    place(repository.path(), &["mlp-0", "mlp-1"]);
    case("mlp-2").place(&at("mlp-1/model.onnx"));
    let served = Served::start(repository.path());
    served.refuses("mlp-1", 503, "both claim this name");
    served.is_right("mlp-0", "mlp-0");
    fs::remove_file(at("mlp-1.onnx")).unwrap();
    served.becomes("mlp-1", "mlp-2");
    // A second claim takes nothing from who is served.
    place(repository.path(), &["mlp-1"]);
    case("mlp-3").place(&at("seen.onnx"));
    served.becomes("seen", "mlp-3");
    served.is_right("mlp-1", "mlp-2");
}

#[test]
fn a_tenants_folder_that_vanishes_takes_its_tenant_along_and_brings_it_back() {
    let repository = tempfile::tempdir().unwrap();
    let (here, away) = (repository.path().join("mlp-1"), tempfile::tempdir().unwrap());
    place(repository.path(), &["mlp-0"]);
    case("mlp-1").place(&here.join("1/model.onnx"));
    let served = Served::start(repository.path());
    served.is_right("mlp-1", "mlp-1");
    let away = away.path().join("mlp-1");
    fs::rename(&here, &away).unwrap();
    served.refuses("mlp-1", 404, "unknown model");
    served.is_right("mlp-0", "mlp-0");
    fs::rename(&away, &here).unwrap();
    served.becomes("mlp-1", "mlp-1");
}

/// Loads nothing until it is let.
#[derive(Debug)]
struct Held {
    inner: CpuDevice,
    asked: Arc<AtomicBool>,
    let_go: Arc<AtomicBool>,
}

impl Around for Held {
    fn inner(&self) -> &dyn Device {
        &self.inner
    }

    fn upload(&self, class: ClassId, layout: &Arc<SlotLayout>, packed: Packed) -> Result<Slot, DeviceError> {
        self.asked.store(true, Ordering::SeqCst);
        eventually("it may load", || self.let_go.load(Ordering::SeqCst));
        self.inner.upload(class, layout, packed)
    }
}

#[test]
fn a_tenant_that_is_taken_away_before_it_was_loaded_is_no_failure() {
    let repository = tempfile::tempdir().unwrap();
    place(repository.path(), &["mlp-0", "mlp-1"]);
    // One after the other, and the folder is not looked at meanwhile.
    let mut settings = settings(repository.path());
    (settings.loader_threads, settings.poll_interval) = (NonZeroU32::MIN, Duration::from_secs(3));
    let (asked, let_go) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let held = (asked.clone(), let_go.clone());
    let open: Open<'static> = Box::new(move |wake| {
        let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
        let (asked, let_go) = held;
        Ok(Arc::new(Held { inner: CpuDevice::open(&options, wake)?, asked, let_go }))
    });
    let served = Served::on(settings, vec![open]);
    eventually("the first is on its way", || asked.load(Ordering::SeqCst));
    fs::remove_file(repository.path().join("mlp-1.onnx")).unwrap();
    let_go.store(true, Ordering::SeqCst);
    served.wait_ready();
    served.is_right("mlp-0", "mlp-0");
    served.refuses("mlp-1", 404, "unknown model");
    assert_eq!(of_kind(&served, "load_failed"), Vec::<serde_json::Value>::new());
    assert_eq!(served.sample("tessera_model_load_failures_total"), 0.0);
}

#[test]
fn a_repository_that_vanishes_changes_nothing_until_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let (here, away) = (folder.path().join("repository"), folder.path().join("away"));
    fs::create_dir(&here).unwrap();
    place(&here, &["mlp-0", "mlp-1"]);
    let served = Served::start(&here);
    fs::rename(&here, &away).unwrap();
    fs::remove_file(away.join("mlp-1.onnx")).unwrap();
    // Many times the interval at which the folder is looked at.
    std::thread::sleep(settings(&here).poll_interval * 20);
    served.is_right("mlp-0", "mlp-0");
    served.is_right("mlp-1", "mlp-1");
    assert_eq!(served.get("/v2/health/ready").status, 200);
    fs::rename(&away, &here).unwrap();
    served.refuses("mlp-1", 404, "unknown model");
    served.is_right("mlp-0", "mlp-0");
}

#[test]
fn a_model_replaced_under_load_costs_no_request_and_every_answer_is_the_old_ones_or_the_new_ones() {
    let repository = tempfile::tempdir().unwrap();
    let at = repository.path().join("changing.onnx");
    place(repository.path(), &["mlp-2"]);
    case("mlp-0").place(&at);
    let served = Served::start(repository.path());
    let asked = &case("mlp-0").sets[0].inputs;
    let old = served.answer("changing", asked);
    // What the other weights make of the same question.
    case("mlp-1").place(&repository.path().join("other.onnx"));
    served.becomes("other", "mlp-1");
    let new = served.answer("other", asked);
    assert_ne!(bits(&old), bits(&new));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = || {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                let answer = served.answer("changing", asked);
                assert!([&old, &new].iter().any(|known| bits(known) == bits(&answer)));
                answers += 1;
            }
            answers
        };
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(client)).collect();
        for round in 0..8 {
            let (fixture, expected) = if round % 2 == 0 { ("mlp-1", &new) } else { ("mlp-0", &old) };
            // Beside it and renamed into place, as our errors advise.
            let beside = repository.path().join("changing.part");
            case(fixture).place(&beside);
            fs::rename(&beside, &at).unwrap();
            let changed = || bits(&served.answer("changing", asked)) == bits(expected);
            eventually("the replaced model answers", changed);
        }
        over.store(true, Ordering::Relaxed);
        let answers: Vec<usize> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        println!("answers per client: {answers:?}");
    });
    served.is_right("mlp-2", "mlp-2");
}

#[test]
fn weights_in_a_file_beside_the_model_may_be_replaced_alone() {
    let repository = tempfile::tempdir().unwrap();
    case("torch_export/iris").place(&repository.path().join("iris.onnx"));
    let data = repository.path().join("iris.onnx.data");
    let served = Served::start(repository.path());
    let asked = &case("torch_export/iris").sets[0].inputs;
    let answered = served.answer("iris", asked);
    let old = bits(&answered);
    let mut weights = fs::read(&data).unwrap();
    // Every float becomes its negative.
    weights.iter_mut().skip(3).step_by(4).for_each(|last| *last ^= 0x80);
    let part = repository.path().join("part");
    write(&part, &weights);
    fs::rename(&part, &data).unwrap();
    eventually("the new weights answer", || bits(&served.answer("iris", asked)) != old);
}

#[test]
fn requests_that_wait_while_their_model_is_replaced_are_answered_by_the_new_one() {
    let repository = tempfile::tempdir().unwrap();
    let at = repository.path().join("changing.onnx");
    place(repository.path(), &["mlp-0", "mlp-1"]);
    place_blocker(repository.path());
    case("mlp-0").place(&at);
    let served = Served::start(repository.path());
    let inputs = &case("mlp-0").sets[0].inputs;
    let answer_of = |fixture: &str| served.answer(fixture, inputs);
    let (mut now, mut next) = ("mlp-0", "mlp-1");
    served.while_busy(|busy| {
        let answer = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| served.answer("changing", inputs));
            eventually("it waits, or it is too late for that", || served.queued() == 1.0 || !busy());
            case(next).place(&at);
            waiting.join().unwrap()
        });
        // It waited until the device was free. If the new weights were loaded by then, they answered it.
        let (old, new) = (answer_of(now), answer_of(next));
        assert!([&old, &new].iter().any(|known| bits(known) == bits(&answer)));
        eventually("the replaced model answers", || bits(&served.answer("changing", inputs)) == bits(&new));
        (now, next) = (next, now);
        (bits(&answer) == bits(&new)).then_some(())
    });
}
