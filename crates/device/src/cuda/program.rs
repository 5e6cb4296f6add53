//! Programs: a plan's steps as super-kernels, captured as one graph for each of a few capacities.
//!
//! ```text
//!   plan ─lower─▶ ingest… step… step… egress…  ─compile, capture─▶ graph for 1, 2, 4, … items     a launch takes the smallest that holds it
//! ```
//! Grids are frozen in a graph, so each capacity has its own; what a launch carries is told by the table, which is copied in before the graph. These graphs
//! are the paper's cached super-kernels (§4): made when a class is loaded, never while a request waits.

use super::Refused;
use super::abi::ItemError;
use super::call::KernelCall;
use super::fence::{Block, CudaError, Graph, Shape, Stream};
use super::library::{Functions, Library};
use super::partition::{Partition, Stay};
use super::site::Site;
use super::slab::SlabKey;
use super::steps;
use super::table::TableLayout;
use crate::{RequestError, Room};
use std::sync::Arc;
use tessera_planner::plan::{Pick, Port, Scatter, StepKind};
use tessera_planner::{Plan, SlotLayout};

/// Where parts of a program's own memory, and of staged inputs and outputs, begin: a multiple of this.
pub(crate) const ALIGNMENT: usize = 256;

/// A plan that can be launched in one partition.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) plan: Arc<Plan>,
    pub(crate) room: Room,
    pub(crate) table: TableLayout,
    layout: Arc<SlotLayout>,
    /// Table, errors and constants.
    memory: Block,
    constants: Vec<u64>,
    multiprocessors: u32,
    /// By the items they hold, fewest first.
    graphs: Vec<(u32, Graph)>,
    functions: Functions,
    /// Given up last.
    stay: Stay,
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
    pub(crate) inputs: Vec<KernelCall>,
    /// Per step.
    pub(crate) steps: Vec<Vec<KernelCall>>,
    pub(crate) outputs: Vec<KernelCall>,
}

impl Lowered {
    /// All of them, in order.
    fn calls(&self) -> impl Iterator<Item = &KernelCall> {
        self.inputs.iter().chain(self.steps.iter().flatten()).chain(&self.outputs)
    }
}

impl Program {
    /// Compiles what is not compiled yet, and captures. Takes from milliseconds to seconds; disturbs no launch.
    pub(crate) fn new(
        plan: &Arc<Plan>,
        layout: &Arc<SlotLayout>,
        room: Room,
        partition: &Partition,
        library: &Library,
    ) -> Result<Program, Refused> {
        // A stream of its own: several programs may be made at once, and a stream that is captured runs nothing else.
        let stream = &Arc::new(Stream::new(&partition.context)?);
        let table = TableLayout::new(room, plan.inputs.len() + plan.outputs.len());
        let mut end = table.bytes.next_multiple_of(ALIGNMENT);
        end += (room.items as usize * size_of::<ItemError>()).next_multiple_of(ALIGNMENT);
        let mut constants = Vec::with_capacity(plan.constants.len());
        for constant in &plan.constants {
            constants.push(end);
            end += constant.bytes().len().next_multiple_of(ALIGNMENT);
        }
        let memory = Block::new(stream, end)?;
        for (constant, &at) in plan.constants.iter().zip(&constants) {
            stream.upload(constant.bytes(), memory.address() + at as u64)?;
        }
        let constants: Vec<u64> = constants.iter().map(|&at| memory.address() + at as u64).collect();
        let stay = partition.reserve_arena(arena_bytes(plan, room) + workspace_bytes(plan, room))?;
        let mut program = Program {
            plan: plan.clone(),
            room,
            table,
            layout: layout.clone(),
            memory,
            constants,
            multiprocessors: partition.multiprocessors,
            graphs: Vec::new(),
            functions: Functions::new(),
            stay,
        };
        let lowered = capacities(room).map(|capacity| Ok((capacity, program.lower(capacity)?)));
        let lowered: Vec<(Room, Lowered)> = lowered.collect::<Result<_, NoKernel>>()?;
        let calls = lowered.iter().flat_map(|(_, lowered)| lowered.calls());
        program.functions =
            library.load(calls.map(|call| call.spec.clone()).collect()).map_err(Refused::Compile)?;
        for (capacity, lowered) in &lowered {
            let graph =
                Graph::capture(stream, || lowered.calls().try_for_each(|call| program.launch(call, stream)))?;
            program.graphs.push((capacity.items, graph));
        }
        stream.synchronize()?;
        let (_, bytes_in) = stage_offsets(&plan.inputs, room.items, table.bytes.next_multiple_of(ALIGNMENT));
        let (_, errors) = stage_offsets(&plan.outputs, room.items, 0);
        partition.reserve_berths(bytes_in, errors + room.items as usize * size_of::<ItemError>())?;
        Ok(program)
    }

    /// The kernels of the plan at a capacity.
    pub(crate) fn lower(&self, capacity: Room) -> Result<Lowered, NoKernel> {
        let (plan, address) = (&*self.plan, self.memory.address());
        let site = Site {
            plan,
            layout: &self.layout,
            capacity,
            multiprocessors: self.multiprocessors,
            launch: self.table.params(address, address + self.errors_offset() as u64),
            arena: self.stay.address,
            constants: &self.constants,
            workspace: self.stay.address + arena_bytes(plan, capacity),
        };
        let wire = |port: usize| self.table.port(address, port);
        let inputs = (0..plan.inputs.len()).map(|index| steps::ingest(&site, index, wire(index)));
        let steps = plan.steps.iter().enumerate().map(|(index, step)| {
            steps::calls(&site, index).map_err(|why| NoKernel { step: step.name.clone(), why })
        });
        let after = plan.inputs.len();
        let outputs = (0..plan.outputs.len()).map(|index| steps::egress(&site, index, wire(after + index)));
        Ok(Lowered {
            inputs: inputs.collect(),
            steps: steps.collect::<Result<_, _>>()?,
            outputs: outputs.collect(),
        })
    }

    /// Puts one call into a stream.
    pub(crate) fn launch(&self, call: &KernelCall, stream: &Stream) -> Result<(), CudaError> {
        let shape = Shape {
            grid: call.grid,
            block: call.block,
            shared_bytes: call.shared_bytes,
            cluster: call.cluster,
        };
        let function = &self.functions[&call.spec];
        function.allow(&shape)?;
        function.launch(stream, &shape, &call.params)
    }

    /// The smallest capacity that holds so many items.
    pub(crate) fn capacity(&self, items: u32) -> Room {
        capacities(self.room).find(|capacity| capacity.items >= items).unwrap_or(self.room)
    }

    /// Where the errors begin in the program's own memory.
    fn errors_offset(&self) -> usize {
        self.table.bytes.next_multiple_of(ALIGNMENT)
    }

    /// Whose slots it reads.
    pub(crate) fn slab(&self) -> SlabKey {
        (self.plan.key.class, self.plan.key.precision)
    }

    /// Where the table lies.
    pub(crate) fn table_address(&self) -> u64 {
        self.memory.address()
    }

    /// Where kernels report failures of items; `None` when no step can.
    pub(crate) fn errors_address(&self) -> Option<u64> {
        let watches = self.plan.steps.iter().any(|step| choice(&step.kind, 0).is_some());
        watches.then(|| self.memory.address() + self.errors_offset() as u64)
    }

    /// The graph for so many items, which are within the program's room.
    pub(crate) fn graph(&self, items: u32) -> &Graph {
        let holds = self.graphs.iter().find(|(capacity, _)| *capacity >= items);
        &holds.expect("a launch within the room has a graph").1
    }

    /// What a failure that a kernel reported means.
    pub(crate) fn failure(&self, error: &ItemError) -> Option<RequestError> {
        let step = self.plan.steps.get(usize::try_from(error.step).ok()?.checked_sub(1)?)?;
        let position = error.position as usize;
        let (what, rows) = choice(&step.kind, position)?;
        Some(RequestError::IdOutOfRange { input: what.to_owned(), id: error.id, position, rows })
    }
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
fn capacities(room: Room) -> impl Iterator<Item = Room> {
    let powers = (0..32).map(|power| 1u32 << power).take_while(move |&items| items < room.items);
    powers.chain([room.items]).map(move |items| Room { lanes: room.lanes.min(items), items })
}

/// Bytes of a plan's buffers at a capacity.
fn arena_bytes(plan: &Plan, capacity: Room) -> u64 {
    (u64::from(capacity.items) * plan.arena_per_item.0).next_multiple_of(ALIGNMENT as u64)
}

/// Bytes of the step that wants most beside the buffers.
fn workspace_bytes(plan: &Plan, capacity: Room) -> u64 {
    let each = plan.steps.iter().map(|step| steps::workspace_bytes(step, capacity));
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

    #[test]
    fn a_launch_fills_at_least_half_of_its_graph() {
        let items =
            |room| capacities(room).map(|capacity| (capacity.lanes, capacity.items)).collect::<Vec<_>>();
        assert_eq!(items(Room { lanes: 3, items: 6 }), [(1, 1), (2, 2), (3, 4), (3, 6)]);
        assert_eq!(items(Room { lanes: 1, items: 1 }), [(1, 1)]);
        assert_eq!(items(Room { lanes: 32, items: 128 }).len(), 8);
    }
}
