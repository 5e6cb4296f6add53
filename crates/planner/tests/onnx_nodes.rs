//! ONNX's own tests of operators through the import, the reference and the plan's definition.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod nodes;

use nodes::compare::compare;
use nodes::guarded;
use nodes::ledger::{Ledger, Stage, Stop};
use nodes::ready::{self, Ready};
use nodes::suite::{Case, cases};
use std::collections::BTreeMap;
use tessera_core::Precision;
use tessera_planner::graph::{ParamData, ParamId};
use tessera_planner::onnx::import::import_bytes;
use tessera_planner::pack::Matrices;
use tessera_planner::{Graph, ImportError, PackTarget, interpret, reference, source};

/// How the definition's weights lie.
const TARGET: PackTarget =
    PackTarget { device: "definition", precision: Precision::Fp32, matrices: Matrices::Panels(16) };

fn by_the_reference(case: &Case, graph: &Graph) -> Result<(), String> {
    let names: Vec<String> = graph.inputs.iter().map(|input| input.name.clone()).collect();
    let inputs = ready::inputs(case, &names)?;
    let weight = |id: ParamId| {
        let param = &graph.params[id.0 as usize];
        let ParamData::Weight(from) = &param.data else { unreachable!("only weights are asked for") };
        Ok(source::read_weight(from, param.dtype, &param.dims)?)
    };
    let answers = reference::run(graph, &weight, &inputs).map_err(|error| chain(&error))?;
    compare(case, &answers)
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", source.unwrap_or_default()).replace('\n', " ")
}

fn by_the_plan(case: &Case, ready: &Ready) -> Result<(), String> {
    let mut answers = vec![Vec::new(); ready.plan.outputs.len()];
    for item in 0..ready.items {
        let one = interpret::run(&ready.plan, &ready.layout, &ready.packed, &ready.item(item));
        let one = one.map_err(|error| error.to_string())?;
        answers.iter_mut().zip(one).for_each(|(all, one)| all.extend(one));
    }
    compare(case, &ready.tensors(&answers)?)
}

/// An operator that the import refuses is told by its reason alone: the case has its name.
fn import(case: &Case) -> Result<Graph, String> {
    import_bytes(case.exported.clone(), None).map(|imported| imported.graph).map_err(|error| match error {
        ImportError::Unsupported(list) => format!("{}: {}", list[0].op, list[0].reason),
        error => chain(&error),
    })
}

/// Where the case stops before any device, if it does.
fn stop(case: &Case) -> Option<Stop> {
    let stop = |stage: Stage| move |why: String| Stop::new(case, stage, &why);
    let run = || {
        let graph = guarded(|| import(case)).map_err(stop(Stage::Import))?;
        guarded(|| by_the_reference(case, &graph)).map_err(stop(Stage::Reference))?;
        let whole = || by_the_plan(case, &ready::whole(case, &case.exported, TARGET, Precision::Fp32)?);
        guarded(whole).map_err(stop(Stage::Plan))?;
        let batched = || match ready::batched(case, TARGET, Precision::Fp32) {
            Some(ready) => by_the_plan(case, &ready?),
            None => Ok(()),
        };
        guarded(batched).map_err(|why| stop(Stage::Plan)(format!("item by item: {why}")))
    };
    run().err()
}

#[test]
fn the_reference_and_plans_answer_onnx_s_own_tests() {
    let found: BTreeMap<String, Option<Stop>> =
        cases().into_iter().map(|case| (case.name.clone(), stop(&case))).collect();
    Ledger::not_passing().settle(&found, &(Stage::Import..=Stage::Plan));
}

/// Models as ONNX gives them have weights, axes and shapes as inputs. They may be refused; they may not be answered wrongly.
#[test]
fn a_model_whose_parameters_are_inputs_is_answered_rightly_or_refused() {
    let mut wrong = Vec::new();
    let (mut right, mut refused) = (0, 0);
    for case in cases() {
        let Some(given) = &case.given else { continue };
        let ready = guarded(|| Ok(ready::whole(&case, given, TARGET, Precision::Fp32)));
        let answer = match ready {
            Ok(Err(_)) => {
                refused += 1;
                continue;
            }
            Ok(Ok(ready)) => guarded(|| by_the_plan(&case, &ready)),
            Err(panic) => Err(panic),
        };
        match answer {
            Ok(()) => right += 1,
            Err(why) => wrong.push(format!("{}: {why}", case.name)),
        }
    }
    println!("parameters as inputs: {right} answered, {refused} refused");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
