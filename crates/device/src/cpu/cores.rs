//! Which cores a CPU device runs on: `cpu`, `cpu:0`, `cpu:0-3`.

use core_affinity::CoreId;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

/// Cores, as named on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cores {
    /// `cpu`: every core that this process may use.
    All,
    /// `cpu:A-B`, or `cpu:A`: cores A to B of those that this process may use, B included.
    Range(usize, usize),
}

/// Why cores cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CoresError {
    /// Not a name of cores.
    #[error("`{0}` is not a CPU device; write cpu, cpu:0 or cpu:0-3")]
    Malformed(String),
    /// The machine, or the process's share of it, is smaller.
    #[error("core {asked} is not there: this process may use {there} cores, numbered from 0")]
    Missing {
        /// The core.
        asked: usize,
        /// How many there are.
        there: usize,
    },
}

impl Cores {
    /// One entry per core; `None` where the platform cannot pin threads.
    pub(crate) fn resolve(self) -> Result<Vec<Option<CoreId>>, CoresError> {
        let known = core_affinity::get_core_ids().unwrap_or_default();
        let there = if known.is_empty() {
            std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
        } else {
            known.len()
        };
        match self {
            // All cores: the system places threads better than we would.
            Cores::All => Ok(vec![None; there]),
            Cores::Range(_, last) if last >= there => Err(CoresError::Missing { asked: last, there }),
            Cores::Range(first, last) => Ok((first..=last).map(|core| known.get(core).copied()).collect()),
        }
    }
}

impl FromStr for Cores {
    type Err = CoresError;

    fn from_str(name: &str) -> Result<Cores, CoresError> {
        let malformed = || CoresError::Malformed(name.to_owned());
        if name == "cpu" {
            return Ok(Cores::All);
        }
        let range = name.strip_prefix("cpu:").ok_or_else(malformed)?;
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().map_err(|_| malformed());
        let (first, last) = (number(first)?, number(last)?);
        if first > last { Err(malformed()) } else { Ok(Cores::Range(first, last)) }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => f.write_str("cpu"),
            Cores::Range(first, last) if first == last => write!(f, "cpu:{first}"),
            Cores::Range(first, last) => write!(f, "cpu:{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cores_are_read_and_written_alike() {
        for name in ["cpu", "cpu:0", "cpu:0-3"] {
            assert_eq!(name.parse::<Cores>().unwrap().to_string(), name);
        }
        for name in ["gpu", "cpu:", "cpu:3-1", "cpu:x", "cpu:1-"] {
            assert_eq!(name.parse::<Cores>(), Err(CoresError::Malformed(name.to_owned())));
        }
        let missing = Cores::Range(0, 100_000).resolve().unwrap_err();
        assert!(missing.to_string().starts_with("core 100000 is not there"));
    }
}
