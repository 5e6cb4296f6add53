//! What whoever runs the server should hear of: decisions that change who is served, and where.
//!
//! ```text
//!   admission, expiry ─ gathered per tenant and reason ─┐
//!   express ─────────── gathered by the minute ─────────┤
//!   stragglers: heard, acquitted ───────────────────────┤
//!   stragglers, space ──────────────────────────────────┴▶ buffer of at most MOST ─▶ Scheduler::take_events
//! ```
//! Under overload every request may be refused, and that is one piece of news, not a hundred thousand. So the first refusal of a tenant for one reason
//! is told at once, and those that follow within a [`WINDOW`] are told together when it ends. Of ten thousand tenants that are all refused, at most
//! [`MOST_GATHERED`] are told of in a window, and hearings count among them: where a whole device becomes slow, everybody on it is heard. What is not told, for that or because nobody took events, is counted.
//!
//! Interruptions are how a busy device keeps tight deadlines, hundreds a second and nothing to be done about: the first is told, and then how many there were in
//! each minute.

use crate::offer::Refusal;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{Moment, OwnerId, PartitionId, TenantId};

/// How long refusals of one tenant for one reason are gathered.
const WINDOW: Duration = Duration::from_secs(1);

/// How long interruptions are gathered.
const MINUTE: Duration = Duration::from_secs(60);

/// Most events that wait to be taken.
const MOST: usize = 1024;

/// Most events of refusals, expiries and hearings in a window, of all tenants.
const MOST_GATHERED: u32 = 256;

/// Something that happened to a tenant or to the device.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// When it was decided.
    pub at: Moment,
    /// What.
    pub what: Happened,
}

/// What happened. Its text is for whoever runs the server; names of tenants are added by those who know them.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Happened {
    /// Requests were not let in.
    #[error("{requests} refused: {last}")]
    Refused {
        /// Whose.
        tenant: TenantId,
        /// Who pays for it.
        owner: OwnerId,
        /// How many since the last event of this tenant and reason.
        requests: u32,
        /// The reason, with the numbers of the last of them.
        last: Refusal,
    },
    /// Requests were dropped when their deadlines passed while they waited.
    #[error("{requests} waited longer than their deadlines allow")]
    Expired {
        /// Whose.
        tenant: TenantId,
        /// How many since the last event of this tenant and reason.
        requests: u32,
    },
    /// A tenant was slow for long, and leaves the launches that it shared.
    #[error("takes {ratio:.2} times what its neighbours take, above {bound:.2}: runs by itself from now on")]
    Evicted {
        /// Which.
        tenant: TenantId,
        /// What its lanes take over what its neighbours' do.
        ratio: f64,
        /// What the ratio may be.
        bound: f64,
    },
    /// Launches that a tenant was in took longer than they usually do: a few of its own will tell whether it is to blame.
    #[error(
        "runs alone for a few launches, {}: one of {lanes} lanes took {longer:.2} times what such launches usually take",
        if *witness { "to be what somebody accused is compared with" } else { "accused of slowing those that it shares" }
    )]
    Heard {
        /// Which.
        tenant: TenantId,
        /// Whether others are accused, and it is not.
        witness: bool,
        /// The lanes of the launch that decided it.
        lanes: u32,
        /// What that launch took over what is usual.
        longer: f64,
    },
    /// The hearing of a tenant is over, and it is not to blame, or nothing could be held against it.
    #[error(
        "shares launches again: {}",
        ratio.map_or_else(
            || "nothing could be compared while it was to run alone".to_owned(),
            |ratio| format!("alone it takes {ratio:.2} times what others take alone, within {bound:.2}")
        )
    )]
    Acquitted {
        /// Which.
        tenant: TenantId,
        /// What it takes alone over what others do; none where it asked for nothing, or nobody compared with it.
        ratio: Option<f64>,
        /// What the ratio may be.
        bound: f64,
    },
    /// An evicted tenant is tried again.
    #[error("on probation after {away:.2?} by itself")]
    Probation {
        /// Which.
        tenant: TenantId,
        /// How long it was away.
        away: Duration,
    },
    /// A tenant that was evicted shares launches again.
    #[error("takes {ratio:.2} times what its neighbours take, within {bound:.2}: shares launches again")]
    Returned {
        /// Which.
        tenant: TenantId,
        /// What its lanes take over what its neighbours' do.
        ratio: f64,
        /// What the ratio may be.
        bound: f64,
    },
    /// A partition was slow, and was opened anew.
    #[error(
        "launches on {partition} took {ratio:.2} times what they take elsewhere or took before, more than {bound:.2}: opened anew, drained in {drained:.2?}"
    )]
    Recycled {
        /// Which.
        partition: PartitionId,
        /// How much longer.
        ratio: f64,
        /// How much longer they may take.
        bound: f64,
        /// How long it took until nothing ran there any more.
        drained: Duration,
    },
    /// Launches are slow, and nothing that can be opened anew is to blame.
    #[error(
        "launches{} take {ratio:.2} times what they took before, more than {bound:.2}: look for what else runs on its cores, at its clock and temperature, or restart it",
        partition.map(|partition| format!(" on {partition}")).unwrap_or_default()
    )]
    DeviceSlow {
        /// Where, if not everywhere.
        partition: Option<PartitionId>,
        /// How much longer.
        ratio: f64,
        /// How much longer they may take.
        bound: f64,
    },
    /// Launches went before others that ran, to keep deadlines that would have been lost behind them.
    #[error("{launches} launches went between the steps of others, which stood back for {stood_back:.2?}")]
    Interrupted {
        /// How many that are over since the last such event.
        launches: u32,
        /// What they computed.
        stood_back: Duration,
    },
    /// The device is cut into other partitions.
    #[error(
        "partitions of {to:?} units instead of {from:?}: {:.1} % of requests in time instead of {:.1} %",
        100.0 * predicted, 100.0 * before
    )]
    Rearranged {
        /// Cores, or multiprocessors, of each partition until now.
        from: Vec<NonZeroU32>,
        /// And from now on.
        to: Vec<NonZeroU32>,
        /// The part of requests that was predicted, or measured where partitions share their units, to be in time as it was.
        before: f64,
        /// And as it will be.
        predicted: f64,
    },
}

impl Happened {
    /// What kind of event it is, in a word of a small closed set: a label of metrics, a field of JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Happened::Refused { .. } => "refused",
            Happened::Expired { .. } => "expired",
            Happened::Evicted { .. } => "evicted",
            Happened::Heard { .. } => "heard",
            Happened::Acquitted { .. } => "acquitted",
            Happened::Probation { .. } => "probation",
            Happened::Returned { .. } => "returned",
            Happened::Recycled { .. } => "recycled",
            Happened::DeviceSlow { .. } => "device_slow",
            Happened::Interrupted { .. } => "interrupted",
            Happened::Rearranged { .. } => "rearranged",
        }
    }

    /// The tenant that it happened to.
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            Happened::Refused { tenant, .. }
            | Happened::Expired { tenant, .. }
            | Happened::Evicted { tenant, .. }
            | Happened::Heard { tenant, .. }
            | Happened::Acquitted { tenant, .. }
            | Happened::Probation { tenant, .. }
            | Happened::Returned { tenant, .. } => Some(*tenant),
            Happened::Interrupted { .. }
            | Happened::Recycled { .. }
            | Happened::DeviceSlow { .. }
            | Happened::Rearranged { .. } => None,
        }
    }
}

/// Events that wait to be taken, and refusals that wait to be events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    waiting: Vec<Event>,
    /// How many were not told, and when that may be said.
    lost: u64,
    lost_due: Moment,
    /// When the window ends in which gathered events are counted, and how many there were.
    counted: (Moment, u32),
    /// Tenants and reasons with something to tell when their window ends.
    due: usize,
    gathered: BTreeMap<(TenantId, &'static str), Option<Happened>>,
    /// When each window ends; all are of one length, so in order.
    ends: VecDeque<(Moment, (TenantId, &'static str))>,
    /// Interruptions that were not told yet, and when they may be.
    interruptions: (u32, Duration),
    interruptions_due: Moment,
}

impl Events {
    pub(crate) fn tell(&mut self, at: Moment, what: Happened) {
        if self.waiting.len() < MOST {
            self.waiting.push(Event { at, what });
        } else {
            self.lost += 1;
        }
    }

    pub(crate) fn refused(&mut self, now: Moment, tenant: TenantId, owner: OwnerId, last: Refusal) {
        let Some(reason) = last.reason() else { return };
        self.gather(now, (tenant, reason), Happened::Refused { tenant, owner, requests: 1, last });
    }

    pub(crate) fn expired(&mut self, now: Moment, tenant: TenantId) {
        self.gather(now, (tenant, "expired"), Happened::Expired { tenant, requests: 1 });
    }

    /// Somebody is heard, or was: told of as many as there is room for in a window.
    pub(crate) fn hearing(&mut self, now: Moment, what: Happened) {
        self.tell_gathered(now, what);
    }

    fn tell_gathered(&mut self, now: Moment, what: Happened) {
        if self.counted.0 <= now {
            self.counted = (now + WINDOW, 0);
        }
        self.counted.1 += 1;
        if self.counted.1 <= MOST_GATHERED {
            self.tell(now, what);
        } else {
            self.lost += 1;
        }
    }

    /// An urgent launch is over that computed so long while another stood back.
    pub(crate) fn interrupted(&mut self, now: Moment, stood_back: Duration) {
        self.interruptions.0 += 1;
        self.interruptions.1 += stood_back;
        self.tell_interruptions(now);
    }

    fn tell_interruptions(&mut self, now: Moment) {
        if self.interruptions.0 > 0 && self.interruptions_due <= now {
            let (launches, stood_back) = std::mem::take(&mut self.interruptions);
            self.interruptions_due = now + MINUTE;
            self.tell(now, Happened::Interrupted { launches, stood_back });
        }
    }

    /// Told at once if nothing like it was lately, and else kept for the end of the window.
    fn gather(&mut self, now: Moment, of: (TenantId, &'static str), mut what: Happened) {
        let Some(gathered) = self.gathered.get_mut(&of) else {
            self.gathered.insert(of, None);
            self.ends.push_back((now + WINDOW, of));
            return self.tell_gathered(now, what);
        };
        self.due += usize::from(gathered.is_none());
        if let Happened::Refused { requests, .. } | Happened::Expired { requests, .. } = &mut what
            && let Some(
                Happened::Refused { requests: before, .. } | Happened::Expired { requests: before, .. },
            ) = gathered
        {
            *requests += *before;
        }
        *gathered = Some(what);
    }

    /// Nothing more is told of a tenant that went.
    pub(crate) fn forget(&mut self, tenant: TenantId) {
        self.gathered.retain(|(of, _), gathered| {
            let keep = *of != tenant;
            self.due -= usize::from(!keep && gathered.is_some());
            keep
        });
    }

    /// All that can be told by now, in order of time, and how many were not told. The latter is said once a window, so that it cannot become a flood
    /// itself.
    pub(crate) fn take(&mut self, now: Moment) -> (Vec<Event>, u64) {
        while let Some(&(end, of)) = self.ends.front()
            && end <= now
        {
            self.ends.pop_front();
            if let Some(Some(what)) = self.gathered.remove(&of) {
                self.gathered.insert(of, None);
                self.ends.push_back((now + WINDOW, of));
                self.due -= 1;
                self.tell_gathered(now, what);
            }
        }
        self.tell_interruptions(now);
        let mut lost = 0;
        if self.lost > 0 && self.lost_due <= now {
            (lost, self.lost, self.lost_due) = (self.lost, 0, now + WINDOW);
        }
        (std::mem::take(&mut self.waiting), lost)
    }

    /// When to take events that no other call will bring: the next end of a window, while something waits for one.
    pub(crate) fn next(&self) -> Option<Moment> {
        let gathered = self.ends.front().filter(|_| self.due > 0).map(|(end, _)| *end);
        let lost = (self.lost > 0).then_some(self.lost_due);
        let interruptions = (self.interruptions.0 > 0).then_some(self.interruptions_due);
        gathered.into_iter().chain(lost).chain(interruptions).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: TenantId = TenantId(7);

    fn ms(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(ms))
    }

    fn late(predicted: u64) -> Refusal {
        let predicted = Duration::from_millis(predicted);
        Refusal::TooLate { predicted, allowed: Duration::from_millis(5) }
    }

    #[test]
    fn refusals_of_one_reason_are_told_once_at_once_and_then_by_the_second() {
        let mut events = Events::default();
        for at in 0..900 {
            events.refused(ms(at), LOUD, OwnerId(1), late(at));
        }
        let refused = |requests, last| Happened::Refused { tenant: LOUD, owner: OwnerId(1), requests, last };
        assert_eq!(events.take(ms(900)).0, [Event { at: ms(0), what: refused(1, late(0)) }]);
        assert_eq!(events.next(), Some(ms(1000)));
        assert_eq!(events.take(ms(1001)).0, [Event { at: ms(1001), what: refused(899, late(899)) }]);
        assert_eq!((events.next(), events.take(ms(2500)).0), (None, vec![]), "nothing was refused meanwhile");
        events.refused(ms(3000), LOUD, OwnerId(1), late(3));
        assert_eq!(events.take(ms(3000)).0.len(), 1, "and the next is news again");
    }

    #[test]
    fn another_tenant_or_another_reason_is_news_of_its_own() {
        let mut events = Events::default();
        events.refused(ms(0), LOUD, OwnerId(1), late(9));
        events.refused(ms(0), TenantId(8), OwnerId(1), late(9));
        let queued = 1;
        events.refused(
            ms(0),
            LOUD,
            OwnerId(1),
            Refusal::QueueFull { tenant: LOUD, queued, limit: NonZeroU32::MIN },
        );
        events.expired(ms(0), LOUD);
        assert_eq!(events.take(ms(0)).0.len(), 4);
        events.refused(ms(0), LOUD, OwnerId(1), Refusal::UnknownTenant(LOUD));
        assert_eq!(events.take(ms(0)).0.len(), 0, "a mistake of its sender is no decision");
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_counted() {
        let mut events = Events::default();
        for _ in 0..MOST + 5 {
            events.tell(ms(0), Happened::Probation { tenant: LOUD, away: Duration::ZERO });
        }
        let (told, lost) = events.take(ms(0));
        assert_eq!((told.len(), lost), (MOST, 5));
    }

    #[test]
    fn many_tenants_refused_at_once_are_no_flood_either() {
        let mut events = Events::default();
        for at in 0..1000 {
            for tenant in 0..100 {
                events.refused(ms(at), TenantId(at % 10 * 100 + tenant), OwnerId(0), late(9));
            }
        }
        let (told, lost) = events.take(ms(999));
        assert_eq!((told.len(), lost), (MOST_GATHERED as usize, 1000 - u64::from(MOST_GATHERED)));
        assert_eq!(events.next(), Some(ms(1000)));
        let (told, lost) = events.take(ms(1000));
        assert_eq!((told.len(), lost), (100, 0), "those that were refused in the first millisecond, again");
    }

    #[test]
    fn the_first_interruption_is_told_and_then_how_many_there_were_in_each_minute() {
        let mut events = Events::default();
        let took = Duration::from_millis(1);
        for at in 0..90_000 {
            events.interrupted(ms(at), took);
        }
        let told = |at, launches| Event {
            at: ms(at),
            what: Happened::Interrupted { launches, stood_back: launches * took },
        };
        assert_eq!(events.take(ms(90_000)).0, [told(0, 1), told(60_000, 60_000)]);
        assert_eq!(events.next(), Some(ms(120_000)));
        assert_eq!(events.take(ms(120_000)).0, [told(120_000, 29_999)]);
        assert_eq!((events.next(), events.take(ms(200_000)).0), (None, vec![]));
    }

    #[test]
    fn a_tenant_that_went_leaves_nothing_to_wait_for() {
        let mut events = Events::default();
        (0..3).for_each(|at| events.refused(ms(at), LOUD, OwnerId(1), late(9)));
        assert_eq!(events.next(), Some(ms(1000)));
        events.forget(LOUD);
        assert_eq!((events.next(), events.take(ms(1000)).0.len()), (None, 1));
    }
}
