//! Table 1: what merging the same product of R tenants gains.
//!
//! **The claim** (paper, §4.1; V100, fp32). A merged product of R tenants has more throughput than the next best of
//! time-only and space-only scheduling: by geometric mean over 2 ≤ R ≤ 120 2.48 times for an RNN's matrix-vector
//! product, 3.23 times for a convolution of ResNet-18, 4.93 times for a square matrix. Their merged product is
//! cuBLAS's batched one; ours is the step that plans use.
//!
//! **The expected shape.** The gain grows with R until the merged product fills the card, and is then as large as the
//! waste of launching small kernels. It is larger where single products are smaller against the card, so larger in
//! bf16 than in fp32. Ours is never slower than cuBLAS's.
//!
//! **What would refute it.** A gain of about 1 for R ≥ 10; a next best scheduler that comes within the rounds' spread
//! of the super-kernel; cuBLAS batched below ours by more than the spread in any cell, which would mean that our
//! kernel and not the idea is at fault.

use super::products::{FamilyRow, Options, Paper, Row, SHAPES, Sheet, run as measure};
use crate::spread::{Spread, geomean};
use anyhow::Result;
use serde::Serialize;
use std::fmt;
use std::ops::RangeInclusive;
use tessera_device::sgemm::Family;

/// The numbers of tenants that the paper's mean is over.
const RANGE: RangeInclusive<usize> = 2..=120;

/// The table.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `table1`.
    pub bench: &'static str,
    /// By shape and precision.
    pub gains: Vec<Gain>,
    /// All that was measured.
    pub sheet: Sheet,
}

/// One column of Table 1.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Gain {
    /// Which product.
    pub shape: &'static str,
    /// How elements were held and multiplied.
    pub precision: &'static str,
    /// Next best scheduler's time over the super-kernel's, with 10 tenants.
    pub at_10: Option<f64>,
    /// With 20.
    pub at_20: Option<f64>,
    /// The geometric mean over the measured numbers of tenants from 2 to 120.
    pub geomean: Option<f64>,
    /// Which scheduler was next best in most of them.
    pub next_best: Option<&'static str>,
    /// The same mean for the paper's merged product, cuBLAS batched.
    pub cublas_geomean: Option<f64>,
    /// The mean of cuBLAS batched's time over the super-kernel's.
    pub over_cublas_geomean: Option<f64>,
    /// The paper's column.
    pub paper: Paper,
}

impl Gain {
    /// Of the rows of one shape and precision; `None` of nothing.
    fn of(rows: &[Row]) -> Option<Gain> {
        let first = rows.first()?;
        let paper = SHAPES.into_iter().find(|shape| shape.name == first.shape)?.paper;
        let within: Vec<&Row> = rows.iter().filter(|row| RANGE.contains(&row.tenants)).collect();
        let gain = |row: &Row| row.next_best()?.over_super_kernel.as_ref().map(|over| over.median);
        let at = |tenants| rows.iter().find(|row| row.tenants == tenants).and_then(gain);
        let mean = |ratio: &dyn Fn(&Row) -> Option<f64>| {
            let ratios: Vec<f64> = within.iter().filter_map(|row| ratio(row)).collect();
            geomean(&ratios)
        };
        let cublas = |row: &Row| {
            let batched = row.family(Family::CublasBatched)?;
            row.next_best()?.us.over(&batched.us).map(|over| over.median)
        };
        let over_cublas = |row: &Row| {
            let over = row.family(Family::CublasBatched)?.over_super_kernel.as_ref()?;
            Some(over.median)
        };
        let best: Vec<&'static str> =
            within.iter().filter_map(|row| row.next_best()).map(|best| best.family).collect();
        let wins = |family: Family| best.iter().filter(|name| **name == family.name()).count();
        let winner = if wins(Family::TimeOnly) > wins(Family::SpaceOnly) {
            Family::TimeOnly
        } else {
            Family::SpaceOnly
        };
        Some(Gain {
            shape: first.shape,
            precision: first.precision,
            at_10: at(10),
            at_20: at(20),
            geomean: mean(&gain),
            next_best: (!best.is_empty()).then(|| winner.name()),
            cublas_geomean: mean(&cublas),
            over_cublas_geomean: mean(&over_cublas),
            paper,
        })
    }
}

impl Report {
    /// The table of what was measured.
    pub fn new(sheet: Sheet) -> Report {
        Report { bench: "table1", gains: sheet.groups().filter_map(Gain::of).collect(), sheet }
    }
}

/// Measures the table. `progress` hears a line per cell.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    measure(options, progress).map(Report::new)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Table 1: the same matrix product of R tenants, on {}", self.sheet.place())?;
        for rows in self.sheet.groups() {
            write_group(f, rows)?;
        }
        writeln!(f, "\nThroughput over the next best scheduler; in brackets the paper's (V100, fp32)")?;
        writeln!(
            f,
            "{:<10} {:<9} {:>14} {:>14} {:>14}  {:<24} {:>15} {:>18}",
            "shape", "precision", "R=10", "R=20", "geomean", "next best", "cuBLAS's mean", "ours over cuBLAS"
        )?;
        for gain in &self.gains {
            let Gain { paper, .. } = gain;
            let beside = |ours, theirs: f64| format!("{} ({theirs:.2}x)", times(ours));
            writeln!(
                f,
                "{:<10} {:<9} {:>14} {:>14} {:>14}  {:<24} {:>15} {:>18}",
                gain.shape,
                gain.precision,
                beside(gain.at_10, paper.at_10),
                beside(gain.at_20, paper.at_20),
                beside(gain.geomean, paper.geomean),
                format!("{} ({})", gain.next_best.unwrap_or("–"), paper.next_best),
                times(gain.cublas_geomean),
                times(gain.over_cublas_geomean),
            )?;
        }
        self.sheet.write_end(f)
    }
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}x"))
}

/// One shape in one precision.
fn write_group(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let Some(Row { shape, m, n, k, precision, .. }) = rows.first() else { return Ok(()) };
    writeln!(f, "\n{shape} (M={m} N={n} K={k}) {precision}, µs for all: median (least–most)")?;
    writeln!(
        f,
        "{:>4} {:>24} {:>24} {:>24} {:>24} {:>8} {:>6} {:>18} {:>18}",
        "R",
        "time-only",
        "space-only",
        "cuBLAS batched",
        "super-kernel",
        "TFLOP/s",
        "floor",
        "next best/ours",
        "cuBLAS/ours"
    )?;
    for row in rows {
        let us = |family| row.family(family).map_or("–".to_owned(), |row| row.us.to_string());
        let ours = row.family(Family::SuperKernel);
        let over = |row: Option<&FamilyRow>| {
            let over: Option<&Spread> = row.and_then(|row| row.over_super_kernel.as_ref());
            over.map_or("–".to_owned(), |over| format!("{over:.2}"))
        };
        let of_floor = ours.and_then(|ours| ours.of_floor);
        writeln!(
            f,
            "{:>4} {:>24} {:>24} {:>24} {:>24} {:>8} {:>6} {:>18} {:>18}",
            row.tenants,
            us(Family::TimeOnly),
            us(Family::SpaceOnly),
            us(Family::CublasBatched),
            us(Family::SuperKernel),
            ours.map_or("–".to_owned(), |ours| format!("{:.2}", ours.teraflops)),
            of_floor.map_or("–".to_owned(), |share| format!("{:.0} %", share * 100.0)),
            over(row.next_best()),
            over(row.family(Family::CublasBatched)),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::products::tests::row;
    use super::*;

    fn report() -> Report {
        // Gains over the next best 2 (time), 2, 8 (space); cuBLAS over ours 1, 2, 2.
        let rows = vec![
            row(1, 50.0, 0.0, 9.0),
            row(2, 4.0, 5.0, 2.0),
            row(10, 8.0, 4.0, 4.0),
            row(120, 99.0, 16.0, 4.0),
        ];
        let sheet =
            Sheet { card: "a card".into(), versions: "some".into(), tessera: "0", timed: "a run", rows };
        Report::new(sheet)
    }

    #[test]
    fn the_mean_is_over_2_to_120_tenants() {
        let report = report();
        let [gain] = report.gains.as_slice() else { panic!("one shape, one precision") };
        let near = |got: Option<f64>, want: f64| assert!((got.unwrap() - want).abs() < 1e-9, "{got:?}");
        near(gain.geomean, 32f64.cbrt());
        near(gain.over_cublas_geomean, 4f64.cbrt());
        near(gain.cublas_geomean, 8f64.cbrt());
        near(gain.at_10, 2.0);
        assert_eq!(gain.at_20, None, "not measured");
        assert_eq!(gain.next_best, Some("space-only"));
    }

    #[test]
    fn the_table_stands_beside_the_papers() {
        let text = report().to_string();
        let last = text.lines().find(|line| line.starts_with("rnn_gemv   fp32")).unwrap();
        for part in ["2.00x (1.21x)", "– (2.14x)", "3.17x (2.48x)", "space-only (time-only)"] {
            assert!(last.contains(part), "{part} in {last}");
        }
        assert!(text.contains(" 10 "), "{text}");
    }
}
