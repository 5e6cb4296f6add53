//! One cell on the card: results first, then times.
//!
//! ```text
//!   every way    run once ─▶ right? ─▶ how long is a walk? ─▶ capture enough walks ─▶ right? ─▶ two timed runs
//!   the best     rounds of all, forwards and backwards in turn, each between two events of the card
//! ```
//! What is timed is a run: whole walks through all sets, captured as one graph, or launched one by one. Both last long
//! enough for the cost of starting them to vanish, and both are filled by the same code.
//!
//! Streams of space-only meet before and after a run, not between its sets: tenants wait for nobody, which is what
//! favours that policy most. Within a stream our kernels overlap as in a plan's program.

use super::Lane;
use super::problem::{Definition, Numbers};
use super::rotation::{self, DISTINCT};
use super::ways::{self, ALONE, SUPER_KERNEL};
use super::yard::{Matrix, Yard};
use crate::cuda::call::{KernelCall, KernelSpec};
use crate::cuda::fence::{CudaError, Event, Function, Gemm, Graph, Shape, Stream};
use crate::cuda::library::Functions;
use crate::sgemm::{Cell, Family, Kernel, Measured, Timed, Way};
use std::sync::Arc;
use std::time::Duration;

/// Events and streams of a bench.
#[derive(Debug)]
pub(super) struct Clock<'a> {
    pub(super) lanes: &'a [Lane],
    pub(super) start: &'a Event,
    pub(super) end: &'a Event,
    pub(super) fork: &'a Event,
}

/// A kernel call, ready to be launched.
#[derive(Debug)]
struct Ready {
    function: Arc<Function>,
    shape: Shape,
    params: Vec<u8>,
}

impl Ready {
    fn new(call: KernelCall, functions: &Functions) -> Result<Ready, CudaError> {
        let KernelCall { spec, params, grid, block, shared_bytes, cluster } = call;
        let function = functions.get(&spec).expect("every specialisation was loaded").clone();
        let shape = Shape { grid, block, shared_bytes, cluster };
        function.allow(&shape)?;
        Ok(Ready { function, shape, params })
    }
}

/// Kernels of one cell.
#[derive(Debug)]
pub(super) struct Calls {
    /// Per set.
    pub(super) merged: Vec<Vec<KernelCall>>,
    /// Per product.
    pub(super) alone: Vec<Vec<KernelCall>>,
}

impl Calls {
    /// What must be compiled.
    pub(super) fn specs(&self) -> impl Iterator<Item = &KernelSpec> {
        self.merged.iter().chain(&self.alone).flatten().map(|call| &call.spec)
    }
}

/// A cell whose memory is filled.
#[derive(Debug)]
pub(super) struct Run<'a> {
    cell: Cell,
    clock: Clock<'a>,
    definition: &'a Definition,
    numbers: &'a [Numbers],
    yard: &'a Yard<'a>,
    merged: Vec<Vec<Ready>>,
    alone: Vec<Vec<Ready>>,
}

/// A way that gives right results.
#[derive(Debug)]
struct Candidate {
    way: Way,
    walks: usize,
    graph: Option<Graph>,
    first_us: f64,
}

impl<'a> Run<'a> {
    /// Fills the memory of a cell.
    pub(super) fn new(
        cell: Cell,
        clock: Clock<'a>,
        (definition, numbers): (&'a Definition, &'a [Numbers]),
        yard: &'a Yard<'a>,
        calls: Calls,
        functions: &Functions,
    ) -> Result<Run<'a>, CudaError> {
        let stream = &clock.lanes[0].stream;
        for (distinct, numbers) in numbers.iter().enumerate() {
            let Numbers { slot, a, a_transposed, x, .. } = numbers;
            let bytes = [slot.as_slice(), a, a_transposed, x].concat();
            stream.upload(&bytes, yard.source(distinct))?;
        }
        for (from, to, bytes) in yard.copies() {
            stream.copy_within(from, to, bytes)?;
        }
        let (at, tables) = yard.tables();
        stream.upload(&tables, at)?;
        let (words, bytes) = yard.words();
        stream.zero(words, bytes)?;
        let ready = |calls: Vec<Vec<KernelCall>>| -> Result<Vec<Vec<Ready>>, CudaError> {
            let each =
                |calls: Vec<KernelCall>| calls.into_iter().map(|call| Ready::new(call, functions)).collect();
            calls.into_iter().map(each).collect()
        };
        let (merged, alone) = (ready(calls.merged)?, ready(calls.alone)?);
        Ok(Run { cell, clock, definition, numbers, yard, merged, alone })
    }

    /// Measures every way.
    pub(super) fn measure(&self, rounds: usize) -> Result<Measured, CudaError> {
        let mut faults = Vec::new();
        let mut candidates = Vec::new();
        let mut look = |ways: Vec<Way>, candidates: &mut Vec<Candidate>| {
            for way in ways {
                match self.look(way) {
                    Ok(candidate) => candidates.push(candidate),
                    Err(why) => faults.push(format!("{} ({way}): {why}", way.family.name())),
                }
            }
        };
        look(ways::on_one_stream(), &mut candidates);
        look(ways::side_by_side(self.cell.tenants, turned(&candidates)), &mut candidates);
        let has = |way: Way| candidates.iter().any(|candidate| candidate.way == way);
        let same_bits = if has(SUPER_KERNEL) && has(ALONE) {
            Some(
                self.results(SUPER_KERNEL, || self.enqueue(&SUPER_KERNEL, 1))?
                    == self.results(ALONE, || self.enqueue(&ALONE, 1))?,
            )
        } else {
            None
        };

        let looks: Vec<(Family, f64)> =
            candidates.iter().map(|candidate| (candidate.way.family, candidate.first_us)).collect();
        let finalists = ways::finalists(&looks);
        let mut times = vec![Vec::with_capacity(rounds); candidates.len()];
        for round in 0..rounds {
            let mut order = finalists.clone();
            if round % 2 == 1 {
                order.reverse();
            }
            for place in order {
                times[place].push(self.time(&candidates[place])?);
            }
        }
        let timed = |(candidate, rounds_us): (Candidate, Vec<f64>)| Timed {
            way: candidate.way,
            first_us: candidate.first_us,
            rounds_us,
        };
        let ways = candidates.into_iter().zip(times).map(timed).collect();
        Ok(Measured { cell: self.cell, sets: self.yard.rotation.sets, ways, faults, same_bits })
    }

    /// Checks a way's results, prepares it, and takes a first look at its time. The error says what is wrong with it.
    fn look(&self, way: Way) -> Result<Candidate, String> {
        let said = |error: CudaError| error.to_string();
        // First one by one: the first call of a kernel may load it, which cannot be captured.
        self.check(way, || self.enqueue(&way, 1))?;
        let one = self.between(|| self.enqueue(&way, 1)).map_err(said)?;
        let mut walks = rotation::walks(1, one);
        let main = &self.clock.lanes[0].stream;
        let capture = |walks| Graph::capture(main, || self.enqueue(&way, walks)).map_err(said);
        let mut graph = None;
        if way.graph {
            let mut captured = capture(walks)?;
            // The first walk may have waited for the host, which a graph does not.
            let took = self.between(|| captured.launch(main)).map_err(said)?;
            if rotation::too_short(took) {
                walks = rotation::walks(walks, took);
                captured = capture(walks)?;
            }
            self.check(way, || captured.launch(main))?;
            graph = Some(captured);
        }
        let mut candidate = Candidate { way, walks, graph, first_us: f64::INFINITY };
        for _ in 0..2 {
            candidate.first_us = candidate.first_us.min(self.time(&candidate).map_err(said)?);
        }
        Ok(candidate)
    }

    /// Microseconds for all R products, in one run.
    fn time(&self, candidate: &Candidate) -> Result<f64, CudaError> {
        let took = self.between(|| match &candidate.graph {
            Some(graph) => graph.launch(&self.clock.lanes[0].stream),
            None => self.enqueue(&candidate.way, candidate.walks),
        })?;
        Ok(took.as_secs_f64() * 1e6 / (candidate.walks * self.yard.rotation.sets) as f64)
    }

    /// The card's own time from before to after what `work` puts into the streams.
    fn between(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<Duration, CudaError> {
        let main = &self.clock.lanes[0].stream;
        self.clock.start.record(main)?;
        work()?;
        self.clock.end.record(main)?;
        self.clock.end.synchronize()?;
        self.clock.start.until(self.clock.end)
    }

    /// Runs `work` and looks at the sampled results.
    fn check(&self, way: Way, work: impl FnOnce() -> Result<(), CudaError>) -> Result<(), String> {
        let results = self.results(way, work).map_err(|error| error.to_string())?;
        for ((set, tenant), result) in self.yard.rotation.sample().into_iter().zip(&results) {
            let product = set * self.yard.rotation.tenants + tenant;
            let error = self.numbers[product % DISTINCT].error(self.definition, result);
            let tolerance = self.definition.tolerance();
            if error.is_nan() || error > tolerance {
                return Err(format!(
                    "the result of tenant {tenant} in set {set} is off by {error:.1e}, {tolerance:.0e} is allowed"
                ));
            }
        }
        Ok(())
    }

    /// The sampled results of `work`, which writes where `way` does.
    fn results(
        &self,
        way: Way,
        work: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Vec<Vec<u8>>, CudaError> {
        let main = &self.clock.lanes[0].stream;
        let alone = way.kernel == Kernel::Ours && way.family != Family::SuperKernel;
        let sample = self.yard.rotation.sample();
        let places: Vec<(u64, usize)> =
            sample.into_iter().map(|(set, tenant)| self.yard.result(alone, set, tenant)).collect();
        places.iter().try_for_each(|&(address, bytes)| main.zero(address, bytes))?;
        work()?;
        let read = |(address, bytes)| {
            let mut result = vec![0; bytes];
            main.download(address, &mut result).map(|()| result)
        };
        places.into_iter().map(read).collect()
    }

    /// Puts whole walks into the streams.
    fn enqueue(&self, way: &Way, walks: usize) -> Result<(), CudaError> {
        let lanes = &self.clock.lanes[..way.streams];
        let (main, others) = lanes.split_first().expect("a way has a stream");
        if !others.is_empty() {
            self.clock.fork.record(&main.stream)?;
            others.iter().try_for_each(|lane| lane.stream.wait(self.clock.fork))?;
        }
        let mut begun = vec![false; lanes.len()];
        for set in (0..walks).flat_map(|_| 0..self.yard.rotation.sets) {
            self.enqueue_set(way, set, &mut begun)?;
        }
        for lane in others {
            lane.done.record(&lane.stream)?;
            main.stream.wait(&lane.done)?;
        }
        Ok(())
    }

    fn enqueue_set(&self, way: &Way, set: usize, begun: &mut [bool]) -> Result<(), CudaError> {
        let lanes = self.clock.lanes;
        let tenants = self.yard.rotation.tenants;
        let gemm = self.gemm(way.transposed);
        let a = if way.transposed { Matrix::ATransposed } else { Matrix::A };
        let matrices = [a, Matrix::B, Matrix::C];
        let at = |tenant| matrices.map(|which| self.yard.matrix(which, set, tenant));
        match (way.family, way.kernel) {
            (Family::SuperKernel, _) => launch(&self.merged[set], &lanes[0].stream, &mut begun[0]),
            (_, Kernel::Strided) => lanes[0].blas.strided(&gemm, at(0), tenants as u32),
            (_, Kernel::Pointers) => {
                let at = matrices.map(|which| self.yard.pointers(which, set));
                lanes[0].blas.pointed(&gemm, at, tenants as u32)
            }
            (_, Kernel::Ours) => (0..tenants).try_for_each(|tenant| {
                let lane = tenant % way.streams;
                launch(&self.alone[set * tenants + tenant], &lanes[lane].stream, &mut begun[lane])
            }),
            (_, Kernel::Gemm) => {
                (0..tenants).try_for_each(|tenant| lanes[tenant % way.streams].blas.one(&gemm, at(tenant)))
            }
        }
    }

    fn gemm(&self, transposed: bool) -> Gemm {
        let [m, n, k] = [self.cell.sizes.m, self.cell.sizes.n, self.cell.sizes.k].map(|size| size as u32);
        Gemm { m, n, k, precision: self.cell.precision, transposed }
    }
}

/// Launches a step's kernels. Only the first kernel of a stream's part of a run waits for what comes before to end.
fn launch(calls: &[Ready], stream: &Stream, begun: &mut bool) -> Result<(), CudaError> {
    calls.iter().try_for_each(|Ready { function, shape, params }| {
        if std::mem::replace(begun, true) {
            function.launch(stream, shape, params)
        } else {
            function.launch_apart(stream, shape, params)
        }
    })
}

/// Whether cuBLAS multiplies single products faster with A transposed.
fn turned(candidates: &[Candidate]) -> bool {
    let gemms = candidates.iter().filter(|candidate| candidate.way.kernel == Kernel::Gemm);
    gemms.min_by(|a, b| a.first_us.total_cmp(&b.first_us)).is_some_and(|best| best.way.transposed)
}
