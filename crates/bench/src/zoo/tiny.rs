//! Small models of the zoo's kinds: what the demo serves.
//!
//! Normalisations are not trivial and no bias is zero, so that a weight which went to the wrong tenant shows.

use crate::onnx_writer::{Attribute, Axis, OnnxWriter, Range};

/// A kind of model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tiny {
    /// Three linear layers over 64 numbers: a click predictor.
    Mlp,
    /// Six convolutions with normalisation and residuals over 3×32×32: a small image classifier.
    ConvNet,
    /// One LSTM layer of 64 over a series of 16×24: a forecaster.
    Lstm,
    /// Two transformer layers of width 64 over 16 tokens: a sentence encoder.
    Encoder,
}

impl Tiny {
    /// Every kind.
    pub const ALL: [Tiny; 4] = [Tiny::Mlp, Tiny::ConvNet, Tiny::Lstm, Tiny::Encoder];

    /// Its name in tenants' names and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Tiny::Mlp => "mlp",
            Tiny::ConvNet => "convnet",
            Tiny::Lstm => "lstm",
            Tiny::Encoder => "encoder",
        }
    }

    /// The input's name, dimensions of one item, and whether it holds token ids below [`VOCABULARY`].
    pub const fn input(self) -> (&'static str, &'static [usize], bool) {
        match self {
            Tiny::Mlp => ("features", &[64], false),
            Tiny::ConvNet => ("image", &[3, 32, 32], false),
            Tiny::Lstm => ("series", &[16, 24], false),
            Tiny::Encoder => ("ids", &[16], true),
        }
    }

    /// The model as an ONNX file. Equal seeds give equal bytes; every seed gives the same class.
    pub fn onnx(self, seed: u64) -> Vec<u8> {
        let mut w = OnnxWriter::new(self.name());
        match self {
            Tiny::Mlp => mlp(&mut w),
            Tiny::ConvNet => convnet(&mut w),
            Tiny::Lstm => lstm(&mut w),
            Tiny::Encoder => encoder(&mut w),
        }
        .finish_with(w, seed)
    }
}

/// Token ids of [`Tiny::Encoder`] are below this.
pub const VOCABULARY: i64 = 500;

const BATCH: Axis = Axis::Free("batch");

/// For a layer that sums `fan_in` products: He's scale, so that activations keep their size.
fn he(fan_in: usize) -> Range {
    Range::of_variance(2.0 / fan_in as f32)
}

/// The value that a model's last layer makes, and its number of columns.
struct Head(String, usize);

impl Head {
    fn finish_with(self, mut writer: OnnxWriter, seed: u64) -> Vec<u8> {
        writer.output("output", &self.0, &[BATCH, Axis::Of(self.1)]);
        writer.to_bytes(seed)
    }
}

fn linear(w: &mut OnnxWriter, name: &str, x: &str, from: usize, to: usize) -> String {
    let weight = w.weight(&format!("{name}.weight"), &[to, from], he(from));
    let bias = w.weight(&format!("{name}.bias"), &[to], Range { centre: 0.0, bound: 0.1 });
    w.node("Gemm", &[x, &weight, &bias], &[("transB", Attribute::Int(1))])
}

fn mlp(w: &mut OnnxWriter) -> Head {
    let x = w.input("features", &[BATCH, Axis::Of(64)]);
    let x = linear(w, "first", &x, 64, 256);
    let x = w.node("Relu", &[&x], &[]);
    let x = linear(w, "second", &x, 256, 256);
    let x = w.node("Relu", &[&x], &[]);
    Head(linear(w, "last", &x, 256, 8), 8)
}

fn conv_norm(w: &mut OnnxWriter, name: &str, x: &str, from: usize, to: usize, stride: i64) -> String {
    let weight = w.weight(&format!("{name}.weight"), &[to, from, 3, 3], he(9 * from));
    let conv = w.node(
        "Conv",
        &[x, &weight],
        &[
            ("kernel_shape", Attribute::Ints(&[3, 3])),
            ("strides", Attribute::Ints(&[stride, stride])),
            ("pads", Attribute::Ints(&[1, 1, 1, 1])),
        ],
    );
    let scale = w.weight(&format!("{name}.norm.weight"), &[to], Range { centre: 1.0, bound: 0.2 });
    let shift = w.weight(&format!("{name}.norm.bias"), &[to], Range { centre: 0.0, bound: 0.2 });
    let mean = w.statistic(&format!("{name}.norm.mean"), &[to], Range { centre: 0.0, bound: 0.2 });
    let variance = w.statistic(&format!("{name}.norm.variance"), &[to], Range { centre: 1.0, bound: 0.3 });
    let norm = [conv.as_str(), &scale, &shift, &mean, &variance];
    w.node("BatchNormalization", &norm, &[("epsilon", Attribute::Float(1e-5))])
}

fn convnet(w: &mut OnnxWriter) -> Head {
    let x = w.input("image", &[BATCH, Axis::Of(3), Axis::Of(32), Axis::Of(32)]);
    let x = conv_norm(w, "stem", &x, 3, 16, 1);
    let mut x = w.node("Relu", &[&x], &[]);
    let mut from = 16;
    for (stage, to) in [32, 64].into_iter().enumerate() {
        let down = conv_norm(w, &format!("stage{stage}.down"), &x, from, to, 2);
        let down = w.node("Relu", &[&down], &[]);
        let inner = conv_norm(w, &format!("stage{stage}.inner"), &down, to, to, 1);
        let sum = w.node("Add", &[&inner, &down], &[]);
        x = w.node("Relu", &[&sum], &[]);
        from = to;
    }
    let x = w.node("GlobalAveragePool", &[&x], &[]);
    let x = w.node("Flatten", &[&x], &[("axis", Attribute::Int(1))]);
    Head(linear(w, "head", &x, from, 10), 10)
}

fn lstm(w: &mut OnnxWriter) -> Head {
    let (time, from, hidden) = (16, 24, 64);
    let x = w.input("series", &[BATCH, Axis::Of(time), Axis::Of(from)]);
    let x = w.node("Transpose", &[&x], &[("perm", Attribute::Ints(&[1, 0, 2]))]);
    let input = w.weight("lstm.w", &[1, 4 * hidden, from], he(from + hidden));
    let recurrent = w.weight("lstm.r", &[1, 4 * hidden, hidden], he(from + hidden));
    let bias = w.weight("lstm.b", &[1, 8 * hidden], Range { centre: 0.0, bound: 0.1 });
    let y =
        w.node("LSTM", &[&x, &input, &recurrent, &bias], &[("hidden_size", Attribute::Int(hidden as i64))]);
    // [time, 1, batch, hidden] → [batch, time, 1, hidden] → the last time.
    let y = w.node("Transpose", &[&y], &[("perm", Attribute::Ints(&[2, 0, 1, 3]))]);
    let (start, end, axis) = (
        w.integers("last", &[1], &[time as i64 - 1]),
        w.integers("end", &[1], &[time as i64]),
        w.integers("axis", &[1], &[1]),
    );
    let last = w.node("Slice", &[&y, &start, &end, &axis], &[]);
    let last = w.node("Flatten", &[&last], &[("axis", Attribute::Int(1))]);
    Head(linear(w, "head", &last, hidden, 4), 4)
}

fn encoder(w: &mut OnnxWriter) -> Head {
    let (tokens, width, heads) = (16, 64, 4);
    let ids = w.ids("ids", &[BATCH, Axis::Of(tokens)]);
    let words = w.weight("words", &[VOCABULARY as usize, width], Range { centre: 0.0, bound: 0.5 });
    let places = w.weight("places", &[1, tokens, width], Range { centre: 0.0, bound: 0.2 });
    let x = w.node("Gather", &[&words, &ids], &[]);
    let mut x = w.node("Add", &[&x, &places], &[]);
    let split = w.integers("heads", &[4], &[0, tokens as i64, heads as i64, (width / heads) as i64]);
    let merged = w.integers("merged", &[3], &[0, tokens as i64, width as i64]);
    let scale = w.scalar("scale", 1.0 / ((width / heads) as f32).sqrt());
    for layer in 0..2 {
        let name = |part: &str| format!("layer{layer}.{part}");
        let normed = layer_norm(w, &name("norm1"), &x, width);
        let head = |w: &mut OnnxWriter, part: &str, perm: &[i64]| {
            let y = project(w, &name(part), &normed, width, width);
            let y = w.node("Reshape", &[&y, &split], &[]);
            w.node("Transpose", &[&y], &[("perm", Attribute::Ints(perm))])
        };
        let q = head(w, "query", &[0, 2, 1, 3]);
        let k = head(w, "key", &[0, 2, 3, 1]);
        let v = head(w, "value", &[0, 2, 1, 3]);
        let scores = w.node("MatMul", &[&q, &k], &[]);
        let scores = w.node("Mul", &[&scores, &scale], &[]);
        let weights = w.node("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
        let mixed = w.node("MatMul", &[&weights, &v], &[]);
        let mixed = w.node("Transpose", &[&mixed], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))]);
        let mixed = w.node("Reshape", &[&mixed, &merged], &[]);
        let mixed = project(w, &name("mix"), &mixed, width, width);
        x = w.node("Add", &[&x, &mixed], &[]);
        let normed = layer_norm(w, &name("norm2"), &x, width);
        let wide = project(w, &name("wide"), &normed, width, 4 * width);
        let wide = w.node("Relu", &[&wide], &[]);
        let narrow = project(w, &name("narrow"), &wide, 4 * width, width);
        x = w.node("Add", &[&x, &narrow], &[]);
    }
    let mean =
        w.node("ReduceMean", &[&x], &[("axes", Attribute::Ints(&[1])), ("keepdims", Attribute::Int(0))]);
    Head(mean, width)
}

fn layer_norm(w: &mut OnnxWriter, name: &str, x: &str, width: usize) -> String {
    let scale = w.weight(&format!("{name}.weight"), &[width], Range { centre: 1.0, bound: 0.2 });
    let bias = w.weight(&format!("{name}.bias"), &[width], Range { centre: 0.0, bound: 0.2 });
    w.node("LayerNormalization", &[x, &scale, &bias], &[("axis", Attribute::Int(-1))])
}

fn project(w: &mut OnnxWriter, name: &str, x: &str, from: usize, to: usize) -> String {
    let weight = w.weight(&format!("{name}.weight"), &[from, to], he(from));
    let bias = w.weight(&format!("{name}.bias"), &[to], Range { centre: 0.0, bound: 0.1 });
    let product = w.node("MatMul", &[x, &weight], &[]);
    w.node("Add", &[&product, &bias], &[])
}
