//! The paper's three matrix products on a card, by every way there is.
//!
//! ```text
//!   shapes × precisions × tenants ─▶ cells ─card─▶ times of every way ─▶ rows: the best of each family
//! ```
//! All ways of a cell are measured in alternating rounds, so ratios are taken round by round. Each family is
//! represented by its fastest way: time-only and space-only use our kernel or cuBLAS, graphs or stream launches, and
//! any number of streams, whatever is best for them.

use super::card::{self, About};
use crate::spread::Spread;
use crate::tenants::Peak;
use anyhow::{Result, bail};
use serde::Serialize;
use std::fmt;
use std::time::Duration;
use tessera_core::{DType, Precision};
use tessera_device::sgemm::{Cell, Family, Measured, Sizes, Timed};

/// One of the paper's products.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    /// Its name here.
    pub name: &'static str,
    /// Its sizes.
    pub sizes: Sizes,
    /// What the paper's Table 1 says of it.
    pub paper: Paper,
}

/// A column of the paper's Table 1 (V100, fp32): throughput over the next best scheduler.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Paper {
    /// With 10 tenants.
    pub at_10: f64,
    /// With 20 tenants.
    pub at_20: f64,
    /// Over 2 to 120 tenants.
    pub geomean: f64,
    /// Which scheduler was next best.
    pub next_best: &'static str,
}

/// The paper's shapes.
pub const SHAPES: [Shape; 3] = [
    Shape {
        name: "rnn_gemv",
        sizes: Sizes { m: 512, n: 1, k: 512 },
        paper: Paper { at_10: 1.21, at_20: 2.14, geomean: 2.48, next_best: "time-only" },
    },
    Shape {
        name: "conv2_2",
        sizes: Sizes { m: 256, n: 128, k: 1152 },
        paper: Paper { at_10: 1.68, at_20: 2.88, geomean: 3.23, next_best: "space-only" },
    },
    Shape {
        name: "square256",
        sizes: Sizes { m: 256, n: 256, k: 256 },
        paper: Paper { at_10: 2.42, at_20: 2.47, geomean: 4.93, next_best: "space-only" },
    },
];

/// Numbers of tenants that are measured unless told otherwise: the paper's range.
pub const TENANTS: [usize; 11] = [1, 2, 4, 8, 10, 16, 20, 32, 64, 96, 120];

/// The most tenants: what fits a card's memory with room to rotate.
pub const MOST_TENANTS: usize = 1024;

/// Precisions that are measured unless told otherwise.
pub const PRECISIONS: [Precision; 3] = [Precision::Fp32, Precision::Tf32, Precision::Bf16];

/// What to measure.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// Which products.
    pub shapes: Vec<Shape>,
    /// How elements are held and multiplied.
    pub precisions: Vec<Precision>,
    /// Numbers of tenants, each from 1 to [`MOST_TENANTS`].
    pub tenants: Vec<usize>,
    /// Rounds of each cell, at least one.
    pub rounds: usize,
    /// Which card.
    pub ordinal: usize,
    /// How long kernels of one cell may be timed for beforehand; without it they are chosen by rule.
    pub tune: Option<Duration>,
}

/// A shape by its name. The error lists all.
pub fn shape(name: &str) -> Result<Shape> {
    match SHAPES.into_iter().find(|shape| shape.name == name) {
        Some(shape) => Ok(shape),
        None => bail!("`{name}` is not a shape; choose {}", SHAPES.map(|shape| shape.name).join(", ")),
    }
}

/// Everything that was measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sheet {
    /// As the vendor calls it.
    pub card: String,
    /// Of the driver and of cuBLAS.
    pub versions: String,
    /// The version of Tessera.
    pub tessera: &'static str,
    /// What a time is.
    pub timed: &'static str,
    /// One per cell: shapes, in them precisions, in them tenants.
    pub rows: Vec<Row>,
}

/// What is timed, in words.
const TIMED: &str = "microseconds for one product of every tenant: a run of 1 ms or more between two events of the card, over the times it \
                     computes all products; runs are captured graphs, or stream launches where a family is faster with them, and walk through \
                     copies of all matrices that take 192 MiB or more together";

/// One cell.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Which product.
    pub shape: &'static str,
    /// Outputs of a row.
    pub m: usize,
    /// Rows.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// How elements were held and multiplied.
    pub precision: &'static str,
    /// R.
    pub tenants: usize,
    /// Copies of all matrices that runs walked through.
    pub sets: usize,
    /// The least time for all products; `null` for a card whose limits are not known.
    pub floor_us: Option<f64>,
    /// The best of each family that has one.
    pub families: Vec<FamilyRow>,
    /// Every way.
    pub ways: Vec<WayRow>,
    /// Ways that were wrong or failed.
    pub faults: Vec<String>,
    /// Whether the super-kernel's results have the bits of the same kernel run for each tenant alone.
    pub same_bits: Option<bool>,
}

/// The best way of a family.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FamilyRow {
    /// Which family.
    pub family: &'static str,
    /// Its best way.
    pub way: String,
    /// For all products.
    pub us: Spread,
    /// Of all products, at the median.
    pub teraflops: f64,
    /// Floor over median.
    pub of_floor: Option<f64>,
    /// This family's time over the super-kernel's.
    pub over_super_kernel: Option<Spread>,
}

/// One way.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WayRow {
    /// Its family.
    pub family: &'static str,
    /// Which.
    pub way: String,
    /// A first look.
    pub first_us: f64,
    /// Each round's; empty when the first look showed that others of the family are faster.
    pub rounds_us: Vec<f64>,
}

impl Row {
    /// What a card measured of one cell.
    pub fn new(shape: &Shape, measured: Measured, peak: Option<Peak>) -> Row {
        let Measured { cell, sets, ways, faults, same_bits } = measured;
        let Cell { sizes, precision, tenants } = cell;
        let floor_us = peak.map(|peak| floor_us(peak, &cell));
        let best = |family: Family| -> Option<(&Timed, Spread)> {
            let of_family = ways.iter().filter(|timed| timed.way.family == family);
            let spreads = of_family.filter_map(|timed| Some((timed, Spread::of(timed.rounds_us.clone())?)));
            spreads.min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))
        };
        let ours = best(Family::SuperKernel).map(|(_, us)| us);
        let family = |family: Family| -> Option<FamilyRow> {
            let (timed, us) = best(family)?;
            Some(FamilyRow {
                family: family.name(),
                way: timed.way.to_string(),
                teraflops: sizes.flops() * tenants as f64 / us.median / 1e6,
                of_floor: floor_us.map(|floor| floor / us.median),
                over_super_kernel: ours.as_ref().and_then(|ours| us.over(ours)),
                us,
            })
        };
        let families = Family::ALL.into_iter().filter_map(family).collect();
        let way = |timed: &Timed| WayRow {
            family: timed.way.family.name(),
            way: timed.way.to_string(),
            first_us: timed.first_us,
            rounds_us: timed.rounds_us.clone(),
        };
        Row {
            shape: shape.name,
            m: sizes.m,
            n: sizes.n,
            k: sizes.k,
            precision: precision.name(),
            tenants,
            sets,
            floor_us,
            families,
            ways: ways.iter().map(way).collect(),
            faults,
            same_bits,
        }
    }

    /// The best of a family.
    pub fn family(&self, family: Family) -> Option<&FamilyRow> {
        self.families.iter().find(|row| row.family == family.name())
    }

    /// The faster of time-only and space-only.
    pub fn next_best(&self) -> Option<&FamilyRow> {
        let schedulers =
            [Family::TimeOnly, Family::SpaceOnly].into_iter().filter_map(|which| self.family(which));
        schedulers.min_by(|a, b| a.us.median.total_cmp(&b.us.median))
    }

    /// What is wrong with it, for people.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        let place = format!("{} {} R={}", self.shape, self.precision, self.tenants);
        let bits = (self.same_bits == Some(false))
            .then(|| "a tenant's result has other bits alone than among others".to_owned());
        self.faults.iter().cloned().chain(bits).map(move |fault| format!("{place}: {fault}"))
    }
}

impl Sheet {
    /// Rows of one shape and precision, by tenants.
    pub fn groups(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|a, b| (a.shape, a.precision) == (b.shape, b.precision))
    }

    /// What is wrong, for people: ways that failed or were wrong.
    pub fn complaints(&self) -> Vec<String> {
        self.rows.iter().flat_map(Row::complaints).collect()
    }

    /// What measured.
    pub(super) fn place(&self) -> String {
        format!("{}, {}, Tessera {}", self.card, self.versions, self.tessera)
    }

    /// What goes below a table.
    pub(super) fn write_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nTimed: {}.", self.timed)?;
        self.complaints().iter().try_for_each(|complaint| writeln!(f, "FAULT {complaint}"))
    }
}

/// Measures everything. `progress` hears a line per cell. Errors when there is no card, or no kernel for the product.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Sheet> {
    let mut cells = Vec::new();
    for shape in &options.shapes {
        for &precision in &options.precisions {
            let cell = |&tenants: &usize| (shape, Cell { sizes: shape.sizes, precision, tenants });
            cells.extend(options.tenants.iter().map(cell));
        }
    }
    let asked: Vec<Cell> = cells.iter().map(|(_, cell)| *cell).collect();
    let mut rows: Vec<Row> = Vec::with_capacity(cells.len());
    let About { card, versions } =
        card::measure((options.ordinal, options.tune), &asked, options.rounds, &mut |about, measured| {
            let (shape, _) = cells[rows.len()];
            let peak = Peak::of(&about.card, measured.cell.precision);
            let row = Row::new(shape, measured, peak);
            progress(&line(&row));
            rows.push(row);
        })?;
    Ok(Sheet { card, versions, tessera: env!("CARGO_PKG_VERSION"), timed: TIMED, rows })
}

/// The least time for a cell: its operations at the card's rate, or every matrix read or written once.
fn floor_us(peak: Peak, cell: &Cell) -> f64 {
    let Cell { sizes, precision, tenants } = cell;
    let bytes = (sizes.elements() * precision.stored(DType::F32).size() * tenants) as f64;
    let flops = sizes.flops() * *tenants as f64;
    (flops / (peak.tflops * 1e6)).max(bytes / (peak.gbytes_per_s * 1e3))
}

/// A cell in a line.
fn line(row: &Row) -> String {
    let times = row.families.iter().map(|family| format!("{} {:.1} µs", family.family, family.us.median));
    let times: Vec<String> = times.chain(row.complaints().map(|fault| format!("FAULT {fault}"))).collect();
    format!("{} {} R={}: {}", row.shape, row.precision, row.tenants, times.join(", "))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tessera_device::sgemm::{Kernel, Way};

    /// A cell in which every family took the given times; the super-kernel always 2 µs.
    pub(in crate::figures) fn row(tenants: usize, time: f64, space: f64, batched: f64) -> Row {
        let way =
            |family, streams| Way { family, kernel: Kernel::Gemm, transposed: false, streams, graph: true };
        let timed = |way, us: f64| Timed { way, first_us: us, rounds_us: vec![us, us * 1.5, us] };
        let mut ways = vec![
            timed(way(Family::TimeOnly, 1), time),
            timed(way(Family::CublasBatched, 1), batched),
            timed(way(Family::SuperKernel, 1), 2.0),
            Timed { rounds_us: vec![], ..timed(way(Family::TimeOnly, 3), 0.1) },
        ];
        if tenants > 1 {
            ways.extend([
                timed(way(Family::SpaceOnly, 2), space + 1.0),
                timed(way(Family::SpaceOnly, 4), space),
            ]);
        }
        let cell = Cell { sizes: SHAPES[0].sizes, precision: Precision::Fp32, tenants };
        let measured = Measured { cell, sets: 3, ways, faults: vec![], same_bits: Some(true) };
        Row::new(&SHAPES[0], measured, Peak::of("NVIDIA H200", Precision::Fp32))
    }

    #[test]
    fn a_matrix_and_a_vector_wait_for_memory_and_large_matrices_for_arithmetic() {
        let floor = |shape: usize, precision, tenants| {
            let peak = Peak::of("NVIDIA H200", precision).unwrap();
            floor_us(peak, &Cell { sizes: SHAPES[shape].sizes, precision, tenants })
        };
        // 4·(512·512 + 512 + 512) bytes at 4.3 TB/s, 120 times.
        assert!((floor(0, Precision::Fp32, 120) - 4.0 * 263_168.0 * 120.0 / 4.3e6).abs() < 1e-9);
        assert!((floor(2, Precision::Fp32, 1) - 2.0 * 256f64.powi(3) / 67e6).abs() < 1e-9);
        assert!((floor(2, Precision::Bf16, 1) - 2.0 * 3.0 * 65_536.0 / 4.3e6).abs() < 1e-9);
    }

    #[test]
    fn a_family_is_its_fastest_measured_way() {
        let row = row(10, 8.0, 6.0, 3.0);
        let space = row.family(Family::SpaceOnly).unwrap();
        assert_eq!((space.us.median, space.way.as_str()), (6.0, "cuBLAS gemm, 4 streams, graph"));
        assert_eq!(
            row.family(Family::TimeOnly).unwrap().us.median,
            8.0,
            "what was only looked at does not count"
        );
        assert_eq!(row.next_best().unwrap().family, "space-only");
        let over = row.family(Family::CublasBatched).unwrap().over_super_kernel.clone().unwrap();
        assert_eq!((over.median, over.min, over.max), (1.5, 1.5, 1.5), "taken round by round");
    }

    #[test]
    fn one_tenant_has_time_only_as_its_next_best() {
        assert_eq!(row(1, 8.0, 0.0, 3.0).next_best().unwrap().family, "time-only");
    }

    #[test]
    fn throughput_and_share_of_floor_come_from_the_median() {
        let row = row(10, 8.0, 6.0, 3.0);
        let ours = row.family(Family::SuperKernel).unwrap();
        assert!((ours.teraflops - 10.0 * 2.0 * 512.0 * 512.0 / 2.0 / 1e6).abs() < 1e-9);
        assert!((ours.of_floor.unwrap() - row.floor_us.unwrap() / 2.0).abs() < 1e-12);
    }

    #[test]
    fn other_bits_and_wrong_ways_are_complained_about() {
        let mut row = row(10, 8.0, 6.0, 3.0);
        assert_eq!(row.complaints().count(), 0);
        row.same_bits = Some(false);
        row.faults.push("time-only: off".to_owned());
        let complaints: Vec<String> = row.complaints().collect();
        assert_eq!(complaints.len(), 2);
        assert!(complaints[0].starts_with("rnn_gemv fp32 R=10: "), "{complaints:?}");
    }

    #[test]
    fn an_unknown_shape_is_answered_with_those_there_are() {
        let error = shape("conv9").unwrap_err().to_string();
        assert!(error.contains("rnn_gemv, conv2_2, square256"), "{error}");
    }
}
