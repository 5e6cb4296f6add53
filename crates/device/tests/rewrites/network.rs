//! Random networks: a list of layers, each of which does something to the last value or is left out where it cannot.
//!
//! ```text
//!   Network { input: [c, h, w], layers: [Conv …, BatchNorm, Relu, Residual …] } ─▶ ONNX file with a free batch
//! ```
//! Because a layer that does not fit is skipped, any part of a list is a network, too: that is what makes failures shrink well.

mod writer;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use writer::Writer;

/// What a network is made from.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Dimensions of one item.
    pub(crate) input: Vec<usize>,
    /// From first to last.
    pub(crate) layers: Vec<Layer>,
    /// Seed of the weights.
    pub(crate) weights: u64,
}

/// One step of a network. Numbers are taken modulo what fits.
#[derive(Clone, Debug)]
pub(crate) enum Layer {
    Unary(&'static str),
    /// With a weight of the last axis, of all axes, or of one element.
    Weighted(&'static str, usize),
    /// With an earlier value of the same shape.
    Residual(&'static str, usize),
    Conv {
        out: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
        dilation: usize,
        padded: bool,
        bias: bool,
    },
    BatchNorm,
    Pool {
        max: bool,
        kernel: usize,
        stride: usize,
        padded: bool,
    },
    GlobalPool,
    Flatten,
    Gemm {
        out: usize,
        transposed: bool,
        bias: bool,
    },
    Linear {
        out: usize,
        bias: bool,
    },
    /// A linear layer of the rows `[time·batch, width]`, as recurrent code and `nn.MultiheadAttention` have them.
    TimeMajor {
        out: usize,
        bias: bool,
    },
    /// Of rows over time, in one direction or in both.
    Recurrent {
        op: &'static str,
        hidden: usize,
        direction: usize,
    },
    /// `softmax(x·xᵀ)·x` of rows, in several heads where they fit.
    Attention {
        heads: usize,
    },
    Transpose(usize),
    Merge(usize),
    Divide(usize, usize),
    Slice {
        axis: usize,
        start: usize,
        step: usize,
    },
    /// From the last to the first.
    Flip(usize),
    /// Parts change places.
    SplitConcat(usize),
    /// With an earlier value that differs at most in the axis.
    Concat {
        axis: usize,
        back: usize,
    },
    Pad(usize),
    Softmax(usize),
    RowNorm,
    /// As exporters spelt it before opset 17.
    SpeltRowNorm,
    Mean {
        axis: usize,
        keep: bool,
    },
    Clip,
    Silu,
    Gelu,
    HardSwish,
    Unsqueeze(usize),
    /// So many times the same, side by side on a new axis.
    Repeat(usize, usize),
    /// The value is an output, too.
    Tap,
}

const UNARY: [&str; 10] =
    ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "HardSigmoid", "LeakyRelu", "Softplus", "Elu", "Erf"];

fn layer() -> impl Strategy<Value = Layer> {
    let arithmetic = || prop::sample::select(vec!["Add", "Mul", "Sub"]);
    let small = || 0..6usize;
    prop_oneof![
        3 => prop::sample::select(UNARY.to_vec()).prop_map(Layer::Unary),
        2 => (arithmetic(), small()).prop_map(|(op, shape)| Layer::Weighted(op, shape)),
        3 => (arithmetic(), small()).prop_map(|(op, back)| Layer::Residual(op, back)),
        5 => (1..9usize, small(), 1..3usize, small(), 1..3usize, any::<bool>(), any::<bool>()).prop_map(
            |(out, kernel, stride, groups, dilation, padded, bias)| Layer::Conv { out, kernel, stride, groups, dilation, padded, bias }
        ),
        3 => Just(Layer::BatchNorm),
        1 => (any::<bool>(), 1..4usize, 1..3usize, any::<bool>())
            .prop_map(|(max, kernel, stride, padded)| Layer::Pool { max, kernel, stride, padded }),
        1 => Just(Layer::GlobalPool),
        1 => Just(Layer::Flatten),
        2 => (1..9usize, any::<bool>(), any::<bool>()).prop_map(|(out, transposed, bias)| Layer::Gemm { out, transposed, bias }),
        3 => (1..9usize, any::<bool>()).prop_map(|(out, bias)| Layer::Linear { out, bias }),
        2 => (1..9usize, any::<bool>()).prop_map(|(out, bias)| Layer::TimeMajor { out, bias }),
        2 => (prop::sample::select(vec!["LSTM", "GRU", "RNN"]), 1..6usize, small())
            .prop_map(|(op, hidden, direction)| Layer::Recurrent { op, hidden, direction }),
        2 => small().prop_map(|heads| Layer::Attention { heads }),
        3 => small().prop_map(Layer::Transpose),
        2 => small().prop_map(Layer::Merge),
        2 => (small(), small()).prop_map(|(axis, by)| Layer::Divide(axis, by)),
        2 => (small(), small(), 1..3usize).prop_map(|(axis, start, step)| Layer::Slice { axis, start, step }),
        2 => small().prop_map(Layer::Flip),
        1 => small().prop_map(Layer::SplitConcat),
        2 => (small(), small()).prop_map(|(axis, back)| Layer::Concat { axis, back }),
        1 => small().prop_map(Layer::Pad),
        1 => small().prop_map(Layer::Softmax),
        1 => Just(Layer::RowNorm),
        1 => Just(Layer::SpeltRowNorm),
        1 => (small(), any::<bool>()).prop_map(|(axis, keep)| Layer::Mean { axis, keep }),
        1 => Just(Layer::Clip),
        1 => Just(Layer::Silu),
        1 => Just(Layer::Gelu),
        1 => Just(Layer::HardSwish),
        1 => small().prop_map(Layer::Unsqueeze),
        1 => (small(), 2..4usize).prop_map(|(axis, count)| Layer::Repeat(axis, count)),
        1 => Just(Layer::Tap),
    ]
}

/// Images, sequences and vectors, with up to twelve layers.
pub(crate) fn network() -> impl Strategy<Value = Network> {
    let input = prop_oneof![
        3 => (1..7usize, 1..8usize, 1..8usize).prop_map(|(c, h, w)| vec![c, h, w]),
        2 => (1..7usize, 1..9usize).prop_map(|(rows, width)| vec![rows, width]),
        1 => (1..20usize).prop_map(|width| vec![width]),
    ];
    let layers = prop::collection::vec(layer(), 1..12);
    (input, layers, 0..1000u64).prop_map(|(input, layers, weights)| Network { input, layers, weights })
}

impl Network {
    /// The ONNX file, its batch free, with other weights for another `tenant`.
    pub(crate) fn file(&self, tenant: u64) -> Vec<u8> {
        let random = StdRng::seed_from_u64(self.weights * 1000 + tenant);
        let mut writer = Writer::new(&self.input, random);
        for layer in &self.layers {
            // Not all layers fit all shapes.
            let _: Option<()> = writer.layer(layer);
        }
        writer.file()
    }
}
