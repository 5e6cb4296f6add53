//! Functions of elements: of one, of two, and of as many as a reduction meets.

/// Element-wise functions of one input. Those with parameters carry ONNX's defaults resolved.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs)] // each is the ONNX operator of its name
pub enum Unary {
    Abs,
    /// `alpha·x + beta`: a function of recurrent cells.
    Affine {
        alpha: f32,
        beta: f32,
    },
    Ceil,
    Cos,
    Erf,
    Exp,
    Floor,
    /// `tanh` says whether the tanh approximation is meant.
    Gelu {
        tanh: bool,
    },
    Elu {
        alpha: f32,
    },
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    HardSwish,
    LeakyRelu {
        alpha: f32,
    },
    Log,
    Mish,
    Neg,
    Not,
    Reciprocal,
    Relu,
    Round,
    /// `alpha·tanh(beta·x)`: a function of recurrent cells.
    ScaledTanh {
        alpha: f32,
        beta: f32,
    },
    Selu {
        alpha: f32,
        gamma: f32,
    },
    Sigmoid,
    Sign,
    Sin,
    /// x·sigmoid(x): SiLU, ONNX's Swish.
    Silu,
    Softplus,
    Softsign,
    Sqrt,
    Tanh,
    ThresholdedRelu {
        alpha: f32,
    },
}

impl Unary {
    /// The ONNX operator's name.
    pub const fn name(self) -> &'static str {
        match self {
            Unary::Abs => "Abs",
            Unary::Affine { .. } => "Affine",
            Unary::Ceil => "Ceil",
            Unary::Cos => "Cos",
            Unary::Erf => "Erf",
            Unary::Exp => "Exp",
            Unary::Floor => "Floor",
            Unary::Gelu { .. } => "Gelu",
            Unary::Elu { .. } => "Elu",
            Unary::HardSigmoid { .. } => "HardSigmoid",
            Unary::HardSwish => "HardSwish",
            Unary::LeakyRelu { .. } => "LeakyRelu",
            Unary::Log => "Log",
            Unary::Mish => "Mish",
            Unary::Neg => "Neg",
            Unary::Not => "Not",
            Unary::Reciprocal => "Reciprocal",
            Unary::Relu => "Relu",
            Unary::Round => "Round",
            Unary::ScaledTanh { .. } => "ScaledTanh",
            Unary::Selu { .. } => "Selu",
            Unary::Sigmoid => "Sigmoid",
            Unary::Sign => "Sign",
            Unary::Sin => "Sin",
            Unary::Silu => "Swish",
            Unary::Softplus => "Softplus",
            Unary::Softsign => "Softsign",
            Unary::Sqrt => "Sqrt",
            Unary::Tanh => "Tanh",
            Unary::ThresholdedRelu { .. } => "ThresholdedRelu",
        }
    }
}

/// Element-wise functions of two inputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // each is the ONNX operator of its name
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Min,
    Max,
    /// With the sign of the divisor (`fmod` false) or of the dividend (`fmod` true).
    Mod {
        fmod: bool,
    },
    /// The first, times the second where it is negative.
    PRelu,
    And,
    Or,
    Xor,
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Binary {
    /// The ONNX operator's name.
    pub const fn name(self) -> &'static str {
        match self {
            Binary::Add => "Add",
            Binary::Sub => "Sub",
            Binary::Mul => "Mul",
            Binary::Div => "Div",
            Binary::Pow => "Pow",
            Binary::Min => "Min",
            Binary::Max => "Max",
            Binary::Mod { .. } => "Mod",
            Binary::PRelu => "PRelu",
            Binary::And => "And",
            Binary::Or => "Or",
            Binary::Xor => "Xor",
            Binary::Equal => "Equal",
            Binary::Greater => "Greater",
            Binary::GreaterOrEqual => "GreaterOrEqual",
            Binary::Less => "Less",
            Binary::LessOrEqual => "LessOrEqual",
        }
    }

    /// Whether the result is boolean whatever the inputs are.
    pub const fn is_comparison(self) -> bool {
        use Binary::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
        matches!(self, Equal | Greater | GreaterOrEqual | Less | LessOrEqual)
    }
}

/// How a reduction combines elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // each is the ONNX operator of its name
pub enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

impl Reduction {
    /// The ONNX operator's name.
    pub const fn name(self) -> &'static str {
        match self {
            Reduction::Sum => "ReduceSum",
            Reduction::Mean => "ReduceMean",
            Reduction::Max => "ReduceMax",
            Reduction::Min => "ReduceMin",
            Reduction::Prod => "ReduceProd",
            Reduction::L1 => "ReduceL1",
            Reduction::L2 => "ReduceL2",
            Reduction::SumSquare => "ReduceSumSquare",
            Reduction::LogSum => "ReduceLogSum",
            Reduction::LogSumExp => "ReduceLogSumExp",
        }
    }
}
