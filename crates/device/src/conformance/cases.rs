//! The cases: one small plan per kind of step and shape worth a test.

mod channels;
mod elements;
mod lines;
mod recurrent;
mod rows;
mod sequences;
mod stems;
mod windows;

use half::{bf16, f16};
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::Arc;
use tessera_core::{Bytes, ClassId, DType, PlanKey, Precision};
use tessera_planner::fold::Role;
use tessera_planner::op::{Binary, Reduction, Unary};
use tessera_planner::pack::{Blank, PackTarget, WeightId, lay};
use tessera_planner::plan::{
    Access, Activation, Buffer, BufferId, ConstantId, ConvShape, ElementOp, Epilogue, Operand, PoolKind,
    Port, Step, StepKind,
};
use tessera_planner::{Packed, Plan, SlotLayout, Tensor};

/// One plan with what is needed to ask it random questions.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is tested.
    pub name: String,
    /// The plan, in fp32.
    pub plan: Arc<Plan>,
    /// Its weights: role and dimensions, by [`WeightId`].
    pub weights: Vec<(Role, Vec<usize>)>,
    /// Decides weights and inputs.
    pub seed: u64,
    /// No weight is further from zero.
    gain: f32,
    /// Integer inputs are below this; a few are not, where the case is about that.
    ids: (i64, bool),
    /// Float inputs are multiples of a sixteenth, which every type of float holds exactly: for answers that say which is larger.
    coarse: bool,
}

impl Case {
    /// The plan in a precision. Its buffers keep the places of f32, which are large enough for any.
    pub fn plan_in(&self, precision: Precision) -> Arc<Plan> {
        let mut plan = Plan::clone(&self.plan);
        plan.key.precision = precision;
        Arc::new(plan)
    }

    /// Where its weights lie on a device.
    pub fn layout(&self, target: PackTarget) -> Arc<SlotLayout> {
        let weights = self.weights.iter().map(|(role, dims)| ("weight", *role, dims.as_slice()));
        Arc::new(SlotLayout::of_roles(weights, target).expect("a case's weights are small"))
    }

    /// Random weights: the elements of each, row-major, f32.
    pub fn random_weights(&self, random: &mut StdRng) -> Vec<Vec<u8>> {
        let tensor = |(_, dims): &(Role, Vec<usize>)| {
            let count = dims.iter().product::<usize>();
            (0..count).flat_map(|_| random.random_range(-self.gain..self.gain).to_le_bytes()).collect()
        };
        self.weights.iter().map(tensor).collect()
    }

    /// Weights as a layout wants them.
    pub fn pack(&self, weights: &[Vec<u8>], layout: &SlotLayout) -> Packed {
        let mut blank = Blank::zeroed(layout.bytes.0 as usize);
        for (((role, dims), elements), tensor) in self.weights.iter().zip(weights).zip(&layout.tensors) {
            lay(*role, dims, elements, tensor, blank.bytes_mut());
        }
        blank.done()
    }

    /// Random inputs of one item.
    pub fn inputs(&self, random: &mut StdRng) -> Vec<Vec<u8>> {
        let port = |port: &Port| {
            let count = port.bytes_per_item() / port.dtype.size();
            let float = |random: &mut StdRng| {
                let x = random.random_range(-2.0f32..2.0);
                if self.coarse { (x * 16.0).round() / 16.0 } else { x }
            };
            let (below, stray) = self.ids;
            match port.dtype {
                DType::F32 => (0..count).flat_map(|_| float(random).to_le_bytes()).collect(),
                DType::F64 => (0..count).flat_map(|_| f64::from(float(random)).to_le_bytes()).collect(),
                DType::F16 => (0..count).flat_map(|_| f16::from_f32(float(random)).to_le_bytes()).collect(),
                DType::BF16 => (0..count).flat_map(|_| bf16::from_f32(float(random)).to_le_bytes()).collect(),
                DType::Bool => (0..count).map(|_| random.random_range(0..2u8)).collect(),
                // Lengths, which plans have checked before.
                DType::I32 => {
                    (0..count).flat_map(|_| (random.random_range(0..below) as i32).to_le_bytes()).collect()
                }
                _ => (0..count)
                    .flat_map(|_| {
                        let astray = stray && random.random_range(0..40) == 0;
                        let id: i64 = if astray { below } else { random.random_range(-below..below) };
                        id.to_le_bytes().into_iter().take(port.dtype.size())
                    })
                    .collect(),
            }
        };
        self.plan.inputs.iter().map(port).collect()
    }
}

/// Puts a plan of one step together.
struct Builder {
    buffers: Vec<Buffer>,
    inputs: Vec<Port>,
    weights: Vec<(Role, Vec<usize>)>,
    constants: Vec<Tensor>,
    arena: usize,
}

impl Builder {
    fn new() -> Builder {
        Builder { buffers: vec![], inputs: vec![], weights: vec![], constants: vec![], arena: 0 }
    }

    fn buffer(&mut self, dtype: DType, elements: usize) -> BufferId {
        self.buffers.push(Buffer { dtype, elements, offset: self.arena, live: 0..1 });
        self.arena += (elements * dtype.size()).next_multiple_of(64);
        BufferId(self.buffers.len() as u32 - 1)
    }

    fn input(&mut self, dtype: DType, dims: &[usize]) -> Operand {
        let at = Operand::Buffer(self.buffer(dtype, dims.iter().product()));
        self.inputs.push(Port { dtype, dims: dims.to_vec(), at });
        at
    }

    fn weight(&mut self, role: Role, dims: &[usize]) -> WeightId {
        self.weights.push((role, dims.to_vec()));
        WeightId(self.weights.len() as u32 - 1)
    }

    fn matrix(&mut self, k: usize, n: usize) -> WeightId {
        self.weight(Role::Matrix, &[k, n])
    }

    fn plain(&mut self, dims: &[usize]) -> WeightId {
        self.weight(Role::Plain, dims)
    }

    fn constant(&mut self, tensor: Tensor) -> Operand {
        self.constants.push(tensor);
        Operand::Constant(ConstantId(self.constants.len() as u32 - 1))
    }

    fn case(self, name: String, kind: StepKind, outputs: &[(BufferId, &[usize])]) -> Case {
        self.case_of(name, vec![kind], outputs)
    }

    /// A plan of several steps.
    fn case_of(mut self, name: String, kinds: Vec<StepKind>, outputs: &[(BufferId, &[usize])]) -> Case {
        let mut class = [0; 16];
        class[..8].copy_from_slice(&(name.len() as u64).to_le_bytes());
        let key = PlanKey { class: ClassId(class), dims: [].into(), precision: Precision::Fp32 };
        self.buffers.iter_mut().for_each(|buffer| buffer.live = 0..kinds.len());
        let ports = outputs.iter().map(|(id, dims)| Port {
            dtype: self.buffers[id.0 as usize].dtype,
            dims: dims.to_vec(),
            at: Operand::Buffer(*id),
        });
        let segments = std::iter::once(0..kinds.len()).collect();
        let step = |kind| Step { name: name.clone(), kind, flops: 0 };
        let plan = Plan {
            key,
            batched: true,
            inputs: self.inputs,
            outputs: ports.collect(),
            steps: kinds.into_iter().map(step).collect(),
            buffers: self.buffers,
            arena_per_item: Bytes(self.arena as u64),
            constants: self.constants,
            segments,
        };
        let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        Case {
            name,
            plan: Arc::new(plan),
            weights: self.weights,
            seed,
            gain: 1.0,
            ids: (50, false),
            coarse: false,
        }
    }
}

fn dense(operand: Operand, dims: &[usize]) -> Access {
    let mut strides = vec![1isize; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis] as isize;
    }
    Access { operand, offset: 0, strides }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (rows, k, n) in [(1, 1, 1), (1, 64, 10), (5, 300, 33), (17, 64, 128), (3, 700, 65), (49, 72, 24)] {
        all.push(gemm(rows, k, n, false));
        // One number that a residual almost cancels has no relative error worth a tolerance.
        if rows * n > 1 {
            all.push(gemm(rows, k, n, true));
        }
    }
    // One row of many products, several tiles of rows; rows that lie apart, at even and at odd places.
    all.extend([gemm(1, 520, 72, false), gemm(130, 24, 12, true)]);
    // Few rows: sums in one part, in two and in four, of whole steps and others; as many rows as are few, and one more.
    for (rows, k, n) in [(1, 256, 80), (2, 472, 40), (4, 1096, 20), (8, 512, 24), (9, 264, 20), (7, 8, 600)] {
        all.push(gemm(rows, k, n, rows % 2 == 0));
    }
    all.push(gemm(1, 1032, 100, true));
    // Few rows and a long k, which the matrix unit may sum in parts: of as many steps and of more, that end with whole chunks and others, in tiles of one
    // block of outputs and of two, with outputs that fill none.
    for (rows, k, n) in [(9, 2056, 20), (1, 2001, 66), (12, 2048, 8), (9, 1990, 330)] {
        all.push(gemm(rows, k, n, n == 20 || n == 66));
    }
    // Long sums in one part, of whole chunks: with many lanes a block computes several of their tiles, the last of which have few rows and outputs.
    all.push(gemm(16, 776, 456, false));
    // The same of weights so small that all tenants' lie in one piece of memory, as `scripts/sanitize` wants them.
    all.push(gemm(560, 712, 8, false));
    // Strict tiles whose inputs lie k by k: more rows than one, several runs, the last of one stage.
    all.push(gemm(70, 544, 200, true));
    // Strict tiles with warps that feed: of several runs, the last of one stage, and several tiles, the last of which have few rows and outputs. Where lanes are many,
    // tiles are cut, within runs too.
    all.push(gemm(230, 544, 200, false));
    // Short sums over many rows: more outputs than one tile has and fewer.
    all.extend([gemm(130, 16, 96, false), gemm(200, 32, 16, false), gemm(150, 24, 144, true)]);
    // Many rows and outputs, so that with several lanes a block has several tiles of the same rows; the last are not full.
    all.extend([gemm(300, 72, 248, true), gemm(300, 72, 248, false)]);
    all.extend([gemm_apart(6, 40, 16, 8, 56), gemm_apart(6, 40, 16, 3, 45)]);
    for (size, channels, out, kernel, stride, pad, dilation, groups) in [
        (7, 3, 5, 3, 1, 1, 1, 1),
        (9, 8, 40, 3, 2, 1, 1, 1),
        (8, 6, 8, 3, 1, 2, 2, 2),
        (10, 4, 12, 1, 1, 0, 1, 1),
        (11, 40, 8, 3, 1, 1, 1, 1),
        (6, 16, 16, 1, 2, 0, 1, 1),
        (15, 3, 8, 7, 2, 3, 1, 1),
        (5, 64, 8, 3, 1, 1, 1, 1),
        (5, 12, 200, 3, 2, 1, 1, 1),
        (13, 24, 12, 3, 1, 1, 1, 1),
        (6, 128, 70, 1, 1, 0, 1, 1),
        (9, 32, 48, 3, 1, 1, 1, 4),
        (14, 64, 3, 3, 1, 1, 1, 1),
        // Of images so large that a block has several tiles; of outputs that fill no second block.
        (30, 64, 16, 3, 1, 1, 1, 1),
        (9, 64, 72, 3, 1, 1, 1, 1),
        (16, 32, 66, 2, 1, 0, 1, 1),
        // One tap that leaves pixels out.
        (14, 64, 72, 1, 2, 0, 1, 1),
        (9, 48, 72, 3, 1, 1, 1, 1),
        // Few rows and a long k of pixels, by taps and one by one.
        (5, 256, 24, 3, 2, 1, 1, 1),
        (4, 256, 12, 3, 1, 1, 1, 1),
        (3, 512, 20, 3, 1, 1, 1, 2),
        (3, 450, 6, 3, 1, 1, 1, 2),
    ] {
        all.push(conv(size, channels, out, kernel, stride, pad, dilation, groups, true));
    }
    // So many tiles and outputs that with several lanes blocks stay, and have a next window on its way.
    all.push(conv(20, 64, 256, 2, 1, 0, 1, 1, false));
    // Several runs by taps, of strict tiles of 128 outputs, without a residual.
    all.push(conv(9, 64, 72, 3, 1, 1, 1, 1, false));
    for stride in [1, 2] {
        all.push(depthwise(stride));
        all.push(pool(PoolKind::Max, stride));
        all.push(pool(PoolKind::Average { count_padding: true }, stride));
        all.push(pool(PoolKind::Average { count_padding: false }, stride));
    }
    all.extend(sequences::cases());
    all.extend(recurrent::cases());
    all.extend([layer_norm(), softmax(false), softmax(true), gather(false), gather(true)]);
    let reductions = [
        Reduction::Sum,
        Reduction::Mean,
        Reduction::Max,
        Reduction::Min,
        Reduction::Prod,
        Reduction::L1,
        Reduction::L2,
        Reduction::SumSquare,
        Reduction::LogSumExp,
    ];
    all.extend(reductions.map(reduce));
    all.extend([chain(), mask(), transpose(), fill()]);
    all.extend(elements::cases());
    all.extend(lines::cases());
    all.extend(rows::cases());
    all.extend(stems::cases());
    all.extend(windows::cases());
    all.extend(channels::cases());
    all
}

fn gemm(rows: usize, k: usize, n: usize, residual: bool) -> Case {
    let mut b = Builder::new();
    let x = b.input(DType::F32, &[rows, k]);
    let other = residual.then(|| b.input(DType::F32, &[rows, n]));
    let (w, bias) = (b.matrix(k, n), b.plain(&[n]));
    let out = b.buffer(DType::F32, rows * n);
    let activation = if residual {
        Activation::Unary(Unary::Gelu { tanh: false })
    } else {
        Activation::Clip { low: 0.0, high: 6.0 }
    };
    let epilogue = Epilogue { bias: Some(bias), residual: other, activation };
    let kind = StepKind::Gemm { x: dense(x, &[rows, k]), w, rows, k, n, epilogue, out };
    b.case(
        format!("gemm {rows}×{k}×{n}{}", if residual { " with residual" } else { "" }),
        kind,
        &[(out, &[rows, n])],
    )
}

/// Rows that start after `offset` elements and are `stride` elements apart.
fn gemm_apart(rows: usize, k: usize, n: usize, offset: usize, stride: usize) -> Case {
    let mut b = Builder::new();
    let x = b.input(DType::F32, &[offset + rows * stride]);
    let w = b.matrix(k, n);
    let out = b.buffer(DType::F32, rows * n);
    let x = Access { operand: x, offset, strides: vec![stride as isize, 1] };
    let kind = StepKind::Gemm { x, w, rows, k, n, epilogue: Epilogue::default(), out };
    b.case(format!("gemm of rows {stride} apart from {offset}"), kind, &[(out, &[rows, n])])
}

#[allow(clippy::too_many_arguments)] // a row of the table of convolutions
fn conv(
    size: usize,
    channels: usize,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    dilation: usize,
    groups: usize,
    residual: bool,
) -> Case {
    let mut b = Builder::new();
    let width = size + 2; // not square, so that swapped axes show
    let output = |input: usize| (input + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
    let shape = ConvShape {
        input: [size, width],
        output: [output(size), output(width)],
        kernel: [kernel; 2],
        strides: [stride; 2],
        dilations: [dilation; 2],
        before: [pad; 2],
        after: [pad; 2],
        groups,
        in_per_group: channels / groups,
        out_per_group: out_channels / groups,
    };
    let x = b.input(DType::F32, &[size, width, channels]);
    let w = b.weight(Role::Conv { groups }, &[out_channels, shape.in_per_group, kernel, kernel]);
    let bias = b.plain(&[out_channels]);
    let dims = [shape.output[0], shape.output[1], out_channels];
    let without = if residual { "" } else { " without residual" };
    let residual = residual.then(|| b.input(DType::F32, &dims));
    let out = b.buffer(DType::F32, dims.iter().product());
    let activation = Activation::Clip { low: 0.0, high: f32::INFINITY };
    let epilogue = Epilogue { bias: Some(bias), residual, activation };
    let name = format!(
        "conv {channels}→{out_channels} {kernel}×{kernel} stride {stride} dilation {dilation} groups {groups}{without}"
    );
    b.case(name, StepKind::Conv { x, w, shape, epilogue, out }, &[(out, &dims)])
}

fn per_channel(stride: usize, channels: usize) -> ConvShape {
    let output = |input: usize| (input + 2 - 3) / stride + 1;
    ConvShape {
        input: [8, 9],
        output: [output(8), output(9)],
        kernel: [3; 2],
        strides: [stride; 2],
        dilations: [1; 2],
        before: [1; 2],
        after: [1; 2],
        groups: channels,
        in_per_group: 1,
        out_per_group: 1,
    }
}

fn depthwise(stride: usize) -> Case {
    let mut b = Builder::new();
    let shape = per_channel(stride, 35);
    let x = b.input(DType::F32, &[8, 9, 35]);
    let (w, bias) = (b.weight(Role::Depthwise, &[35, 1, 3, 3]), b.plain(&[35]));
    let dims = [shape.output[0], shape.output[1], 35];
    let out = b.buffer(DType::F32, dims.iter().product());
    let epilogue =
        Epilogue { bias: Some(bias), residual: None, activation: Activation::Unary(Unary::HardSwish) };
    b.case(
        format!("depthwise stride {stride}"),
        StepKind::Depthwise { x, w, shape, epilogue, out },
        &[(out, &dims)],
    )
}

fn pool(kind: PoolKind, stride: usize) -> Case {
    let mut b = Builder::new();
    let shape = per_channel(stride, 5);
    let x = b.input(DType::F32, &[8, 9, 5]);
    let dims = [shape.output[0], shape.output[1], 5];
    let out = b.buffer(DType::F32, dims.iter().product());
    b.case(format!("pool {kind:?} stride {stride}"), StepKind::Pool { kind, x, shape, out }, &[(out, &dims)])
}

fn layer_norm() -> Case {
    let mut b = Builder::new();
    let (rows, cols) = (5, 70);
    let x = b.input(DType::F32, &[rows, cols]);
    let (scale, bias) = (Operand::Weight(b.plain(&[cols])), Operand::Weight(b.plain(&[cols])));
    let out = b.buffer(DType::F32, rows * cols);
    let kind =
        StepKind::LayerNorm { x, rows, cols, centred: true, epsilon: 1e-5, scale, bias: Some(bias), out };
    b.case("layer norm".to_owned(), kind, &[(out, &[rows, cols])])
}

fn softmax(log: bool) -> Case {
    let mut b = Builder::new();
    let (rows, cols) = (4, 37);
    let x = b.input(DType::F32, &[rows, cols]);
    let out = b.buffer(DType::F32, rows * cols);
    let kind = StepKind::Softmax { x, rows, cols, log, out };
    b.case(format!("softmax{}", if log { " logarithm" } else { "" }), kind, &[(out, &[rows, cols])])
}

fn gather(stray: bool) -> Case {
    let mut b = Builder::new();
    let ids = b.input(DType::I64, &[6]);
    let table = Operand::Weight(b.plain(&[50, 9]));
    let out = b.buffer(DType::F32, 54);
    let what = "ids".to_owned();
    let kind = StepKind::Gather { table, ids, outer: 1, rows: 50, row: 9, count: 6, what, out };
    let mut case =
        b.case(format!("gather{}", if stray { " with strays" } else { "" }), kind, &[(out, &[6, 9])]);
    case.ids = (50, stray);
    case
}

fn reduce(kind: Reduction) -> Case {
    let mut b = Builder::new();
    // Errors of factors add up in a product: few of them.
    let length = if kind == Reduction::Prod { 6 } else { 40 };
    let x = b.input(DType::F32, &[7, length, 3]);
    let out = b.buffer(DType::F32, 21);
    let x = Access { operand: x, offset: 0, strides: vec![3 * length as isize, 1, 3] };
    let step = StepKind::Reduce { kind, x, kept: vec![7, 3], reduced: vec![length], out };
    b.case(format!("reduce {kind:?}"), step, &[(out, &[7, 3])])
}

fn chain() -> Case {
    let mut b = Builder::new();
    let (x, y) = (b.input(DType::F32, &[20, 33]), b.input(DType::F32, &[33]));
    let out = b.buffer(DType::F32, 660);
    let inputs = vec![dense(x, &[20, 33]), Access { operand: y, offset: 0, strides: vec![0, 1] }];
    let program = vec![
        ElementOp::Load(0),
        ElementOp::Load(1),
        ElementOp::Binary(Binary::Mul, 0, 1),
        ElementOp::Unary(Unary::Sigmoid, 2),
        ElementOp::Float(0.5),
        ElementOp::Binary(Binary::Greater, 3, 4),
        ElementOp::Select(5, 0, 3),
    ];
    let kind = StepKind::Elementwise { dims: vec![20, 33], inputs, program, out };
    b.case("chain of floats".to_owned(), kind, &[(out, &[20, 33])])
}

fn mask() -> Case {
    let mut b = Builder::new();
    let (ids, flags) = (b.input(DType::I64, &[300]), b.input(DType::Bool, &[300]));
    let out = b.buffer(DType::I32, 300);
    let program = vec![
        ElementOp::Load(0),
        ElementOp::Int(3),
        ElementOp::Binary(Binary::Mod { fmod: false }, 0, 1),
        ElementOp::Binary(Binary::Equal, 2, 1),
        ElementOp::Load(1),
        ElementOp::Binary(Binary::Or, 3, 4),
        ElementOp::Select(5, 0, 2),
        ElementOp::Cast(DType::I32, 6),
    ];
    let kind = StepKind::Elementwise {
        dims: vec![300],
        inputs: vec![dense(ids, &[300]), dense(flags, &[300])],
        program,
        out,
    };
    b.case("chain of integers".to_owned(), kind, &[(out, &[300])])
}

fn transpose() -> Case {
    let mut b = Builder::new();
    let x = b.input(DType::F32, &[6, 7]);
    let out = b.buffer(DType::F32, 42);
    let x = Access { operand: x, offset: 0, strides: vec![1, 7] };
    let kind = StepKind::Copy { dims: vec![7, 6], x, out, out_offset: 0, out_strides: vec![6, 1] };
    b.case("copy transposed".to_owned(), kind, &[(out, &[7, 6])])
}

fn fill() -> Case {
    let mut b = Builder::new();
    b.input(DType::F32, &[1]);
    let out = b.buffer(DType::F32, 13);
    b.case("fill".to_owned(), StepKind::Fill { value: Tensor::scalar(2.5f32), out }, &[(out, &[13])])
}
