//! Which cores a CPU device runs on: all of them, or some by number.

use core_affinity::CoreId;
use std::fmt;
use std::num::NonZeroUsize;

/// Cores of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cores {
    /// `cpu`: every core that this process may use.
    All,
    /// `cpu:0-3`: these of the cores that this process may use, numbered from 0.
    These(Vec<usize>),
}

/// A core that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CoresError {
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
    /// One entry per core; `None` where the thread is left to the system, or the platform cannot pin threads.
    pub(crate) fn resolve(&self) -> Result<Vec<Option<CoreId>>, CoresError> {
        let known = core_affinity::get_core_ids().unwrap_or_default();
        let there = if known.is_empty() {
            std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
        } else {
            known.len()
        };
        match self {
            // All cores: the system places threads better than we would.
            Cores::All => Ok(vec![None; there]),
            Cores::These(numbers) => match numbers.iter().find(|number| **number >= there) {
                Some(&asked) => Err(CoresError::Missing { asked, there }),
                None => Ok(numbers.iter().map(|&number| known.get(number).copied()).collect()),
            },
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => f.write_str("cpu"),
            Cores::These(numbers) => {
                let runs = numbers.chunk_by(|before, next| before + 1 == *next);
                let runs: Vec<String> = runs
                    .map(|run| match run {
                        [first, .., last] => format!("{first}-{last}"),
                        alone => alone.iter().map(usize::to_string).collect(),
                    })
                    .collect();
                write!(f, "cpu:{}", runs.join("+"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_not_there_is_named() {
        let missing = Cores::These(vec![0, 100_000]).resolve().unwrap_err();
        assert!(missing.to_string().starts_with("core 100000 is not there"));
    }

    #[test]
    fn many_cores_have_a_short_name_and_neighbours_are_a_range() {
        let name = |cores: &[usize]| Cores::These(cores.to_vec()).to_string();
        assert_eq!(name(&[3]), "cpu:3");
        assert_eq!(name(&[0, 2]), "cpu:0+2");
        assert_eq!(name(&[0, 1, 4, 6, 7, 8]), "cpu:0-1+4+6-8");
        assert_eq!(name(&(0..64).collect::<Vec<_>>()), "cpu:0-63");
    }
}
