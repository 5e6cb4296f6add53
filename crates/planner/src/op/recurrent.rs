//! The attributes of recurrent layers.

use super::Unary;

/// The attributes of LSTM, GRU and RNN.
#[derive(Clone, PartialEq, Debug)]
pub struct Recurrent {
    /// Size of the state.
    pub hidden: usize,
    /// Which way time runs.
    pub direction: Direction,
    /// What is done at each time; `functions` are those of all directions, one after the other.
    pub cell: Cell,
}

/// What a recurrent layer does at each time.
#[derive(Clone, PartialEq, Debug)]
pub struct Cell {
    /// Its equations.
    pub kind: CellKind,
    /// ONNX's `f`, `g` and `h`, as many as the equations have ([`CellKind::functions`]).
    pub functions: Vec<Unary>,
    /// Arguments of `f` and `g` are kept between minus and plus this.
    pub clip: Option<f32>,
}

/// The equations of a recurrent cell, written out in [`crate::reference`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CellKind {
    /// Gates i, o, f and a candidate.
    Lstm {
        /// Whether the forget gate is what the input gate leaves: `1 − i`.
        input_forget: bool,
    },
    /// Gates z, r and a candidate.
    Gru {
        /// Whether the reset gate scales what the candidate takes from the state, rather than the state itself.
        linear_before_reset: bool,
    },
    /// One function of the sum of both products.
    Rnn,
}

impl CellKind {
    /// Sums per unit: gates and candidate.
    pub const fn gates(self) -> usize {
        match self {
            CellKind::Lstm { .. } => 4,
            CellKind::Gru { .. } => 3,
            CellKind::Rnn => 1,
        }
    }

    /// How many functions the equations have.
    pub const fn functions(self) -> usize {
        match self {
            CellKind::Lstm { .. } => 3,
            CellKind::Gru { .. } => 2,
            CellKind::Rnn => 1,
        }
    }

    /// The functions that ONNX means where a file names none.
    pub const fn usual_functions(self) -> &'static [Unary] {
        match self {
            CellKind::Lstm { .. } => &[Unary::Sigmoid, Unary::Tanh, Unary::Tanh],
            CellKind::Gru { .. } => &[Unary::Sigmoid, Unary::Tanh],
            CellKind::Rnn => &[Unary::Tanh],
        }
    }

    /// The ONNX operator's name.
    pub const fn name(self) -> &'static str {
        match self {
            CellKind::Lstm { .. } => "LSTM",
            CellKind::Gru { .. } => "GRU",
            CellKind::Rnn => "RNN",
        }
    }
}

impl Cell {
    /// The cell of one direction of a layer.
    pub fn of_direction(&self, direction: usize) -> Cell {
        let count = self.kind.functions();
        Cell { functions: self.functions[direction * count..][..count].to_vec(), ..self.clone() }
    }
}

/// Which way time runs in a recurrent layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// First element first.
    Forward,
    /// Last element first.
    Reverse,
    /// Both, as two layers side by side.
    Bidirectional,
}

impl Direction {
    /// How many layers it is.
    pub const fn count(self) -> usize {
        match self {
            Direction::Forward | Direction::Reverse => 1,
            Direction::Bidirectional => 2,
        }
    }
}
