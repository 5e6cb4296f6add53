//! Recurrent layers with what PyTorch never exports, as onnxruntime answers them: by the reference, folded, and as plans item by item.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod support;

use std::path::{Path, PathBuf};
use support::meaning::relative_error;
use tessera_core::{DType, PlanKey, Precision};
use tessera_planner::class::{Model, load};
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::interpret::{self, RequestError};
use tessera_planner::pack::{Matrices, PackTarget, pack};
use tessera_planner::plan::Port;
use tessera_planner::{Packed, Plan, SlotLayout, Tensor, npz};

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

const TARGET: PackTarget =
    PackTarget { device: "definition", precision: Precision::Fp32, matrices: Matrices::Panels(16) };

fn fixture(name: &str, ending: &str) -> PathBuf {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"));
    folder.join(format!("recurrent-{name}.{ending}"))
}

/// A case planned item by item, and packed.
struct Ready {
    model: Model,
    layout: SlotLayout,
    plan: Plan,
    packed: Packed,
}

fn ready(name: &str) -> Ready {
    let model = load(&fixture(name, "onnx")).unwrap();
    let class = &model.class;
    let layout = SlotLayout::of(class.folded(), TARGET).unwrap();
    let key = PlanKey { class: class.id, dims: [].into(), precision: Precision::Fp32 };
    let plan = tessera_planner::plan(key, class.folded(), &layout, &[DimValue::Items]).unwrap();
    let mut source = |id: ParamId| Ok(model.weights[id.0 as usize].clone());
    let packed = pack(&class.graph, class.folded(), &layout, &mut source).unwrap();
    Ready { layout, plan, packed, model }
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
        let arrays = npz::read(&fixture(name, "npz")).unwrap();
        let ready = ready(name);
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
    let ready = ready("lstm-clip");
    let question = |port: &Port| match port.dtype {
        DType::I32 => 6i32.to_le_bytes().to_vec(),
        _ => vec![0; port.bytes_per_item()],
    };
    let question: Vec<Vec<u8>> = ready.plan.inputs.iter().map(question).collect();
    let error = ready.answer(&question).unwrap_err();
    assert_eq!(error.to_string(), "`lengths` holds 6, which is outside -6..6");
}
