//! The paper's benchmark on a card: R matrix products by every way there is, see [`crate::sgemm`].
//!
//! ```text
//!   rotation   which memory a run walks through
//!   problem    the product as a plan of one step, its numbers and its result
//!   yard       where all of it lies
//!   ways       which ways there are
//!   run        results checked, then times
//! ```
//! The super-kernel here is what a program launches: the same plan step, lowered by the same code, with the same
//! launch table.

mod problem;
mod rotation;
mod run;
mod ways;
mod yard;

use super::Refused;
use super::call::KernelSpec;
use super::fence::{Blas, Compiler, Context, CudaError, Event, Memory, Stream};
use super::library::{Functions, Library};
use super::tune::{Beside, Tuner};
use crate::sgemm::{Cell, Measured, Sizes};
use crate::{DeviceError, Room};
use problem::{Definition, Numbers};
use rotation::Rotation;
use run::{Calls, Clock, Run};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tessera_core::Precision;
use yard::Yard;

/// A stream with what single products need on it.
#[derive(Debug)]
struct Lane {
    blas: Blas,
    /// Marks the end of its part of a run.
    done: Event,
    stream: Arc<Stream>,
}

/// A card to measure on. Nothing else should use it meanwhile.
pub struct Bench {
    name: String,
    cublas: i32,
    functions: Functions,
    library: Library,
    tuner: Option<Tuner>,
    lanes: Vec<Lane>,
    start: Event,
    end: Event,
    fork: Event,
    memory: Memory,
    /// The last product measured; making its numbers takes longer than measuring it.
    problem: Option<(Definition, Vec<Numbers>)>,
    context: Arc<Context>,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Bench {
    /// Opens a card, whose kernels may be timed for so long before each cell. Errors say what is missing: the driver, the compiler, cuBLAS, a card of the right
    /// kind.
    pub fn open(ordinal: usize, tuning: Option<Duration>) -> Result<Bench, DeviceError> {
        let name = format!("cuda:{ordinal}");
        let cannot = |why: String| DeviceError::CannotOpen { device: name.clone(), why };
        let context = Context::open(ordinal).map_err(cannot)?;
        let compiler = Compiler::find().map_err(cannot)?;
        Blas::find().map_err(cannot)?;
        Bench::new(name.clone(), &context, compiler, tuning).map_err(|error| cannot(error.to_string()))
    }

    fn new(
        name: String,
        context: &Arc<Context>,
        compiler: Compiler,
        tuning: Option<Duration>,
    ) -> Result<Bench, CudaError> {
        let lane = |_| -> Result<Lane, CudaError> {
            let stream = Arc::new(Stream::new(context)?);
            Ok(Lane { blas: Blas::new(&stream)?, done: Event::timed(context)?, stream })
        };
        let tuner = tuning.map(|budget| Tuner::new(context, compiler.version(), None, budget));
        let lanes = (0..ways::MOST_STREAMS).map(lane).collect::<Result<Vec<Lane>, CudaError>>()?;
        Ok(Bench {
            name,
            cublas: lanes[0].blas.version()?,
            functions: Functions::new(),
            library: Library::new(context, compiler, None),
            tuner,
            lanes,
            start: Event::timed(context)?,
            end: Event::timed(context)?,
            fork: Event::timed(context)?,
            memory: Memory::reserve(context, context.total_bytes as usize)?,
            problem: None,
            context: context.clone(),
        })
    }

    /// As the vendor calls the card.
    pub fn card(&self) -> &str {
        &self.context.name
    }

    /// What the driver supports, and cuBLAS: `CUDA 13.0, cuBLAS 13.1.0`.
    pub fn versions(&self) -> String {
        let (driver, cublas) = (self.context.driver_version, self.cublas);
        format!(
            "CUDA {}.{}, cuBLAS {}.{}.{}",
            driver / 1000,
            driver % 1000 / 10,
            cublas / 10_000,
            cublas % 10_000 / 100,
            cublas % 100
        )
    }

    /// Compiles all that `cells` need, on every core; else each cell would compile its own. Errors when there is no
    /// kernel.
    pub fn prepare(&mut self, cells: &[Cell]) -> Result<(), DeviceError> {
        let mut specs = BTreeSet::new();
        for cell in cells {
            let definition = self.definition(cell.sizes, cell.precision)?;
            // One set has every specialisation.
            let units = self.context.multiprocessors;
            let yard = Yard::new(&definition, Rotation { tenants: cell.tenants, sets: 1 }, units);
            specs.extend(self.lower(&yard, 0)?.specs().cloned());
        }
        self.load(specs)
    }

    /// Measures one cell: a look at every way, then `rounds` of the best. Takes about half a second.
    ///
    /// A way that is wrong or fails is among the faults and does not end the bench. Errors when there is no kernel,
    /// the cell does not fit the card's memory, or the card is lost.
    pub fn measure(&mut self, cell: Cell, rounds: usize) -> Result<Measured, DeviceError> {
        let of_cell =
            |problem: &Definition| problem.sizes == cell.sizes && problem.precision == cell.precision;
        let (definition, numbers) = match self.problem.take() {
            Some((definition, numbers)) if of_cell(&definition) => (definition, numbers),
            _ => {
                let definition = self.definition(cell.sizes, cell.precision)?;
                let numbers = Numbers::random(&definition);
                (definition, numbers)
            }
        };
        let rotation = Rotation::new(cell.tenants, definition.product_bytes());
        let yard = Yard::new(&definition, rotation, self.context.multiprocessors).at(self.memory.address());
        if yard.bytes as u64 > self.context.total_bytes {
            return Err(self.refuse(Refused::TooLarge(yard.bytes as u64)));
        }
        self.memory.grow_to(yard.bytes).map_err(|error| self.refuse(error.into()))?;
        let tile = self.tile(&definition, yard::room(rotation))?;
        let calls = self.lower(&yard, tile)?;
        self.load(calls.specs().cloned().collect())?;
        let clock = Clock { lanes: &self.lanes, start: &self.start, end: &self.end, fork: &self.fork };
        let run = Run::new(cell, clock, (&definition, &numbers), &yard, calls, &self.functions);
        let measured = run.and_then(|run| run.measure(rounds));
        let measured = measured.map_err(|error| self.refuse(error.into()))?;
        self.problem = Some((definition, numbers));
        Ok(measured)
    }

    fn definition(&self, sizes: Sizes, precision: Precision) -> Result<Definition, DeviceError> {
        Definition::new(sizes, precision)
            .map_err(|error| DeviceError::Failed { device: self.name.clone(), why: error.to_string() })
    }

    /// The place of the super-kernel among those that compute it alike, timed where that was asked for.
    fn tile(&self, definition: &Definition, room: Room) -> Result<usize, DeviceError> {
        let Some(tuner) = &self.tuner else { return Ok(0) };
        let (plan, layout) = (&definition.plan, &definition.layout);
        let beside = Beside { idle: &|| true, has_room: &|_| true };
        let tuned = tuner.tune(plan, layout, &[room], &self.library, &beside);
        tuned.map_err(|why| DeviceError::Failed { device: self.name.clone(), why })?;
        Ok(tuner.tiles(plan, layout, [room].into_iter(), self.context.multiprocessors).of(room.items, 0))
    }

    fn lower(&self, yard: &Yard<'_>, tile: usize) -> Result<Calls, DeviceError> {
        let units = self.context.multiprocessors;
        let calls = yard
            .merged_calls(units, tile)
            .and_then(|merged| Ok(Calls { merged, alone: yard.alone_calls(units)? }));
        calls.map_err(|none| self.refuse(none.into()))
    }

    /// Compiles and keeps what is not there yet.
    fn load(&mut self, mut specs: BTreeSet<KernelSpec>) -> Result<(), DeviceError> {
        specs.retain(|spec| !self.functions.contains_key(spec));
        let loaded = self.library.load(specs).map_err(|why| self.refuse(Refused::Compile(why)))?;
        self.functions.extend(loaded);
        Ok(())
    }

    fn refuse(&self, refused: Refused) -> DeviceError {
        refused.by(self.name.clone())
    }
}
