//! Steps that the plan has one by one and a single kernel does: those around a network's first convolution.
//!
//! ```text
//!   input ─▶ Copy to channels last ─▶ Conv of few channels ─▶ Pool, the largest       the plan
//!   planes of floats, as staged ──────────────────────────▶ pooled lines             product_stem.cu
//!   planes of floats, as staged ──────────────────────────▶ lines                    product_stem_float.cu
//! ```
//! The plan keeps its steps, so that every other device and the definition read it as ever; here the convolution's has the kernel, and the others have none. Bits
//! are those of one after the other: what is staged is rounded as it would have been on its way into the arena, and a maximum chooses among what was rounded.

use super::product::{Windows, is_stem};
use std::cmp::Reverse;
use std::ops::Range;
use tessera_core::DType;
use tessera_planner::Plan;
use tessera_planner::plan::{Access, Activation, BufferId, ConvShape, Epilogue, Operand, PoolKind, StepKind};

/// What a convolution's kernel does beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Joined {
    /// It reads an input as it is staged.
    pub(super) planes: Option<Planes>,
    /// The pool behind it.
    pub(super) pool: Option<usize>,
}

/// An input whose floats a convolution reads as they are staged, `[channels][height][width]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Planes {
    pub(super) input: usize,
    /// The step that would have turned it to channels last.
    copy: usize,
}

/// What the kernel of step `index` does beside it; nothing unless that is a stem.
pub(super) fn joined(plan: &Plan, index: usize) -> Joined {
    let StepKind::Conv { x, shape, epilogue, out, .. } = &plan.steps[index].kind else {
        return Joined::default();
    };
    if !is_stem(shape, &Windows::alone(shape), plan.key.precision, epilogue.residual.is_some()) {
        return Joined::default();
    }
    let planes = planes(plan, *x, shape);
    let pool = pool(plan, shape, epilogue, *out);
    // What the kernel reads from the arena must not lie where it writes: to the plan they may be strangers.
    let apart = |pool: &usize| planes.is_some() || !overlap(plan, *x, pooled(plan, *pool).1);
    Joined { planes, pool: pool.filter(apart) }
}

/// Whether another step's kernel does this step.
pub(super) fn is_done(plan: &Plan, index: usize) -> bool {
    let does =
        |joined: Joined| joined.pool == Some(index) || joined.planes.is_some_and(|it| it.copy == index);
    matches!(plan.steps[index].kind, StepKind::Copy { .. } | StepKind::Pool { .. })
        && (0..plan.steps.len()).any(|other| does(joined(plan, other)))
}

/// Whether an input is read as it is staged, and by nobody in the arena.
pub(super) fn reads_staged(plan: &Plan, input: usize) -> bool {
    let reads = |joined: Joined| joined.planes.is_some_and(|planes| planes.input == input);
    (0..plan.steps.len()).any(|step| reads(joined(plan, step)))
}

/// Whether the kernel of step `index` does others too.
pub(crate) fn is_joined(plan: &Plan, index: usize) -> bool {
    joined(plan, index) != Joined::default()
}

/// The pool of step `index`, and what it writes.
pub(super) fn pooled(plan: &Plan, index: usize) -> (&ConvShape, BufferId) {
    match &plan.steps[index].kind {
        StepKind::Pool { shape, out, .. } => (shape, *out),
        _ => unreachable!("only pools are joined so"),
    }
}

/// The input that `x` is a copy of, with channels last, where nobody reads either but a convolution of this shape.
fn planes(plan: &Plan, x: Operand, shape: &ConvShape) -> Option<Planes> {
    let Operand::Buffer(turned) = x else { return None };
    let copy = plan.steps.iter().position(|step| step.kind.writes().iter().any(|it| it.buffer == turned))?;
    let StepKind::Copy { dims, x: from, out_offset: 0, out_strides, .. } = &plan.steps[copy].kind else {
        return None;
    };
    let input = plan.inputs.iter().position(|port| port.at == from.operand && port.dtype == DType::F32)?;
    let Operand::Buffer(image) = from.operand else { return None };
    let alone = only_reader(plan, image) == Some(copy) && only_reader(plan, turned).is_some();
    (alone && turns_to_channels_last(dims, from, out_strides, shape)).then_some(Planes { input, copy })
}

/// Whether a copy from `from` to `to` is that of an image of this shape, from planes to channels last, however its axes are written.
fn turns_to_channels_last(dims: &[usize], from: &Access, to: &[usize], shape: &ConvShape) -> bool {
    let ([height, width], channels) = (shape.input, shape.in_per_group);
    let pixels = height * width;
    let axes =
        dims.iter().zip(&from.strides).zip(to).map(|((&length, &from), &to)| Axis { length, from, to });
    let wanted = [
        Axis { length: pixels, from: 1, to: channels },
        Axis { length: channels, from: pixels as isize, to: 1 },
    ];
    from.offset == 0 && joined_axes(axes) == joined_axes(wanted)
}

/// An axis of a copy: its length, and the elements between neighbours on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Axis {
    length: usize,
    from: isize,
    to: usize,
}

/// Axes in the order in which they are written, those as one that lie together on both sides.
fn joined_axes(axes: impl IntoIterator<Item = Axis>) -> Vec<Axis> {
    let mut sorted: Vec<Axis> = axes.into_iter().filter(|axis| axis.length != 1).collect();
    sorted.sort_unstable_by_key(|axis| Reverse(axis.to));
    let mut joined: Vec<Axis> = Vec::new();
    for axis in sorted {
        let Axis { length, from, to } = axis;
        match joined.last_mut() {
            Some(outer) if (outer.from, outer.to) == (from * length as isize, to * length) => {
                *outer = Axis { length: outer.length * length, from, to };
            }
            _ => joined.push(axis),
        }
    }
    joined
}

/// The pool that alone reads `out`, if a stem of this shape can do it.
fn pool(plan: &Plan, shape: &ConvShape, epilogue: &Epilogue, out: BufferId) -> Option<usize> {
    let reader = only_reader(plan, out)?;
    let StepKind::Pool { kind: PoolKind::Max, x: Operand::Buffer(x), shape: pool, .. } =
        &plan.steps[reader].kind
    else {
        return None;
    };
    let windows = Windows::of(pool)?;
    let stem = is_stem(shape, &windows, plan.key.precision, epilogue.residual.is_some());
    (*x == out && clips(epilogue.activation) && stem).then_some(reader)
}

/// Whether an activation ends with what is no less than zero, and never minus zero: of equal numbers a pool takes the first, and then they have the same bits.
fn clips(activation: Activation) -> bool {
    matches!(activation, Activation::Clip { low, high } if low.is_sign_positive() && low <= high)
}

/// The step that reads a buffer, if it is one, and no output is.
fn only_reader(plan: &Plan, buffer: BufferId) -> Option<usize> {
    let read = Operand::Buffer(buffer);
    if plan.outputs.iter().any(|port| port.at == read) {
        return None;
    }
    let reads = |index: &usize| plan.steps[*index].kind.reads().iter().any(|(it, _)| it.operand() == read);
    let mut readers = (0..plan.steps.len()).filter(reads);
    let first = readers.next();
    first.filter(|_| readers.next().is_none())
}

/// Whether two operands have bytes of an item in common.
fn overlap(plan: &Plan, a: Operand, b: BufferId) -> bool {
    let Operand::Buffer(a) = a else { return false };
    let bytes = |id: BufferId| -> Range<usize> {
        let buffer = plan.buffer(id);
        buffer.offset..buffer.offset + buffer.elements * plan.key.precision.stored(buffer.dtype).size()
    };
    let (a, b) = (bytes(a), bytes(b));
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Room;
    use crate::conformance::cases;
    use crate::cuda::site::Site;
    use crate::cuda::target;
    use std::path::PathBuf;
    use tessera_core::{PlanKey, Precision};
    use tessera_planner::infer::DimValue;
    use tessera_planner::{SlotLayout, class};

    /// The plan of a case in bf16.
    fn plan(name: &str) -> Plan {
        let case = cases().into_iter().find(|case| case.name == name).expect(name);
        Plan::clone(&case.plan_in(Precision::Bf16))
    }

    fn is_stem_with(plan: &Plan, planes: bool, pool: bool) -> bool {
        let conv =
            plan.steps.iter().position(|step| matches!(step.kind, StepKind::Conv { .. })).expect("one");
        let joined = joined(plan, conv);
        joined.planes.is_some() == planes && joined.pool.is_some() == pool
    }

    const WHOLE: &str = "turned stem 3→64 7×7 of 19×21, pooled by [3, 3] at [2, 2]";

    #[test]
    fn a_stem_takes_its_image_as_it_was_staged_and_pools() {
        let whole = plan(WHOLE);
        assert!(is_stem_with(&whole, true, true));
        assert_eq!([0, 1, 2].map(|step| is_done(&whole, step)), [true, false, true]);
        assert!(reads_staged(&whole, 0));
        assert!(is_stem_with(&plan("turned stem 3→36 3×3 of 15×22"), true, false));
        assert!(is_stem_with(&plan("stem 3→64 7×7 of 20×36, pooled by [3, 3] at [2, 2]"), false, true));
        assert!(is_stem_with(&plan("stem 3→64 7×7 of 20×36"), false, false));
    }

    #[test]
    fn what_somebody_else_reads_is_computed_by_itself() {
        let mut shown = plan(WHOLE);
        for (step, planes, pool) in [(1, true, false), (0, false, false)] {
            let written = shown.steps[step].kind.writes()[0].buffer;
            shown.outputs.push(tessera_planner::plan::Port {
                at: Operand::Buffer(written),
                ..shown.outputs[0].clone()
            });
            assert!(is_stem_with(&shown, planes, pool), "the results of step {step} are an output");
        }
        assert!(!reads_staged(&shown, 0));
    }

    #[test]
    fn only_what_the_matrix_unit_multiplies_and_ends_above_zero_is_pooled() {
        let of = |precision| {
            let mut plan = plan(WHOLE);
            plan.key.precision = precision;
            plan
        };
        assert!(
            is_stem_with(&of(Precision::Fp16), true, true) && is_stem_with(&of(Precision::Tf32), true, true)
        );
        assert!(is_stem_with(&of(Precision::Fp32), false, false), "its columns would fill no tile");
        assert!(is_stem_with(
            &plan("turned stem 3→16 3×3 of 14×18, pooled by [3, 3] at [2, 2]"),
            true,
            false
        ));
        assert!(clips(Activation::Clip { low: 0.0, high: 6.0 }));
        assert!(!clips(Activation::Clip { low: -0.0, high: 6.0 }), "equal zeros may have other bits");
        assert!(!clips(Activation::Clip { low: -1.0, high: 1.0 }) && !clips(Activation::Identity));
    }

    #[test]
    fn strict_stems_read_wide_images_as_they_were_staged_and_leave_pools_alone() {
        let strict = |name: &str| {
            let mut plan = plan(name);
            plan.key.precision = Precision::Fp32;
            plan
        };
        assert!(is_stem_with(
            &strict("turned stem 3→64 7×7 of 33×224, pooled by [3, 3] at [2, 2]"),
            true,
            false
        ));
        assert!(is_stem_with(&strict("turned stem 3→32 3×3 of 10×229"), true, false));
        assert!(is_stem_with(&strict("stem 3→64 7×7 of 6×224"), false, false));
    }

    #[test]
    fn a_kernel_writes_nowhere_where_it_reads() {
        let name = "stem 3→64 7×7 of 20×36, pooled by [3, 3] at [2, 2]";
        let mut plan = plan(name);
        let (image, pooled) = (plan.steps[0].kind.reads(), plan.steps[1].kind.writes()[0].buffer);
        let image = image.iter().find_map(|(read, _)| match read.operand() {
            Operand::Buffer(id) => Some(id),
            _ => None,
        });
        plan.buffers[pooled.0 as usize].offset = plan.buffer(image.expect("the image")).offset;
        assert!(is_stem_with(&plan, false, false), "to the plan the image is gone when the pool runs");
    }

    /// The plan of a network of the fixtures.
    fn network(name: &str, precision: Precision) -> (Plan, SlotLayout) {
        let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"));
        let class = class::load(&file.join(format!("{name}.onnx"))).expect(name).class;
        let layout = SlotLayout::of(class.folded(), target(precision)).expect(name);
        let key = PlanKey { class: class.id, dims: [].into(), precision };
        let values = vec![DimValue::Items; class.free_dims.len()];
        let plan = tessera_planner::plan(key, class.folded(), &layout, &values).expect(name);
        (plan, layout)
    }

    #[test]
    fn stems_of_networks_are_joined_as_the_planner_writes_them() {
        for precision in [Precision::Bf16, Precision::Tf32] {
            for (name, pools) in [("resnet26_narrow-0", true), ("mobilenet_v2_035-0", false)] {
                let (plan, _) = network(name, precision);
                assert!(is_stem_with(&plan, true, pools), "{name} in {precision}");
                assert!(reads_staged(&plan, 0), "{name} in {precision}");
            }
        }
    }

    #[test]
    fn what_a_stem_pools_is_rounded_for_the_products_that_read_it() {
        for (precision, rounds) in [(Precision::Tf32, true), (Precision::Bf16, false)] {
            let (plan, layout) = network("resnet26_narrow-0", precision);
            let conv = plan.steps.iter().position(|step| matches!(step.kind, StepKind::Conv { .. }));
            let site = Site::nowhere(&plan, &layout, Room { lanes: 2, items: 2 }, &[]);
            let calls = super::super::calls(&site, conv.expect("one")).expect("a stem");
            assert_eq!(calls[0].spec.source, "product_stem.cu");
            let factor = calls[0].spec.defines.iter().any(|(name, _)| *name == "FACTOR");
            assert_eq!(factor, rounds, "{precision}");
        }
    }

    #[test]
    fn only_a_copy_to_channels_last_is_left_out() {
        for change in [
            |dims: &mut Vec<usize>, _: &mut Access, _: &mut Vec<usize>| dims[1] -= 1,
            |_: &mut Vec<usize>, x: &mut Access, _: &mut Vec<usize>| x.strides[0] += 1,
            |_: &mut Vec<usize>, x: &mut Access, _: &mut Vec<usize>| x.offset = 1,
            |_: &mut Vec<usize>, _: &mut Access, out: &mut Vec<usize>| out.swap(0, 2),
        ] {
            let mut plan = plan(WHOLE);
            let StepKind::Copy { dims, x, out_strides, .. } = &mut plan.steps[0].kind else {
                panic!("a copy")
            };
            change(dims, x, out_strides);
            assert!(is_stem_with(&plan, false, true));
        }
    }
}
