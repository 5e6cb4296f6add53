//! The card that measures, where drivers for cards exist.

use tessera_device::sgemm::{Cell, Measured};

/// What measured.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct About {
    pub(super) card: String,
    pub(super) versions: String,
}

/// Measures all cells in order, and tells `each` as it comes.
#[cfg(any(target_os = "linux", windows))]
pub(super) fn measure(
    ordinal: usize,
    cells: &[Cell],
    rounds: usize,
    each: &mut dyn FnMut(&About, Measured),
) -> anyhow::Result<About> {
    let mut bench = tessera_device::cuda::sgemm::Bench::open(ordinal)?;
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
    ordinal: usize,
    _cells: &[Cell],
    _rounds: usize,
    _each: &mut dyn FnMut(&About, Measured),
) -> anyhow::Result<About> {
    anyhow::bail!("cuda:{ordinal} cannot be opened: CUDA has no drivers for this system")
}
