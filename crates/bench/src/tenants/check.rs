//! No figure without the right answers: every tenant alone, then among all others, to the bit.

use super::Stages;
use super::counted::Counted;
use super::stage::{Request, Stage};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use std::collections::HashSet;
use tessera_core::Policy;
use tokio::task::JoinSet;

/// The answers to every request when nothing else runs, by the tenant's place and request.
type Expected = Vec<Vec<Vec<Bytes>>>;

/// Both of what follows, for every policy.
pub(super) fn all(stages: &Stages, policies: &[Policy]) -> Result<()> {
    let expected = alone(stages.all())?;
    policies.iter().try_for_each(|&policy| {
        together(stages.of(policy), policy, &expected).with_context(|| format!("policy {policy}"))
    })
}

/// Asks one request at a time, on every stage. Errors when one fails, when an answer holds a number that is none, when two stages answer
/// differently, and when two tenants answer alike what both were asked: then somebody's weights are somebody else's.
fn alone<'a>(mut stages: impl Iterator<Item = &'a Stage>) -> Result<Expected> {
    let expected = on_stage(stages.next().context("there is at least one policy")?)?;
    for other in stages {
        ensure!(
            on_stage(other)? == expected,
            "tenants answer in other bits where the device is divided for `space`"
        );
    }
    Ok(expected)
}

fn on_stage(stage: &Stage) -> Result<Expected> {
    stage.play(Policy::Time);
    let mut expected = Expected::new();
    let mut to_the_same = HashSet::new();
    let asked_of_all = &stage.requests[0][0].inputs;
    for requests in &stage.requests {
        let Request { tenant, number, .. } = requests[0];
        let ask = |request: &Request| {
            let answer = stage.runtime.block_on(stage.desk.ask(request));
            let answer = answer.with_context(|| format!("{tenant}, alone"))?;
            ensure!(answer.iter().all(is_finite), "{tenant} answers with NaN or infinity");
            anyhow::Ok(answer)
        };
        let answers = requests.iter().map(ask).collect::<Result<_>>()?;
        expected.push(answers);
        let answer = ask(&Request { tenant, number, inputs: asked_of_all.clone() })?;
        ensure!(
            to_the_same.insert(answer),
            "{tenant} answers exactly as another tenant does, with other weights"
        );
    }
    Ok(expected)
}

/// Asks everything that a policy will be asked at once, twice, and again until requests have shared a launch where they may: a
/// device that is quick enough answers the first before the second comes. Errors unless every answer is what it was alone.
fn together(stage: &Stage, policy: Policy, expected: &Expected) -> Result<()> {
    const MOST: usize = 1000;
    stage.play(policy);
    let cast = stage.cast(policy);
    let may_share = matches!(policy, Policy::SpaceTime | Policy::Exclusive) && stage.requests.len() > 1;
    let before = Counted::now(stage);
    for attempt in 1..=MOST {
        all_at_once(stage, &cast, expected)?;
        let now = Counted::now(stage);
        let requests = (now.items - before.items) / stage.desk.items() as f64;
        if attempt >= 2 && (!may_share || now.launches - before.launches < requests) {
            return Ok(());
        }
    }
    bail!("no two of {} requests at once shared a launch, in {MOST} attempts", cast.len())
}

fn all_at_once(stage: &Stage, cast: &[Request], expected: &Expected) -> Result<()> {
    let mut asking = JoinSet::new();
    for (number, request) in cast.iter().cloned().enumerate() {
        let desk = stage.desk.clone();
        let which = number % stage.requests[0].len();
        let ask = async move { (request.tenant, request.number, which, desk.ask(&request).await) };
        asking.spawn_on(ask, stage.runtime.handle());
    }
    stage.runtime.block_on(async {
        while let Some(asked) = asking.join_next().await {
            let (tenant, number, which, answer) = asked?;
            let answer = answer.with_context(|| format!("{tenant}, among others"))?;
            ensure!(
                answer == expected[number][which],
                "{tenant} answers request {which} among others in other bits than alone"
            );
        }
        Ok(())
    })
}

fn is_finite(output: &Bytes) -> bool {
    let float = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("a chunk of four"));
    output.chunks_exact(4).all(|four| float(four).is_finite())
}
