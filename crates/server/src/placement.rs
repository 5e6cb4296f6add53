//! Which devices a tenant's weights go to: the home of that decision.
//!
//! ```text
//!   devices that run ─▶ least weights first ─▶ fewest tenants ─▶ least backlog ─▶ the first N that take it
//! ```
//! A tenant is on one device unless it or the settings ask for more: then a further device adds room for tenants and never multiplies what
//! is there, and its owner alone decides that an answer is worth a second copy. A device that is full or does not have the tenant's
//! precision is passed over.

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::cmp::Reverse;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// On how many devices a tenant is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replicas {
    /// On so many, or on all there are if there are fewer.
    Count(NonZeroU32),
    /// On every device that takes it.
    All,
}

/// What a number of replicas may be.
const ALLOWED: &str = "a whole number from 1 on, or all";

impl Replicas {
    /// The number that was asked for, if it is more than `devices`.
    pub fn beyond(self, devices: usize) -> Option<NonZeroU32> {
        match self {
            Replicas::Count(count) => Some(count).filter(|count| count.get() as usize > devices),
            Replicas::All => None,
        }
    }

    /// How many of `devices`.
    pub fn of(self, devices: usize) -> usize {
        match self {
            Replicas::Count(count) => devices.min(count.get() as usize),
            Replicas::All => devices,
        }
    }
}

impl FromStr for Replicas {
    type Err = String;

    fn from_str(word: &str) -> Result<Replicas, String> {
        match word {
            "all" => Ok(Replicas::All),
            _ => word.parse().map(Replicas::Count).map_err(|_| ALLOWED.to_owned()),
        }
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Replicas::Count(count) => write!(f, "{count}"),
            Replicas::All => f.write_str("all"),
        }
    }
}

/// As in a `tenant.toml`: `replicas = 2` or `replicas = "all"`.
impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Replicas, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(i64),
            Word(String),
        }
        let word = match Given::deserialize(deserializer) {
            Ok(Given::Number(number)) => number.to_string(),
            Ok(Given::Word(word)) => word,
            Err(_) => String::new(),
        };
        word.parse().map_err(|allowed| D::Error::custom(format!("`replicas` must be {allowed}")))
    }
}

/// How full a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Filling {
    /// Whether it runs.
    pub runs: bool,
    /// Bytes of the weights that were placed there.
    pub weights: u64,
    /// Tenants that were placed there, those being loaded included.
    pub tenants: u64,
    /// Work that waits there.
    pub backlog: Duration,
}

/// The devices that run and are not in `passed`, the one that suits a further tenant best first.
pub fn best(devices: &[Filling], passed: &[usize]) -> Option<usize> {
    let open = devices.iter().enumerate().filter(|(index, device)| device.runs && !passed.contains(index));
    let key = |(index, device): &(usize, &Filling)| {
        (Reverse(device.weights), Reverse(device.tenants), Reverse(device.backlog), Reverse(*index))
    };
    open.max_by_key(key).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Filling = Filling { runs: true, weights: 0, tenants: 0, backlog: Duration::ZERO };

    #[test]
    fn a_tenant_goes_where_the_least_weights_are_then_the_fewest_tenants_then_the_least_work() {
        assert_eq!(
            best(&[Filling { weights: 10, ..FREE }, Filling { weights: 9, tenants: 5, ..FREE }], &[]),
            Some(1)
        );
        assert_eq!(best(&[Filling { tenants: 2, ..FREE }, Filling { tenants: 1, ..FREE }], &[]), Some(1));
        let busy = Filling { backlog: Duration::from_millis(1), ..FREE };
        assert_eq!(best(&[busy, FREE], &[]), Some(1));
        assert_eq!(best(&[FREE, FREE], &[]), Some(0), "of equal ones the first");
    }

    #[test]
    fn a_device_that_was_lost_or_passed_over_gets_nothing() {
        let lost = Filling { runs: false, ..FREE };
        let full = Filling { weights: 1 << 40, ..FREE };
        assert_eq!(best(&[lost, full], &[]), Some(1));
        assert_eq!(best(&[lost, full], &[1]), None);
    }

    #[test]
    fn tenants_of_one_size_spread_evenly() {
        let mut devices = [FREE; 3];
        for _ in 0..9 {
            let at = best(&devices, &[]).expect("all run");
            devices[at].weights += 100;
            devices[at].tenants += 1;
        }
        assert!(devices.iter().all(|device| device.tenants == 3), "{devices:?}");
    }

    #[test]
    fn replicas_are_a_number_or_all() {
        assert_eq!("2".parse::<Replicas>().map(|replicas| (replicas.of(8), replicas.of(1))), Ok((2, 1)));
        assert_eq!("all".parse::<Replicas>().map(|replicas| replicas.of(8)), Ok(8));
        let beyond =
            |word: &str, devices| word.parse::<Replicas>().unwrap().beyond(devices).map(NonZeroU32::get);
        assert_eq!((beyond("2", 2), beyond("3", 2), beyond("all", 1)), (None, Some(3), None));
        for wrong in ["0", "-1", "every", ""] {
            assert!(wrong.parse::<Replicas>().is_err(), "{wrong}");
        }
    }
}
