//! Ways of cutting the device into partitions.
//!
//! ```text
//!   layout 0  [ whole device      ]       line 0
//!   layout 1  [ three quarters ][ ¼ ]     lines 1, 2         one layout is in force at a time (`space`); partitions of two layouts
//!   layout 2  [ half    ][ half    ]      lines 3, 4         may lie over each other, those of one never do
//! ```
//! Every partition of every layout has a number, its *line*: what is promised on it and what runs on it is kept under that number whether its layout is in
//! force or not. A partition may be in several layouts, and has a line in each.

use std::num::NonZeroU32;
use std::ops::Range;
use tessera_core::PartitionId;

/// A share of the device that computes one launch after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its name in launches.
    pub id: PartitionId,
    /// Cores, or multiprocessors: what its share is measured in.
    pub units: NonZeroU32,
    /// Whether only launches run there that nobody should wait for: of tenants that are apart (`stragglers`), and of classes that are put there (`space`). It is the
    /// last of its layout, and not the only one.
    pub aside: bool,
}

impl Partition {
    /// One for everybody.
    pub fn new(id: PartitionId, units: NonZeroU32) -> Partition {
        Partition { id, units, aside: false }
    }
}

/// Partitions that share nothing, and run launches side by side.
pub type Layout = Vec<Partition>;

/// The partitions of all layouts by number.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    partitions: Vec<Partition>,
    layouts: Vec<Range<usize>>,
}

impl Lines {
    /// Panics where there is no layout, or one has no partition for everybody before one that is aside: there would be nothing to run on.
    pub(crate) fn new(layouts: &[Layout]) -> Lines {
        let mut lines = Lines { partitions: Vec::new(), layouts: Vec::new() };
        for layout in layouts {
            let aside = layout.iter().position(|partition| partition.aside);
            assert!(
                aside.map_or(!layout.is_empty(), |aside| aside > 0 && aside + 1 == layout.len()),
                "a layout has at least one partition for everybody, and one aside at most, behind them"
            );
            let first = lines.partitions.len();
            lines.partitions.extend(layout);
            lines.layouts.push(first..lines.partitions.len());
        }
        assert!(!lines.layouts.is_empty(), "a scheduler has at least one layout");
        lines
    }

    /// Partitions of all layouts.
    pub(crate) fn count(&self) -> usize {
        self.partitions.len()
    }

    /// How many layouts there are.
    pub(crate) fn layouts(&self) -> usize {
        self.layouts.len()
    }

    /// The lines of one layout.
    pub(crate) fn of(&self, layout: usize) -> Range<usize> {
        self.layouts[layout].clone()
    }

    /// The partitions of one layout.
    pub(crate) fn partitions(&self, layout: usize) -> &[Partition] {
        &self.partitions[self.of(layout)]
    }

    pub(crate) fn id(&self, line: usize) -> PartitionId {
        self.partitions[line].id
    }

    pub(crate) fn units(&self, line: usize) -> NonZeroU32 {
        self.partitions[line].units
    }

    /// The line of a layout that is aside.
    pub(crate) fn aside(&self, layout: usize) -> Option<usize> {
        self.of(layout).next_back().filter(|line| self.partitions[*line].aside)
    }

    /// Whether a line's partition is aside.
    pub(crate) fn is_aside(&self, line: usize) -> bool {
        self.partitions[line].aside
    }

    /// Lines of a layout for everybody.
    pub(crate) fn open_to_all(&self, layout: usize) -> Range<usize> {
        let Range { start, end } = self.of(layout);
        start..self.aside(layout).unwrap_or(end)
    }

    /// Units that what runs beside a launch for everybody may have, where partitions share them: all, but in layouts in which classes are put aside.
    pub(crate) fn others(&self, layout: usize) -> NonZeroU32 {
        let aside = self.aside(layout).filter(|_| layout != 0);
        aside.map_or_else(|| self.most_units(), |aside| self.units(aside))
    }

    /// The layout that a line is of.
    pub(crate) fn layout_of(&self, line: usize) -> usize {
        self.layouts.iter().position(|lines| lines.contains(&line)).unwrap_or_default()
    }

    /// What part of the device's time a launch on a line takes, from 0 to 1: on one that is aside no more than its part of the units. Partitions for everybody
    /// count in full, as who runs there may be what the others wait for.
    pub(crate) fn weight(&self, line: usize) -> f64 {
        let Partition { units, aside, .. } = self.partitions[line];
        if aside { f64::from(units.get()) / f64::from(self.most_units().get()) } else { 1.0 }
    }

    /// Units of the largest partition: what shares are shares of.
    pub(crate) fn most_units(&self) -> NonZeroU32 {
        self.partitions.iter().map(|partition| partition.units).max().unwrap_or(NonZeroU32::MIN)
    }
}
