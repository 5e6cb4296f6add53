//! What every device relies on, checked on every plan before anybody sees it.
//!
//! A device turns steps into pointers and does not look back, so a plan must not be able to read outside an operand, read what nobody
//! wrote, or let two live buffers share bytes. A broken rule is a mistake of the planner, never of a model.

use crate::element;
use crate::op::{CellKind, Reduction};
use crate::operands::{Read, Write};
use crate::pack::{Layout, SlotLayout};
use crate::place::{ALIGNMENT, meet};
use crate::plan::{Operand, Plan, Points, Port, Step, StepKind, TopK};
use tessera_core::DType;

/// The rule that a plan breaks, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {rule}")]
pub struct VerifyError {
    /// The step, buffer or port.
    pub place: String,
    /// What is wrong.
    pub rule: String,
}

/// Checks a plan against the layout of the slots that it reads. Costs little beside planning.
pub fn verify(plan: &Plan, layout: &SlotLayout) -> Result<(), VerifyError> {
    let check = Check { plan, layout };
    check.arena()?;
    check.segments()?;
    // How many elements of each buffer have been written: a buffer may be put together by several steps.
    let mut written = vec![0usize; plan.buffers.len()];
    for (index, port) in plan.inputs.iter().enumerate() {
        let place = format!("input {index}");
        check.port(port, &place)?;
        let Operand::Buffer(id) = port.at else { return Err(broken(&place, "is no buffer")) };
        written[id.0 as usize] = port.dims.iter().product();
    }
    for (index, step) in plan.steps.iter().enumerate() {
        check
            .step(index, step, &mut written)
            .map_err(|rule| VerifyError { place: format!("step {index} ({})", step.name), rule })?;
    }
    for (index, port) in plan.outputs.iter().enumerate() {
        let place = format!("output {index}");
        check.port(port, &place)?;
        match port.at {
            Operand::Buffer(id) if written[id.0 as usize] < plan.buffer(id).elements => {
                return Err(broken(&place, "is not written"));
            }
            Operand::Buffer(id) if plan.buffer(id).live.end < plan.steps.len() => {
                return Err(broken(&place, "does not live to the end"));
            }
            Operand::Weight(_) => return Err(broken(&place, "is a weight")),
            Operand::Buffer(_) | Operand::Constant(_) => {}
        }
    }
    Ok(())
}

fn broken(place: &str, rule: impl Into<String>) -> VerifyError {
    VerifyError { place: place.to_string(), rule: rule.into() }
}

struct Check<'a> {
    plan: &'a Plan,
    layout: &'a SlotLayout,
}

impl Check<'_> {
    /// Buffers are aligned, inside the arena, and apart while they live.
    fn arena(&self) -> Result<(), VerifyError> {
        let buffers = &self.plan.buffers;
        let mut ends = Vec::with_capacity(buffers.len());
        for (index, buffer) in buffers.iter().enumerate() {
            let place = format!("buffer {index}");
            let end = buffer
                .elements
                .checked_mul(self.plan.key.precision.stored(buffer.dtype).size())
                .and_then(|bytes| buffer.offset.checked_add(bytes))
                .filter(|&end| end as u64 <= self.plan.arena_per_item.0);
            ends.push(end.ok_or_else(|| broken(&place, "ends outside the arena"))?);
            if buffer.offset % ALIGNMENT != 0 {
                return Err(broken(&place, "is not aligned"));
            }
        }
        for (index, a) in buffers.iter().enumerate() {
            for (other, b) in buffers.iter().enumerate().skip(index + 1) {
                if meet(&a.live, &b.live) && a.offset < ends[other] && b.offset < ends[index] {
                    return Err(broken(
                        &format!("buffer {index}"),
                        format!("shares bytes with live buffer {other}"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn segments(&self) -> Result<(), VerifyError> {
        let mut next = 0;
        for run in &self.plan.segments {
            if run.start != next || run.end < run.start {
                return Err(broken("segments", "do not follow one another"));
            }
            next = run.end;
        }
        if next == self.plan.steps.len() { Ok(()) } else { Err(broken("segments", "do not cover the steps")) }
    }

    fn port(&self, port: &Port, place: &str) -> Result<(), VerifyError> {
        let (dtype, elements) = self.operand(port.at).map_err(|rule| broken(place, rule))?;
        if dtype != port.dtype || elements != port.dims.iter().product::<usize>() {
            return Err(broken(
                place,
                format!("is {}{:?} but lies in {dtype}[{elements}]", port.dtype, port.dims),
            ));
        }
        Ok(())
    }

    /// Element type and number of elements, padding of panels included.
    fn operand(&self, operand: Operand) -> Result<(DType, usize), String> {
        match operand {
            Operand::Buffer(id) => {
                self.plan.buffers.get(id.0 as usize).map(|buffer| (buffer.dtype, buffer.elements))
            }
            Operand::Weight(id) => {
                self.layout.tensors.get(id.0 as usize).map(|tensor| (DType::F32, tensor.layout.elements()))
            }
            Operand::Constant(id) => {
                self.plan.constants.get(id.0 as usize).map(|tensor| (tensor.dtype(), tensor.len()))
            }
        }
        .ok_or_else(|| format!("names {operand:?}, which does not exist"))
    }

    fn step(&self, index: usize, step: &Step, written: &mut [usize]) -> Result<(), String> {
        let reads = step.kind.reads();
        let writes = step.kind.writes();
        for (read, dtype) in &reads {
            self.read(index, read, *dtype, written)?;
        }
        for write in &writes {
            if reads.iter().any(|(read, _)| read.operand() == Operand::Buffer(write.buffer)) {
                return Err(format!("reads {:?}, which it writes", write.buffer));
            }
            self.write(index, &step.kind, write, written)?;
        }
        self.types(&step.kind)
    }

    fn read(&self, index: usize, read: &Read, dtype: Option<DType>, written: &[usize]) -> Result<(), String> {
        let operand = read.operand();
        let (actual, elements) = self.operand(operand)?;
        if dtype.is_some_and(|dtype| dtype != actual) {
            return Err(format!("reads {operand:?} of {actual} as f32"));
        }
        if let Operand::Buffer(id) = operand {
            let buffer = self.plan.buffer(id);
            if written[id.0 as usize] < buffer.elements {
                return Err(format!(
                    "reads {operand:?}, of which only {} elements are written",
                    written[id.0 as usize]
                ));
            }
            if !buffer.live.contains(&index) {
                return Err(format!("reads {operand:?} outside its life"));
            }
        }
        if let (Operand::Weight(id), Read::Walk(..) | Read::Dense(..)) = (operand, read) {
            let layout = &self.layout.tensors[id.0 as usize].layout;
            if !matches!(layout, Layout::Plain { .. }) {
                return Err(format!("reads {operand:?} as plain, but it is {layout:?}"));
            }
        }
        match read {
            Read::Walk(access, dims) => {
                let strides: Vec<i128> = access.strides.iter().map(|&stride| stride as i128).collect();
                inside(access.offset, dims, &strides, elements)
                    .map_err(|why| format!("walks {operand:?} {why}"))
            }
            Read::Dense(_, count) if *count > elements => {
                Err(format!("reads {count} elements of {operand:?}, which has {elements}"))
            }
            Read::Dense(..) => Ok(()),
            &Read::Panels { weight, groups, k, n } => match self.layout.tensors[weight.0 as usize].layout {
                Layout::Panels { groups: g, k: rows, n: columns, .. }
                | Layout::Blocks { groups: g, k: rows, n: columns, .. }
                    if (g, rows, columns) == (groups, k, n) =>
                {
                    Ok(())
                }
                ref layout => Err(format!("reads {groups} panels {k}×{n}, but {operand:?} is {layout:?}")),
            },
        }
    }

    fn write(
        &self,
        index: usize,
        kind: &StepKind,
        write: &Write,
        written: &mut [usize],
    ) -> Result<(), String> {
        let operand = Operand::Buffer(write.buffer);
        let (_, elements) = self.operand(operand)?;
        if !self.plan.buffer(write.buffer).live.contains(&index) {
            return Err(format!("writes {operand:?} outside its life"));
        }
        let sum = &mut written[write.buffer.0 as usize];
        // Only copies and recurrent layers put a buffer together; the others write all of it.
        let partial = matches!(kind, StepKind::Copy { .. } | StepKind::Recurrent { .. });
        match kind {
            StepKind::Fill { .. } => *sum = elements,
            StepKind::Scatter(_) if *sum < elements => {
                return Err(format!("changes {operand:?}, of which only {sum} elements are written"));
            }
            StepKind::Scatter(_) => {}
            _ if !partial && write.elements() != elements => {
                return Err(format!(
                    "writes {} elements of {operand:?}, which has {elements}",
                    write.elements()
                ));
            }
            _ => *sum = sum.saturating_add(write.elements()),
        }
        let strides: Vec<i128> = write.strides.iter().map(|&stride| stride as i128).collect();
        inside(write.offset, &write.dims, &strides, elements)
            .map_err(|why| format!("writes {operand:?} {why}"))
    }

    fn top_k(&self, step: &TopK) -> Result<(), String> {
        let dtype = |operand: Operand| self.operand(operand).map(|(dtype, _)| dtype);
        if step.k == 0 || step.k > step.lines.length {
            return Err(format!("takes {} of {} elements", step.k, step.lines.length));
        }
        for (out, want) in [(step.values, dtype(step.x)?), (step.indices, DType::I64)] {
            let Some(out) = out else { continue };
            let is = dtype(Operand::Buffer(out))?;
            if is != want {
                return Err(format!("makes {want} but writes {is}"));
            }
        }
        Ok(())
    }

    fn points(&self, points: &Points, ids: Operand) -> Result<(), String> {
        if !matches!(self.operand(ids)?.0, DType::I32 | DType::I64) {
            return Err("its numbers are no integers".to_string());
        }
        let fits = points.dims.len() == points.strides.len() && points.sizes.len() == points.along.len();
        if fits && !points.sizes.is_empty() { Ok(()) } else { Err("its points have no place".to_string()) }
    }

    /// Rules about element types that are not simply "f32".
    fn types(&self, kind: &StepKind) -> Result<(), String> {
        let dtype = |operand: Operand| self.operand(operand).map(|(dtype, _)| dtype);
        let written = kind.writes().first().map(|write| Operand::Buffer(write.buffer));
        let out = dtype(written.ok_or("writes nothing")?)?;
        let want = match kind {
            StepKind::Gather { table, ids, .. } => {
                if !matches!(dtype(*ids)?, DType::I32 | DType::I64) {
                    return Err("its ids are no integers".to_string());
                }
                dtype(*table)?
            }
            StepKind::Copy { x, .. } => dtype(x.operand)?,
            StepKind::Fill { value, .. } if value.len() != 1 => {
                return Err("fills with no single element".into());
            }
            StepKind::Fill { value, .. } => value.dtype(),
            StepKind::TopK(step) => return self.top_k(step),
            StepKind::CumSum(step) => dtype(step.x)?,
            StepKind::Resample(step) => {
                let at = self.plan.constants[step.at.0 as usize].elements::<i32>().unwrap_or_default();
                if at.iter().any(|&at| !usize::try_from(at).is_ok_and(|at| at < step.lines.length)) {
                    return Err("leads out of its lines".to_string());
                }
                DType::F32
            }
            StepKind::Pick(step) => {
                self.points(&step.points, step.ids)?;
                dtype(step.x)?
            }
            StepKind::Scatter(step) => {
                self.points(&step.points, step.ids)?;
                dtype(step.updates)?
            }
            StepKind::PoolIndices { .. } => DType::I64,
            StepKind::GroupNorm { shape, .. }
                if !shape.channels.is_multiple_of(shape.groups)
                    || !shape.channels.is_multiple_of(shape.vectors) =>
            {
                return Err(format!("{} channels are no whole groups", shape.channels));
            }
            StepKind::Reduce { kind, x, .. } => match dtype(x.operand)? {
                DType::I64 if matches!(kind, Reduction::L2 | Reduction::LogSum | Reduction::LogSumExp) => {
                    return Err(format!("{kind:?} of integers"));
                }
                dtype @ (DType::F32 | DType::I64) => dtype,
                other => return Err(format!("reduces {other}")),
            },
            StepKind::Elementwise { inputs, program, .. } => {
                let inputs: Vec<DType> =
                    inputs.iter().map(|input| dtype(input.operand)).collect::<Result<_, _>>()?;
                let types = element::types(&inputs, program).map_err(|error| error.to_string())?;
                match *types.last().ok_or("has no instruction")? {
                    last if last == element::register(out) => out,
                    other => other,
                }
            }
            StepKind::Gemm { x, k, .. } if *k > 1 && x.strides.last() != Some(&1) => {
                return Err("its rows do not lie in one piece".to_string());
            }
            StepKind::Recurrent { cell, weights, .. }
                if cell.functions.len() != cell.kind.functions()
                    || weights.candidate.is_some()
                        != matches!(cell.kind, CellKind::Gru { linear_before_reset: false }) =>
            {
                return Err("its functions or weights are not those of its cell".to_string());
            }
            _ => DType::F32,
        };
        if want == out { Ok(()) } else { Err(format!("makes {want} but writes {out}")) }
    }
}

/// Whether every position of a walk is inside an operand of so many elements.
fn inside(offset: usize, dims: &[usize], strides: &[i128], elements: usize) -> Result<(), String> {
    if dims.len() != strides.len() {
        return Err(format!("{} dimensions by {} strides", dims.len(), strides.len()));
    }
    if dims.contains(&0) {
        return Ok(());
    }
    let (mut low, mut high) = (offset as i128, offset as i128);
    for (&dim, &stride) in dims.iter().zip(strides) {
        let reach = (dim as i128 - 1) * stride;
        low += reach.min(0);
        high += reach.max(0);
    }
    if low < 0 || high >= elements as i128 {
        return Err(format!("from {low} to {high}, outside its {elements} elements"));
    }
    Ok(())
}
