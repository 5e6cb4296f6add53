//! Cases of steps that work element by element, or move elements.

use super::{Builder, Case, dense};
use tessera_core::DType;
use tessera_planner::Tensor;
use tessera_planner::op::{Binary, Unary};
use tessera_planner::plan::{Access, ElementOp, Operand, StepKind};

pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![
        functions(),
        pairs(),
        casts(),
        border(DType::F16),
        border(DType::BF16),
        border(DType::F64),
        dense_chain(),
        channels(),
        scalar(),
    ];
    all.extend(INTEGERS.map(integers));
    for (dims, from, to) in [
        // Images of three channels, in and out; then the widths of narrow tiles, and of square ones with ragged ends.
        ([1100, 3], [1, 1100], [3, 1]),
        ([3, 1100], [1, 3], [1100, 1]),
        ([4, 300], [1, 4], [300, 1]),
        ([300, 7], [1, 300], [7, 1]),
        ([260, 16], [1, 260], [16, 1]),
        ([40, 70], [1, 40], [70, 1]),
        ([130, 33], [1, 130], [33, 1]),
    ] {
        all.push(copy(DType::F32, &dims, &from, &to));
    }
    all.extend([
        copy(DType::I64, &[65, 20], &[1, 65], &[20, 1]),
        copy(DType::Bool, &[40, 33], &[1, 40], &[33, 1]),
        // Heads beside tokens, and matrices of a batch turned.
        copy(DType::F32, &[3, 9, 8], &[8, 24, 1], &[72, 8, 1]),
        copy(DType::F32, &[3, 33, 20], &[660, 1, 33], &[660, 20, 1]),
        copy(DType::F32, &[20, 3, 17], &[51, 1, 3], &[1, 340, 20]),
        // Nothing to turn, nothing in units: every other element; and one whole piece.
        copy(DType::F32, &[12, 10], &[40, 2], &[10, 1]),
        copy(DType::F32, &[24, 16], &[16, 1], &[16, 1]),
        copy(DType::Bool, &[1, 77], &[77, 1], &[77, 1]),
        backwards(),
        beside(8),
        beside(5),
        constant(),
    ]);
    all
}

/// A chain that computes every one of `values` and gives the one that the second input names.
fn chosen(name: &str, out: DType, count: usize, mut program: Vec<ElementOp>, values: &[usize]) -> Case {
    let mut b = Builder::new();
    let inputs = [0, 1, 2].map(|_| b.input(DType::I64, &[count]));
    let result = b.buffer(out, count);
    program.push(ElementOp::Load(2));
    let which = program.len() - 1;
    program.push(ElementOp::Int(values.len() as i64));
    program.push(ElementOp::Binary(Binary::Mod { fmod: false }, which, which + 1));
    let which = program.len() - 1;
    let mut result_register = values[0];
    for (number, &value) in values.iter().enumerate().skip(1) {
        program.push(ElementOp::Int(number as i64));
        program.push(ElementOp::Binary(Binary::Equal, which, program.len() - 1));
        program.push(ElementOp::Select(program.len() - 1, value, result_register));
        result_register = program.len() - 1;
    }
    let inputs = inputs.map(|input| dense(input, &[count])).to_vec();
    let kind = StepKind::Elementwise { dims: vec![count], inputs, program, out: result };
    b.case(name.to_owned(), kind, &[(result, &[count])])
}

/// The first input, an integer, as a float that every precision holds exactly until it is written, times `scale`.
fn float(program: &mut Vec<ElementOp>, input: usize, scale: f32) -> usize {
    let at = program.len();
    program.extend([
        ElementOp::Load(input),
        ElementOp::Cast(DType::F32, at),
        ElementOp::Float(scale),
        ElementOp::Binary(Binary::Mul, at + 1, at + 2),
    ]);
    at + 3
}

fn functions() -> Case {
    let mut program = Vec::new();
    let x = float(&mut program, 0, 0.07);
    let all = [
        Unary::Abs,
        Unary::Ceil,
        Unary::Cos,
        Unary::Erf,
        Unary::Exp,
        Unary::Floor,
        Unary::Gelu { tanh: false },
        Unary::Gelu { tanh: true },
        Unary::Elu { alpha: 1.5 },
        Unary::Affine { alpha: 0.7, beta: -0.3 },
        Unary::ScaledTanh { alpha: 1.7, beta: 0.6 },
        Unary::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Unary::HardSwish,
        Unary::LeakyRelu { alpha: 0.1 },
        Unary::Log,
        Unary::Mish,
        Unary::Neg,
        Unary::Reciprocal,
        Unary::Relu,
        Unary::Round,
        Unary::Selu { alpha: 1.6, gamma: 1.05 },
        Unary::Sigmoid,
        Unary::Sign,
        Unary::Sin,
        Unary::Silu,
        Unary::Softplus,
        Unary::Softsign,
        Unary::Sqrt,
        Unary::Tanh,
        Unary::ThresholdedRelu { alpha: 0.5 },
    ];
    let first = program.len();
    program.extend(all.map(|function| ElementOp::Unary(function, x)));
    let values: Vec<usize> = (first..program.len()).collect();
    chosen("every function of a float", DType::F32, 601, program, &values)
}

/// Of two floats (or integers): numbers in, a number out.
const PAIRS: [Binary; 10] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Pow,
    Binary::PRelu,
    Binary::Min,
    Binary::Max,
    Binary::Mod { fmod: true },
    Binary::Mod { fmod: false },
];
const COMPARISONS: [Binary; 5] =
    [Binary::Equal, Binary::Greater, Binary::GreaterOrEqual, Binary::Less, Binary::LessOrEqual];

/// Every function of two registers; comparisons choose between them.
fn every_pair(program: &mut Vec<ElementOp>, x: usize, y: usize) -> Vec<usize> {
    let first = program.len();
    program.extend(PAIRS.map(|function| ElementOp::Binary(function, x, y)));
    let mut values: Vec<usize> = (first..program.len()).collect();
    for function in COMPARISONS {
        program.push(ElementOp::Binary(function, x, y));
        program.push(ElementOp::Select(program.len() - 1, x, y));
        values.push(program.len() - 1);
    }
    values
}

fn pairs() -> Case {
    let mut program = Vec::new();
    let x = float(&mut program, 0, 0.07);
    let y = float(&mut program, 1, 0.02);
    let values = every_pair(&mut program, x, y);
    chosen("every function of two floats", DType::F32, 600, program, &values)
}

const INTEGERS: [DType; 8] =
    [DType::U8, DType::U16, DType::U32, DType::U64, DType::I8, DType::I16, DType::I32, DType::I64];

fn integers(dtype: DType) -> Case {
    let mut program =
        vec![ElementOp::Load(0), ElementOp::Load(1), ElementOp::Cast(dtype, 0), ElementOp::Cast(dtype, 1)];
    let mut values = every_pair(&mut program, 2, 3);
    for function in [Unary::Abs, Unary::Neg, Unary::Relu, Unary::Sign] {
        program.push(ElementOp::Unary(function, 2));
        values.push(program.len() - 1);
    }
    chosen(&format!("every function of two {dtype}"), dtype, 600, program, &values)
}

/// A border type on both sides of a plan that computes in f32.
fn border(dtype: DType) -> Case {
    let mut b = Builder::new();
    let dims = [5, 24];
    let (x, y) = (b.input(dtype, &dims), b.input(DType::U8, &dims));
    let (middle, out) = (b.buffer(DType::F32, 120), b.buffer(dtype, 120));
    let inner = StepKind::Elementwise {
        dims: dims.to_vec(),
        inputs: vec![dense(x, &dims), dense(y, &dims)],
        program: vec![
            ElementOp::Load(0),
            ElementOp::Load(1),
            ElementOp::Cast(DType::F32, 1),
            ElementOp::Binary(Binary::Add, 0, 2),
        ],
        out: middle,
    };
    let last = StepKind::Elementwise {
        dims: vec![24, 5],
        inputs: vec![Access { operand: Operand::Buffer(middle), offset: 0, strides: vec![1, 24] }],
        program: vec![ElementOp::Load(0)],
        out,
    };
    b.case_of(format!("{dtype} in and out"), vec![inner, last], &[(out, &[24, 5])])
}

fn casts() -> Case {
    let mut program = Vec::new();
    let x = float(&mut program, 0, 7.3);
    let mut values = Vec::new();
    for from in [0, x] {
        for to in [DType::Bool].into_iter().chain(INTEGERS) {
            program.push(ElementOp::Cast(to, from));
            program.push(ElementOp::Cast(DType::I64, program.len() - 1));
            values.push(program.len() - 1);
        }
    }
    // Beyond what an i64 holds, where the input is negative.
    program.push(ElementOp::Cast(DType::U64, 0));
    program.push(ElementOp::Cast(DType::F32, program.len() - 1));
    program.push(ElementOp::Cast(DType::U64, program.len() - 1));
    program.push(ElementOp::Cast(DType::I64, program.len() - 1));
    values.push(program.len() - 1);
    program.push(ElementOp::Cast(DType::Bool, 0));
    program.push(ElementOp::Unary(Unary::Not, program.len() - 1));
    program.push(ElementOp::Cast(DType::I64, program.len() - 1));
    values.push(program.len() - 1);
    chosen("every cast", DType::I64, 300, program, &values)
}

/// An addition and a function, of `inputs` walked as `dims`.
fn sum(name: &str, dims: &[usize], b: Builder, inputs: Vec<Access>) -> Case {
    let mut b = b;
    let out = b.buffer(DType::F32, dims.iter().product());
    let program = vec![
        ElementOp::Load(0),
        ElementOp::Load(1),
        ElementOp::Binary(Binary::Add, 0, 1),
        ElementOp::Unary(Unary::Relu, 2),
    ];
    let kind = StepKind::Elementwise { dims: dims.to_vec(), inputs, program, out };
    b.case(name.to_owned(), kind, &[(out, dims)])
}

fn dense_chain() -> Case {
    let mut b = Builder::new();
    let dims = [9, 64];
    let (x, y) = (b.input(DType::F32, &dims), b.input(DType::F32, &dims));
    sum("chain of dense floats", &dims, b, vec![dense(x, &dims), dense(y, &dims)])
}

fn channels() -> Case {
    let mut b = Builder::new();
    let dims = [5, 6, 24];
    let x = b.input(DType::F32, &dims);
    let scale = Operand::Weight(b.plain(&[24]));
    let scale = Access { operand: scale, offset: 0, strides: vec![0, 0, 1] };
    sum("chain with a weight per channel", &dims, b, vec![dense(x, &dims), scale])
}

fn scalar() -> Case {
    let mut b = Builder::new();
    let dims = [7, 3, 8];
    let x = b.input(DType::F32, &dims);
    let gate = b.input(DType::F32, &[8, 7]);
    // Turned, so that it brings one element per row of eight and none lies beside another.
    let gate = Access { operand: gate, offset: 0, strides: vec![1, 0, 7] };
    sum("chain with a turned input", &dims, b, vec![dense(x, &dims), gate])
}

fn copy(dtype: DType, dims: &[usize], from: &[isize], to: &[usize]) -> Case {
    let mut b = Builder::new();
    let reach = |strides: &mut dyn Iterator<Item = usize>| {
        strides.zip(dims).map(|(stride, dim)| stride * (dim - 1)).sum::<usize>() + 1
    };
    let x = b.input(dtype, &[reach(&mut from.iter().map(|stride| stride.unsigned_abs()))]);
    let length = reach(&mut to.iter().copied());
    let out = b.buffer(dtype, length);
    let x = Access { operand: x, offset: 0, strides: from.to_vec() };
    let kind = StepKind::Copy { dims: dims.to_vec(), x, out, out_offset: 0, out_strides: to.to_vec() };
    b.case(format!("copy {dtype} {dims:?} from {from:?} to {to:?}"), kind, &[(out, &[length])])
}

fn backwards() -> Case {
    let mut b = Builder::new();
    let x = b.input(DType::F32, &[6, 16]);
    let out = b.buffer(DType::F32, 96);
    let x = Access { operand: x, offset: 80, strides: vec![-16, 1] };
    let kind = StepKind::Copy { dims: vec![6, 16], x, out, out_offset: 0, out_strides: vec![16, 1] };
    b.case("copy of rows backwards".to_owned(), kind, &[(out, &[6, 16])])
}

/// A part of every row, as a slice takes it.
fn beside(columns: usize) -> Case {
    let mut b = Builder::new();
    let x = b.input(DType::F32, &[10, 40]);
    let out = b.buffer(DType::F32, 10 * columns);
    let x = Access { operand: x, offset: 16, strides: vec![40, 1] };
    let kind =
        StepKind::Copy { dims: vec![10, columns], x, out, out_offset: 0, out_strides: vec![columns, 1] };
    b.case(format!("copy of {columns} columns"), kind, &[(out, &[10, columns])])
}

/// A constant, which is f32 in every precision, into a buffer that is not.
fn constant() -> Case {
    let mut b = Builder::new();
    b.input(DType::F32, &[1]);
    let values: Vec<f32> = (0..24).map(|at| at as f32 * 0.25 - 3.0).collect();
    b.constants.push(Tensor::from_elements(&[24], &values));
    let out = b.buffer(DType::F32, 48);
    let constant = Operand::Constant(tessera_planner::plan::ConstantId(0));
    let x = Access { operand: constant, offset: 0, strides: vec![0, 1] };
    let kind = StepKind::Copy { dims: vec![2, 24], x, out, out_offset: 0, out_strides: vec![24, 1] };
    b.case("copy of a constant".to_owned(), kind, &[(out, &[2, 24])])
}
