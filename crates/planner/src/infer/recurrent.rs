//! Recurrent layers: items are sequences side by side, whose states meet nothing but their own sequence and shared weights.

use super::fact::{Args, Fact, shared};
use super::{Outcome, Reason, Rule};
use crate::op::{CellKind, Recurrent};
use tessera_core::DType;

/// One layer as ONNX has it, or one direction of a folded graph, whose matrices lie transposed and have no direction axis
/// ([`crate::fold::Folded`]).
pub(super) fn recurrent(layer: &Recurrent, args: Args<'_>) -> Rule {
    let x = args.get(0)?;
    let (w, _) = (args.shared(1, "the matrix")?, args.shared(2, "the matrix")?);
    let wrong = |what: &str, fact: &Fact| {
        Reason::Invalid(format!("{what} {fact} does not fit {x} and {} cells", layer.hidden))
    };
    if x.rank() != 3 || !x.dtype.is_float() {
        return Err(Reason::Invalid(format!("{x} is not a sequence [time, batch, in]")));
    }
    if x.items.is_some_and(|axis| axis != 1) {
        return Err(Reason::Mixes("items must be the batch, axis 1 of the sequence".into()));
    }
    let (hidden, kind) = (layer.hidden, layer.cell.kind);
    hidden.checked_mul(8).ok_or_else(|| wrong("the matrix", w))?;
    let directions = layer.direction.count();
    for (index, dims, what) in weights(kind, hidden, x.dims[2], directions, w.rank() == 2) {
        let Some(fact) = args.opt(index) else { continue };
        shared(fact, what)?;
        if fact.dims != dims || fact.dtype != x.dtype {
            return Err(wrong(what, fact));
        }
    }
    if w.rank() == 2 && directions != 1 {
        return Err(wrong("w", w));
    }
    let batch = x.dims[1];
    let items = x.items.map(|_| 1);
    if let Some(lengths) = args.opt(4) {
        if lengths.dims != [batch] || lengths.dtype != DType::I32 {
            return Err(wrong("the list of lengths", lengths));
        }
        same_items(lengths, x.items.map(|_| 0))?;
    }
    for (index, what) in [(5, "the first state"), (6, "the first cell state")] {
        let Some(state) = args.opt(index) else { continue };
        if state.dims != [directions, batch, hidden] || state.dtype != x.dtype {
            return Err(wrong(what, state));
        }
        same_items(state, items)?;
    }
    let state = Fact { dtype: x.dtype, dims: vec![directions, batch, hidden], items, rounds: 1, known: None };
    let states =
        Fact { dims: vec![x.dims[0], directions, batch, hidden], items: items.map(|_| 2), ..state.clone() };
    let mut outputs = vec![states, state.clone()];
    if let CellKind::Lstm { .. } = kind {
        outputs.push(state);
    }
    Ok(Outcome { outputs, note: None })
}

/// The weights that a layer may have: input, dimensions, and what to call it.
fn weights(
    kind: CellKind,
    hidden: usize,
    input: usize,
    directions: usize,
    folded: bool,
) -> Vec<(usize, Vec<usize>, &'static str)> {
    let gates = kind.gates() * hidden;
    if !folded {
        return vec![
            (1, vec![directions, gates, input], "w"),
            (2, vec![directions, gates, hidden], "r"),
            (3, vec![directions, 2 * gates], "the bias"),
            (7, vec![directions, 3 * hidden], "the peephole"),
        ];
    }
    let (together, bias) = match kind {
        CellKind::Gru { linear_before_reset: false } => (gates - hidden, gates),
        CellKind::Gru { linear_before_reset: true } => (gates, gates + hidden),
        CellKind::Lstm { .. } | CellKind::Rnn => (gates, gates),
    };
    vec![
        (1, vec![input, gates], "w"),
        (2, vec![hidden, together], "r"),
        (3, vec![bias], "the bias"),
        (7, vec![3 * hidden], "the peephole"),
        (8, vec![hidden, hidden], "the candidate's r"),
    ]
}

fn same_items(fact: &Fact, items: Option<usize>) -> Result<(), Reason> {
    match fact.items == items {
        true => Ok(()),
        false => {
            Err(Reason::Mixes(format!("{fact} and the sequence do not have their items on the same axis")))
        }
    }
}
