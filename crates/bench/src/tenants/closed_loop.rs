//! The clock: everything that may be on its way is, until the time is over; then what is left is waited for.

use super::counted::Counted;
use super::report::Round;
use super::stage::Stage;
use anyhow::{Context, Result};
use std::time::{Duration, Instant};
use tessera_core::Policy;
use tokio::task::JoinSet;

/// Runs one policy for `length`. The rate is that of all answers over the time to the last of them, through all of which the
/// device has something to do: no answer is cut in two by the end of the clock.
pub(super) fn round(stage: &Stage, policy: Policy, length: Duration) -> Result<Round> {
    stage.play(policy);
    let cast = stage.cast(policy);
    let before = Counted::now(stage);
    let start = Instant::now();
    let (answered, end) = stage.runtime.block_on(async {
        let mut asking = JoinSet::new();
        for request in cast {
            let desk = stage.desk.clone();
            asking.spawn(async move {
                let mut answered = 0u64;
                loop {
                    desk.ask(&request).await?;
                    answered += 1;
                    let now = Instant::now();
                    if now.duration_since(start) >= length {
                        return anyhow::Ok((answered, now));
                    }
                }
            });
        }
        let (mut all, mut end) = (0, start);
        while let Some(asked) = asking.join_next().await {
            let (answered, last) = asked?.with_context(|| format!("policy {policy}"))?;
            all += answered;
            end = end.max(last);
        }
        anyhow::Ok((all, end))
    })?;
    let after = Counted::now(stage);
    let launches = after.launches - before.launches;
    let per_launch = |total: f64| if launches > 0.0 { total / launches } else { 0.0 };
    Ok(Round {
        inferences: answered * stage.desk.items(),
        took: end - start,
        launches: launches as u64,
        lanes_per_launch: per_launch(after.lanes - before.lanes),
        items_per_launch: per_launch(after.items - before.items),
        device_us_per_launch: per_launch(1e6 * (after.device_s - before.device_s)),
        engine_us_per_launch: after
            .engine
            .zip(before.engine)
            .map(|(after, before)| per_launch(1e6 * after.saturating_sub(before).as_secs_f64())),
    })
}
