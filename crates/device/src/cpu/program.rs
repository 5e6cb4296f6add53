//! A program: a plan made ready for the CPU, and how one worker runs a run of items through it.

use super::arena::{Arena, Placed};
use super::crew::Crew;
use super::slab::Weights;
use super::steps::{self, Bench, Constant, Scratch};
use crate::{DeviceError, RequestError, Room};
use std::sync::Arc;
use tessera_planner::plan::Operand;
use tessera_planner::{Plan, SlotLayout};

/// A plan with its constants aligned. Shared by the launches that run it.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) plan: Arc<Plan>,
    pub(crate) layout: Arc<SlotLayout>,
    pub(crate) room: Room,
    constants: Vec<Constant>,
}

/// What a run works in.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    /// What the run has computed so far.
    pub(crate) arena: &'a mut Arena,
    /// Holds nothing from one step to the next.
    pub(crate) scratch: &'a mut Scratch,
}

/// Who is told how a run goes on.
pub(crate) trait Attendant {
    /// The inputs are in place, or the step of this number is done.
    fn done(&mut self, step: Option<usize>);

    /// A segment is over and another follows: what is more urgent may go first, in the working memory of this core and an arena of its own.
    fn between_segments(&mut self, scratch: &mut Scratch);
}

/// What became of a run of items: per output, the items' bytes one after the other; and who failed.
#[derive(Debug, Default)]
pub(crate) struct RunOutput {
    pub(crate) outputs: Vec<Vec<u8>>,
    pub(crate) failures: Vec<(usize, RequestError)>,
}

impl Program {
    /// Whether there is a kernel for every step.
    pub(crate) fn check(device: &str, plan: &Plan) -> Result<(), DeviceError> {
        let refused = plan.steps.iter().find_map(|step| Some((step, steps::refusal(plan, step)?)));
        refused.map_or(Ok(()), |(step, why)| {
            Err(DeviceError::NoKernel { device: device.to_owned(), step: step.name.clone(), why })
        })
    }

    /// Checks that there is a kernel for every step.
    pub(crate) fn new(
        device: &str,
        plan: &Arc<Plan>,
        layout: &Arc<SlotLayout>,
        room: Room,
    ) -> Result<Program, DeviceError> {
        Program::check(device, plan)?;
        let constants = plan.constants.iter().map(Constant::new).collect();
        Ok(Program { plan: plan.clone(), layout: layout.clone(), room, constants })
    }

    /// Runs `items` items of one lane, heavy steps with `crew`. `inputs(i)` are the items' bytes of input i, in pieces that are copied here and
    /// nowhere else: of a plan whose steps are light, moving numbers in and out takes longest.
    pub(crate) fn run<'p, P: Iterator<Item = &'p [u8]>>(
        &self,
        desk: Desk<'_>,
        weights: &Weights,
        items: usize,
        inputs: impl Fn(usize) -> P,
        crew: Crew<'_>,
        attendant: &mut impl Attendant,
    ) -> RunOutput {
        let Desk { arena, scratch } = desk;
        let placed = Placed { plan: &self.plan, items };
        arena.reserve(placed);
        for (input, port) in self.plan.inputs.iter().enumerate() {
            if let Operand::Buffer(id) = port.at {
                let mut words: &mut [u8] = bytemuck::cast_slice_mut(arena.buffer(placed, id));
                for piece in inputs(input) {
                    let (to, rest) = words.split_at_mut(piece.len());
                    to.copy_from_slice(piece);
                    words = rest;
                }
            }
        }
        let mut failures = Vec::new();
        attendant.done(None);
        for segment in &self.plan.segments {
            if segment.start > 0 {
                attendant.between_segments(scratch);
            }
            for number in segment.clone() {
                let mut bench = Bench {
                    plan: &self.plan,
                    layout: &self.layout,
                    weights: weights.values(),
                    constants: &self.constants,
                    items,
                    crew,
                    arena: &mut *arena,
                    scratch: &mut *scratch,
                    failures: &mut failures,
                };
                bench.run(&self.plan.steps[number]);
                attendant.done(Some(number));
            }
        }
        let outputs = self.plan.outputs.iter().map(|port| {
            let bytes = port.bytes_per_item();
            match port.at {
                Operand::Buffer(id) => {
                    let words: &[u8] = bytemuck::cast_slice(arena.buffer(placed, id));
                    words[..items * bytes].to_vec()
                }
                Operand::Constant(id) => self.constants[id.0 as usize].bytes()[..bytes].repeat(items),
                Operand::Weight(id) => {
                    let start = self.layout.tensors[id.0 as usize].offset / size_of::<f32>();
                    let values = &weights.values()[start..start + bytes / size_of::<f32>()];
                    bytemuck::cast_slice::<f32, u8>(values).repeat(items)
                }
            }
        });
        RunOutput { outputs: outputs.collect(), failures }
    }
}
