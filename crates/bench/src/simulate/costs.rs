//! What launches take, from a file: measured points, and lines between them.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{ClassId, Moment, PlanKey, Precision};
use tessera_scheduler::sim::Slowness;
use tessera_scheduler::{CostTable, Size};

/// Measured on an H100, and shipped with the project.
const H100: &str = include_str!("../../costs/h100-2026-11-25.toml");

/// A device's costs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Costs(Arc<Sheet>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sheet {
    pub(super) device: String,
    pub(super) source: String,
    /// Whether the device tells what each lane of a launch took. Cards do not.
    #[serde(default)]
    pub(super) lane_times: bool,
    /// What lies around launches, where that was measured.
    pub(super) engine: Option<Engine>,
    pub(super) model: Vec<Costed>,
}

/// What lies around a launch, in milliseconds: the engine, the way to the device and back, and how launches of one size differ.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Engine {
    /// From the moment when a request is due to its launch, on an idle device.
    pub(super) way_in_ms: f64,
    /// The part of a launch's turnaround that lies behind its time on the device.
    pub(super) leave_ms: f64,
    /// From word of a launch's end to its answers.
    pub(super) way_out_ms: f64,
    /// Between two launches on the device, while more wait, where their model does not say it.
    pub(super) gap_ms: f64,
    /// Launches that are handed over at once.
    pub(super) ahead: u32,
    /// How long before its turn the next one is.
    pub(super) lead_ms: f64,
    /// Times of launches over the typical time of their size.
    pub(super) ratios: Vec<f64>,
    /// When each of those launches was handed over; empty where that was not written down.
    #[serde(default)]
    pub(super) ratios_at_ms: Vec<f64>,
    /// In pieces of how long they were, and are, taken.
    #[serde(default)]
    pub(super) piece_ms: f64,
}

impl Engine {
    /// How launches differ.
    pub(super) fn slowness(&self) -> Slowness {
        if self.ratios_at_ms.is_empty() {
            return Slowness::Drawn(self.ratios.clone());
        }
        let moment = |ms: &f64| Moment::at(Duration::from_secs_f64(ms / 1e3));
        let ran = self.ratios_at_ms.iter().map(moment).zip(self.ratios.iter().copied()).collect();
        Slowness::Pieces { ran, length: Duration::from_secs_f64(self.piece_ms / 1e3) }
    }
}

/// One model: curves of `[count, ms]`, or times as long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Costed {
    pub(super) name: String,
    pub(super) precision: Named,
    pub(super) lanes: Curve,
    pub(super) items: Curve,
    pub(super) beside: Option<Curve>,
    /// By items, on an idle device: from a launch to word of its end, beside its time on a device that is at work.
    pub(super) turnaround: Option<Curve>,
    /// By items: between the launch before, while more wait, and this one.
    pub(super) gap: Option<Curve>,
    pub(super) estimated: Option<String>,
}

/// A precision by its name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Named(pub(super) Precision);

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(word: String) -> Result<Named, String> {
        word.parse().map(Named)
    }
}

/// Points, in order of their first number.
#[derive(Debug, Deserialize)]
pub(super) struct Curve(Vec<(f64, f64)>);

impl Curve {
    /// Measured points as a curve. Where one is below those before it, which noise does to times that hardly grow, it is raised to them; one point
    /// alone is a level, and so is what lies before the first, where on a busy machine too few launches were small to tell.
    pub(super) fn rising(points: Vec<(f64, f64)>) -> Result<Curve> {
        let mut most = 0.0f64;
        let mut points: Vec<(f64, f64)> = points
            .into_iter()
            .map(|(count, ms)| {
                most = most.max(ms);
                (count, most)
            })
            .collect();
        if let Some(&(_, ms)) = points.first().filter(|(count, _)| *count > 1.0) {
            points.insert(0, (1.0, ms));
        }
        if let [(count, ms)] = points[..] {
            points.push((count + 1.0, ms));
        }
        let curve = Curve(points);
        curve.check()?;
        Ok(curve)
    }

    pub(super) fn first(&self) -> f64 {
        self.0[0].1
    }

    pub(super) fn last(&self) -> f64 {
        self.0[self.0.len() - 1].1
    }

    /// On the line between the points around it; beyond the last, on the line through it and that of at most half as many. The two last ones may be a step apart,
    /// as 16 and 17 lanes are where a device computes them as 32.
    pub(super) fn at(&self, count: f64) -> f64 {
        let Curve(points) = self;
        let (last, up_to) = (points.len() - 1, |most: f64| points.partition_point(|(at, _)| *at <= most));
        let after = points.partition_point(|(at, _)| *at < count).max(1);
        let (before, after) =
            if after > last { (up_to(points[last].0 / 2.0).max(1) - 1, last) } else { (after - 1, after) };
        let ((x0, y0), (x1, y1)) = (points[before], points[after]);
        y0 + (count - x0).max(0.0) * (y1 - y0) / (x1 - x0)
    }

    fn check(&self) -> Result<()> {
        let finite = self.0.iter().all(|(x, y)| x.is_finite() && y.is_finite() && *y > 0.0);
        let rises = self.0.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
        ensure!(
            self.0.len() >= 2 && finite && rises && self.0[0].0 == 1.0,
            "a curve has two points or more, the first at 1, and never falls: {:?}",
            self.0
        );
        Ok(())
    }
}

impl Costs {
    /// `h100`, or a file like the one that is shipped.
    pub fn read(word: &str) -> Result<Costs> {
        if word == "h100" {
            return Costs::parse(H100);
        }
        let text = std::fs::read_to_string(Path::new(word))
            .with_context(|| format!("cannot read costs from {word}; `h100` is shipped"))?;
        Costs::parse(&text).with_context(|| word.to_owned())
    }

    /// A file's text.
    pub fn parse(text: &str) -> Result<Costs> {
        Costs::of(toml::from_str(text)?)
    }

    pub(super) fn of(sheet: Sheet) -> Result<Costs> {
        ensure!((1..=256).contains(&sheet.model.len()), "a table of costs has 1 to 256 models");
        for Costed { name, lanes, items, beside, turnaround, gap, .. } in &sheet.model {
            let mut curves = [lanes, items].into_iter().chain(beside).chain(turnaround).chain(gap);
            curves.try_for_each(Curve::check).with_context(|| name.clone())?;
        }
        if let Some(engine) = &sheet.engine {
            let Engine {
                way_in_ms,
                leave_ms,
                way_out_ms,
                gap_ms,
                ahead,
                lead_ms,
                ratios,
                ratios_at_ms: at,
                piece_ms,
            } = engine;
            let alone = [way_in_ms, leave_ms, way_out_ms, gap_ms, lead_ms, piece_ms];
            let mut times = alone.into_iter().chain(ratios).chain(at);
            let sound =
                times.all(|time| time.is_finite() && *time >= 0.0) && *ahead > 0 && !ratios.is_empty();
            ensure!(
                sound,
                "what lies around launches is times from zero up, at least one launch ahead and one ratio"
            );
            ensure!(
                at.is_empty() || at.len() == ratios.len() && at.is_sorted() && *piece_ms > 0.0,
                "`ratios_at_ms` has a moment for each of `ratios`, in order, and `piece_ms` beside it"
            );
        }
        Ok(Costs(Arc::new(sheet)))
    }

    /// Whether the device tells what each lane of a launch took.
    pub(super) fn tells_lanes(&self) -> bool {
        self.0.lane_times
    }

    /// What lies around launches, where that was measured.
    pub(super) fn engine(&self) -> Option<&Engine> {
        self.0.engine.as_ref()
    }

    /// What is simulated, in words.
    pub fn device(&self) -> String {
        format!("{}, {}", self.0.device, self.0.source)
    }

    /// The plan of a model of the table.
    pub fn plan(&self, name: &str) -> Result<PlanKey> {
        let Some(number) = self.0.model.iter().position(|model| model.name == name) else {
            let known: Vec<&str> = self.0.model.iter().map(|model| model.name.as_str()).collect();
            bail!("no costs of `{name}` are known; choose one of {}", known.join(", "));
        };
        let precision = self.0.model[number].precision.0;
        Ok(PlanKey { class: ClassId([number as u8; 16]), dims: [].into(), precision })
    }

    /// What of a plan's costs was not measured, in words.
    pub fn estimated(&self, plan: &PlanKey) -> Option<String> {
        let model = self.model(plan)?;
        model.estimated.as_ref().map(|estimated| format!("{}: {estimated}", model.name))
    }

    fn model(&self, plan: &PlanKey) -> Option<&Costed> {
        self.0.model.get(usize::from(plan.class.0[0]))
    }
}

impl fmt::Display for Costs {
    /// As a file that [`Costs::read`] takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sheet { device, source, lane_times, engine, model } = &*self.0;
        writeln!(
            f,
            "# What launches take: what `tessera simulate --costs` reckons with. Lanes and items are [count, ms].\n"
        )?;
        writeln!(f, "device = {device:?}\nsource = {source:?}\nlane_times = {lane_times}")?;
        if let Some(engine) = engine {
            let Engine {
                way_in_ms,
                leave_ms,
                way_out_ms,
                gap_ms,
                ahead,
                lead_ms,
                ratios,
                ratios_at_ms,
                piece_ms,
            } = engine;
            writeln!(f, "\n[engine]\nway_in_ms = {way_in_ms:.4}\nleave_ms = {leave_ms:.4}")?;
            writeln!(
                f,
                "way_out_ms = {way_out_ms:.4}\ngap_ms = {gap_ms:.4}\nahead = {ahead}\nlead_ms = {lead_ms:.4}"
            )?;
            writeln!(f, "ratios = {ratios:.3?}")?;
            if !ratios_at_ms.is_empty() {
                writeln!(f, "ratios_at_ms = {ratios_at_ms:.2?}\npiece_ms = {piece_ms:.1}")?;
            }
        }
        for Costed { name, precision, lanes, items, beside, turnaround, gap, estimated } in model {
            writeln!(f, "\n[[model]]\nname = {name:?}\nprecision = {:?}", precision.0.name())?;
            writeln!(f, "lanes = {lanes}\nitems = {items}")?;
            beside.iter().try_for_each(|beside| writeln!(f, "beside = {beside}"))?;
            turnaround.iter().try_for_each(|turnaround| writeln!(f, "turnaround = {turnaround}"))?;
            gap.iter().try_for_each(|gap| writeln!(f, "gap = {gap}"))?;
            estimated.iter().try_for_each(|estimated| writeln!(f, "estimated = {estimated:?}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points: Vec<String> = self.0.iter().map(|(count, ms)| format!("[{count:?}, {ms:.4}]")).collect();
        write!(f, "[{}]", points.join(", "))
    }
}

impl CostTable for Costs {
    /// Lanes of one item each, and what more items than lanes add to one lane.
    fn cost(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        let Costed { lanes, items, .. } = self.model(plan)?;
        let (r, n) = (f64::from(size.lanes), f64::from(size.items.max(size.lanes)));
        let ms = lanes.at(r) + items.at(n) - items.at(r);
        Some(Duration::from_secs_f64(ms / 1e3))
    }

    fn beside(&self, plan: &PlanKey, size: Size, others: u32) -> Option<Duration> {
        let alone = self.cost(plan, size)?;
        let slower =
            self.model(plan)?.beside.as_ref().map_or(1.0, |beside| beside.at(f64::from(others) + 1.0));
        Some(alone.mul_f64(slower))
    }

    fn hand_over(&self, plan: &PlanKey, size: Size) -> Duration {
        let turnaround = self.model(plan).and_then(|model| model.turnaround.as_ref());
        let leave = self.engine().map_or(0.0, |engine| engine.leave_ms);
        let enter = turnaround.map_or(0.0, |turnaround| turnaround.at(f64::from(size.items)) - leave);
        Duration::from_secs_f64(enter.max(0.0) / 1e3)
    }

    fn gap(&self, plan: &PlanKey, size: Size) -> Option<Duration> {
        let gap = self.model(plan)?.gap.as_ref()?;
        Some(Duration::from_secs_f64(gap.at(f64::from(size.items)) / 1e3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(costs: &Costs, plan: &PlanKey, lanes: u32, items: u32) -> u128 {
        costs.cost(plan, Size { lanes, items }).unwrap().as_nanos().div_ceil(100) / 10
    }

    #[test]
    fn what_was_measured_is_a_curve_that_never_falls_from_one_on() {
        let curve = |points: &[(f64, f64)]| Curve::rising(points.to_vec()).unwrap().0;
        assert_eq!(curve(&[(1.0, 2.0), (2.0, 1.0), (3.0, 4.0)]), [(1.0, 2.0), (2.0, 2.0), (3.0, 4.0)]);
        assert_eq!(curve(&[(1.0, 2.0)]), [(1.0, 2.0), (2.0, 2.0)]);
        assert_eq!(curve(&[(2.0, 3.0)]), [(1.0, 3.0), (2.0, 3.0)], "launches of one were too few");
        assert!(Curve::rising(Vec::new()).is_err());
    }

    #[test]
    fn what_is_shipped_gives_back_what_was_measured_and_lines_between() {
        let costs = Costs::read("h100").unwrap();
        let plan = costs.plan("resnet-50").unwrap();
        assert_eq!(us(&costs, &plan, 1, 1), 347);
        assert_eq!(us(&costs, &plan, 8, 8), 570);
        assert_eq!(us(&costs, &plan, 32, 32), 1306);
        assert_eq!(us(&costs, &plan, 1, 32), 1240);
        let between = us(&costs, &plan, 20, 20);
        assert!((938..=939).contains(&between), "{between} is midway between 8 and 32 lanes");
        assert!(costs.estimated(&plan).unwrap().contains("slope"));
        // Little's law the other way round: 13.3 at once answer as many as were measured.
        let side_by_side = costs.beside(&plan, Size { lanes: 1, items: 1 }, 12).unwrap();
        assert!((13.0 / side_by_side.as_secs_f64() / 10_241.0 - 1.0).abs() < 0.02, "{side_by_side:?}");
    }

    #[test]
    fn beyond_the_last_point_a_step_before_it_does_not_go_on() {
        let curve = Curve(vec![(1.0, 1.0), (8.0, 8.0), (16.0, 16.0), (17.0, 26.0)]);
        assert_eq!(
            [curve.at(16.5), curve.at(17.0), curve.at(26.0)],
            [21.0, 26.0, 44.0],
            "2 ms each from 8 on"
        );
        assert_eq!(Curve(vec![(1.0, 1.0), (2.0, 3.0)]).at(4.0), 7.0);
    }

    #[test]
    fn costs_never_fall_as_launches_grow() {
        let costs = Costs::read("h100").unwrap();
        for name in ["resnet-50", "resnet-18", "mobilenet-v2", "bert-base"] {
            let plan = costs.plan(name).unwrap();
            for lanes in 1..64 {
                for items in lanes..64 {
                    let here = costs.cost(&plan, Size { lanes, items });
                    assert!(
                        here <= costs.cost(&plan, Size { lanes, items: items + 1 }),
                        "{name} {lanes} {items}"
                    );
                    assert!(
                        here <= costs.cost(&plan, Size { lanes: lanes + 1, items: items + 1 }),
                        "{name} {lanes} {items}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_table_that_was_written_is_read_as_it_was() {
        let engine = "[engine]\nway_in_ms = 0.1\nleave_ms = 0.2\nway_out_ms = 0.3\ngap_ms = 0.4\nahead = 2\nlead_ms = 0.5\nratios = [0.9, 1.1]\n";
        let model = "[[model]]\nname = 'm'\nprecision = 'fp32'\nlanes = [[1, 0.5], [2, 0.75]]\nitems = [[1, 0.5], [4, 1.5]]\nturnaround = [[1, 0.3], [3, 0.5]]\ngap = [[1, 0.1], [3, 0.2]]\n";
        let text = format!("device = 'd'\nsource = 's'\n{engine}{model}");
        let written = Costs::parse(&text).unwrap().to_string();
        let read = Costs::parse(&written).unwrap();
        assert_eq!(read.to_string(), written);
        assert_eq!(us(&read, &read.plan("m").unwrap(), 2, 2), 750);
        let hand_over = read.hand_over(&read.plan("m").unwrap(), Size { lanes: 1, items: 2 });
        assert!(hand_over.abs_diff(Duration::from_micros(200)) < Duration::from_nanos(10), "0.4 less 0.2 ms");
        let gap = read.gap(&read.plan("m").unwrap(), Size { lanes: 2, items: 2 }).unwrap();
        assert!(
            gap.abs_diff(Duration::from_micros(150)) < Duration::from_nanos(10),
            "midway, and not the engine's 0.4 ms"
        );
        assert_eq!(read.engine().map(|engine| (engine.ahead, engine.ratios.len())), Some((2, 2)));
        let bad = Costs::parse(&text.replace("ahead = 2", "ahead = 0")).unwrap_err().to_string();
        assert!(bad.contains("at least one launch ahead"), "{bad}");
    }

    #[test]
    fn ratios_are_taken_by_time_where_it_is_known_and_one_by_one_where_not() {
        let engine = "[engine]\nway_in_ms = 0.1\nleave_ms = 0.2\nway_out_ms = 0.3\ngap_ms = 0.4\nahead = 2\nlead_ms = 0.5\nratios = [0.9, 1.1]\n";
        let model = "[[model]]\nname = 'm'\nprecision = 'fp32'\nlanes = [[1, 0.5], [2, 0.75]]\nitems = [[1, 0.5], [4, 1.5]]\n";
        let table = |more: &str| Costs::parse(&format!("device = 'd'\nsource = 's'\n{engine}{more}{model}"));
        let slowness = |costs: &Costs| costs.engine().map(Engine::slowness);
        assert_eq!(slowness(&table("").unwrap()), Some(Slowness::Drawn(vec![0.9, 1.1])));
        let timed = table("ratios_at_ms = [0.0, 1.5]\npiece_ms = 50.0\n").unwrap();
        let ran = [(Moment::START, 0.9), (Moment::at(Duration::from_micros(1500)), 1.1)].into();
        let pieces = Some(Slowness::Pieces { ran, length: Duration::from_millis(50) });
        assert_eq!(slowness(&timed), pieces);
        assert_eq!(slowness(&Costs::parse(&timed.to_string()).unwrap()), pieces, "also as written and read");
        for wrong in [
            "ratios_at_ms = [0.0]\npiece_ms = 50.0\n",
            "ratios_at_ms = [2.0, 1.0]\npiece_ms = 50.0\n",
            "ratios_at_ms = [0.0, 1.0]\n",
        ] {
            let bad = table(wrong).unwrap_err().to_string();
            assert!(bad.contains("a moment for each"), "{wrong}: {bad}");
        }
    }

    #[test]
    fn a_table_that_cannot_be_is_refused_with_what_is_wrong() {
        let table = |lanes: &str| {
            let head = "device = 'd'\nsource = 's'\n[[model]]\nname = 'm'\nprecision = 'bf16'\nitems = [[1, 1], [2, 2]]\n";
            format!("{:#}", Costs::parse(&format!("{head}lanes = {lanes}")).unwrap_err())
        };
        for lanes in ["[[1, 1.0]]", "[[1, 2.0], [2, 1.0]]", "[[2, 1.0], [3, 2.0]]"] {
            assert!(table(lanes).contains("never falls"), "{lanes}: {}", table(lanes));
        }
        let unknown = Costs::read("h100").unwrap().plan("gpt").unwrap_err().to_string();
        assert!(unknown.contains("choose one of resnet-50"), "{unknown}");
    }
}
