//! Which operators on data, and along which axes, leave items independent: `x` is `[n, …]` with `n` items.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

mod support;

use support::Builder;
use tessera_core::DType;
use tessera_planner::Tensor;
use tessera_planner::graph::{Dim, ValueId};
use tessera_planner::infer::{DimValue, InferError, Note, infer};
use tessera_planner::op::{Aspect, Binary, Coordinates, Interpolation, Nearest, Op, Resize, Scatter, Unary};

/// A graph over inputs of `n` items.
#[derive(Default)]
struct Batch(Builder);

impl Batch {
    fn input(&mut self, dtype: DType, item: &[u64]) -> ValueId {
        let name = format!("in{}", self.0.0.inputs.len());
        let value = self.0.input(&name, item);
        let input = self.0.0.inputs.last_mut().unwrap();
        input.dtype = dtype;
        input.dims.insert(0, Dim::Free(0));
        value
    }

    fn floats(&mut self, item: &[u64]) -> ValueId {
        self.input(DType::F32, item)
    }

    fn ids(&mut self, item: &[u64]) -> ValueId {
        self.input(DType::I64, item)
    }

    /// The dimensions of one item of the operator's output, and whether indices were made the item's own.
    fn infer(mut self, op: Op, inputs: &[ValueId]) -> Result<(Vec<usize>, bool), InferError> {
        let output = self.0.node(op, inputs, "y");
        self.0.output(output);
        self.0.0.free_dims = vec!["n".into()];
        let facts = infer(&self.0.0, &[], &[DimValue::Items])?;
        let within = matches!(facts.note(self.0.0.nodes.len() - 1), Some(Note::WithinItem { .. }));
        Ok((facts[output].dims.clone(), within))
    }

    fn mixes(self, op: Op, inputs: &[ValueId]) -> bool {
        matches!(self.infer(op, inputs), Err(InferError::MixesItems { .. }))
    }
}

fn arg(axis: i64) -> Op {
    Op::Arg { largest: true, axis, keep_dims: false, last: false }
}

#[test]
fn choosing_and_adding_along_an_item_s_own_axes_keeps_items_apart() {
    let mut b = Batch::default();
    let x = b.floats(&[3, 4]);
    assert_eq!(b.infer(arg(2), &[x]).unwrap().0, [1, 3]);

    let mut b = Batch::default();
    let (x, k) = (b.floats(&[3, 4]), b.0.integers("k", &[2]));
    assert_eq!(b.infer(Op::TopK { axis: 1, largest: true }, &[x, k]).unwrap().0, [1, 2, 4]);

    let mut b = Batch::default();
    let (x, axis) = (b.floats(&[3, 4]), b.0.integers("axis", &[-1]));
    let op = Op::CumSum { exclusive: false, reverse: true };
    assert_eq!(b.infer(op, &[x, axis]).unwrap().0, [1, 3, 4]);
}

#[test]
fn choosing_and_adding_along_the_item_axis_mixes_items() {
    let mut b = Batch::default();
    let x = b.floats(&[3]);
    assert!(b.mixes(arg(0), &[x]));

    let mut b = Batch::default();
    let (x, k) = (b.floats(&[3]), b.0.integers("k", &[1]));
    assert!(b.mixes(Op::TopK { axis: -2, largest: false }, &[x, k]));

    let mut b = Batch::default();
    let (x, axis) = (b.floats(&[3]), b.0.integers("axis", &[0]));
    assert!(b.mixes(Op::CumSum { exclusive: false, reverse: false }, &[x, axis]));
}

#[test]
fn repetitions_and_squares_are_an_item_s_own() {
    let mut b = Batch::default();
    let (x, repeats) = (b.floats(&[3]), b.0.integers("repeats", &[1, 4]));
    assert_eq!(b.infer(Op::Tile, &[x, repeats]).unwrap().0, [1, 12]);
    let mut b = Batch::default();
    let (x, repeats) = (b.floats(&[3]), b.0.integers("repeats", &[2, 1]));
    assert!(b.mixes(Op::Tile, &[x, repeats]));

    let mut b = Batch::default();
    let x = b.floats(&[8, 2, 3]);
    assert_eq!(b.infer(Op::DepthToSpace { block: 2, depth_first: true }, &[x]).unwrap().0, [1, 2, 4, 6]);
    let mut b = Batch::default();
    let x = b.floats(&[2, 4, 6]);
    assert_eq!(b.infer(Op::SpaceToDepth { block: 2, depth_first: false }, &[x]).unwrap().0, [1, 8, 2, 3]);
}

#[test]
fn one_part_of_the_items_is_all_of_them_or_mixes_them() {
    let sizes = |sizes: &[i64]| {
        let mut b = Batch::default();
        let (x, sizes) = (b.floats(&[4]), b.0.integers("sizes", sizes));
        b.infer(Op::Split { axis: 0 }, &[x, sizes])
    };
    // However many items there are: a part of another length would be read beyond the end of one.
    for given in [&[1][..], &[2], &[i64::MAX - 1], &[-1], &[1, 1], &[]] {
        assert!(matches!(sizes(given), Err(InferError::MixesItems { .. })), "{given:?}");
    }
    let mut b = Batch::default();
    let x = b.floats(&[4]);
    let count = b.0.node(Op::Shape { start: 0, end: Some(1) }, &[x], "count");
    assert_eq!(b.infer(Op::Split { axis: 0 }, &[x, count]).unwrap().0, [1, 4]);
}

#[test]
fn an_empty_value_may_not_be_large_in_its_other_dimensions() {
    let expanded = |to: &[i64]| {
        let mut b = Batch::default();
        let (x, to) = (b.floats(&[1, 1, 1]), b.0.integers("to", to));
        b.infer(Op::Expand, &[x, to])
    };
    assert!(matches!(expanded(&[1 << 40, 1 << 40, 0]), Err(InferError::Invalid { .. })));
    assert_eq!(expanded(&[3, 5, 0]).unwrap().0, [1, 3, 5, 0]);
}

#[test]
fn a_triangle_of_items_mixes_them_and_one_of_an_item_does_not() {
    let mut b = Batch::default();
    let x = b.floats(&[3, 3]);
    assert_eq!(b.infer(Op::Trilu { upper: true }, &[x]).unwrap().0, [1, 3, 3]);
    let mut b = Batch::default();
    let x = b.floats(&[3]);
    assert!(b.mixes(Op::Trilu { upper: false }, &[x]));
}

fn resize() -> Op {
    Op::Resize(Resize {
        interpolation: Interpolation::Nearest(Nearest::Floor),
        coordinates: Coordinates::Asymmetric,
        antialias: false,
        exclude_outside: false,
        aspect: Aspect::Stretch,
        axes: Vec::new(),
    })
}

/// The sizes that exporters compute: the first two from the shape, the others given.
fn resized(b: &mut Batch, x: ValueId, kept: i64, given: &[i64]) -> Vec<Option<ValueId>> {
    let shape = b.0.node(Op::Shape { start: 0, end: Some(kept) }, &[x], "shape");
    let given = b.0.integers("given", given);
    let sizes = b.0.node(Op::Concat { axis: 0 }, &[shape, given], "sizes");
    vec![Some(x), None, None, Some(sizes)]
}

#[test]
fn sizes_that_are_computed_from_the_batch_resize_each_item() {
    let mut b = Batch::default();
    let x = b.floats(&[3, 4, 5]);
    let inputs = resized(&mut b, x, 2, &[8, 10]);
    let output = b.0.optional(resize(), &inputs, &["y"])[0];
    b.0.output(output);
    b.0.0.free_dims = vec!["n".into()];
    let facts = infer(&b.0.0, &[], &[DimValue::Items]).unwrap();
    assert_eq!(facts[output].dims, [1, 3, 8, 10]);

    let mut b = Batch::default();
    let x = b.floats(&[3, 4, 5]);
    let inputs = resized(&mut b, x, 0, &[2, 3, 8, 10]);
    let output = b.0.optional(resize(), &inputs, &["y"])[0];
    b.0.output(output);
    b.0.0.free_dims = vec!["n".into()];
    assert!(matches!(infer(&b.0.0, &[], &[DimValue::Items]), Err(InferError::MixesItems { .. })));
}

#[test]
fn indices_meet_only_the_item_that_brings_them() {
    // A batch of tables, each with its own indices.
    let mut b = Batch::default();
    let (x, ids) = (b.floats(&[5, 6]), b.ids(&[2, 1]));
    assert_eq!(b.infer(Op::GatherNd { batch_dims: 1 }, &[x, ids]).unwrap().0, [1, 2, 6]);
    // One table that all items share.
    let mut b = Batch::default();
    let (x, ids) = (b.0.weight("table", &[5, 6, 7]), b.ids(&[2, 2]));
    assert_eq!(b.infer(Op::GatherNd { batch_dims: 0 }, &[x, ids]).unwrap().0, [1, 2, 7]);
    // Indices that may name other items.
    let mut b = Batch::default();
    let (x, ids) = (b.floats(&[5, 6]), b.ids(&[2, 2]));
    assert!(b.mixes(Op::GatherNd { batch_dims: 0 }, &[x, ids]));
}

#[test]
fn updates_change_only_the_item_that_brings_them() {
    let along = |axis| Op::ScatterElements { axis, how: Scatter::Add };
    let mut b = Batch::default();
    let (x, ids, updates) = (b.floats(&[5]), b.ids(&[3]), b.floats(&[3]));
    assert_eq!(b.infer(along(1), &[x, ids, updates]).unwrap().0, [1, 5]);
    let mut b = Batch::default();
    let (x, ids, updates) = (b.floats(&[5]), b.ids(&[3]), b.floats(&[3]));
    assert!(b.mixes(along(0), &[x, ids, updates]));
    let mut b = Batch::default();
    let (x, ids, updates) = (b.floats(&[5]), b.ids(&[3, 1]), b.floats(&[3, 5]));
    assert!(b.mixes(Op::ScatterNd(Scatter::Replace), &[x, ids, updates]));
}

/// What exporters make of `x[:, 2:4] = y`: indices (item, column) computed from the batch's own length.
#[test]
fn an_assignment_to_a_slice_stays_inside_its_item() {
    let mut b = Batch::default();
    let (x, updates) = (b.floats(&[5]), b.floats(&[2]));
    let length = b.0.node(Op::Shape { start: 0, end: Some(1) }, &[x], "length");
    let none = b.0.literal("no axes", Tensor::from_elements(&[1], &[0i64]));
    let limit = b.0.node(Op::Squeeze, &[length, none], "limit");
    let (zero, one) = (b.0.literal("zero", Tensor::scalar(0i64)), b.0.literal("one", Tensor::scalar(1i64)));
    let items = b.0.node(Op::Range, &[zero, limit, one], "items");
    let (last, columns) = (
        b.0.integers("last", &[1, 2]),
        b.0.literal("columns", Tensor::from_elements(&[1, 2, 1], &[2i64, 3])),
    );
    let items = b.0.node(Op::Unsqueeze, &[items, last], "items 3-d");
    let two = b.0.integers("two", &[1, 2, 1]);
    let items = b.0.node(Op::Expand, &[items, two], "items twice");
    let repeats = b.0.node(Op::Shape { start: 0, end: None }, &[items], "as many");
    let columns = b.0.node(Op::Expand, &[columns, repeats], "columns each");
    let indices = b.0.node(Op::Concat { axis: 2 }, &[items, columns], "indices");
    let (dims, within) = b.infer(Op::ScatterNd(Scatter::Replace), &[x, indices, updates]).unwrap();
    assert_eq!((dims, within), (vec![1, 5], true));
}

#[test]
fn one_hot_vectors_follow_their_item_and_nonzero_places_are_refused() {
    let mut b = Batch::default();
    let ids = b.ids(&[3]);
    let depth = b.0.literal("depth", Tensor::scalar(4i64));
    let values = b.0.weight("values", &[2]);
    assert_eq!(b.infer(Op::OneHot { axis: 1 }, &[ids, depth, values]).unwrap().0, [1, 4, 3]);
    let mut b = Batch::default();
    let x = b.floats(&[3]);
    let refused = b.infer(Op::NonZero, &[x]);
    assert!(matches!(refused, Err(InferError::DataDependent { .. })), "{refused:?}");
}

/// A time-major value, `[time, n, 4]`, and its items read as rows.
fn time_major(b: &mut Batch, rows: &[i64]) -> (ValueId, ValueId) {
    let x = b.floats(&[3, 4]);
    let x = b.0.node(Op::Transpose { perm: vec![1, 0, 2] }, &[x], "by time");
    let shape = b.0.integers("rows", rows);
    let rows = b.0.node(Op::Reshape { allow_zero: false }, &[x, shape], "as rows");
    (x, rows)
}

const SUM: Op = Op::Binary(Binary::Add);

#[test]
fn rows_that_join_time_and_items_are_parted_again_with_every_item_whole() {
    let mut b = Batch::default();
    let (_, rows) = time_major(&mut b, &[-1, 4]);
    let w = b.0.weight("w", &[4, 6]);
    let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
    let made = b.0.node(gemm, &[rows, w], "made");
    let shape = b.0.integers("parted", &[3, -1, 6]);
    let parted = b.0.node(Op::Reshape { allow_zero: false }, &[made, shape], "by time again");
    assert_eq!(b.infer(Op::Transpose { perm: vec![1, 0, 2] }, &[parted]).unwrap().0, [1, 3, 6]);
}

#[test]
fn rows_that_join_time_and_items_are_no_answer_and_cannot_be_cut_where_items_interleave() {
    let mut b = Batch::default();
    let (_, rows) = time_major(&mut b, &[-1, 4]);
    assert!(b.mixes(Op::Unary(Unary::Relu), &[rows]), "each item's rows are apart");

    // As if items came first: rows 0, 1 and 2 are of three items.
    let mut b = Batch::default();
    let (_, rows) = time_major(&mut b, &[-1, 4]);
    let shape = b.0.integers("parted", &[-1, 3, 4]);
    assert!(b.mixes(Op::Reshape { allow_zero: false }, &[rows, shape]));

    // Rows as others have them, item after item.
    let mut b = Batch::default();
    let (_, rows) = time_major(&mut b, &[-1, 4]);
    let y = b.floats(&[3, 4]);
    let shape = b.0.integers("items first", &[-1, 4]);
    let others = b.0.node(Op::Reshape { allow_zero: false }, &[y, shape], "others");
    assert!(b.mixes(SUM, &[rows, others]));

    // An operator that looks along rows.
    let mut b = Batch::default();
    let (_, rows) = time_major(&mut b, &[-1, 4]);
    let row = b.0.integers("row", &[0]);
    assert!(b.mixes(Op::Gather { axis: 0 }, &[rows, row]));
}

#[test]
fn heads_that_are_split_from_time_major_rows_stay_with_their_item() {
    let mut b = Batch::default();
    let (_, rows) = time_major(&mut b, &[-1, 4]);
    let shape = b.0.integers("heads", &[3, -1, 2]);
    let heads = b.0.node(Op::Reshape { allow_zero: false }, &[rows, shape], "time, items and heads");
    let perm = vec![1, 0, 2];
    let heads = b.0.node(Op::Transpose { perm: perm.clone() }, &[heads], "heads first");
    let turned = b.0.node(Op::Transpose { perm: vec![0, 2, 1] }, &[heads], "turned");
    let scores = b.0.node(Op::MatMul, &[heads, turned], "scores");
    let scores = b.0.node(Op::Softmax { axis: 2, log: false }, &[scores], "weights");
    let mixed = b.0.node(Op::MatMul, &[scores, heads], "mixed");
    let back = b.0.node(Op::Transpose { perm }, &[mixed], "by time again");
    let shape = b.0.integers("joined", &[-1, 4]);
    let joined = b.0.node(Op::Reshape { allow_zero: false }, &[back, shape], "joined");
    let shape = b.0.integers("whole", &[3, -1, 4]);
    let whole = b.0.node(Op::Reshape { allow_zero: false }, &[joined, shape], "whole");
    assert_eq!(b.infer(Op::Transpose { perm: vec![1, 0, 2] }, &[whole]).unwrap().0, [1, 3, 4]);
}
