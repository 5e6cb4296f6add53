//! Layers as ONNX writes them.

use super::Layer;
use crate::common::{float, floats, info, int, int_list, ints, model, node, string, untyped};
use prost::Message;
use rand::RngExt;
use rand::rngs::StdRng;
use tessera_planner::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// Elements of one item that a value may have: tests are many, so they must be quick.
const LARGEST: usize = 3000;

/// A file as it grows. Shapes are those of one item.
pub(super) struct Writer {
    random: StdRng,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    values: Vec<(String, Vec<usize>)>,
    outputs: Vec<String>,
}

impl Writer {
    /// Nothing yet but an input of items of these dimensions.
    pub(super) fn new(input: &[usize], random: StdRng) -> Writer {
        let values = vec![("x".to_owned(), input.to_vec())];
        Writer { random, nodes: Vec::new(), initializers: Vec::new(), values, outputs: Vec::new() }
    }

    /// The file, whose outputs are the last value and those that were tapped.
    pub(super) fn file(mut self) -> Vec<u8> {
        if self.last().0 == "x" {
            self.unary("Neg");
        }
        let last = self.last().0;
        self.outputs.retain(|tap| *tap != last && tap != "x");
        self.outputs.push(last);
        self.outputs.dedup();
        let input = &self.values[0].1;
        let dims: Vec<i64> = std::iter::once(0).chain(input.iter().map(|&dim| dim as i64)).collect();
        let graph = GraphProto {
            input: vec![info("x", &dims)],
            output: self.outputs.iter().map(|name| untyped(name)).collect(),
            node: self.nodes,
            initializer: self.initializers,
            ..GraphProto::default()
        };
        model(17, graph).encode_to_vec()
    }

    fn last(&self) -> (String, Vec<usize>) {
        self.values.last().unwrap().clone()
    }

    fn fresh(&self) -> String {
        format!("v{}", self.nodes.len())
    }

    /// A node that is no layer's result.
    fn inner(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = self.fresh();
        let mut made = node(op, inputs, &[&name], attributes);
        made.name = Some(format!("{op}_{name}"));
        self.nodes.push(made);
        name
    }

    /// A node whose output is the last value from now on.
    fn push(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, dims: Vec<usize>) {
        let name = self.inner(op, inputs, attributes);
        self.values.push((name, dims));
    }

    fn weight(&mut self, dims: &[usize], low: f32, high: f32) -> String {
        let name = format!("w{}", self.initializers.len());
        let count = dims.iter().product();
        let mut elements: Vec<f32> = (0..count).map(|_| self.random.random_range(low..high)).collect();
        // A single element may be a constant of the architecture: it is the same for all tenants.
        if let [only] = &mut elements[..] {
            *only = low + 0.7 * (high - low);
        }
        let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        self.initializers.push(floats(&name, &dims, &elements));
        name
    }

    /// A weight whose sums of `fan` products stay around one.
    fn matrix(&mut self, dims: &[usize], fan: usize) -> String {
        let bound = (2.0 / fan as f32).sqrt();
        self.weight(dims, -bound, bound)
    }

    fn literal(&mut self, value: f32) -> String {
        let name = format!("c{}", self.initializers.len());
        self.initializers.push(floats(&name, &[], &[value]));
        name
    }

    fn list(&mut self, elements: &[i64]) -> String {
        let name = format!("i{}", self.initializers.len());
        self.initializers.push(ints(&name, elements));
        name
    }

    fn unary(&mut self, op: &str) {
        let (x, dims) = self.last();
        self.push(op, &[&x], Vec::new(), dims);
    }

    fn reshape(&mut self, dims: Vec<usize>) {
        let (x, _) = self.last();
        let target: Vec<i64> = std::iter::once(0).chain(dims.iter().map(|&dim| dim as i64)).collect();
        let target = self.list(&target);
        self.push("Reshape", &[&x, &target], Vec::new(), dims);
    }

    /// Writes a layer; `None` where it does not fit.
    pub(super) fn layer(&mut self, layer: &Layer) -> Option<()> {
        let (x, dims) = self.last();
        let (x, rank) = (x.as_str(), dims.len());
        let fits = |dims: &[usize]| (dims.iter().product::<usize>() <= LARGEST).then_some(());
        match *layer {
            Layer::Unary(op) => self.unary(op),
            Layer::Weighted(op, shape) => {
                let shape: Vec<usize> = match shape % 3 {
                    0 => dims.last().copied().into_iter().collect(),
                    1 => dims.clone(),
                    _ => {
                        dims.iter().enumerate().map(|(axis, &dim)| if axis == 0 { dim } else { 1 }).collect()
                    }
                };
                let w = self.weight(&shape, 0.5, 1.5);
                self.push(op, &[x, &w], Vec::new(), dims);
            }
            Layer::Residual(op, back) => {
                let alike: Vec<String> = self
                    .values
                    .iter()
                    .rev()
                    .skip(1)
                    .filter(|(_, other)| *other == dims)
                    .map(|(name, _)| name.clone())
                    .collect();
                let other = alike.get(back % alike.len().max(1))?;
                self.push(op, &[x, other], Vec::new(), dims);
            }
            Layer::Conv { out, kernel, stride, groups, dilation, padded, bias } => {
                let [channels, height, width] = dims[..] else { return None };
                let kernel = [1, 3, 2, 1, 3, 5][kernel % 6];
                let groups = if groups % 3 == 0 {
                    channels
                } else if groups % 3 == 1 && channels % 2 == 0 {
                    2
                } else {
                    1
                };
                let out = if groups == 1 { out } else { groups * (1 + out % 2) };
                let (reach, pad) =
                    ((kernel - 1) * dilation + 1, if padded { (kernel - 1) * dilation / 2 } else { 0 });
                let length = |dim: usize| Some((dim + 2 * pad).checked_sub(reach)? / stride + 1);
                let made = vec![out, length(height)?, length(width)?];
                fits(&made)?;
                let w = self
                    .matrix(&[out, channels / groups, kernel, kernel], channels / groups * kernel * kernel);
                let mut inputs = vec![x.to_owned(), w];
                if bias {
                    inputs.push(self.weight(&[out], -0.5, 0.5));
                }
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                let attributes = vec![
                    int_list("kernel_shape", &[kernel as i64; 2]),
                    int_list("strides", &[stride as i64; 2]),
                    int_list("dilations", &[dilation as i64; 2]),
                    int_list("pads", &[pad as i64; 4]),
                    int("group", groups as i64),
                ];
                self.push("Conv", &inputs, attributes, made);
            }
            Layer::BatchNorm => {
                let channels = *dims.first()?;
                let scale = self.weight(&[channels], 0.5, 1.5);
                let [bias, mean] = [(); 2].map(|()| self.weight(&[channels], -0.5, 0.5));
                let variance = self.weight(&[channels], 0.5, 1.5);
                let inputs = [x, &scale, &bias, &mean, &variance];
                self.push("BatchNormalization", &inputs, vec![float("epsilon", 0.01)], dims);
            }
            Layer::Pool { max, kernel, stride, padded } => {
                let [channels, height, width] = dims[..] else { return None };
                let pad = if padded { kernel / 2 } else { 0 };
                let length = |dim: usize| Some((dim + 2 * pad).checked_sub(kernel)? / stride + 1);
                let made = vec![channels, length(height)?, length(width)?];
                let mut attributes = vec![
                    int_list("kernel_shape", &[kernel as i64; 2]),
                    int_list("strides", &[stride as i64; 2]),
                    int_list("pads", &[pad as i64; 4]),
                ];
                if !max {
                    attributes.push(int("count_include_pad", i64::from(stride == 1)));
                }
                self.push(if max { "MaxPool" } else { "AveragePool" }, &[x], attributes, made);
            }
            Layer::GlobalPool => {
                let [channels, ..] = dims[..] else { return None };
                (rank == 3).then_some(())?;
                self.push("GlobalAveragePool", &[x], Vec::new(), vec![channels, 1, 1]);
            }
            Layer::Flatten => self.push("Flatten", &[x], Vec::new(), vec![dims.iter().product()]),
            Layer::Gemm { out, transposed, bias } => {
                let [width] = dims[..] else { return None };
                let shape = if transposed { [out, width] } else { [width, out] };
                let w = self.matrix(&shape, width);
                let mut inputs = vec![x.to_owned(), w];
                if bias {
                    inputs.push(self.weight(&[out], -0.5, 0.5));
                }
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                self.push("Gemm", &inputs, vec![int("transB", i64::from(transposed))], vec![out]);
            }
            Layer::Linear { out, bias } => {
                let width = *dims.last()?;
                let made = [&dims[..rank - 1], &[out]].concat();
                fits(&made)?;
                let w = self.matrix(&[width, out], width);
                self.push("MatMul", &[x, &w], Vec::new(), made.clone());
                if bias {
                    let (product, b) = (self.last().0, self.weight(&[out], -0.5, 0.5));
                    self.push("Add", &[&product, &b], Vec::new(), made);
                }
            }
            Layer::TimeMajor { out, bias } => {
                let [time, width] = dims[..] else { return None };
                fits(&[time, out])?;
                let turned = || vec![int_list("perm", &[1, 0, 2])];
                let by_time = self.inner("Transpose", &[x], turned());
                let rows = self.list(&[-1, width as i64]);
                let rows = self.inner("Reshape", &[&by_time, &rows], Vec::new());
                let mut inputs = vec![rows, self.matrix(&[width, out], width)];
                if bias {
                    inputs.push(self.weight(&[out], -0.5, 0.5));
                }
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                let product = self.inner("Gemm", &inputs, Vec::new());
                let parted = self.list(&[time as i64, -1, out as i64]);
                let parted = self.inner("Reshape", &[&product, &parted], Vec::new());
                self.push("Transpose", &[&parted], turned(), vec![time, out]);
            }
            Layer::Recurrent { op, hidden, direction } => {
                let [time, width] = dims[..] else { return None };
                let (direction, directions) =
                    [("forward", 1), ("reverse", 1), ("bidirectional", 2)][direction % 3];
                let made = vec![time, directions * hidden];
                fits(&made)?;
                let gates = match op {
                    "LSTM" => 4,
                    "GRU" => 3,
                    _ => 1,
                };
                let by_time = self.inner("Transpose", &[x], vec![int_list("perm", &[1, 0, 2])]);
                let w = self.matrix(&[directions, gates * hidden, width], width);
                let r = self.matrix(&[directions, gates * hidden, hidden], hidden);
                let b = self.weight(&[directions, 2 * gates * hidden], -0.5, 0.5);
                let attributes = vec![int("hidden_size", hidden as i64), string("direction", direction)];
                let states = self.inner(op, &[&by_time, &w, &r, &b], attributes);
                let apart = int_list("perm", &[2, 0, 1, 3]);
                let apart = self.inner("Transpose", &[&states], vec![apart]);
                let together = self.list(&[0, time as i64, (directions * hidden) as i64]);
                self.push("Reshape", &[&apart, &together], Vec::new(), made);
            }
            Layer::Attention { heads } => self.attention(heads)?,
            Layer::Transpose(turn) => {
                (rank >= 2).then_some(())?;
                let mut order: Vec<usize> = (0..rank).collect();
                order.rotate_left(1 + turn % (rank - 1));
                if turn % 2 == 1 {
                    order.swap(0, rank - 1);
                }
                let perm: Vec<i64> =
                    std::iter::once(0).chain(order.iter().map(|&axis| axis as i64 + 1)).collect();
                let made = order.iter().map(|&axis| dims[axis]).collect();
                self.push("Transpose", &[x], vec![int_list("perm", &perm)], made);
            }
            Layer::Merge(axis) => {
                let axis = axis % rank.checked_sub(1).filter(|&pairs| pairs > 0)?;
                let mut made = dims;
                made[axis] *= made.remove(axis + 1);
                self.reshape(made);
            }
            Layer::Divide(axis, by) => {
                (1..4).contains(&rank).then_some(())?;
                let (axis, by) = (axis % rank, 2 + by % 3);
                (dims[axis] % by == 0).then_some(())?;
                let mut made = dims;
                made[axis] /= by;
                made.insert(axis, by);
                self.reshape(made);
            }
            Layer::Slice { axis, start, step } => {
                let axis = axis % rank.max(1);
                let length = *dims.get(axis)?;
                let start = start % length;
                let mut made = dims;
                made[axis] = (length - start).div_ceil(step);
                let lists =
                    [start as i64, i64::MAX, axis as i64 + 1, step as i64].map(|number| self.list(&[number]));
                let [starts, ends, axes, steps] = lists.each_ref().map(String::as_str);
                self.push("Slice", &[x, starts, ends, axes, steps], Vec::new(), made);
            }
            Layer::Flip(axis) => {
                let axis = axis % rank.max(1);
                dims.get(axis)?;
                let lists = [-1, i64::MIN, axis as i64 + 1, -1].map(|number| self.list(&[number]));
                let [starts, ends, axes, steps] = lists.each_ref().map(String::as_str);
                self.push("Slice", &[x, starts, ends, axes, steps], Vec::new(), dims);
            }
            Layer::SplitConcat(axis) => {
                let axis = axis % rank.max(1);
                let length = *dims.get(axis).filter(|&&length| length > 1)?;
                let sizes = self.list(&[1, length as i64 - 1]);
                let along = int("axis", axis as i64 + 1);
                let (one, other) = (self.fresh(), format!("{}b", self.fresh()));
                self.nodes.push(node("Split", &[x, &sizes], &[&one, &other], vec![along.clone()]));
                self.push("Concat", &[&other, &one], vec![along], dims);
            }
            Layer::Concat { axis, back } => {
                (rank > 0).then_some(())?;
                let axis = axis % rank.max(1);
                let alike = |other: &Vec<usize>| {
                    other.len() == rank && (0..rank).all(|at| at == axis || other[at] == dims[at])
                };
                let fitting: Vec<(String, Vec<usize>)> =
                    self.values.iter().rev().filter(|(_, other)| alike(other)).cloned().collect();
                let (other, its) = fitting.get(back % fitting.len().max(1))?;
                let mut made = dims;
                *made.get_mut(axis)? += its[axis];
                fits(&made)?;
                self.push("Concat", &[x, other], vec![int("axis", axis as i64 + 1)], made);
            }
            Layer::Pad(axis) => {
                (rank > 0).then_some(())?;
                let axis = axis % rank.max(1);
                let mut pads = vec![0; 2 * (rank + 1)];
                *pads.get_mut(axis + 1)? = 1;
                pads[rank + 1 + axis + 1] = 2;
                let mut made = dims;
                made[axis] += 3;
                fits(&made)?;
                let pads = self.list(&pads);
                self.push("Pad", &[x, &pads], Vec::new(), made);
            }
            Layer::Softmax(axis) => {
                (rank > 0).then_some(())?;
                let axis = axis % rank.max(1);
                self.push("Softmax", &[x], vec![int("axis", axis as i64 + 1)], dims);
            }
            Layer::RowNorm => {
                let width = *dims.last()?;
                let (scale, bias) = (self.weight(&[width], 0.5, 1.5), self.weight(&[width], -0.5, 0.5));
                let attributes = vec![int("axis", -1), float("epsilon", 0.1)];
                self.push("LayerNormalization", &[x, &scale, &bias], attributes, dims);
            }
            Layer::SpeltRowNorm => {
                let width = *dims.last()?;
                let mean = self.inner("ReduceMean", &[x], vec![int_list("axes", &[-1])]);
                let centred = self.inner("Sub", &[x, &mean], Vec::new());
                let two = self.literal(2.0);
                let square = self.inner("Pow", &[&centred, &two], Vec::new());
                let variance = self.inner("ReduceMean", &[&square], vec![int_list("axes", &[-1])]);
                let epsilon = self.literal(0.1);
                let padded = self.inner("Add", &[&variance, &epsilon], Vec::new());
                let deviation = self.inner("Sqrt", &[&padded], Vec::new());
                let normal = self.inner("Div", &[&centred, &deviation], Vec::new());
                let (scale, bias) = (self.weight(&[width], 0.5, 1.5), self.weight(&[width], -0.5, 0.5));
                let scaled = self.inner("Mul", &[&normal, &scale], Vec::new());
                self.push("Add", &[&scaled, &bias], Vec::new(), dims);
            }
            Layer::Mean { axis, keep } => {
                let axis = axis % rank.max(1);
                let mut made = dims;
                *made.get_mut(axis)? = 1;
                if !keep {
                    made.remove(axis);
                }
                let attributes = vec![int_list("axes", &[axis as i64 + 1]), int("keepdims", i64::from(keep))];
                self.push("ReduceMean", &[x], attributes, made);
            }
            Layer::Clip => {
                let (low, high) = (self.literal(-0.5), self.literal(0.75));
                self.push("Clip", &[x, &low, &high], Vec::new(), dims);
            }
            Layer::Silu => {
                let gate = self.inner("Sigmoid", &[x], Vec::new());
                self.push("Mul", &[x, &gate], Vec::new(), dims);
            }
            Layer::Gelu => {
                let root = self.literal(std::f32::consts::SQRT_2);
                let scaled = self.inner("Div", &[x, &root], Vec::new());
                let erf = self.inner("Erf", &[&scaled], Vec::new());
                let one = self.literal(1.0);
                let sum = self.inner("Add", &[&erf, &one], Vec::new());
                let product = self.inner("Mul", &[x, &sum], Vec::new());
                let half = self.literal(0.5);
                self.push("Mul", &[&product, &half], Vec::new(), dims);
            }
            Layer::HardSwish => {
                let three = self.literal(3.0);
                let sum = self.inner("Add", &[x, &three], Vec::new());
                let (low, high) = (self.literal(0.0), self.literal(6.0));
                let clipped = self.inner("Clip", &[&sum, &low, &high], Vec::new());
                let product = self.inner("Mul", &[x, &clipped], Vec::new());
                let six = self.literal(6.0);
                self.push("Div", &[&product, &six], Vec::new(), dims);
            }
            Layer::Unsqueeze(axis) => {
                (rank < 4).then_some(())?;
                let axis = axis % (rank + 1);
                let mut made = dims;
                made.insert(axis, 1);
                let axes = self.list(&[axis as i64 + 1]);
                self.push("Unsqueeze", &[x, &axes], Vec::new(), made);
            }
            Layer::Repeat(axis, count) => {
                (rank < 4).then_some(())?;
                let axis = axis % (rank + 1);
                let mut made = dims;
                made.insert(axis, count);
                fits(&made)?;
                let axes = self.list(&[axis as i64 + 1]);
                let wider = self.inner("Unsqueeze", &[x, &axes], Vec::new());
                let mut shape = vec![1; rank + 2];
                shape[axis + 1] = count as i64;
                let shape = self.list(&shape);
                self.push("Expand", &[&wider, &shape], Vec::new(), made);
            }
            Layer::Tap => self.outputs.push(x.to_owned()),
        }
        Some(())
    }

    fn attention(&mut self, heads: usize) -> Option<()> {
        let (x, dims) = self.last();
        let [rows, width] = dims[..] else { return None };
        let heads = if width % (1 + heads % 3) == 0 { 1 + heads % 3 } else { 1 };
        let size = width / heads;
        let split = self.list(&[0, rows as i64, heads as i64, size as i64]);
        let mut turned = Vec::new();
        for perm in [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]] {
            let w = self.matrix(&[width, width], width);
            let projected = self.inner("MatMul", &[&x, &w], Vec::new());
            let divided = self.inner("Reshape", &[&projected, &split], Vec::new());
            turned.push(self.inner("Transpose", &[&divided], vec![int_list("perm", &perm)]));
        }
        let scores = self.inner("MatMul", &[&turned[0], &turned[1]], Vec::new());
        let scale = self.literal((size as f32).sqrt());
        let scaled = self.inner("Div", &[&scores, &scale], Vec::new());
        let shares = self.inner("Softmax", &[&scaled], vec![int("axis", -1)]);
        let mixed = self.inner("MatMul", &[&shares, &turned[2]], Vec::new());
        let back = self.inner("Transpose", &[&mixed], vec![int_list("perm", &[0, 2, 1, 3])]);
        let joined = self.list(&[0, rows as i64, width as i64]);
        self.push("Reshape", &[&back, &joined], Vec::new(), dims);
        Some(())
    }
}
