//! A request in parts that fit a launch: all handed in at once, all waited for, their answers end to end.

use super::Service;
use crate::classes::Planned;
use crate::engine::{Incoming, NotAnswered, Wait};
use crate::frontend::TensorIn;
use crate::registry::{Residence, Served};
use bytes::{Bytes, BytesMut};
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tessera_core::RequestId;
use tessera_planner::class::Bound;
use tessera_planner::plan::Port;

/// How much one tenant may have waiting on a device.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Requests, or parts of them.
    pub requests: NonZeroU32,
    /// Bytes of their inputs.
    pub bytes: tessera_core::Bytes,
}

impl Queue {
    /// Says why not, if a request would not fit into an empty queue: all its parts are handed in at once, so to try again would never help.
    pub(super) fn can_hold(
        self,
        planned: &Planned,
        bound: &Bound,
        inputs: &[&TensorIn],
    ) -> Result<(), String> {
        let most = u64::from(planned.most_items.get());
        let parts = if planned.plan.batched { bound.items.div_ceil(most) } else { 1 };
        let requests = u64::from(self.requests.get());
        if parts > requests {
            return Err(format!(
                "a batch of {} goes in {parts} launches of {most} at most, and {requests} of a tenant may wait; \
                 send at most {} at once, or raise `queue_requests` or `max_items`",
                bound.items,
                most * requests
            ));
        }
        let bytes = tessera_core::Bytes(inputs.iter().map(|input| input.data.len() as u64).sum());
        if bytes > self.bytes {
            return Err(format!(
                "the request brings {bytes}, and {} of a tenant may wait; send less at once, or raise `queue_bytes`",
                self.bytes
            ));
        }
        Ok(())
    }
}

impl Service {
    /// Offers a request in parts that fit a launch, and waits for all of them.
    pub(super) async fn offer(
        &self,
        (served, residence): (&Served, &Residence),
        planned: &Planned,
        bound: &Bound,
        inputs: &[&TensorIn],
        arrived: Instant,
        timeout: Option<Duration>,
    ) -> Result<Vec<Vec<Bytes>>, NotAnswered> {
        let items = if planned.plan.batched { bound.items } else { 1 };
        let most = u64::from(planned.most_items.get());
        let (mut waits, mut offered) = (Vec::new(), None);
        let mut first = 0;
        while first < items {
            let count = (items - first).min(most);
            let cut = |(input, port): (&&TensorIn, &Port)| {
                let per_item = port.bytes_per_item();
                input.data.slice(first as usize * per_item..(first + count) as usize * per_item)
            };
            let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
            let (reply, wait) = Wait::on(&residence.engine, request);
            let charge = residence.engine.backlog().charge(planned.pace.share(count));
            let handed_in = residence.engine.offer(Incoming {
                request,
                tenant: served.tenant,
                plan: planned.key.clone(),
                items: u32::try_from(count)
                    .ok()
                    .and_then(NonZeroU32::new)
                    .expect("between 1 and a launch's items"),
                batchable: planned.plan.batched,
                inputs: inputs.iter().zip(&planned.plan.inputs).map(cut).collect(),
                arrived,
                timeout,
                reply,
            });
            offered.get_or_insert(handed_in);
            waits.push((wait, charge));
            first += count;
        }
        if let Some(offered) = offered {
            offered.with_neighbours().await;
        }
        let mut parts = Vec::with_capacity(waits.len());
        // A part is charged for until its answer is there.
        for (wait, _charge) in waits {
            parts.push(wait.answer().await?);
        }
        Ok(parts)
    }
}

/// The parts of one output, end to end; items lie one after the other.
pub(super) fn joined(mut parts: impl ExactSizeIterator<Item = Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.next().unwrap_or_default();
    }
    let mut whole = BytesMut::new();
    parts.for_each(|part| whole.extend_from_slice(&part));
    whole.freeze()
}
