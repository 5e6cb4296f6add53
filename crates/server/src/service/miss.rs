//! A request that was not answered: what its caller hears, and what else may be tried.

use super::Service;
use crate::classes::NoPlan;
use crate::engine::NotAnswered;
use crate::registry::{Residence, Served};
use crate::standing::Fate;
use crate::wire::Rejection;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tessera_device::RequestError;
use tessera_scheduler::Refusal;

/// A request that was not answered.
#[derive(Debug)]
pub(super) struct Miss {
    /// What its caller hears, unless it is answered after all.
    pub(super) rejection: Rejection,
    pub(super) next: Next,
    /// What becomes of its deadline, unless it is.
    pub(super) fate: Option<Fate>,
}

/// What else may be tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Nothing.
    Never,
    /// Another device that has the tenant.
    Device,
    /// The tenant that took its place, if there is one.
    Replaced,
    /// The tenant, once it is on another device.
    Moved,
}

impl From<Rejection> for Miss {
    fn from(rejection: Rejection) -> Miss {
        Miss { rejection, next: Next::Never, fate: None }
    }
}

impl Service {
    /// What comes of a request that a device did not answer: what its caller hears, and what else may be tried.
    pub(super) fn miss(&self, model: &str, allowed: Duration, why: NotAnswered) -> Miss {
        let (soon, model, fate) = (Duration::from_secs(1), model.to_owned(), Fate::of(&why));
        let unloaded =
            |model| Rejection::Cancelled(format!("`{model}` was unloaded while the request waited"));
        let (rejection, next) = match why {
            NotAnswered::Refused(Refusal::QueueFull { queued, limit, .. }) => {
                let (queued, limit) = (queued.into(), limit.get().into());
                (Rejection::QueueFull { queue: model, queued, limit, retry_after: soon }, Next::Device)
            }
            NotAnswered::Refused(Refusal::TooLate { predicted, allowed }) => {
                (Rejection::TooLate { model, predicted, allowed, retry_after: soon }, Next::Device)
            }
            NotAnswered::Refused(refusal @ (Refusal::QueueBytesFull { .. } | Refusal::OverShare { .. })) => {
                (Rejection::Overloaded { model, why: refusal.to_string(), retry_after: soon }, Next::Device)
            }
            NotAnswered::Refused(Refusal::UnknownTenant(_)) | NotAnswered::Unloaded => {
                (unloaded(model), Next::Replaced)
            }
            NotAnswered::Refused(
                refusal @ (Refusal::KnownRequest(_)
                | Refusal::TooManyItems { .. }
                // Quotas are counted before, for all devices.
                | Refusal::OverRate { .. }
                | Refusal::OverConcurrency { .. }),
            ) => (Rejection::Internal(refusal.to_string()), Next::Never),
            NotAnswered::Expired => (Rejection::Expired { model, allowed }, Next::Never),
            // An engine that is gone says so, too.
            NotAnswered::Stopping if !self.stopping.load(Ordering::Acquire) => {
                (Rejection::ShuttingDown, Next::Moved)
            }
            NotAnswered::Stopping => (Rejection::ShuttingDown, Next::Never),
            NotAnswered::Failed(error @ RequestError::IdOutOfRange { .. }) => {
                (Rejection::Invalid(format!("model `{model}`: {error}")), Next::Never)
            }
            NotAnswered::DeviceLost(why) => (Rejection::Internal(why), Next::Moved),
            NotAnswered::Failed(RequestError::DeviceFailed(why)) | NotAnswered::Lost(why) => {
                (Rejection::Internal(why), Next::Never)
            }
            gone @ NotAnswered::PlanGone => (Rejection::Internal(gone.to_string()), Next::Never),
        };
        Miss { rejection, next, fate }
    }
}

/// What comes of a request for which a device has no plan: what it is for the model itself it is everywhere.
pub(super) fn unplanned(model: &str, residence: &Residence, error: &NoPlan) -> Miss {
    let next = match error {
        NoPlan::Unplannable { .. } => Next::Never,
        NoPlan::Device(_) | NoPlan::NotNow { .. } | NoPlan::Interrupted if residence.engine.is_running() => {
            Next::Device
        }
        NoPlan::Device(_) | NoPlan::NotNow { .. } | NoPlan::Interrupted => Next::Moved,
    };
    Miss { next, ..Miss::from(no_plan(model, error)) }
}

fn no_plan(model: &str, error: &NoPlan) -> Rejection {
    match error {
        NoPlan::Unplannable { .. } => Rejection::Invalid(format!("model `{model}`: {error}")),
        NoPlan::Device(_) | NoPlan::NotNow { .. } | NoPlan::Interrupted => {
            Rejection::NotReady { model: model.to_owned(), why: error.to_string() }
        }
    }
}

/// What the caller hears when its owner's quota is used up.
pub(super) fn over_quota(served: &Served, refusal: &Refusal) -> Rejection {
    let retry_after = match refusal {
        Refusal::OverRate { retry, .. } => *retry,
        _ => Some(Duration::from_secs(1)),
    };
    let (model, owner) = (served.who.tenant.clone(), served.who.owner.clone());
    Rejection::OverQuota { model, owner, why: refusal.to_string(), retry_after }
}
