//! Layers with the names that exporters give them, over an ONNX graph.
//!
//! A trained network keeps its activations near one and answers different inputs differently; weights drawn at random do neither
//! by themselves. Every [`Value`] therefore carries its expected [`Scale`], and each layer is drawn for the scale that it reads:
//!
//! ```text
//!   conv, linear   weights of variance gain / fan-in, half of their mean taken off      variance ▸ gain · power that is left
//!   batch norm     statistics around what comes, none of them trivial                   variance ▸ 1.1 · scale²
//!   residual       branches of less weight than the stream they join                    variance ▸ sum
//! ```
//! Taking off the mean: what rectifiers make has a mean, and under weights that do not sum to zero it grows from layer to layer
//! into a constant that drowns the input. Taken off whole, small differences would grow instead, rounding included. With a
//! half, another input moves the answer of ResNet-152 by a tenth (it was a hundredth), and noise in an input comes out of any
//! architecture at most five times as large (at full size, November 2026).

use super::scale::Scale;
use crate::onnx_writer::{Attribute, Axis, OnnxWriter, Range};

/// What an ordinary network's requests choose.
pub(super) const BATCH: Axis = Axis::Free("batch");

/// Gain of a layer that a rectifier follows (He et al., 2015): it takes half of the power away.
pub(super) const HE: f32 = 2.0;

/// Gain of a layer that nothing follows.
pub(super) const PLAIN: f32 = 1.0;

/// A value of one item.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) name: String,
    /// Without the batch; images are `[channels, height, width]`, sequences `[tokens, width]`.
    pub(super) dims: Vec<usize>,
    pub(super) scale: Scale,
}

impl Value {
    pub(super) fn channels(&self) -> usize {
        self.dims[0]
    }

    /// Elements that a linear layer reads for one row.
    pub(super) fn columns(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }
}

/// A convolution, but for its input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    pub(super) to: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) pad: usize,
    pub(super) groups: usize,
    pub(super) bias: bool,
    pub(super) gain: f32,
}

impl Conv {
    /// Square, of stride 1, centred, without bias, to be followed by a normalisation.
    pub(super) fn new(to: usize, kernel: usize) -> Conv {
        Conv { to, kernel, stride: 1, pad: kernel / 2, groups: 1, bias: false, gain: HE }
    }

    pub(super) fn stride(self, stride: usize) -> Conv {
        Conv { stride, ..self }
    }

    pub(super) fn groups(self, groups: usize) -> Conv {
        Conv { groups, ..self }
    }

    pub(super) fn pad(self, pad: usize) -> Conv {
        Conv { pad, ..self }
    }

    pub(super) fn biased(self) -> Conv {
        Conv { bias: true, ..self }
    }
}

/// A network in the making.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) onnx: OnnxWriter,
    /// Of every input: ids are below this; `None` for floats.
    pub(super) ids_below: Vec<Option<i64>>,
}

impl Network {
    pub(super) fn new(name: &str) -> Network {
        Network { onnx: OnnxWriter::new(name), ids_below: Vec::new() }
    }

    /// A float input whose elements have a mean square of one.
    pub(super) fn input(&mut self, name: &str, dims: &[usize]) -> Value {
        let axes: Vec<Axis> = std::iter::once(BATCH).chain(dims.iter().map(|&dim| Axis::Of(dim))).collect();
        self.ids_below.push(None);
        Value { name: self.onnx.input(name, &axes), dims: dims.to_vec(), scale: Scale::UNIT }
    }

    /// An input of ids below `below`.
    pub(super) fn ids(&mut self, name: &str, dims: &[usize], below: usize) -> String {
        let axes: Vec<Axis> = std::iter::once(BATCH).chain(dims.iter().map(|&dim| Axis::Of(dim))).collect();
        self.ids_below.push(Some(below as i64));
        self.onnx.ids(name, &axes)
    }

    pub(super) fn output(&mut self, name: &str, value: &Value) {
        let axes = value.dims.iter().map(|&dim| Axis::Of(dim));
        self.onnx.output(name, &value.name, &std::iter::once(BATCH).chain(axes).collect::<Vec<_>>());
    }

    /// A float constant, kept once however often it is asked for.
    pub(super) fn constant(&mut self, name: &str, value: f32) -> String {
        if self.onnx.has(name) { name.to_owned() } else { self.onnx.scalar(name, value) }
    }

    /// An integer constant of rank 1, kept once however often it is asked for.
    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        if self.onnx.has(name) { name.to_owned() } else { self.onnx.integers(name, &[values.len()], values) }
    }

    /// A node that does not change the shape.
    pub(super) fn pointwise(&mut self, name: &str, op: &str, x: &Value, scale: Scale) -> Value {
        Value { name: self.onnx.named(name, op, &[&x.name], &[]), scale, ..x.clone() }
    }

    pub(super) fn relu(&mut self, name: &str, x: &Value) -> Value {
        self.pointwise(name, "Relu", x, x.scale.rectified())
    }

    /// Torch's ReLU6.
    pub(super) fn relu6(&mut self, name: &str, x: &Value) -> Value {
        let (zero, six) = (self.constant("zero", 0.0), self.constant("six", 6.0));
        let clipped = self.onnx.named(name, "Clip", &[&x.name, &zero, &six], &[]);
        Value { name: clipped, scale: x.scale.rectified(), ..x.clone() }
    }

    /// `x·sigmoid(x)`, as torch writes it.
    pub(super) fn silu(&mut self, name: &str, x: &Value) -> Value {
        let gate = self.onnx.named(&format!("{name}/Sigmoid"), "Sigmoid", &[&x.name], &[]);
        let product = self.onnx.named(name, "Mul", &[&x.name, &gate], &[]);
        // As for a bell of variance one, which a normalisation makes.
        Value {
            name: product,
            scale: Scale { mean: 0.21, variance: 0.31 }.times(x.scale.power().sqrt()),
            ..x.clone()
        }
    }

    /// The exact GELU, as torch writes it for opset 17.
    pub(super) fn gelu(&mut self, name: &str, x: &Value) -> Value {
        let root = self.constant("sqrt_2", std::f32::consts::SQRT_2);
        let (one, half) = (self.constant("one", 1.0), self.constant("half", 0.5));
        let part = |what: &str| format!("{name}/{what}");
        let quotient = self.onnx.named(&part("Div"), "Div", &[&x.name, &root], &[]);
        let erf = self.onnx.named(&part("Erf"), "Erf", &[&quotient], &[]);
        let sum = self.onnx.named(&part("Add"), "Add", &[&erf, &one], &[]);
        let product = self.onnx.named(&part("Mul"), "Mul", &[&x.name, &sum], &[]);
        let halved = self.onnx.named(name, "Mul", &[&product, &half], &[]);
        // As for a bell of variance one, which a normalisation makes.
        Value {
            name: halved,
            scale: Scale { mean: 0.28, variance: 0.35 }.times(x.scale.power().sqrt()),
            ..x.clone()
        }
    }

    pub(super) fn add(&mut self, name: &str, a: &Value, b: &Value) -> Value {
        let sum = self.onnx.named(name, "Add", &[&a.name, &b.name], &[]);
        Value { name: sum, scale: a.scale.plus(b.scale), ..a.clone() }
    }

    pub(super) fn conv(&mut self, name: &str, x: &Value, conv: Conv) -> Value {
        let Conv { to, kernel, stride, pad, groups, bias, gain } = conv;
        let per_group = x.channels() / groups;
        let dims = [to, per_group, kernel, kernel];
        let (weight, variance) = self.he(&format!("{name}.weight"), &dims, gain, x.scale, per_group > 1);
        let mut inputs = vec![x.name.clone(), weight];
        let mut scale = Scale::around_zero(variance);
        if bias {
            inputs.push(self.bias(name, to, variance));
            scale.variance *= 1.0 + BIAS;
        }
        let square = |n: usize| [n as i64; 2];
        let made = self.onnx.named(
            &format!("{name}/Conv"),
            "Conv",
            &inputs.iter().map(String::as_str).collect::<Vec<_>>(),
            &[
                ("dilations", Attribute::Ints(&[1, 1])),
                ("group", Attribute::Int(groups as i64)),
                ("kernel_shape", Attribute::Ints(&square(kernel))),
                ("pads", Attribute::Ints(&[pad as i64; 4])),
                ("strides", Attribute::Ints(&square(stride))),
            ],
        );
        let side = |length: usize| (length + 2 * pad - kernel) / stride + 1;
        Value { name: made, dims: vec![to, side(x.dims[1]), side(x.dims[2])], scale }
    }

    /// A weight whose rows are one output's each, drawn for a gain, and the variance of what it makes of `x`.
    fn he(&mut self, name: &str, dims: &[usize], gain: f32, x: Scale, centred: bool) -> (String, f32) {
        let row: usize = dims[1..].iter().product();
        let range = Range::of_variance(gain / row as f32);
        if !centred {
            return (self.onnx.weight(name, dims, range), gain * x.power());
        }
        // The part of the mean that is left goes in with what is left of its weight.
        let left = 1.0 - CENTRED;
        let scale = Scale { mean: left * x.mean, variance: x.variance };
        (self.onnx.centred_weight(name, dims, range, CENTRED), gain * scale.power())
    }

    /// A bias beside what has this variance.
    fn bias(&mut self, name: &str, width: usize, variance: f32) -> String {
        self.onnx.weight(&format!("{name}.bias"), &[width], Range::of_variance(BIAS * variance))
    }

    /// A BatchNorm after training: it has measured what comes, and scales it to about `scale`.
    pub(super) fn batch_norm(&mut self, name: &str, x: &Value, scale: f32) -> Value {
        let channels = [x.channels()];
        let part = |what: &str| format!("{name}.{what}");
        let power = x.scale.power();
        let deviation = power.sqrt();
        let range = |centre, bound| Range { centre, bound };
        let gamma = self.onnx.weight(&part("weight"), &channels, range(scale, 0.2 * scale));
        let beta = self.onnx.weight(&part("bias"), &channels, range(0.0, 0.3 * scale));
        let mean = self.onnx.statistic(&part("running_mean"), &channels, range(0.0, 0.3 * deviation));
        let variance = self.onnx.statistic(&part("running_var"), &channels, range(power, 0.3 * power));
        let made = self.onnx.named(
            &format!("{name}/BatchNormalization"),
            "BatchNormalization",
            &[&x.name, &gamma, &beta, &mean, &variance],
            &[("epsilon", Attribute::Float(1e-5))],
        );
        // E[((x - mean)² / variance · gamma² + beta²] over the ranges above.
        Value { name: made, scale: Scale::around_zero(1.11 * scale * scale), ..x.clone() }
    }

    /// Over the last axis.
    pub(super) fn layer_norm(&mut self, name: &str, x: &Value, epsilon: f32) -> Value {
        let width = [x.columns()];
        let scale = self.onnx.weight(&format!("{name}.weight"), &width, Range { centre: 1.0, bound: 0.2 });
        let bias = self.onnx.weight(&format!("{name}.bias"), &width, Range { centre: 0.0, bound: 0.2 });
        let made = self.onnx.named(
            &format!("{name}/LayerNormalization"),
            "LayerNormalization",
            &[&x.name, &scale, &bias],
            &[("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))],
        );
        Value { name: made, scale: Scale::around_zero(1.03), ..x.clone() }
    }

    /// A linear layer of a vector, as torch writes it: Gemm with the weight `[to, from]`.
    pub(super) fn linear(&mut self, name: &str, x: &Value, to: usize, gain: f32) -> Value {
        let dims = [to, x.columns()];
        let (weight, variance) = self.he(&format!("{name}.weight"), &dims, gain, x.scale, true);
        let bias = self.bias(name, to, variance);
        let made = self.onnx.named(
            &format!("{name}/Gemm"),
            "Gemm",
            &[&x.name, &weight, &bias],
            &[
                ("alpha", Attribute::Float(1.0)),
                ("beta", Attribute::Float(1.0)),
                ("transB", Attribute::Int(1)),
            ],
        );
        Value { name: made, dims: vec![to], scale: Scale::around_zero((1.0 + BIAS) * variance) }
    }

    /// A linear layer of every row of a matrix, as torch writes it: MatMul with the weight `[from, to]`, then Add.
    pub(super) fn project(&mut self, name: &str, x: &Value, to: usize, gain: f32) -> Value {
        let from = x.columns();
        let range = Range::of_variance(gain / from as f32);
        let weight = self.onnx.weight(&format!("{name}.weight"), &[from, to], range);
        let variance = gain * x.scale.power();
        let bias = self.bias(name, to, variance);
        let product = self.onnx.named(&format!("{name}/MatMul"), "MatMul", &[&x.name, &weight], &[]);
        let made = self.onnx.named(&format!("{name}/Add"), "Add", &[&bias, &product], &[]);
        let mut dims = x.dims.clone();
        dims.pop();
        dims.push(to);
        Value { name: made, dims, scale: Scale::around_zero((1.0 + BIAS) * variance) }
    }

    /// `pad` zeros on every side; with `ceil` the last window may hang over the edge.
    pub(super) fn max_pool(
        &mut self,
        name: &str,
        x: &Value,
        [kernel, stride, pad]: [usize; 3],
        ceil: bool,
    ) -> Value {
        let made = self.onnx.named(
            name,
            "MaxPool",
            &[&x.name],
            &[
                ("ceil_mode", Attribute::Int(i64::from(ceil))),
                ("kernel_shape", Attribute::Ints(&[kernel as i64; 2])),
                ("pads", Attribute::Ints(&[pad as i64; 4])),
                ("strides", Attribute::Ints(&[stride as i64; 2])),
            ],
        );
        let side = |length: usize| {
            let room = length + 2 * pad - kernel;
            (if ceil { room.div_ceil(stride) } else { room / stride }) + 1
        };
        // The largest of some neighbours, which are alike.
        let scale = Scale { mean: 2.3 * x.scale.mean, variance: 1.4 * x.scale.variance };
        Value { name: made, dims: vec![x.dims[0], side(x.dims[1]), side(x.dims[2])], scale }
    }

    /// The mean under square windows side by side.
    pub(super) fn mean_pool(&mut self, name: &str, x: &Value, kernel: usize) -> Value {
        let square = [kernel as i64; 2];
        let attributes = [("kernel_shape", Attribute::Ints(&square)), ("strides", Attribute::Ints(&square))];
        let made = self.onnx.named(name, "AveragePool", &[&x.name], &attributes);
        let dims = vec![x.dims[0], x.dims[1] / kernel, x.dims[2] / kernel];
        Value { name: made, dims, scale: averaged(x.scale) }
    }

    /// The mean of each channel, as an image of one pixel.
    fn channel_means(&mut self, name: &str, x: &Value) -> Value {
        let mean = self.onnx.named(name, "GlobalAveragePool", &[&x.name], &[]);
        Value { name: mean, dims: vec![x.channels(), 1, 1], scale: averaged(x.scale) }
    }

    /// The mean of each channel, as a vector.
    pub(super) fn global_pool(&mut self, name: &str, x: &Value) -> Value {
        let means = self.channel_means(&format!("{name}/GlobalAveragePool"), x);
        self.flatten(&format!("{name}/Flatten"), &means)
    }

    /// All of an item as a vector.
    pub(super) fn flatten(&mut self, name: &str, x: &Value) -> Value {
        let vector = self.onnx.named(name, "Flatten", &[&x.name], &[("axis", Attribute::Int(1))]);
        Value { name: vector, dims: vec![x.dims.iter().product()], scale: x.scale }
    }

    /// Every channel weighed by a sigmoid of what all channels' means say; `fc1` and `fc2` are 1×1 convolutions.
    pub(super) fn squeeze_excite(
        &mut self,
        name: &str,
        x: &Value,
        squeezed: usize,
        activation: fn(&mut Network, &str, &Value) -> Value,
    ) -> Value {
        let part = |what: &str| format!("{name}.{what}");
        let means = self.channel_means(&part("avgpool"), x);
        let inner = self.conv(&part("fc1"), &means, Conv::new(squeezed.max(1), 1).biased());
        let inner = activation(self, &part("activation"), &inner);
        let outer =
            self.conv(&part("fc2"), &inner, Conv { gain: PLAIN, ..Conv::new(x.channels(), 1).biased() });
        let gate = self.onnx.named(&part("Sigmoid"), "Sigmoid", &[&outer.name], &[]);
        let product = self.onnx.named(&part("Mul"), "Mul", &[&gate, &x.name], &[]);
        // Gates are about a half.
        Value { name: product, scale: x.scale.times(0.53), ..x.clone() }
    }
}

/// A mean of neighbours, which are half alike.
fn averaged(scale: Scale) -> Scale {
    Scale { variance: 0.5 * scale.variance, ..scale }
}

/// The variance of a bias, as part of the power of what it is added to.
const BIAS: f32 = 0.02;

/// How much of its mean each output's weights lose.
const CENTRED: f32 = 0.5;
