//! What launches take, from a file: measured points, and lines between them.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::{ClassId, PlanKey, Precision};
use tessera_scheduler::{CostTable, Size};

/// Measured on an H100, and shipped with the project.
const H100: &str = include_str!("../../costs/h100-2026-11-25.toml");

/// A device's costs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Costs(Arc<Sheet>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sheet {
    device: String,
    source: String,
    model: Vec<Costed>,
}

/// One model: curves of `[count, ms]`, or times as long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Costed {
    name: String,
    precision: Named,
    lanes: Curve,
    items: Curve,
    beside: Option<Curve>,
    estimated: Option<String>,
}

/// A precision by its name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Named(Precision);

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(word: String) -> Result<Named, String> {
        word.parse().map(Named)
    }
}

/// Points, in order of their first number.
#[derive(Debug, Deserialize)]
struct Curve(Vec<(f64, f64)>);

impl Curve {
    /// On the line between the points around it; beyond the last, on the line through the last two.
    fn at(&self, count: f64) -> f64 {
        let after = self.0.partition_point(|(at, _)| *at < count).clamp(1, self.0.len() - 1);
        let ((x0, y0), (x1, y1)) = (self.0[after - 1], self.0[after]);
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
        let sheet: Sheet = toml::from_str(text)?;
        ensure!((1..=256).contains(&sheet.model.len()), "a table of costs has 1 to 256 models");
        for Costed { name, lanes, items, beside, .. } in &sheet.model {
            let mut curves = [lanes, items].into_iter().chain(beside);
            curves.try_for_each(Curve::check).with_context(|| name.clone())?;
        }
        Ok(Costs(Arc::new(sheet)))
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(costs: &Costs, plan: &PlanKey, lanes: u32, items: u32) -> u128 {
        costs.cost(plan, Size { lanes, items }).unwrap().as_nanos().div_ceil(100) / 10
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
