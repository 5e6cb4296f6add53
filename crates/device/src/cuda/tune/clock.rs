//! The kernels of one product on the card: their times, and that they give the same bits.
//!
//! ```text
//!   numbers in place ─▶ one launch ─▶ how many make a run ─▶ a graph for each kernel ─▶ race ─▶ the winner's bits are the rule's
//!                                        between runs all of it leaves the cache ─┘
//! ```

use super::ground::{Ground, MOST_LAUNCHES};
use super::race::{Won, race};
use crate::cuda::call::KernelCall;
use crate::cuda::fence::{Context, CudaError, Event, Graph, Memory, Stream};
use crate::cuda::library::{Functions, launch};
use half::{bf16, f16};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::DType;

/// What a run should take: long enough for the cost of starting it to vanish.
const RUN: Duration = Duration::from_micros(300);
/// Numbers are made for so many elements, and copied to all others.
const DISTINCT: usize = 1 << 17;
/// Of results, those that are compared.
const COMPARED: usize = 8 << 20;

/// Memory to run in, and what times it.
#[derive(Debug)]
pub(super) struct Clock {
    stream: Stream,
    start: Event,
    end: Event,
    memory: Memory,
    numbers: Vec<u8>,
}

/// What a race came to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Ended {
    /// One is to be taken.
    Won(Won),
    /// There was no time left.
    Early,
    /// The fastest, at this place, gave other bits than the rule's. It is a bug, and the rule's is taken.
    Differs(usize),
}

impl Clock {
    /// For products whose floats are held so.
    pub(super) fn new(context: &Arc<Context>, stored: DType) -> Result<Clock, CudaError> {
        Ok(Clock {
            stream: Stream::new(context)?,
            start: Event::timed(context)?,
            end: Event::timed(context)?,
            memory: Memory::reserve(context, context.total_bytes as usize)?,
            numbers: numbers(stored),
        })
    }

    /// What running a product would add to the memory that is taken.
    pub(super) fn growth_for(&self, ground: &Ground) -> usize {
        self.memory.growth_to(ground.bytes())
    }

    /// Races the first `count` kernels of a product. Every run is over when this returns.
    pub(super) fn race(
        &mut self,
        ground: &Ground,
        count: usize,
        functions: &Functions,
        may_go_on: &dyn Fn() -> bool,
    ) -> Result<Ended, CudaError> {
        let calls = self.lay(ground)?;
        let base = self.memory.address();
        let stream = &self.stream;
        let one = |place: usize| launch(functions, &calls[0][place], stream);
        // Once to load it, once to time it.
        one(0)?;
        let took = self.between(|| one(0))?;
        let launches =
            RUN.as_nanos().div_ceil(took.as_nanos().max(1)).clamp(2, MOST_LAUNCHES as u128) as usize;
        let graph = |place: usize| {
            let run =
                || calls[..launches].iter().try_for_each(|calls| launch(functions, &calls[place], stream));
            Graph::capture(stream, run)
        };
        let graphs: Vec<Graph> = (0..count).map(graph).collect::<Result<_, CudaError>>()?;
        let sweep = ground.sweep();
        let mut time = |place: usize| {
            stream.zero(base + sweep.start as u64, sweep.len())?;
            let took = self.between(|| graphs[place].launch(stream))?;
            Ok(took.as_secs_f64() * 1e6 / launches as f64)
        };
        let Some(won) = race(count, may_go_on, &mut time)? else { return Ok(Ended::Early) };
        let bits = |place: usize| self.results(ground, &calls[0][place], functions);
        let same = won.place == 0 || bits(0)? == bits(won.place)?;
        Ok(if same { Ended::Won(won) } else { Ended::Differs(won.place) })
    }

    /// Puts a product's numbers and tables in place. Its kernels, by launch of a run.
    fn lay(&mut self, ground: &Ground) -> Result<Vec<Vec<KernelCall>>, CudaError> {
        self.memory.grow_to(ground.bytes())?;
        let base = self.memory.address();
        self.fill(ground.numbers())?;
        self.stream.upload(&ground.tables(base), base)?;
        let lowered = |number| ground.calls(base, number).expect("it was lowered before, for another base");
        Ok((0..MOST_LAUNCHES).map(lowered).collect())
    }

    /// The results of one of the kernels of a run's first launch, or as many of them as are compared.
    fn results(
        &self,
        ground: &Ground,
        call: &KernelCall,
        functions: &Functions,
    ) -> Result<Vec<u8>, CudaError> {
        let results = ground.results();
        let address = self.memory.address() + results.start as u64;
        self.stream.zero(address, results.len())?;
        launch(functions, call, &self.stream)?;
        let mut found = vec![0; results.len().min(COMPARED)];
        self.stream.download(address, &mut found).map(|()| found)
    }

    /// Writes numbers to a range of the memory.
    fn fill(&self, range: Range<usize>) -> Result<(), CudaError> {
        let (base, end) = (self.memory.address(), range.end);
        let first = &self.numbers[..self.numbers.len().min(range.len())];
        self.stream.upload(first, base + range.start as u64)?;
        let mut done = range.start + first.len();
        while done < end {
            let bytes = (done - range.start).min(end - done);
            self.stream.copy_within(base + range.start as u64, base + done as u64, bytes)?;
            done += bytes;
        }
        Ok(())
    }

    /// The card's own time from before to after what `work` puts into the stream.
    fn between(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<Duration, CudaError> {
        self.start.record(&self.stream)?;
        work()?;
        self.end.record(&self.stream)?;
        self.end.synchronize()?;
        self.start.until(&self.end)
    }
}

impl Drop for Clock {
    /// Nothing runs in memory that is given back. An error here came up before, and is the card's last.
    fn drop(&mut self) {
        let _ = self.stream.synchronize();
    }
}

/// Numbers from -1 to 1: a card draws less power and runs faster on zeros. Two halves, read as one float, are between -1 and 1 as well.
fn numbers(stored: DType) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        // Marsaglia's xorshift: 32 bits of it are plenty for noise.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    let floats = std::iter::repeat_with(next).take(DISTINCT);
    match stored {
        DType::BF16 => floats.flat_map(|float| bf16::from_f32(float).to_le_bytes()).collect(),
        DType::F16 => floats.flat_map(|float| f16::from_f32(float).to_le_bytes()).collect(),
        _ => floats.flat_map(f32::to_le_bytes).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Room;
    use crate::conformance::cases;
    use crate::cuda::fence::Compiler;
    use crate::cuda::library::Library;
    use crate::cuda::{probe, target};
    use tessera_core::Precision;

    #[test]
    fn numbers_are_fractions_however_they_are_read() {
        for stored in [DType::F32, DType::BF16, DType::F16] {
            let bytes = numbers(stored);
            assert_eq!(bytes.len(), DISTINCT * stored.size());
            let as_floats = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
            let large = as_floats.filter(|float| float.is_nan() || float.abs() > 1.01).count();
            assert_eq!(large, 0, "{stored}");
        }
    }

    /// Needs a card; the folder keeps what is compiled from one run to the next.
    #[test]
    fn every_kernel_that_computes_a_product_alike_gives_the_same_bits() {
        match probe() {
            Ok(()) => {}
            Err(why) if std::env::var_os("TESSERA_REQUIRE_CUDA").is_none() => {
                return eprintln!("skipped: {why}");
            }
            Err(why) => panic!("{why}"),
        }
        let context = Context::open(0).unwrap();
        let folder = std::env::temp_dir().join("tessera-test-kernels");
        let library = Library::new(&context, Compiler::find().unwrap(), Some(folder));
        let (mut compared, mut faults) = (0, Vec::new());
        for precision in Precision::ALL {
            let mut clock = Clock::new(&context, precision.stored(DType::F32)).unwrap();
            for case in cases() {
                let (plan, layout) = (case.plan_in(precision), case.layout(target(precision)));
                // With 20 lanes every strict tile of several runs is cut, of `gemm 230×544×200`.
                for room in [(1, 1), (5, 16), (20, 20), (64, 64)].map(|(lanes, items)| Room { lanes, items })
                {
                    let Some(ground) = Ground::new(&plan, &layout, 0, room, context.multiprocessors) else {
                        continue;
                    };
                    let calls = clock.lay(&ground).unwrap().swap_remove(0);
                    let specs = calls.iter().map(|call| call.spec.clone()).collect();
                    let functions = library.load(specs).unwrap();
                    let bits: Vec<Vec<u8>> =
                        calls.iter().map(|call| clock.results(&ground, call, &functions).unwrap()).collect();
                    // An activation may cut off a single sum, and never all of several.
                    let single = bits[0].len() <= size_of::<f32>();
                    assert!(
                        single || bits[0].iter().any(|&byte| byte != 0),
                        "{}: nothing computed",
                        case.name
                    );
                    compared += calls.len() - 1;
                    let other = calls.iter().zip(&bits).filter(|(_, found)| **found != bits[0]);
                    faults.extend(other.map(|(call, _)| format!("{} {precision}: {}", case.name, call.spec)));
                }
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        assert!(compared > 1000, "{compared} kernels");
        println!("{compared} kernels give the bits of the rule's");
    }
}
