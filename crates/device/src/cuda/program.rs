//! Programs: a plan's steps as super-kernels, captured as one graph for each of a few capacities.
//!
//! ```text
//!   plan ─lower─▶ begin, ingest… step… step… egress… end  ─compile, capture─▶ graph for 1, 2, 4, … items     a launch takes the smallest that holds it
//! ```
//! Grids are frozen in a graph, so each capacity has its own; what a launch carries is told by the table, which its first kernel fetches (`frame.rs`). These graphs
//! are the paper's cached super-kernels (§4): made when a class is loaded, never while a request waits.

mod own;

use super::Refused;
use super::abi::{Ends, ItemError, LaunchParams};
use super::call::KernelCall;
use super::fence::{Block, CudaError, Graph, Stream};
use super::frame::{self, Tables, error_bytes};
use super::landing::LandingRights;
use super::library::{Functions, Library, launch, launch_apart};
use super::partition::{Place, Stay, Waits};
use super::site::Site;
use super::slab::SlabKey;
use super::steps;
use super::table::{LaneRow, TableLayout};
use super::tune::{Tiles, Tuner};
use crate::{RequestError, Room};
use own::Own;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tessera_planner::plan::{Pick, Port, Scatter, StepKind};
use tessera_planner::{Plan, SlotLayout};

/// Where parts of a program's own memory, and of staged inputs and outputs, begin: a multiple of this.
pub(crate) const ALIGNMENT: usize = 256;

/// Where outputs begin among what a launch leaves on the host, behind its signal.
pub(crate) const OUTPUTS: usize = ALIGNMENT;

/// A plan that can be launched in one partition, in one of its sizes.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) plan: Arc<Plan>,
    pub(crate) room: Room,
    pub(crate) table: TableLayout,
    layout: Arc<SlotLayout>,
    /// Whether kernels may report failures of items.
    pub(crate) can_fail: bool,
    own: Own,
    /// Of launches that the card has not fetched theirs of yet.
    tables: Mutex<Tables>,
    multiprocessors: u32,
    /// When the kernels of a sampled launch began, `u64` each.
    began: Block,
    /// By the items they hold, fewest first.
    graphs: Vec<Captured>,
    functions: Functions,
    /// Which kernels its steps take, of those that compute them alike: for good, as graphs are.
    tiles: Tiles,
    _landing: LandingRights,
    /// Given up last.
    stay: Stay,
}

/// A plan's kernels at one capacity, as one thing to launch.
#[derive(Debug)]
struct Captured {
    items: u32,
    graph: Graph,
    /// Which of the kernels that tell when they began is the first one of each step, and of the outputs.
    firsts: Vec<usize>,
    waits: Waits,
}

/// The step at which a plan could not be lowered, and why.
#[derive(Debug)]
pub(crate) struct NoKernel {
    pub(crate) step: String,
    pub(crate) why: String,
}

/// A plan's kernels at one capacity.
#[derive(Debug)]
pub(crate) struct Lowered {
    begin: KernelCall,
    pub(crate) inputs: Vec<KernelCall>,
    /// Per step.
    pub(crate) steps: Vec<Vec<KernelCall>>,
    pub(crate) outputs: Vec<KernelCall>,
    end: KernelCall,
}

impl Lowered {
    /// All of them, in order.
    fn calls(&self) -> impl Iterator<Item = &KernelCall> {
        std::iter::once(&self.begin).chain(self.telling()).chain([&self.end])
    }

    /// Those that tell when they began.
    fn telling(&self) -> impl Iterator<Item = &KernelCall> {
        self.inputs.iter().chain(self.steps.iter().flatten()).chain(&self.outputs)
    }

    /// Has kernel after kernel tell when it began, from `address` on.
    fn tell_from(&mut self, address: u64) {
        let calls = self.inputs.iter_mut().chain(self.steps.iter_mut().flatten()).chain(&mut self.outputs);
        let places = (address..).step_by(size_of::<u64>());
        calls.zip(places).for_each(|(call, place)| call.tell_at(place));
    }

    /// Which of the calls that tell is the first one of each step, and of the outputs. A step without calls has the next one's.
    fn firsts(&self) -> Vec<usize> {
        let mut first = self.inputs.len();
        let mut firsts = vec![first];
        firsts.extend(self.steps.iter().map(|calls| {
            first += calls.len();
            first
        }));
        firsts
    }
}

impl Program {
    /// Compiles what is not compiled yet, and captures. Takes from milliseconds to seconds; disturbs no launch.
    pub(crate) fn new(
        plan: &Arc<Plan>,
        layout: &Arc<SlotLayout>,
        room: Room,
        place: Place<'_>,
        library: &Library,
        tuner: Option<&Tuner>,
    ) -> Result<Program, Refused> {
        // A stream of its own: several programs may be made at once, and a stream that is captured runs nothing else.
        let (partition, multiprocessors) = (place.partition, place.multiprocessors());
        let stream = &Arc::new(place.stream()?);
        let table = TableLayout::new(room, plan.inputs.len() + plan.outputs.len());
        let own = Own::new(stream, &table, room.items, multiprocessors, &plan.constants)?;
        let stay = partition
            .reserve_arena(arena_bytes(plan, room) + workspace_bytes(plan, room, multiprocessors))?;
        let inputs = plan.inputs.iter().map(|port| port.bytes_per_item() * room.items as usize);
        let landing = partition.landing.reserve(inputs)?;
        let mut program = Program {
            plan: plan.clone(),
            room,
            table,
            layout: layout.clone(),
            can_fail: plan.steps.iter().any(|step| choice(&step.kind, 0).is_some()),
            own,
            tables: Mutex::new(Tables::new(&partition.context, &table)?),
            multiprocessors,
            began: Block::new(stream, 0)?,
            graphs: Vec::new(),
            functions: Functions::new(),
            tiles: tuner
                .map(|tuner| tuner.tiles(plan, layout, capacities(room), multiprocessors))
                .unwrap_or_default(),
            _landing: landing,
            stay,
        };
        let lowered = capacities(room).map(|capacity| Ok((capacity, program.lower(capacity)?)));
        let mut lowered: Vec<(Room, Lowered)> = lowered.collect::<Result<_, NoKernel>>()?;
        let most_calls =
            lowered.iter().map(|(_, lowered)| lowered.telling().count()).max().unwrap_or_default();
        program.began = Block::new(stream, most_calls * size_of::<u64>())?;
        let began = program.began.address();
        for (_, lowered) in &mut lowered {
            lowered.tell_from(began);
            lowered.end = program.end(began, told_kernels(&lowered.firsts()));
        }
        let calls = lowered.iter().flat_map(|(_, lowered)| lowered.calls());
        program.functions =
            library.load(calls.map(|call| call.spec.clone()).collect()).map_err(Refused::Compile)?;
        partition.keep(&program.functions[&program.end(0, 0).spec]);
        for (capacity, lowered) in &lowered {
            program.graphs.push(program.capture(*capacity, lowered, stream)?);
        }
        stream.synchronize()?;
        let (_, bytes_in) = stage_offsets(&plan.inputs, room.items, 0);
        let (_, errors) = stage_offsets(&plan.outputs, room.items, OUTPUTS);
        let beside = error_bytes(room.items) + most_calls * size_of::<u64>();
        partition.reserve_berths(bytes_in, errors + beside)?;
        Ok(program)
    }

    /// The kernels of a capacity as one thing to launch, once their functions are there.
    fn capture(
        &self,
        capacity: Room,
        lowered: &Lowered,
        stream: &Arc<Stream>,
    ) -> Result<Captured, CudaError> {
        let graph = Graph::capture(stream, || {
            lowered.calls().enumerate().try_for_each(|(number, call)| match number {
                // Who reads the table need not wait for the kernel that fetches it, so the one behind that does not overlap it.
                0 | 1 => launch_apart(&self.functions, call, stream),
                _ => self.launch(call, stream),
            })
        })?;
        Ok(Captured { items: capacity.items, graph, firsts: lowered.firsts(), waits: Waits::default() })
    }

    /// The kernels of the plan at a capacity.
    pub(crate) fn lower(&self, capacity: Room) -> Result<Lowered, NoKernel> {
        let plan = &*self.plan;
        let launch = self.launch_params();
        let site = Site {
            plan,
            layout: &self.layout,
            capacity,
            multiprocessors: self.multiprocessors,
            launch,
            arena: self.stay.address,
            constants: &self.own.constants,
            workspace: self.stay.address + arena_bytes(plan, capacity),
            words: self.own.words,
            ports: self.table.ports(self.table_address()),
        };
        let inputs = (0..plan.inputs.len()).filter_map(|index| steps::ingest(&site, index));
        let steps = steps_of(&site, &self.tiles)?;
        let outputs = (0..plan.outputs.len()).map(|index| steps::egress(&site, index));
        let errors = if self.can_fail { capacity.items } else { 0 };
        let begin = self.tables().begin(launch, self.own.launched, errors);
        let (inputs, outputs) = (inputs.collect(), outputs.collect());
        Ok(Lowered { begin, inputs, steps, outputs, end: self.end(0, 0) })
    }

    /// What kernels are told of a launch.
    fn launch_params(&self) -> LaunchParams {
        self.table.params(self.table_address(), self.own.errors)
    }

    /// The last kernel of a launch, so many of whose kernels tell when they began, from `began` on.
    fn end(&self, began: u64, kernels: usize) -> KernelCall {
        frame::end(self.launch_params(), began, kernels, self.can_fail)
    }

    /// Puts one call into a stream, to overlap the one before.
    pub(crate) fn launch(&self, call: &KernelCall, stream: &Stream) -> Result<(), CudaError> {
        launch(&self.functions, call, stream)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the table of the next launch, given where its ports lie. Every launch has one, in the order in which they are launched.
    pub(crate) fn announce(&self, rows: &[LaneRow], ports: &[u64], ends: &Ends) {
        self.table.write(rows, ports, ends, self.tables().next());
    }

    /// The smallest capacity that holds so many items.
    pub(crate) fn capacity(&self, items: u32) -> Room {
        capacities(self.room).find(|capacity| capacity.items >= items).unwrap_or(self.room)
    }

    /// Whose slots it reads.
    pub(crate) fn slab(&self) -> SlabKey {
        (self.plan.key.class, self.plan.key.precision)
    }

    /// Where the table lies.
    pub(crate) fn table_address(&self) -> u64 {
        self.own.table()
    }

    /// The graph for so many items, which are within the program's room.
    pub(crate) fn graph(&self, items: u32) -> &Graph {
        &self.captured(items).graph
    }

    /// How long launches of so many items are waited for.
    pub(crate) fn waits(&self, items: u32) -> &Waits {
        &self.captured(items).waits
    }

    fn captured(&self, items: u32) -> &Captured {
        let holds = self.graphs.iter().find(|captured| captured.items >= items);
        holds.expect("a launch within the room has a graph")
    }

    /// In how many bytes a sampled launch of so many items tells when its kernels began.
    pub(crate) fn told_bytes(&self, items: u32) -> usize {
        told_kernels(&self.captured(items).firsts) * size_of::<u64>()
    }

    /// What each step of the plan added to a launch of so many items, from what was told.
    pub(crate) fn step_times(&self, items: u32, told: &[u8]) -> Vec<Duration> {
        let began: Vec<u64> = told.chunks_exact(size_of::<u64>()).map(bytemuck::pod_read_unaligned).collect();
        between(&began, &self.captured(items).firsts)
    }

    /// What a failure that a kernel reported means.
    pub(crate) fn failure(&self, error: &ItemError) -> Option<RequestError> {
        let step = self.plan.steps.get(usize::try_from(error.step).ok()?.checked_sub(1)?)?;
        let position = error.position as usize;
        let (what, rows) = choice(&step.kind, position)?;
        Some(RequestError::IdOutOfRange { input: what.to_owned(), id: error.id, position, rows })
    }
}

/// How many kernels' beginnings are told, given which is the first of each step and of the outputs: up to that.
fn told_kernels(firsts: &[usize]) -> usize {
    firsts.last().map_or(0, |last| last + 1)
}

/// The kernels of each step.
fn steps_of(site: &Site<'_>, tiles: &Tiles) -> Result<Vec<Vec<KernelCall>>, NoKernel> {
    let steps = site.plan.steps.iter().enumerate();
    let calls = steps.map(|(index, step)| {
        let calls = steps::chosen(site, index, tiles.of(site.capacity.items, index));
        calls.map_err(|why| NoKernel { step: step.name.clone(), why })
    });
    calls.collect()
}

/// Whether every step of a plan has kernels: they are chosen, for no addresses in particular, and forgotten.
pub(crate) fn check(
    plan: &Plan,
    layout: &SlotLayout,
    capacity: Room,
    multiprocessors: u32,
) -> Result<(), NoKernel> {
    let constants = vec![0; plan.constants.len()];
    let site = Site { multiprocessors, ..Site::nowhere(plan, layout, capacity, &constants) };
    steps_of(&site, &Tiles::default()).map(drop)
}

/// From each of the kernels `firsts` to the next, given when every kernel began, in nanoseconds.
fn between(began: &[u64], firsts: &[usize]) -> Vec<Duration> {
    firsts
        .windows(2)
        .map(|pair| Duration::from_nanos(began[pair[1]].saturating_sub(began[pair[0]])))
        .collect()
}

/// Where a step's number at a position comes from, and how many rows it chooses from; `None` for steps that read no numbers.
fn choice(kind: &StepKind, position: usize) -> Option<(&str, usize)> {
    match kind {
        StepKind::Gather { what, rows, .. } => Some((what, *rows)),
        StepKind::Pick(Pick { what, points, .. }) | StepKind::Scatter(Scatter { what, points, .. }) => {
            Some((what, points.sizes[position % points.sizes.len()]))
        }
        _ => None,
    }
}

/// Powers of two up to the room's items, and the room itself. A launch fills at least half of its graph's capacity, so at most half of a grid
/// finds nothing to do.
pub(crate) fn capacities(room: Room) -> impl Iterator<Item = Room> {
    let powers = (0..32).map(|power| 1u32 << power).take_while(move |&items| items < room.items);
    powers.chain([room.items]).map(move |items| Room { lanes: room.lanes.min(items), items })
}

/// Bytes of a plan's buffers at a capacity.
fn arena_bytes(plan: &Plan, capacity: Room) -> u64 {
    (u64::from(capacity.items) * plan.arena_per_item.0).next_multiple_of(ALIGNMENT as u64)
}

/// Bytes of the step that wants most beside the buffers.
fn workspace_bytes(plan: &Plan, capacity: Room, multiprocessors: u32) -> u64 {
    let each =
        (0..plan.steps.len()).map(|index| steps::workspace_bytes(plan, index, capacity, multiprocessors));
    each.max().unwrap_or(0)
}

/// Where each port's items begin among staged bytes, and the end of all.
pub(crate) fn stage_offsets(ports: &[Port], items: u32, start: usize) -> (Vec<usize>, usize) {
    let mut end = start;
    let offsets = ports.iter().map(|port| {
        let offset = end;
        end += (port.bytes_per_item() * items as usize).next_multiple_of(ALIGNMENT);
        offset
    });
    let offsets = offsets.collect();
    (offsets, end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::call::KernelSpec;

    #[test]
    fn a_step_takes_from_its_first_kernel_to_the_next_step_s() {
        let call = || KernelCall {
            spec: KernelSpec::new("none.cu"),
            params: vec![0; size_of::<LaunchParams>()],
            grid: [1; 3],
            block: 1,
            shared_bytes: 0,
            cluster: 1,
        };
        let mut lowered = Lowered {
            begin: call(),
            inputs: vec![call()],
            steps: vec![vec![call()], vec![call(), call()], vec![], vec![call()]],
            outputs: vec![call()],
            end: call(),
        };
        let firsts = lowered.firsts();
        assert_eq!(firsts, [1, 2, 4, 4, 5]);
        let nanoseconds =
            between(&[10, 11, 13, 16, 20, 25], &firsts).iter().map(Duration::as_nanos).collect::<Vec<_>>();
        assert_eq!(nanoseconds, [2, 7, 0, 5]);
        lowered.tell_from(1 << 40);
        let places =
            lowered.telling().map(|call| bytemuck::pod_read_unaligned::<LaunchParams>(&call.params).began);
        assert_eq!(places.collect::<Vec<_>>(), (0..6).map(|call| (1 << 40) + 8 * call).collect::<Vec<_>>());
    }

    #[test]
    fn a_launch_fills_at_least_half_of_its_graph() {
        let items =
            |room| capacities(room).map(|capacity| (capacity.lanes, capacity.items)).collect::<Vec<_>>();
        assert_eq!(items(Room { lanes: 3, items: 6 }), [(1, 1), (2, 2), (3, 4), (3, 6)]);
        assert_eq!(items(Room { lanes: 1, items: 1 }), [(1, 1)]);
        assert_eq!(items(Room { lanes: 32, items: 128 }).len(), 8);
    }
}
