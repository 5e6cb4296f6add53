//! Partitions that have become slow, whoever runs there: they are drained and opened anew.
//!
//! ```text
//!            its launches take long, for long, of several tenants         nothing runs there any more         the device has done so
//!   healthy ───────────────────────────────────────────▶ draining ─────────────────────────▶ opening ──────────────────────▶ healthy
//!      └── everywhere, or where there is but one partition, or the device cannot: told (`device_slow`), and what launches take now is usual
//! ```
//! A stream, a thread or a core may be slow while nothing is wrong with what it runs: one waits on a core that somebody else keeps busy, another was put on a poor footing
//! when it was made. Each launch is compared with what its size usually takes on partitions of as many units (`Usual`: the middle, not the high percentile that
//! promises rest on). A partition's ratio is the median of its last launches over that of the healthiest of the others that ran lately: what all of them suffer, such as a
//! lower clock, is no fault of one. Where none ran, it is compared with what launches took there before.
//!
//! - **Not for a tenant's sake**: a slow tenant is set apart within a second (`stragglers`), before a partition is judged; launches of those who are apart do not count, and
//!   nothing is decided by the launches of one tenant alone. Where lanes have no times of their own, tenants are suspected before a partition is, and may all be apart
//!   before it is found.
//! - **Not in haste**: the ratio must be above [`RecycleSettings::bound`] for [`RecycleSettings::after`] without a break, over at least [`LEAST`] launches. What is slow does not become
//!   usual meanwhile; of a size that hardly ran before, only what is more than smaller ones explain counts as slow. One partition at a time is drained, so the others serve; and one that was opened anew is left alone for [`RecycleSettings::again`], twice as long each
//!   time it did not help.
//! - **Not beside others** where partitions share the device's units: a launch counts there only if nothing ran on another partition meanwhile.
//!
//! What was promised on a partition waits until it is open again, which takes some milliseconds ([`REOPENING`]), or runs elsewhere if that is earlier.

use crate::cost::Company;
use crate::event::Happened;
use crate::plans::PlanIx;
use crate::scheduler::{InFlight, Scheduler};
use crate::stragglers::{Kind, Usual, Window};
use std::num::NonZeroU32;
use std::time::Duration;
use tessera_core::{Moment, PartitionId, Policy, TenantId};

/// Fewest launches that a partition is judged by.
const LEAST: u32 = 32;

/// Fewest of which a median is taken.
const FEW: usize = 8;

/// What a launch of a size that hardly ran takes over the most that smaller ones explain, beyond which it is not taken for usual.
const TOO_LONG: f64 = 1.2;

/// Another partition is compared with if it ran something this lately.
const LATELY: Duration = Duration::from_secs(10);

/// What is kept free of promises for the opening itself: a few threads or streams are made.
const REOPENING: Duration = Duration::from_millis(5);

/// When a partition is too slow.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RecycleSettings {
    /// How many times what launches take elsewhere, or took before, they may take.
    pub bound: f64,
    /// For how long they must take more.
    pub after: Duration,
    /// For how long a partition is left alone that was opened anew, and the whole device after it was told slow.
    pub again: Duration,
    /// The same at most, however often it did not help.
    pub most_again: Duration,
    /// Whether the device opens partitions anew.
    pub reopens: bool,
}

impl Default for RecycleSettings {
    /// Three times, as for tenants, which neighbours on the same cores and caches do not bring about; three seconds, by when a slow tenant has gone. A device that
    /// opens nothing anew.
    fn default() -> RecycleSettings {
        RecycleSettings {
            bound: 3.0,
            after: Duration::from_secs(3),
            again: Duration::from_secs(60),
            most_again: Duration::from_secs(3600),
            reopens: false,
        }
    }
}

/// How partitions do. See the module's text.
#[derive(Debug)]
pub(crate) struct Health {
    lines: Vec<Line>,
    usual: Usual,
}

#[derive(Debug, Default)]
struct Line {
    ratios: Window,
    last: Moment,
    slow: Option<Slow>,
    stage: Stage,
    /// Until when it is left alone, and for how long that is.
    alone_until: Moment,
    again: Duration,
}

/// Since when a partition has been slow, and by what that is known.
#[derive(Clone, Copy, Debug)]
struct Slow {
    since: Moment,
    launches: u32,
    tenant: Option<TenantId>,
    /// Whether launches of several tenants were slow.
    several: bool,
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
enum Stage {
    #[default]
    Open,
    /// Nothing is begun there any more.
    Draining { since: Moment, ratio: f64 },
    /// The device is at it.
    Opening { drained: Duration, ratio: f64 },
}

/// What a launch that has ended says of its partition.
#[derive(Clone, Copy, Debug)]
struct Seen<'a> {
    plan: PlanIx,
    units: NonZeroU32,
    launch: &'a InFlight,
    took: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Finding {
    Nothing,
    /// This partition is slow, and no other.
    One {
        ratio: f64,
    },
    /// All that can be compared are.
    All {
        ratio: f64,
    },
}

impl Health {
    pub(crate) fn new(lines: usize) -> Health {
        Health { lines: (0..lines).map(|_| Line::default()).collect(), usual: Usual::default() }
    }

    /// Whether nothing is to be begun on a line.
    pub(crate) fn is_closed(&self, line: usize) -> bool {
        self.lines[line].stage != Stage::Open
    }

    /// How much later than its launches are over a line can be used.
    pub(crate) fn pause(&self, line: usize) -> Duration {
        if self.is_closed(line) { REOPENING } else { Duration::ZERO }
    }

    pub(crate) fn forget_plan(&mut self, plan: PlanIx) {
        self.usual.forget(plan);
    }

    fn note(&mut self, settings: RecycleSettings, now: Moment, seen: Seen<'_>) -> Finding {
        let kind = Kind { plan: seen.plan, units: seen.units, company: Company::Alone };
        let (size, number) = (seen.launch.size, seen.launch.line);
        let known = self.usual.compare(kind, size, seen.took).map(|unlike| unlike.log_ratio.exp());
        let here = known.or_else(|| self.usual.beyond_most(kind, size, seen.took));
        let others = self.healthiest_but(number, now);
        let line = &mut self.lines[number];
        if line.stage != Stage::Open || now < line.alone_until {
            return Finding::Nothing;
        }
        // What is slow may never run in the sizes that it ran in before.
        if line.slow.is_none() && (known.is_some() || here.is_none_or(|here| here <= TOO_LONG)) {
            self.usual.learn(kind, size, seen.took);
        }
        let Some(here) = here else { return Finding::Nothing };
        line.last = now;
        line.ratios.push(here);
        let Some(ratio) = line.ratios.median().filter(|_| line.ratios.len() >= FEW) else {
            return Finding::Nothing;
        };
        let beside = others.map_or(ratio, |others| ratio / others);
        if ratio.max(beside) <= settings.bound {
            line.slow = None;
            return Finding::Nothing;
        }
        let slow = line.slow.get_or_insert(Slow { since: now, launches: 0, tenant: None, several: false });
        slow.launches += 1;
        for lane in &seen.launch.lanes {
            slow.several |= *slow.tenant.get_or_insert(lane.tenant) != lane.tenant;
        }
        if now.since(slow.since) < settings.after || slow.launches < LEAST || !slow.several {
            return Finding::Nothing;
        }
        if beside > settings.bound { Finding::One { ratio: beside } } else { Finding::All { ratio } }
    }

    /// The ratio of the healthiest other line that ran lately.
    fn healthiest_but(&self, line: usize, now: Moment) -> Option<f64> {
        let others = self.lines.iter().enumerate().filter(|(other, _)| *other != line);
        let lately = others.filter(|(_, other)| now.since(other.last) < LATELY && other.ratios.len() >= FEW);
        lately.filter_map(|(_, other)| other.ratios.median()).min_by(f64::total_cmp)
    }

    /// What launches take now is what they are compared with from now on.
    fn accept(&mut self, now: Moment, again: Duration) {
        self.usual = Usual::default();
        for line in &mut self.lines {
            (line.slow, line.alone_until) = (None, line.alone_until.max(now + again));
            line.ratios.clear();
        }
    }
}

impl Line {
    /// It begins anew, and is left alone for a while.
    fn renew(&mut self, settings: RecycleSettings, now: Moment) {
        // Slow again soon after it was left alone, which takes a while to be found: the same trouble.
        let soon = self.again + 4 * settings.after;
        let helped = self.again.is_zero() || now > self.alone_until + soon;
        self.again = if helped { settings.again } else { (2 * self.again).min(settings.most_again) };
        self.alone_until = now + self.again;
        self.ratios.clear();
        (self.slow, self.stage) = (None, Stage::Open);
    }
}

impl Scheduler {
    /// Takes in what a launch took on its partition.
    pub(crate) fn watch_partition(&mut self, now: Moment, launch: &InFlight, took: Duration) {
        let lines = self.space.open_to_all();
        let counts = self.config.policy == Policy::SpaceTime
            && lines.contains(&launch.line)
            && launch.interrupts.is_none()
            && !(self.config.overlap && launch.beside)
            && !launch.plan.is_own()
            && !took.is_zero();
        if !counts {
            return;
        }
        let (settings, units) = (self.config.recycling, self.units(launch.line));
        let finding = self.health.note(settings, now, Seen { plan: launch.plan, units, launch, took });
        let busy = (0..self.running.len()).any(|line| self.health.is_closed(line));
        match finding {
            Finding::Nothing => {}
            // One at a time.
            Finding::One { .. } if busy => {}
            Finding::One { ratio } if settings.reopens && lines.len() > 1 => {
                self.health.lines[launch.line].stage = Stage::Draining { since: now, ratio };
            }
            Finding::One { ratio } | Finding::All { ratio } => {
                let one = matches!(finding, Finding::One { .. }) && lines.len() > 1;
                let partition = one.then(|| self.space.lines().id(launch.line));
                self.health.accept(now, settings.again);
                let bound = settings.bound;
                self.events.tell(now, Happened::DeviceSlow { partition, ratio, bound });
            }
        }
    }

    /// Whether something runs on a partition other than this; then neither is alone with the device.
    pub(crate) fn is_beside(&mut self, line: usize) -> bool {
        let mut others = false;
        for launch in self.in_flight.values_mut().filter(|launch| launch.line != line) {
            (launch.beside, others) = (true, true);
        }
        others
    }

    /// A partition that is slow and on which nothing runs any more: the caller has its device open it anew and says so with [`Scheduler::reopened`].
    pub fn to_reopen(&mut self, now: Moment) -> Option<PartitionId> {
        let line = (0..self.running.len()).find(|line| {
            matches!(self.health.lines[*line].stage, Stage::Draining { .. }) && self.load(*line) == 0
        })?;
        if let Stage::Draining { since, ratio } = self.health.lines[line].stage {
            self.health.lines[line].stage = Stage::Opening { drained: now.since(since), ratio };
        }
        Some(self.space.lines().id(line))
    }

    /// The partition that [`Scheduler::to_reopen`] named was opened anew, or could not be and serves as it is. Launches may begin there.
    pub fn reopened(&mut self, now: Moment, partition: PartitionId, opened: bool) {
        let bound = self.config.recycling.bound;
        let opening = |line: &usize| {
            self.space.lines().id(*line) == partition
                && matches!(self.health.lines[*line].stage, Stage::Opening { .. })
        };
        let Some(line) = (0..self.running.len()).find(opening) else { return };
        if let Stage::Opening { drained, ratio } = self.health.lines[line].stage {
            let what = if opened {
                Happened::Recycled { partition, ratio, bound, drained }
            } else {
                Happened::DeviceSlow { partition: Some(partition), ratio, bound }
            };
            self.events.tell(now, what);
        }
        self.health.lines[line].renew(self.config.recycling, now);
    }
}
