//! What folding makes of small graphs, as text.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

#[path = "../support/mod.rs"]
mod support;

mod products;
mod recurrent;

use support::{Builder, meaning, transposed, window};
use tessera_core::DType;
use tessera_planner::fold::{FoldError, Folded, Role, WeightExpr, fold};
use tessera_planner::graph::{Graph, ParamData, ValueId, WeightSource};
use tessera_planner::op::{Binary, Cell, CellKind, Direction, Op, Recurrent, Reduction, Unary};
use tessera_planner::tensor::Tensor;

const GEMM: Op = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };

/// The folded graph as text, `output` being its answer. It means what the graph meant, with every weight packed.
fn folded(mut graph: Builder, output: ValueId) -> String {
    graph.output(output);
    let class = graph.0;
    let folded = fold(&class).unwrap();
    let inputs = meaning::random_inputs(&class);
    let (want, got) = (meaning::of_graph(&class, &inputs), meaning::of_folded(&class, &folded, &inputs));
    for ((got, want), output) in got.iter().zip(&want).zip(&class.outputs) {
        // Folding changes the order of a few roundings; anything wrong is wrong by far more.
        let error = meaning::relative_error(got, want);
        assert!(error < 1e-6, "`{}` differs by {error:e}", output.name);
    }
    show(&class, &folded)
}

fn show(class: &Graph, folded: &Folded) -> String {
    let graph = &folded.graph;
    let name = |value: &Option<ValueId>| {
        let Some(value) = value else { return "-".to_string() };
        match folded.weights.iter().position(|weight| weight.value == *value) {
            Some(index) => format!("w{index}"),
            None => graph.name(*value).to_string(),
        }
    };
    let list = |values: &[Option<ValueId>]| values.iter().map(name).collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    for node in &graph.nodes {
        text += &format!("{} = {}({})\n", list(&node.outputs), op_name(&node.op), list(&node.inputs));
    }
    for (index, weight) in folded.weights.iter().enumerate() {
        let role = match weight.role {
            Role::Plain => "plain".to_string(),
            Role::Matrix => "matrix".to_string(),
            Role::Conv { groups } => format!("conv/{groups}"),
            Role::Depthwise => "depthwise".to_string(),
            Role::Phases { groups, strides } => format!("phases/{groups} of {strides:?}"),
        };
        text += &format!("w{index} {role} {:?} = {}\n", weight.dims, show_expr(class, &weight.expr));
    }
    text
}

fn op_name(op: &Op) -> String {
    match op {
        Op::Unary(function) => format!("{function:?}"),
        Op::Binary(function) => format!("{function:?}"),
        Op::Cast(dtype) => format!("Cast[{dtype}]"),
        Op::Recurrent(layer) => format!("{}[{:?}]", layer.cell.kind.name(), layer.direction),
        Op::Concat { axis } => format!("Concat[{axis}]"),
        Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false } => "Gemm".into(),
        other => {
            let debug = format!("{other:?}");
            debug.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_string()
        }
    }
}

fn show_expr(class: &Graph, expr: &WeightExpr) -> String {
    match expr {
        WeightExpr::Param(id) => class.params[id.0 as usize].name.clone(),
        WeightExpr::Literal(tensor) => match tensor.elements::<i64>() {
            Some(list) => format!("{list:?}"),
            None => format!("{:?}", tensor.elements::<f32>().unwrap()),
        },
        WeightExpr::Apply { op, inputs, .. } => {
            let inputs: Vec<String> = inputs
                .iter()
                .map(|input| input.as_ref().map_or("-".into(), |input| show_expr(class, input)))
                .collect();
            format!("{}({})", op_name(op), inputs.join(", "))
        }
    }
}

fn lines(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn batch_norm_goes_into_the_convolution_before_it() {
    let mut b = Builder::default();
    let x = b.input("x", &[1, 4, 8, 8]);
    let (w, bias) = (b.weight("w", &[6, 2, 3, 3]), b.weight("b", &[6]));
    let conv = b.node(Op::Conv(window(&[3, 3]), 2), &[x, w, bias], "conv");
    let y = b.batch_norm(conv, "bn", 6, "y");
    let scale = "Div(bn.gamma, Sqrt(Add(bn.variance, [0.5])))";
    assert_eq!(
        folded(b, y),
        lines(&format!(
            "y = Conv(x, w0, w1)
             w0 conv/2 [6, 2, 3, 3] = Mul(w, Reshape({scale}, [6, 1, 1, 1]))
             w1 plain [6] = Add(Mul(b, {scale}), Sub(bn.beta, Mul(bn.mean, {scale})))"
        ))
    );
}

#[test]
fn batch_norm_goes_into_a_gemm_but_not_into_a_product_whose_second_axis_is_not_its_last() {
    let mut b = Builder::default();
    let x = b.input("x", &[4, 2]);
    let w = b.weight("w", &[2, 3]);
    let product = b.node(Op::MatMul, &[x, w], "product");
    let y = b.batch_norm(product, "bn", 3, "y");
    assert!(folded(b, y).starts_with("y = Gemm(x, w0, w1)\nw0 matrix [2, 3] = Mul(w, Div("));

    let mut b = Builder::default();
    let x = b.input("x", &[4, 3, 2]);
    let w = b.weight("w", &[2, 3]);
    let product = b.node(Op::MatMul, &[x, w], "product");
    let y = b.batch_norm(product, "bn", 3, "y");
    let text = folded(b, y);
    assert!(
        text.starts_with("product = Gemm(x, w0)\ny.scaled = Mul(product, w1)\ny = Add(y.scaled, w2)\n"),
        "{text}"
    );
    assert!(text.contains("w1 plain [3, 1] = Reshape(Div("), "{text}");
}

#[test]
fn a_lone_batch_norm_is_a_scale_and_a_shift() {
    let mut b = Builder::default();
    let x = b.input("x", &[1, 3, 8, 8]);
    let y = b.batch_norm(x, "bn", 3, "y");
    let scale = "Div(bn.gamma, Sqrt(Add(bn.variance, [0.5])))";
    assert_eq!(
        folded(b, y),
        lines(&format!(
            "y.scaled = Mul(x, w0)
             y = Add(y.scaled, w1)
             w0 plain [3, 1, 1] = Reshape({scale}, [3, 1, 1])
             w1 plain [3, 1, 1] = Reshape(Sub(bn.beta, Mul(bn.mean, {scale})), [3, 1, 1])"
        ))
    );
}

#[test]
fn a_channel_of_its_own_per_group_is_depthwise() {
    let mut b = Builder::default();
    let x = b.input("x", &[1, 6, 8]);
    let (w, bias) = (b.weight("w", &[6, 1, 3]), b.weight("b", &[1, 6, 1]));
    let conv = b.node(Op::Conv(window(&[3]), 6), &[x, w], "conv");
    let y = b.node(Op::Binary(Binary::Add), &[conv, bias], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y = Conv(x, w0, w1)
             w0 depthwise [6, 1, 3] = w
             w1 plain [6] = Reshape(b, [6])"
        )
    );
}

#[test]
fn what_only_depends_on_weights_leaves_the_graph() {
    let mut b = Builder::default();
    let x = b.input("x", &[5, 4]);
    let (packed, shape) = (b.weight("packed", &[24]), b.integers("shape", &[6, -1]));
    let matrix = b.node(Op::Reshape { allow_zero: false }, &[packed, shape], "matrix");
    let parts: Vec<Option<ValueId>> = vec![Some(matrix)];
    let parts = b.optional(Op::Split { axis: 0 }, &parts, &["first", "second"]);
    let turned = b.node(Op::Transpose { perm: vec![1, 0] }, &[parts[1]], "turned");
    let y = b.node(Op::MatMul, &[x, turned], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y = Gemm(x, w0)
             w0 matrix [4, 3] = Transpose(Slice(Reshape(packed, [6, -1]), [3], [6], [0]))"
        )
    );
}

#[test]
fn a_standardised_weight_is_computed_when_it_is_packed() {
    let mut b = Builder::default();
    let x = b.input("x", &[1, 2, 8, 8]);
    let (w, rows) = (b.weight("w", &[4, 2, 3, 3]), b.integers("rows", &[1, 4, -1]));
    let (gain, bias) = (b.weight("gain", &[4]), b.weight("bias", &[4]));
    let (axes, dims) = (b.integers("axes", &[0, 2]), b.integers("dims", &[4, 2, 3, 3]));
    let mean = |keep_dims| Op::Reduce { kind: Reduction::Mean, keep_dims, noop_with_empty_axes: false };
    let rows = b.node(Op::Reshape { allow_zero: false }, &[w, rows], "rows_of_w");
    let means = b.node(mean(false), &[rows, axes], "means");
    let square = b.node(Op::Binary(Binary::Mul), &[rows, rows], "square");
    let variance = b.node(mean(false), &[square, axes], "variance");
    let normed = b.node(Op::BatchNorm { epsilon: 1e-5 }, &[rows, gain, bias, means, variance], "normed");
    let kernel = b.node(Op::Reshape { allow_zero: false }, &[normed, dims], "kernel");
    let y = b.node(Op::Conv(window(&[3, 3]), 1), &[x, kernel], "y");
    let rows = "Reshape(w, [1, 4, -1])";
    let (means, square) = (format!("Reduce({rows}, [0, 2])"), format!("Mul({rows}, {rows})"));
    let normed = format!("BatchNorm({rows}, gain, bias, {means}, Reduce({square}, [0, 2]))");
    let packed = format!("w0 conv/1 [4, 2, 3, 3] = Reshape({normed}, [4, 2, 3, 3])");
    assert_eq!(folded(b, y), lines(&format!("y = Conv(x, w0)\n{packed}")));
}

#[test]
fn what_grows_by_its_operator_stays_a_step() {
    let mut b = Builder::default();
    let (token, shape) = (b.weight("token", &[1, 1, 4]), b.integers("shape", &[9, 1, 4]));
    let y = b.node(Op::Expand, &[token, shape], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y = Expand(w0, shape)
             w0 plain [1, 1, 4] = token"
        )
    );
}

#[test]
fn one_weight_under_two_layouts_is_packed_twice() {
    let mut b = Builder::default();
    let ids = b.ids("ids", &[5]);
    let table = b.weight("table", &[4, 4]);
    let rows = b.node(Op::Gather { axis: 0 }, &[table, ids], "rows");
    let y = b.node(Op::MatMul, &[rows, table], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "rows = Gather(w0, ids)
             y = Gemm(rows, w1)
             w0 plain [4, 4] = table
             w1 matrix [4, 4] = table"
        )
    );
}

#[test]
fn half_precision_weights_become_singles() {
    let mut b = Builder::default();
    let x = b.input("x", &[5, 4]);
    let half = b.weight_of(DType::BF16, "half", &[3, 4]);
    let w = b.node(Op::Cast(DType::F32), &[half], "w");
    let y = b.node(GEMM, &[x, w], "y");
    assert!(folded(b, y).ends_with("w0 matrix [4, 3] = Transpose(Cast[f32](half))\n"));
}

#[test]
fn a_value_rounded_to_half_precision_stays_rounded() {
    let mut b = Builder::default();
    let x = b.input("x", &[5, 4]);
    let w = b.weight("w", &[4, 3]);
    let half = b.node(Op::Cast(DType::BF16), &[w], "half");
    let again = b.node(Op::Cast(DType::F32), &[half], "again");
    let y = b.node(Op::MatMul, &[x, again], "y");
    assert!(folded(b, y).ends_with("w0 matrix [4, 3] = Cast[f32](Cast[bf16](w))\n"));
}

#[test]
fn a_weight_may_be_an_answer() {
    let mut b = Builder::default();
    let w = b.weight("w", &[3, 4]);
    assert_eq!(folded(b, w), "w0 plain [3, 4] = w\n");
}

#[test]
fn a_kernel_computed_from_requests_is_refused_by_name() {
    let mut b = Builder::default();
    let (x, w) = (b.input("x", &[1, 3, 8, 8]), b.input("w", &[4, 3, 3, 3]));
    b.node(Op::Conv(window(&[3, 3]), 1), &[x, w], "y");
    let error = fold(&b.0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "node `y`: input 1 must be a weight or a constant, but it is computed from what requests bring"
    );
}

#[test]
fn weights_of_the_wrong_shape_are_errors() {
    let conv = Op::Conv(window(&[3, 3]), 3);
    let layer = lstm(usize::MAX / 2, Direction::Forward);
    let cases: [(Op, &[&[usize]]); 6] = [
        (conv.clone(), &[&[4, 3, 3, 3]]),
        (conv.clone(), &[&[3]]),
        (conv, &[&[6, 3, 3, 3], &[5]]),
        (GEMM, &[&[2]]),
        (Op::BatchNorm { epsilon: 1e-5 }, &[&[3], &[3], &[2], &[3]]),
        (layer, &[&[1, usize::MAX, 0], &[1, usize::MAX, 0]]),
    ];
    for (op, dims) in cases {
        let mut b = Builder::default();
        let x = b.input("x", &[1, 3, 8, 8]);
        let mut inputs = vec![x];
        inputs.extend(dims.iter().enumerate().map(|(index, dims)| {
            let bytes = Tensor::new(DType::F32, vec![0], vec![]).unwrap();
            b.param(&format!("w{index}"), DType::F32, dims, ParamData::Weight(WeightSource::Inline(bytes)))
        }));
        let name = op_name(&op);
        b.node(op, &inputs, "y");
        assert!(matches!(fold(&b.0), Err(FoldError::Misfit { .. })), "{name} {dims:?}");
    }
}

#[test]
fn an_expression_that_doubles_forty_times_does_not_become_a_tree_of_a_trillion() {
    let mut b = Builder::default();
    let mut y = b.weight("w", &[1]);
    for _ in 0..40 {
        y = b.node(Op::Binary(Binary::Add), &[y, y], "y");
    }
    b.output(y);
    let folded = fold(&b.0).unwrap();
    assert!(folded.graph.nodes.len() >= 33);
}

#[test]
fn the_rank_of_a_computed_shape_is_known_by_its_length() {
    let mut b = Builder::default();
    let x = b.input("x", &[4, 6, 2]);
    let shape = b.node(Op::Shape { start: 0, end: None }, &[x], "shape");
    let (zero, first, minus) =
        (b.integers("zero", &[0]), b.integers("first", &[1]), b.integers("minus", &[-1]));
    let batch = b.node(Op::Slice, &[shape, zero, first], "batch");
    let computed = b.node(Op::Concat { axis: 0 }, &[batch, minus], "computed");
    let flat = b.node(Op::Reshape { allow_zero: false }, &[x, computed], "flat");
    let y = b.batch_norm(flat, "bn", 12, "y");
    assert!(folded(b, y).contains("w0 plain [12] = Div("));
}

#[test]
fn elements_of_activations_are_left_alone() {
    let mut b = Builder::default();
    let x = b.input("x", &[4, 6]);
    let y = b.node(Op::Unary(Unary::Relu), &[x], "y");
    assert_eq!(folded(b, y), "y = Relu(x)\n");
}

#[test]
fn a_transposed_convolution_is_one_over_the_spread_input_and_takes_a_batch_norm_in() {
    let mut b = Builder::default();
    let x = b.input("x", &[1, 4, 3, 3]);
    let w = b.weight("w", &[4, 3, 4, 3]);
    let bias = b.weight("bias", &[6]);
    let made = b.node(Op::ConvTranspose(transposed(&[4, 3], &[2, 1]), 2), &[x, w, bias], "conv");
    let normal = b.batch_norm(made, "bn", 6, "normal");
    let text = folded(b, normal);
    assert!(
        text.starts_with("normal = Conv(x, w0, w1)\nw0 phases/2 of [1, 2, 1] [6, 2, 4, 3] = Mul("),
        "{text}"
    );
}

#[test]
fn a_kernel_of_three_axes_lies_slice_by_slice() {
    let mut b = Builder::default();
    let x = b.input("x", &[1, 2, 3, 4, 5]);
    let w = b.weight("w", &[4, 2, 3, 2, 2]);
    let made = b.node(Op::Conv(window(&[3, 2, 2]), 1), &[x, w], "conv");
    assert_eq!(folded(b, made), "conv = Conv(x, w0)\nw0 conv/1 [4, 2, 3, 2, 2] = w\n");
}

/// A recurrent layer with the usual functions.
fn layer(kind: CellKind, hidden: usize, direction: Direction) -> Op {
    let functions = kind.usual_functions().repeat(direction.count());
    Op::Recurrent(Recurrent { hidden, direction, cell: Cell { kind, functions, clip: None } })
}

fn lstm(hidden: usize, direction: Direction) -> Op {
    layer(CellKind::Lstm { input_forget: false }, hidden, direction)
}
