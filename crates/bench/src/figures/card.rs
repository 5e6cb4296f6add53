//! The card that measures, where drivers for cards exist.

use std::time::Duration;
use tessera_device::sgemm::{Cell, Measured};

/// What measured.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct About {
    pub(super) card: String,
    pub(super) versions: String,
}

/// Measures all cells in order on a card, whose kernels are timed beforehand for so long, and tells `each` as it comes.
#[cfg(any(target_os = "linux", windows))]
pub(super) fn measure(
    (ordinal, tune): (usize, Option<Duration>),
    cells: &[Cell],
    rounds: usize,
    each: &mut dyn FnMut(&About, Measured),
) -> anyhow::Result<About> {
    let mut bench = tessera_device::cuda::sgemm::Bench::open(ordinal, tune)?;
    let about = About { card: bench.card().to_owned(), versions: bench.versions() };
    bench.prepare(cells)?;
    for &cell in cells {
        each(&about, bench.measure(cell, rounds)?);
    }
    Ok(about)
}

/// Says that there is none.
#[cfg(not(any(target_os = "linux", windows)))]
pub(super) fn measure(
    (ordinal, _tune): (usize, Option<Duration>),
    _cells: &[Cell],
    _rounds: usize,
    _each: &mut dyn FnMut(&About, Measured),
) -> anyhow::Result<About> {
    anyhow::bail!("cuda:{ordinal} cannot be opened: CUDA has no drivers for this system")
}
