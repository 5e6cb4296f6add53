//! Recurrent layers: every cell, with and without what it may have.

use super::{Builder, Case, dense};
use tessera_core::DType;
use tessera_planner::Tensor;
use tessera_planner::op::{Cell, CellKind, Unary};
use tessera_planner::plan::{BufferId, RecurrentShape, RecurrentWeights, StepKind};

pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![bidirectional()];
    all.extend(recurrences().iter().map(Recurrence::case));
    all
}

const LSTM: CellKind = CellKind::Lstm { input_forget: false };

const GRU: CellKind = CellKind::Gru { linear_before_reset: true };

const RESET_FIRST: CellKind = CellKind::Gru { linear_before_reset: false };

/// With other functions, and a clip that bounds some of their arguments.
fn unusual(kind: CellKind) -> Cell {
    let functions = [
        Unary::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Unary::ScaledTanh { alpha: 1.2, beta: 0.7 },
        Unary::Softsign,
    ];
    Cell { kind, functions: functions[..kind.functions()].to_vec(), clip: Some(0.6) }
}

fn usual(kind: CellKind) -> Cell {
    Cell { kind, functions: kind.usual_functions().to_vec(), clip: None }
}

/// One direction of a layer.
struct Recurrence {
    cell: Cell,
    time: usize,
    input: usize,
    hidden: usize,
    reverse: bool,
    /// Whether it starts from states that are inputs, and writes the last ones beside the sequence.
    states: bool,
    /// Whether its length is an input.
    length: bool,
    /// Whether gates see the cell.
    peephole: bool,
}

fn recurrences() -> Vec<Recurrence> {
    let row = |time, input, hidden, reverse, states| Recurrence {
        cell: usual(LSTM),
        time,
        input,
        hidden,
        reverse,
        states,
        length: false,
        peephole: false,
    };
    vec![
        row(6, 11, 20, false, true),
        row(6, 11, 20, true, true),
        row(5, 64, 64, false, true),
        row(3, 33, 130, true, false),
        row(1, 40, 72, false, true),
        // More than stays on chip in f32.
        row(2, 8, 400, false, false),
        Recurrence { length: true, ..row(6, 11, 20, false, true) },
        Recurrence { length: true, peephole: true, ..row(6, 11, 72, true, true) },
        Recurrence { cell: unusual(CellKind::Lstm { input_forget: true }), ..row(4, 9, 24, false, true) },
        Recurrence { cell: usual(GRU), ..row(6, 11, 20, false, true) },
        Recurrence { cell: usual(GRU), length: true, ..row(6, 33, 130, true, true) },
        Recurrence { cell: usual(GRU), ..row(2, 8, 400, false, false) },
        Recurrence { cell: unusual(GRU), ..row(4, 9, 24, true, true) },
        Recurrence { cell: usual(RESET_FIRST), ..row(6, 11, 20, false, true) },
        Recurrence { cell: usual(RESET_FIRST), length: true, ..row(6, 33, 130, true, true) },
        Recurrence { cell: usual(RESET_FIRST), ..row(2, 8, 600, false, false) },
        Recurrence { cell: unusual(RESET_FIRST), ..row(4, 9, 72, true, true) },
        Recurrence { cell: usual(CellKind::Rnn), ..row(6, 11, 20, true, true) },
        Recurrence { cell: usual(CellKind::Rnn), length: true, ..row(3, 33, 130, false, true) },
        Recurrence { cell: unusual(CellKind::Rnn), ..row(4, 9, 600, false, false) },
    ]
}

/// As in trained layers, whose gates would only amplify what rounding changed if weights were large.
const GAIN: f32 = 0.25;

impl Recurrence {
    fn case(&self) -> Case {
        let &Recurrence { time, input, hidden, reverse, states, length, peephole, .. } = self;
        let kind = self.cell.kind;
        let lstm = matches!(kind, CellKind::Lstm { .. });
        let mut b = Builder::new();
        let shape = RecurrentShape { time, input, hidden, reverse };
        let x = b.input(DType::F32, &[time, input]);
        let length = length.then(|| b.input(DType::I32, &[1]));
        let h0 = states.then(|| b.input(DType::F32, &[hidden]));
        let c0 = (lstm && states && reverse).then(|| b.input(DType::F32, &[hidden]));
        let weights = weights(&mut b, kind, shape, states, peephole);
        let y = b.buffer(DType::F32, time * hidden);
        let [h, c] =
            [states, lstm && states && !reverse].map(|one| one.then(|| b.buffer(DType::F32, hidden)));
        let x = dense(x, &[time, input]);
        let step = StepKind::Recurrent {
            shape,
            cell: self.cell.clone(),
            x,
            weights,
            length,
            h0,
            c0,
            y: Some(y),
            y_offset: 0,
            y_stride: hidden,
            h,
            c,
        };
        let name = format!(
            "{} of {hidden} over {time} of {input}{}{}",
            self.words(),
            if reverse { " reversed" } else { "" },
            if states { " with states" } else { "" }
        );
        let sequence = [time, hidden];
        let mut outputs: Vec<(BufferId, &[usize])> = vec![(y, &sequence)];
        outputs.extend([h, c].into_iter().flatten().map(|last| (last, &sequence[1..])));
        // Lengths are between none and all of the sequence.
        Case { gain: GAIN, ids: (time as i64 + 1, false), ..b.case(name, step, &outputs) }
    }

    fn words(&self) -> String {
        let mut words = self.cell.kind.name().to_lowercase();
        let unusual = self.cell.functions != self.cell.kind.usual_functions();
        let marks = [
            (self.cell.kind == CellKind::Lstm { input_forget: true }, " with coupled gates"),
            (self.cell.kind == RESET_FIRST, " with the reset first"),
            (unusual, " with other functions"),
            (self.cell.clip.is_some(), " clipped"),
            (self.length, " of lengths"),
            (self.peephole, " with peepholes"),
        ];
        marks.iter().filter(|(is, _)| *is).for_each(|(_, mark)| words.push_str(mark));
        words
    }
}

fn weights(
    b: &mut Builder,
    kind: CellKind,
    shape: RecurrentShape,
    bias: bool,
    peephole: bool,
) -> RecurrentWeights {
    let RecurrentShape { input, hidden, .. } = shape;
    let gates = kind.gates() * hidden;
    let apart = kind == RESET_FIRST;
    let two = kind == GRU;
    RecurrentWeights {
        w: b.matrix(input, gates),
        r: b.matrix(hidden, if apart { gates - hidden } else { gates }),
        bias: bias.then(|| b.plain(&[if two { gates + hidden } else { gates }])),
        peephole: peephole.then(|| b.plain(&[3 * hidden])),
        candidate: apart.then(|| b.matrix(hidden, hidden)),
    }
}

/// Two directions that share one buffer, side by side; the first starts from a constant, and only the second's last state is wanted.
fn bidirectional() -> Case {
    let mut b = Builder::new();
    let (time, input, hidden) = (7, 12, 28);
    let x = b.input(DType::F32, &[time, input]);
    let start: Vec<f32> = (0..hidden).map(|unit| (unit as f32).cos()).collect();
    let start = b.constant(Tensor::from_elements(&[hidden], &start));
    let y = b.buffer(DType::F32, time * 2 * hidden);
    let last = b.buffer(DType::F32, hidden);
    let mut direction = |reverse: bool| {
        let shape = RecurrentShape { time, input, hidden, reverse };
        StepKind::Recurrent {
            shape,
            cell: usual(LSTM),
            x: dense(x, &[time, input]),
            weights: weights(&mut b, LSTM, shape, true, false),
            length: None,
            h0: (!reverse).then_some(start),
            c0: (!reverse).then_some(start),
            y: Some(y),
            y_offset: if reverse { hidden } else { 0 },
            y_stride: 2 * hidden,
            h: reverse.then_some(last),
            c: None,
        }
    };
    let kinds = vec![direction(false), direction(true)];
    let outputs: [(BufferId, &[usize]); 2] = [(y, &[time, 2 * hidden]), (last, &[hidden])];
    Case { gain: GAIN, ..b.case_of("lstm in both directions".to_owned(), kinds, &outputs) }
}
