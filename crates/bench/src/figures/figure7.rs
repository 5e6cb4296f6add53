//! Figure 7: throughput of the merged product against the number of tenants.
//!
//! **The claim** (paper, §4.1; V100, fp32). With a convolution of ResNet-18 as M=256, N=128, K=1152, throughput by
//! merging grows with the number of tenants up to what the card can do; side by side on streams it grows less and
//! stays far below; one after the other it does not grow at all.
//!
//! **The expected shape.** Time-only: flat, what one small product leaves of the card. Space-only: rises, then bends
//! at the number of kernels that run at once, or at the rate of launching. The super-kernel: rises along the floor
//! until its blocks fill the card, then stays near it, with a step back where the last wave of blocks is nearly
//! empty.
//!
//! **What would refute it.** Space-only reaching the super-kernel at any number of tenants beyond a few; a
//! super-kernel that stays below 70 % of the floor with 32 tenants and more.

use super::products::{Options, Row, Sheet, run as measure};
use anyhow::Result;
use serde::Serialize;
use std::fmt;
use tessera_device::sgemm::Family;

/// The figure's product.
pub const SHAPE: &str = "conv2_2";

/// Columns of a full bar.
const BAR: f64 = 40.0;

/// The figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// `figure7`.
    pub bench: &'static str,
    /// By shape and precision.
    pub curves: Vec<Curves>,
    /// All that was measured.
    pub sheet: Sheet,
}

/// Throughput of one product in one precision, in TFLOP/s.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Curves {
    /// Which product.
    pub shape: &'static str,
    /// How elements were held and multiplied.
    pub precision: &'static str,
    /// By number of tenants.
    pub points: Vec<Point>,
}

/// One number of tenants; `null` for what was not measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// R.
    pub tenants: usize,
    /// One product after another.
    pub time_only: Option<f64>,
    /// Side by side on streams.
    pub space_only: Option<f64>,
    /// cuBLAS, in one call.
    pub cublas_batched: Option<f64>,
    /// The step of a plan.
    pub super_kernel: Option<f64>,
    /// The most that the card's limits allow.
    pub most: Option<f64>,
}

impl Point {
    fn of(row: &Row) -> Point {
        let teraflops = |family| row.family(family).map(|row| row.teraflops);
        let flops = 2.0 * (row.m * row.n * row.k * row.tenants) as f64;
        Point {
            tenants: row.tenants,
            time_only: teraflops(Family::TimeOnly),
            space_only: teraflops(Family::SpaceOnly),
            cublas_batched: teraflops(Family::CublasBatched),
            super_kernel: teraflops(Family::SuperKernel),
            most: row.floor_us.map(|floor| flops / floor / 1e6),
        }
    }
}

impl Report {
    /// The figure of what was measured.
    pub fn new(sheet: Sheet) -> Report {
        let curves = sheet.groups().filter_map(|rows| {
            let Row { shape, precision, .. } = rows.first()?;
            Some(Curves { shape, precision, points: rows.iter().map(Point::of).collect() })
        });
        Report { bench: "figure7", curves: curves.collect(), sheet }
    }
}

/// Measures the figure. `progress` hears a line per cell.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    measure(options, progress).map(Report::new)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Figure 7: throughput by number of tenants, on {}", self.sheet.place())?;
        for Curves { shape, precision, points } in &self.curves {
            writeln!(f, "\n{shape} {precision}, TFLOP/s; the bar is the super-kernel's share of the floor")?;
            writeln!(
                f,
                "{:>4} {:>10} {:>10} {:>14} {:>12} {:>8}",
                "R", "time-only", "space-only", "cuBLAS batched", "super-kernel", "floor"
            )?;
            for point in points {
                let number = |teraflops: Option<f64>| {
                    teraflops.map_or("–".to_owned(), |number| format!("{number:.2}"))
                };
                writeln!(
                    f,
                    "{:>4} {:>10} {:>10} {:>14} {:>12} {:>8} {}",
                    point.tenants,
                    number(point.time_only),
                    number(point.space_only),
                    number(point.cublas_batched),
                    number(point.super_kernel),
                    number(point.most),
                    bar(point),
                )?;
            }
        }
        self.sheet.write_end(f)
    }
}

/// The super-kernel's share of the floor, drawn.
fn bar(point: &Point) -> String {
    let Some((ours, most)) = point.super_kernel.zip(point.most) else { return String::new() };
    let share = (ours / most).clamp(0.0, 1.0);
    format!(
        "|{:<width$}| {:.0} %",
        "█".repeat((share * BAR).round() as usize),
        share * 100.0,
        width = BAR as usize
    )
}

#[cfg(test)]
mod tests {
    use super::super::products::tests::row;
    use super::super::products::{SHAPES, shape};
    use super::*;

    fn report() -> Report {
        let rows = vec![row(1, 50.0, 0.0, 9.0), row(10, 8.0, 4.0, 4.0)];
        let sheet =
            Sheet { card: "a card".into(), versions: "some".into(), tessera: "0", timed: "a run", rows };
        Report::new(sheet)
    }

    #[test]
    fn a_curve_has_a_point_per_number_of_tenants() {
        let report = report();
        let [curves] = report.curves.as_slice() else { panic!("one shape, one precision") };
        let tenants: Vec<usize> = curves.points.iter().map(|point| point.tenants).collect();
        assert_eq!(tenants, [1, 10]);
        assert_eq!(curves.points[0].space_only, None, "one tenant has nobody beside it");
        let point = &curves.points[1];
        let flops = SHAPES[0].sizes.flops() * 10.0;
        assert!((point.super_kernel.unwrap() - flops / 2.0 / 1e6).abs() < 1e-9);
        assert!(point.most.unwrap() > 0.0);
    }

    #[test]
    fn the_figure_is_drawn_and_its_product_is_one_of_the_papers() {
        assert!(shape(SHAPE).is_ok());
        let text = report().to_string();
        assert!(text.contains('█') && text.contains(" %"), "{text}");
    }
}
