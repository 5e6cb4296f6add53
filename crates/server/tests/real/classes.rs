//! Which tenants are one class, seen from outside: those of one class share a launch, others never do.

use crate::fixture::{self, case, place};
use crate::served::{Served, binary, place_blocker};
use crate::tensors::{assert_right, bits, outputs};
use std::fs;
use std::path::Path;

/// Asks tenants their own questions together, and says in how many launches they were answered.
fn launches_for(served: &Served, tenants: &[&str]) -> f64 {
    let ask = |tenant: &&str| binary(tenant, &case(tenant).sets[0].inputs);
    let together = served.together(&tenants.iter().map(ask).collect::<Vec<_>>());
    for (tenant, answer) in tenants.iter().zip(&together.answers) {
        assert_right(tenant, &outputs(answer), &case(tenant).sets[0].answer);
    }
    assert_eq!(together.lanes, tenants.len() as f64);
    together.launches
}

#[test]
fn tenants_of_one_architecture_share_one_launch_and_others_have_their_own() {
    let families: [&[&str]; 5] = [
        &["mlp-0", "mlp-1", "mlp-2", "mlp-3"],
        &["lstm-0", "lstm-1", "lstm-2", "lstm-3"],
        &["bert_tiny-0", "bert_tiny-1"],
        &["resnet26_narrow-0", "resnet26_narrow-1", "resnet26_narrow-2"],
        &["block_fresh", "block_tuned"],
    ];
    let repository = tempfile::tempdir().unwrap();
    place(repository.path(), &families.concat());
    place_blocker(repository.path());
    let served = Served::start(repository.path());
    for family in families {
        assert_eq!(launches_for(&served, family), 1.0, "{family:?}");
    }
    assert_eq!(launches_for(&served, &families.concat()), families.len() as f64);
}

/// Places a copy of a fixture in which some bytes are others.
fn place_changed(repository: &Path, name: &str, from: &[u8], to: &[u8]) {
    let model = fs::read(fixture::path(&format!("{name}.onnx"))).unwrap();
    fs::write(repository.join(format!("{name}-changed.onnx")), fixture::replaced(&model, from, to)).unwrap();
}

#[test]
fn another_epsilon_or_clip_bound_is_another_class() {
    let repository = tempfile::tempdir().unwrap();
    place(repository.path(), &["block_fresh", "mobilenet_v2_035-0"]);
    place_blocker(repository.path());
    // A float attribute is its name, a tag and the number; a constant's data is a tag, a length and the number.
    let epsilon = |epsilon: f32| [&b"epsilon\x15"[..], &epsilon.to_le_bytes()].concat();
    place_changed(repository.path(), "block_fresh", &epsilon(1e-5), &epsilon(1e-6));
    let bound = |bound: f32| [&b"\x4a\x04"[..], &bound.to_le_bytes()].concat();
    place_changed(repository.path(), "mobilenet_v2_035-0", &bound(6.0), &bound(0.5));
    let names = ["block_fresh", "mobilenet_v2_035-0"];
    names.iter().for_each(|name| case(name).place(&repository.path().join(format!("{name}-copy.onnx"))));
    let served = Served::start(repository.path());
    for name in names {
        let question = &case(name).sets[0];
        let ask = |tenant: &str| binary(tenant, &question.inputs);
        let both = served.together(&[ask(name), ask(&format!("{name}-changed"))]);
        assert_eq!((both.launches, both.lanes), (2.0, 2.0), "{name}");
        let [answer, changed] = [0, 1].map(|at| outputs(&both.answers[at]));
        assert_right(name, &answer, &question.answer);
        assert_ne!(bits(&answer), bits(&changed), "{name}: the change is in the answer");
        // It was the change that kept them apart: an unchanged copy shares the launch.
        let both = served.together(&[ask(name), ask(&format!("{name}-copy"))]);
        assert_eq!((both.launches, both.lanes), (1.0, 2.0), "{name}");
    }
}
