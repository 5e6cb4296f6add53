//! What is said at the door: who a tenant is, what a request brings, and the two answers.
//!
//!   Terms ─▶ tenant_added          Offer ─▶ offer ─▶ Admitted (queued, to be answered exactly once)
//!                                                 └▶ Refusal  (never queued; says why and the way out)

use crate::quota::Rate;
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{Bytes, Moment, OwnerId, PlanKey, RequestId, TenantId};

/// What was agreed with a tenant.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Terms {
    /// Who pays. Fairness is between owners, never between tenants of one owner.
    pub owner: OwnerId,
    /// The owner's weight in device time; an owner weighs as much as the largest share among its tenants, so
    /// that more tenants do not mean more time. Values outside 0.001 to 1000 are brought inside, NaN is 1.
    pub share: f64,
    /// Answer within this long of arrival. `None` is best effort: never late, never refused for lateness.
    pub slo: Option<Duration>,
    /// The part of the requests, in percent, that is to be answered in time.
    pub percentile: f64,
}

impl Terms {
    /// Best effort with a share of one.
    pub fn best_effort(owner: OwnerId) -> Terms {
        Terms { owner, share: 1.0, slo: None, percentile: 99.0 }
    }
}

/// A request at the door: sizes and ids only, its payload stays with the caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The request, new to the scheduler.
    pub request: RequestId,
    /// Whose weights it needs.
    pub tenant: TenantId,
    /// Which plan it runs. Only requests of one plan share a launch.
    pub plan: PlanKey,
    /// Items it carries.
    pub items: NonZeroU32,
    /// Memory its payload holds while queued.
    pub bytes: Bytes,
    /// When its answer is due. `None`: the tenant's SLO from now, or never where the tenant has none.
    pub deadline: Option<Moment>,
    /// Whether it may share a lane with its tenant's other requests. A request of a class not proven independent
    /// along the batch may not: it is one item, and a lane of its own.
    pub batchable: bool,
}

/// Let in: the request will be launched, cancelled, expired or returned by `tenant_removed`, exactly one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// When its answer is due; `None` is best effort.
    pub deadline: Option<Moment>,
    /// The predicted time from now to its answer, where one can be predicted.
    pub predicted: Option<Duration>,
    /// Whether it has a place in a planned launch that is over in time: with exact costs it is answered before its deadline. Best effort, plans
    /// never measured and probes are let in without, and so is everything under other policies than `space-time`.
    pub promised: bool,
}

/// Why a request was not let in. Nothing of it is kept.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// No such tenant, or it was removed.
    #[error("{0} is not being served; load it first")]
    UnknownTenant(TenantId),
    /// The id is queued or in flight already.
    #[error("{0} was offered before and is not answered yet; every request needs an id of its own")]
    KnownRequest(RequestId),
    /// More items than one launch carries. The caller may split the request and offer the parts.
    #[error(
        "a request of {items} items does not fit one launch, which carries {limit}; send it in parts or raise `max_items`"
    )]
    TooManyItems {
        /// Items in the request.
        items: NonZeroU32,
        /// Most in one launch.
        limit: NonZeroU32,
    },
    /// The tenant has as many requests queued as it may.
    #[error(
        "{queued} requests of its tenant are queued of at most {limit}; try again later, send slower, or raise `queue_requests`"
    )]
    QueueFull {
        /// Whose queue.
        tenant: TenantId,
        /// Requests queued now.
        queued: u32,
        /// Most that may be.
        limit: NonZeroU32,
    },
    /// The tenant's queued requests hold as many bytes as they may.
    #[error(
        "{queued} of its tenant are queued of at most {limit}, and this request brings {brings}; try again later, send less, or raise `queue_bytes`"
    )]
    QueueBytesFull {
        /// Whose queue.
        tenant: TenantId,
        /// Bytes queued now.
        queued: Bytes,
        /// Bytes of the refused request. Above `limit` it can never be let in.
        brings: Bytes,
        /// Most that may be queued.
        limit: Bytes,
    },
    /// There is time, and others have a right to it: its owner has had more than its share.
    #[error(
        "its owner is {ahead:.2?} of device time ahead of its share, and the {allowed:.2?} allowed leave others no room; \
         send slower, allow more time, or raise `share`"
    )]
    OverShare {
        /// Who is ahead.
        owner: OwnerId,
        /// How far, what is planned for it included.
        ahead: Duration,
        /// Time from now to its answer, if it were let in.
        predicted: Duration,
        /// Time from now to its deadline.
        allowed: Duration,
    },
    /// Its owner asked for more than was agreed with it.
    #[error("its owner may send {rate}, and has used that up; {}", again(*retry, *asks))]
    OverRate {
        /// Whose rate.
        owner: OwnerId,
        /// What was agreed.
        rate: Rate,
        /// How many of what is counted this request is.
        asks: NonZeroU32,
        /// After how long it would be let in, if nobody comes before it; `None` is never, since it is more than a burst.
        retry: Option<Duration>,
    },
    /// Its owner has as many requests inside as it may.
    #[error(
        "its owner has {inside} of {limit} requests in the server; try again when one is answered, or raise `owner_concurrency`"
    )]
    OverConcurrency {
        /// Whose requests.
        owner: OwnerId,
        /// How many there are.
        inside: u32,
        /// Most that may be.
        limit: NonZeroU32,
    },
    /// It could not be answered in time.
    #[error("the answer would take {predicted:.2?}, {}; try again later or allow more time", due(*allowed))]
    TooLate {
        /// Time from now to its answer, waiting included, if it were let in without making another late.
        predicted: Duration,
        /// Time from now to its deadline.
        allowed: Duration,
    },
}

/// When an answer is due. Of a time that was over on arrival the zero tells nothing.
fn due(allowed: Duration) -> String {
    match allowed {
        Duration::ZERO => "and its time was over when it came".to_owned(),
        allowed => format!("and is due in {allowed:.2?}"),
    }
}

/// When to come again, and the way out.
fn again(retry: Option<Duration>, asks: NonZeroU32) -> String {
    match retry {
        Some(retry) => format!("try again in {}, send slower, or raise `owner_rate`", waiting(retry)),
        None => format!("one of {asks} never fits: send it in parts, or raise `owner_burst`"),
    }
}

/// A time to wait in words: whole milliseconds, from ten seconds on whole seconds, and never less than it is.
fn waiting(time: Duration) -> String {
    let ms = time.as_nanos().div_ceil(1_000_000);
    if ms < 10_000 { format!("{ms} ms") } else { format!("{} s", ms.div_ceil(1_000)) }
}

impl Refusal {
    /// The rule that refused it, in a word of a small closed set; `None` where the caller made a mistake and no rule was applied.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Refusal::UnknownTenant(_) | Refusal::KnownRequest(_) | Refusal::TooManyItems { .. } => None,
            Refusal::QueueFull { .. } => Some("queue_full"),
            Refusal::QueueBytesFull { .. } => Some("queue_bytes_full"),
            Refusal::OverShare { .. } => Some("over_share"),
            Refusal::OverRate { .. } => Some("over_rate"),
            Refusal::OverConcurrency { .. } => Some("over_concurrency"),
            Refusal::TooLate { .. } => Some("too_late"),
        }
    }
}

/// What can be said of a tenant's SLO once its plan was measured. Its text is for whoever deploys the tenant.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Verdict {
    /// What one item takes alone on an idle device, by the high percentile that costs are learnt with.
    pub alone: Duration,
    /// That percentile.
    pub alone_percentile: f64,
    /// What was agreed.
    pub slo: Duration,
    /// Of how many requests, in percent.
    pub percentile: f64,
    /// What is kept free before a due.
    pub margin: Duration,
}

impl Verdict {
    /// Whether a request that meets nobody is in time.
    pub fn can_be_met(&self) -> bool {
        self.alone + self.margin <= self.slo
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Verdict { alone, alone_percentile: p, slo, percentile, .. } = self;
        if self.can_be_met() {
            write!(
                f,
                "alone p{p} {alone:.2?}: meets {slo:?} for {percentile} % while at most {:.2?} is ahead of it",
                *slo - *alone - self.margin
            )
        } else {
            write!(
                f,
                "alone p{p} {alone:.2?}: cannot meet {slo:?} for {percentile} %; allow more time, or choose a smaller model or another precision"
            )
        }
    }
}

/// What `cancel` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// It was queued and is gone: the caller answers it.
    Queued,
    /// It is in a launch that runs on; its answer is to be thrown away.
    InFlight,
    /// Never offered, or answered already.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_over_on_arrival_is_said_in_words() {
        let late =
            |allowed| Refusal::TooLate { predicted: Duration::from_nanos(57_654), allowed }.to_string();
        assert!(
            late(Duration::ZERO).starts_with("the answer would take 57.65µs, and its time was over when")
        );
        assert!(late(Duration::from_millis(2)).contains(", and is due in 2.00ms; try again"));
    }

    #[test]
    fn a_time_to_wait_is_told_in_whole_units_and_never_too_short() {
        let said = |nanos| waiting(Duration::from_nanos(nanos));
        assert_eq!(said(997_570_118), "998 ms");
        assert_eq!((said(1), said(3_000_000)), ("1 ms".into(), "3 ms".into()));
        assert_eq!((said(9_999_000_000), said(9_999_000_001)), ("9999 ms".into(), "10 s".into()));
        assert_eq!(said(499_000_000_001), "500 s");
    }
}
