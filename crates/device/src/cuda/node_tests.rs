//! Which of ONNX's own tests have kernels: lowering is pure, so this needs no card.

use super::site::Site;
use super::{steps, target};
use crate::Room;
use nodes::guarded;
use nodes::ledger::{Ledger, Stage, Stop};
use nodes::ready::{self, Ready};
use nodes::suite::{Case, cases};
use std::collections::BTreeMap;
use tessera_core::Precision;

#[path = "../../../planner/tests/nodes/mod.rs"]
mod nodes;

/// Errs with the first step that has no kernel.
fn lower(ready: &Ready) -> Result<(), String> {
    let constants = vec![0; ready.plan.constants.len()];
    let items = u32::try_from(ready.items).map_err(|error| error.to_string())?;
    let site = Site::nowhere(&ready.plan, &ready.layout, Room { lanes: items, items }, &constants);
    (0..ready.plan.steps.len()).try_for_each(|step| {
        steps::calls(&site, step)
            .map(|_| ())
            .map_err(|why| format!("{}: {why}", ready.plan.steps[step].kind.name()))
    })
}

fn lower_all(case: &Case) -> Result<(), String> {
    let target = target(Precision::Fp32);
    lower(&ready::whole(case, &case.exported, target, Precision::Fp32)?)?;
    ready::batched(case, target, Precision::Fp32).map_or(Ok(()), |ready| lower(&ready?))
}

#[test]
fn every_plan_of_onnx_s_own_tests_has_kernels_but_for_those_on_the_list() {
    let not_passing = Ledger::not_passing();
    let mut found = BTreeMap::new();
    for case in cases().into_iter().filter(|case| not_passing.stop(case).is_none()) {
        let stop = guarded(|| lower_all(&case)).err().map(|why| Stop::new(&case, Stage::Cuda, &why));
        found.insert(case.name, stop);
    }
    Ledger::no_cuda_kernel().settle(&found, &(Stage::Cuda..=Stage::Cuda));
}
