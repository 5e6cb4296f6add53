//! Recurrent layers with what PyTorch never exports, as onnxruntime answers them: by the reference, folded, and as plans item by item.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod common;
mod support;

use common::fixture;
use common::ready::{Ready, ready};
use std::path::PathBuf;
use support::meaning::relative_error;
use tessera_core::DType;
use tessera_planner::class::load;
use tessera_planner::infer::DimValue;
use tessera_planner::interpret::{self, RequestError};
use tessera_planner::plan::Port;
use tessera_planner::{Tensor, npz};

/// `scripts/make-recurrent-fixtures.py` writes them: three sequences of their own lengths, with first states.
const CASES: [&str; 8] = [
    "lstm-clip",
    "lstm-coupled",
    "lstm-peephole",
    "lstm-functions",
    "gru-reset-first",
    "gru-reset-after",
    "gru-functions",
    "rnn-functions",
];

fn path(name: &str, ending: &str) -> PathBuf {
    fixture(&format!("recurrent-{name}.{ending}"))
}

fn loaded(name: &str) -> Ready {
    ready(load(&path(name, "onnx")).unwrap(), &[DimValue::Items])
}

impl Ready {
    fn answer(&self, question: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, RequestError> {
        let question: Vec<&[u8]> = question.iter().map(Vec::as_slice).collect();
        interpret::run(&self.plan, &self.layout, &self.packed, &question)
    }
}

#[test]
fn plans_of_every_cell_answer_each_item_as_onnxruntime_does() {
    for name in CASES {
        let arrays = npz::read(&path(name, "npz")).unwrap();
        let ready = loaded(name);
        let inputs: Vec<&Tensor> =
            ready.model.input_names.iter().map(|name| &arrays[&format!("in.{name}")]).collect();
        let items = inputs[0].dims()[0];
        let mut answers = vec![Vec::new(); ready.plan.outputs.len()];
        for item in 0..items {
            let of_item = |tensor: &&Tensor| {
                let length = tensor.bytes().len() / items;
                tensor.bytes()[item * length..][..length].to_vec()
            };
            let question: Vec<Vec<u8>> = inputs.iter().map(of_item).collect();
            let answer = ready.answer(&question).unwrap();
            answers.iter_mut().zip(answer).for_each(|(all, one)| all.extend(one));
        }
        for (output, bytes) in ready.model.class.graph.outputs.iter().zip(answers) {
            let want = &arrays[&format!("out.{}", output.name)];
            let got = Tensor::new(want.dtype(), want.dims().to_vec(), bytes).unwrap();
            let error = relative_error(&got, want);
            assert!(error < 1e-5, "{} of {name}: relative error {error:e}", output.name);
        }
    }
}

#[test]
fn a_length_that_no_sequence_has_fails_its_request_by_name() {
    let ready = loaded("lstm-clip");
    let question = |port: &Port| match port.dtype {
        DType::I32 => 6i32.to_le_bytes().to_vec(),
        _ => vec![0; port.bytes_per_item()],
    };
    let question: Vec<Vec<u8>> = ready.plan.inputs.iter().map(question).collect();
    let error = ready.answer(&question).unwrap_err();
    assert_eq!(error.to_string(), "`lengths` holds 6, which is outside -6..6");
}
