//! Every fixture over HTTP: PyTorch's answers, in JSON and in binary, and the same bits in any company.

use crate::fixture::{self, Case};
use crate::served::{Served, binary, infer, place_blocker};
use crate::tensors::{Form, Tensors, assert_right, bits, item, outputs, request};
use std::path::Path;

/// Every fixture in one repository, in all three layouts.
fn place_all(repository: &Path) -> Vec<Case> {
    let cases = fixture::all();
    for (at, case) in cases.iter().enumerate() {
        let name = &case.name;
        let layouts = [format!("{name}.onnx"), format!("{name}/model.onnx"), format!("{name}/1/model.onnx")];
        case.place(&repository.join(&layouts[at % 3]));
    }
    cases
}

#[test]
fn every_fixture_answers_as_pytorch_did_in_json_and_in_binary() {
    let repository = tempfile::tempdir().unwrap();
    let cases = place_all(repository.path());
    let served = Served::start(repository.path());
    assert!(cases.len() >= 20, "{} fixtures", cases.len());
    for case in &cases {
        for (set, question) in case.sets.iter().enumerate() {
            let what = format!("{} set {set}", case.name);
            let answer = served.answer(&case.name, &question.inputs);
            assert_right(&what, &answer, &question.answer);
            // A float's decimals bring back the same float, so every form has the same bits.
            for (there, back) in
                [(Form::Json, Form::Json), (Form::Json, Form::Binary), (Form::Binary, Form::Json)]
            {
                let other = served.send(&request(&infer(&case.name), &question.inputs, there, back));
                assert_eq!(bits(&outputs(&other)), bits(&answer), "{what} {there:?} {back:?}");
            }
        }
    }
}

/// Every tenant and what it is asked.
type Asked = Vec<(String, Tensors)>;

/// Asks everything alone and then all at once; the bits must agree, and tenants must have shared launches.
fn alone_and_among_others(served: &Served, asked: &Asked) {
    let alone: Vec<Tensors> = asked.iter().map(|(tenant, inputs)| served.answer(tenant, inputs)).collect();
    let requests: Vec<Vec<u8>> = asked.iter().map(|(tenant, inputs)| binary(tenant, inputs)).collect();
    let together = served.together(&requests);
    for (((tenant, _), alone), answer) in asked.iter().zip(&alone).zip(&together.answers) {
        assert_eq!(bits(&outputs(answer)), bits(alone), "{tenant}");
    }
    let mean = together.lanes / together.launches;
    println!("{} requests, {} launches, {mean:.2} lanes in each", asked.len(), together.launches);
    assert!(mean > 1.0, "{} lanes in {} launches", together.lanes, together.launches);
}

#[test]
fn an_answer_has_the_same_bits_alone_and_among_others() {
    let repository = tempfile::tempdir().unwrap();
    let cases = place_all(repository.path());
    place_blocker(repository.path());
    let served = Served::start(repository.path());
    let questions = || cases.iter().flat_map(|case| case.sets.iter().map(|set| (&case.name, &set.inputs)));
    let several: Asked = questions().map(|(name, inputs)| (name.clone(), inputs.clone())).collect();
    alone_and_among_others(&served, &several);
    let one: Asked = questions().map(|(name, inputs)| (name.clone(), item(inputs, 0))).collect();
    alone_and_among_others(&served, &one);
    // And an item is the same to the bit, whether it comes by itself or within a request of several.
    for (name, inputs) in &several {
        let items = inputs[0].1.dims()[0];
        let whole = served.answer(name, inputs);
        for number in 0..items {
            let by_itself = served.answer(name, &item(inputs, number));
            assert_eq!(bits(&by_itself), bits(&item(&whole, number)), "{name} item {number}");
        }
    }
}
