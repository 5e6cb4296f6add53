//! Products with a weight, and what is added and scaled around them.

use super::{GEMM, folded, lines};
use crate::support::Builder;
use tessera_planner::graph::ValueId;
use tessera_planner::op::{Binary, Op, Unary};
use tessera_planner::tensor::Tensor;

#[test]
fn a_gemm_of_pytorch_has_its_weight_turned() {
    let mut b = Builder::default();
    let x = b.input("x", &[4, 2]);
    let (w, bias) = (b.weight("w", &[3, 2]), b.weight("b", &[3]));
    let y = b.node(GEMM, &[x, w, bias], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y = Gemm(x, w0, w1)
             w0 matrix [2, 3] = Transpose(w)
             w1 plain [3] = b"
        )
    );
}

#[test]
fn factors_and_transposes_of_a_gemm_go_into_its_weights() {
    let mut b = Builder::default();
    let x = b.input("x", &[2, 4]);
    let (w, bias) = (b.weight("w", &[2, 3]), b.literal("b", Tensor::from_elements(&[1, 1], &[7f32])));
    let op = Op::Gemm { alpha: 0.5, beta: 2.0, trans_a: true, trans_b: false };
    let y = b.node(op, &[x, w, bias], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y.a = Transpose(x)
             y = Gemm(y.a, w0, w1)
             w0 matrix [2, 3] = Mul(w, [0.5])
             w1 plain [3] = Mul(Expand(Reshape([7.0], [1]), [3]), [2.0])"
        )
    );
}

#[test]
fn a_gemm_bias_that_differs_by_row_is_added_by_a_step_of_its_own() {
    let mut b = Builder::default();
    let x = b.input("x", &[4, 2]);
    let (w, c) = (b.weight("w", &[2, 3]), b.weight("c", &[4, 1]));
    let y = b.node(Op::Gemm { alpha: 1.0, beta: 3.0, trans_a: false, trans_b: false }, &[x, w, c], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y.product = Gemm(x, w0)
             y = Add(y.product, w1)
             w0 matrix [2, 3] = w
             w1 plain [4, 1] = Mul(c, [3.0])"
        )
    );
}

#[test]
fn a_gemm_of_two_activations_is_spelled_out() {
    let mut b = Builder::default();
    let (x, z, c) = (b.input("x", &[4, 2]), b.input("z", &[3, 2]), b.input("c", &[4, 3]));
    let op = Op::Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b: true };
    let y = b.node(op, &[x, z, c], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y.b = Transpose(z)
             y.product = MatMul(x, y.b)
             y.scaled = Mul(y.product, factor)
             y.c = Mul(c, factor)
             y = Add(y.scaled, y.c)"
        )
    );
}

#[test]
fn a_product_with_a_weight_and_the_add_after_it_are_a_gemm() {
    let mut b = Builder::default();
    let x = b.input("x", &[1, 8, 2]);
    let (w, bias) = (b.weight("w", &[2, 3]), b.weight("b", &[3]));
    let product = b.node(Op::MatMul, &[x, w], "product");
    let y = b.node(Op::Binary(Binary::Add), &[bias, product], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y = Gemm(x, w0, w1)
             w0 matrix [2, 3] = w
             w1 plain [3] = b"
        )
    );
}

#[test]
fn a_learnt_scale_after_a_product_goes_into_its_columns() {
    let mut b = Builder::default();
    let x = b.input("x", &[1, 8, 2]);
    let (w, bias, scale) = (b.weight("w", &[2, 3]), b.weight("b", &[3]), b.weight("s", &[1, 1, 3]));
    let product = b.node(Op::MatMul, &[x, w], "product");
    let sum = b.node(Op::Binary(Binary::Add), &[product, bias], "sum");
    let y = b.node(Op::Binary(Binary::Mul), &[sum, scale], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "y = Gemm(x, w0, w1)
             w0 matrix [2, 3] = Mul(w, Reshape(s, [3]))
             w1 plain [3] = Mul(b, Reshape(s, [3]))"
        )
    );
}

#[test]
fn a_product_that_others_read_keeps_its_value() {
    let mut b = Builder::default();
    let x = b.input("x", &[1, 8, 2]);
    let (w, bias) = (b.weight("w", &[2, 3]), b.weight("b", &[3]));
    let product = b.node(Op::MatMul, &[x, w], "product");
    let y = b.node(Op::Binary(Binary::Add), &[product, bias], "y");
    b.output(product);
    assert_eq!(
        folded(b, y),
        lines(
            "product = Gemm(x, w0)
             y = Add(product, w1)
             w0 matrix [2, 3] = w
             w1 plain [3] = b"
        )
    );
}

/// Projections of one value, each turned, and a product of the turned: what attention does.
fn projections(b: &mut Builder, x: ValueId, parts: &[(&str, usize)]) -> Vec<ValueId> {
    let project = |&(name, width): &(&str, usize)| {
        let (w, bias) = (b.weight(&format!("w{name}"), &[2, width]), b.weight(&format!("b{name}"), &[width]));
        let product = b.node(Op::MatMul, &[x, w], &format!("{name}.product"));
        let sum = b.node(Op::Binary(Binary::Add), &[product, bias], name);
        b.node(Op::Transpose { perm: vec![1, 0] }, &[sum], &format!("{name}.turned"))
    };
    parts.iter().map(project).collect()
}

#[test]
fn projections_of_one_value_are_one_product_in_parts() {
    let mut b = Builder::default();
    let x = b.input("x", &[4, 2]);
    let turned = projections(&mut b, x, &[("q", 3), ("k", 3), ("v", 5)]);
    let y = b.node(Op::Concat { axis: 0 }, &turned, "y");
    assert_eq!(
        folded(b, y),
        lines(
            "q.joined = Gemm(x, w0, w1)
             q, k, v = Split(q.joined, widths)
             q.turned = Transpose(q)
             k.turned = Transpose(k)
             v.turned = Transpose(v)
             y = Concat[0](q.turned, k.turned, v.turned)
             w0 matrix [2, 11] = Concat[1](wq, wk, wv)
             w1 plain [11] = Concat[0](bq, bk, bv)"
        )
    );
}

#[test]
fn a_product_that_something_is_computed_from_stays_alone() {
    let mut b = Builder::default();
    let x = b.input("x", &[4, 2]);
    let turned = projections(&mut b, x, &[("q", 3)]);
    let w = b.weight("gate", &[2, 4]);
    let gate = b.node(Op::MatMul, &[x, w], "gate.product");
    let open = b.node(Op::Unary(Unary::Sigmoid), &[gate], "open");
    let y = b.node(Op::MatMul, &[turned[0], open], "y");
    assert_eq!(
        folded(b, y),
        lines(
            "q = Gemm(x, w0, w1)
             q.turned = Transpose(q)
             gate.product = Gemm(x, w2)
             open = Sigmoid(gate.product)
             y = MatMul(q.turned, open)
             w0 matrix [2, 3] = wq
             w1 plain [3] = bq
             w2 matrix [2, 4] = gate"
        )
    );
}

#[test]
fn what_is_added_along_another_axis_is_no_bias() {
    for dims in [&[8, 1][..], &[8, 3], &[1, 1, 1, 3]] {
        let mut b = Builder::default();
        let x = b.input("x", &[1, 8, 2]);
        let (w, table) = (b.weight("w", &[2, 3]), b.weight("t", dims));
        let product = b.node(Op::MatMul, &[x, w], "product");
        let y = b.node(Op::Binary(Binary::Add), &[product, table], "y");
        assert!(folded(b, y).starts_with("product = Gemm(x, w0)\ny = Add(product, w1)\n"), "{dims:?}");
    }
}

#[test]
fn an_infinite_factor_stays_outside_the_sum() {
    let mut b = Builder::default();
    let x = b.input("x", &[4, 2]);
    let (w, infinity) = (b.weight("w", &[2, 3]), b.literal("inf", Tensor::scalar(f32::INFINITY)));
    let product = b.node(Op::MatMul, &[x, w], "product");
    let y = b.node(Op::Binary(Binary::Mul), &[product, infinity], "y");
    assert!(folded(b, y).starts_with("product = Gemm(x, w0)\ny = Mul(product, inf)\n"));
}
