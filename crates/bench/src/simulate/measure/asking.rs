//! Who asks: of an idle device at random moments, and in groups that take turns.

use super::Options;
use crate::arrivals::{Gaps, Rate, Stream};
use crate::load::{Ended, InProcess, Target};
use crate::simulate::recorder::{Log, Ran};
use crate::simulate::turns;
use anyhow::{Context, Result, ensure};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tessera_core::ProgramId;
use tessera_device::PartitionInfo;
use tessera_scheduler::Size;
use tokio::runtime::Runtime;

/// A device that is idle has been for so many times what its last launch took, on average: loads of a third and less leave it so.
const IDLE: u32 = 2;

/// Requests that go together.
#[derive(Clone, Copy)]
pub(super) enum Together {
    /// Of so many tenants.
    Lanes(usize),
    /// So many of one tenant.
    Items(usize),
}

impl Together {
    pub(super) fn size(self) -> Size {
        match self {
            Together::Lanes(count) => Size { lanes: count as u32, items: count as u32 },
            Together::Items(count) => Size { lanes: 1, items: count as u32 },
        }
    }
}

/// Where it is measured.
pub(super) struct Asker<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) target: &'a Arc<InProcess>,
    pub(super) log: &'a Log,
    pub(super) options: &'a Options,
    pub(super) partition: PartitionInfo,
    /// What launches of each model run.
    pub(super) programs: Vec<ProgramId>,
    /// Tenants of a model.
    pub(super) most: usize,
}

impl Asker<'_> {
    /// The tenants of a model whose turn it is.
    fn tenants(&self, model: usize, turn: usize, together: Together) -> Vec<usize> {
        let models = self.options.models.len();
        let tenant = |nth: usize| model + (nth % self.most) * models;
        match together {
            Together::Lanes(count) => (0..count).map(|nth| tenant(turn * count + nth)).collect(),
            Together::Items(count) => vec![tenant(turn); count],
        }
    }

    /// What launches of a model run.
    pub(super) fn program(&self, model: usize) -> Result<ProgramId> {
        self.runtime.block_on(ask(self.target, &self.tenants(model, 0, Together::Items(1)), 0))?;
        Ok(self.log.take().last().context("an answered request was launched")?.program)
    }

    /// Requests at random moments, when everything before is answered: when each round was due and was over, and its launches.
    pub(super) fn rounds(
        &self,
        model: usize,
        together: Together,
        rounds: usize,
    ) -> Result<Vec<(Instant, Instant, Vec<Ran>)>> {
        let mut gaps = Stream::new(Gaps::Poisson, Rate::Steady(1.0), self.options.seed);
        let mut last = gaps.next().unwrap_or_default();
        let mut done = Vec::with_capacity(rounds);
        let mut took = Duration::ZERO;
        for round in 0..rounds {
            let next = gaps.next().unwrap_or(last);
            let due = Instant::now() + (IDLE * took).mul_f64((next - last).as_secs_f64());
            last = next;
            // As the load generator does it: a thread that sleeps, and a task for each round.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (target, tenants) = (self.target.clone(), self.tenants(model, round, together));
            let asked = self.runtime.spawn(async move {
                ask(&target, &tenants, round as u64).await?;
                anyhow::Ok(Instant::now())
            });
            let end = self.runtime.block_on(asked)??;
            took = end - due;
            done.push((due, end, self.log.take()));
        }
        Ok(done)
    }

    /// So many groups of requests in turns, for so long.
    pub(super) fn groups(&self, together: Together, groups: u32, length: Duration) -> Result<()> {
        let (models, mut turn) = (self.options.models.len(), 0);
        let next = || {
            let tenants = self.tenants(turn % models, turn / models, together);
            let (target, round) = (self.target.clone(), turn as u64);
            turn += 1;
            async move { ask(&target, &tenants, round).await }
        };
        self.runtime.block_on(turns::take(groups, Instant::now() + length, next))
    }
}

/// Asks for these tenants at once, until all of it is answered. What many bring is taken first to where the device fetches it, by a task each, as of those who ask
/// apart: else the first of them are launched while the inputs of the last are still copied.
async fn ask(target: &Arc<InProcess>, tenants: &[usize], number: u64) -> Result<()> {
    let mut waiting: Vec<Pin<Box<dyn Future<Output = Ended> + Send + '_>>> =
        Vec::with_capacity(tenants.len());
    if let [alone] = *tenants {
        waiting.push(Box::pin(target.ask(alone, number)));
    } else {
        let adopt = |&tenant: &usize| {
            let target = target.clone();
            tokio::spawn(async move { (tenant, target.adopted(tenant, number)) })
        };
        for adopted in tenants.iter().map(adopt).collect::<Vec<_>>() {
            let (tenant, inputs) = adopted.await?;
            waiting.push(Box::pin(target.ask_with(tenant, inputs)));
        }
    }
    let mut otherwise = None;
    poll_fn(|context| {
        waiting.retain_mut(|request| match request.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(Ended::Answered) => false,
            Poll::Ready(ended) => {
                otherwise.get_or_insert(ended);
                false
            }
        });
        if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ensure!(otherwise.is_none(), "a request ended otherwise: {otherwise:?}");
    Ok(())
}
