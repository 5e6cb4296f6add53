//! One tenant's loose requests of one plan, in the order in which they are launched.
//!
//!   (tenant, plan) ─▶ ● ◀─▶ ● ◀─▶ ●        as urgent as the one before, or less
//!
//! A tenant's later request of a plan is never more urgent than its earlier, so every order of those that wait holds the requests of a flow as the flow
//! does. A lane that takes more of its tenant's requests finds the next one behind the last that it took, however many others wait before it.

use crate::chain::{Chain, Links};
use crate::plans::PlanIx;
use crate::queues::{Key, Ticket, Waiting};
use tessera_core::{IdMap, TenantId};

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    chains: IdMap<(TenantId, PlanIx), Chain>,
    links: Links,
}

impl Flows {
    /// A tenant's first request of a plan.
    pub(crate) fn first(&self, tenant: TenantId, plan: PlanIx) -> Option<Ticket> {
        self.chains.get(&(tenant, plan)).and_then(|chain| chain.first())
    }

    /// The request behind one that is in a flow.
    pub(crate) fn behind(&self, ticket: Ticket) -> Option<Ticket> {
        self.links.behind(ticket)
    }

    /// Puts a request into its flow, and makes it no more urgent than the last there. It goes to the end, but before those that are as urgent and came later: a
    /// promise that was broken brings back one that came long ago. `key` is where another stands.
    pub(crate) fn insert(&mut self, request: &mut Waiting, key: impl Fn(Ticket) -> Key) {
        let chain = self.chains.entry((request.rider.tenant, request.plan)).or_default();
        let mut before = chain.last();
        if let Some(last) = before {
            request.urgency = request.urgency.max(key(last).urgency);
        }
        while let Some(later) = before.filter(|other| key(*other) > request.key()) {
            before = self.links.before(later);
        }
        self.links.insert(chain, request.rider.ticket, before);
    }

    /// Takes a request out of its flow.
    pub(crate) fn remove(&mut self, request: &Waiting) {
        let flow = (request.rider.tenant, request.plan);
        let chain = self.chains.get_mut(&flow).expect("a loose request is in a flow");
        self.links.remove(chain, request.rider.ticket);
        if chain.is_empty() {
            self.chains.remove(&flow);
        }
    }
}
