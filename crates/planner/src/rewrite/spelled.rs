//! Operators that are others in short: triangles and one-hot vectors choose between two values by comparing positions.

use crate::graph::ValueId;
use crate::infer::Note;
use crate::net::{Kind, Net, Node, Source, Value};
use crate::op::{Binary, Op};
use crate::tensor::Tensor;
use tessera_core::DType;

/// Larger triangles and longer vectors are not spelled out, for their positions are kept.
const MOST_POSITIONS: usize = 1 << 26;

/// `Trilu(x, k)` is `Where(inside, x, 0)` with a known triangle.
pub(super) fn triangle(net: &mut Net, at: usize) -> bool {
    let &Kind::Op(Op::Trilu { upper }) = &net.nodes[at].kind else { return false };
    let Some(x) = net.nodes[at].inputs[0] else { return false };
    let diagonal = match net.nodes[at].inputs.get(1).copied().flatten() {
        None => 0,
        Some(id) => match net.integers(id).as_deref() {
            Some(&[diagonal]) => diagonal,
            _ => return false,
        },
    };
    let &[.., rows, columns] = net.dims(x) else { return false };
    if rows.saturating_mul(columns) > MOST_POSITIONS {
        return false;
    }
    let inside = |row: usize, column: usize| {
        let beyond = column as i128 - row as i128 - i128::from(diagonal);
        if upper { beyond >= 0 } else { beyond <= 0 }
    };
    let inside: Vec<bool> =
        (0..rows).flat_map(|row| (0..columns).map(move |column| inside(row, column))).collect();
    let inside = net.known(Tensor::from_elements(&[rows, columns], &inside));
    let dtype = net.get(x).dtype;
    let zero = Tensor::new(dtype, vec![], vec![0; dtype.size()]).expect("one element");
    let zero = net.known(zero);
    let node = &mut net.nodes[at];
    node.kind = Kind::Op(Op::Where);
    node.inputs = vec![Some(inside), Some(x), Some(zero)];
    true
}

/// `OneHot(numbers, depth, [off, on])` is `Where(number = place or number = place − depth, on, off)`.
pub(super) fn one_hot(net: &mut Net, at: usize) -> bool {
    let &Kind::Op(Op::OneHot { axis }) = &net.nodes[at].kind else { return false };
    let (Some(numbers), Some(values)) = (net.nodes[at].inputs[0], net.nodes[at].inputs[2]) else {
        return false;
    };
    let Some(out) = net.nodes[at].outputs[0] else { return false };
    let dims = net.dims(out).to_vec();
    let Some(axis) = crate::shape::axis(axis, dims.len()) else { return false };
    if dims[axis] > MOST_POSITIONS {
        return false;
    }
    let mut spelling = Spelling { net, at };
    let mut lifted = dims.clone();
    lifted[axis] = 1;
    let numbers = spelling.cast(numbers, DType::I64);
    let numbers = spelling.add(Op::Unsqueeze, &[numbers], DType::I64, &lifted, None);
    let mut places = vec![1; dims.len()];
    places[axis] = dims[axis];
    let place = |from: i64| -> Vec<i64> { (0..dims[axis] as i64).map(|place| place + from).collect() };
    let [from_front, from_end] = [0, -(dims[axis] as i64)]
        .map(|from| spelling.net.known(Tensor::from_elements(&places, &place(from))));
    let [is_front, is_end] = [from_front, from_end]
        .map(|place| spelling.add(Op::Binary(Binary::Equal), &[numbers, place], DType::Bool, &dims, None));
    let hot = spelling.add(Op::Binary(Binary::Or), &[is_front, is_end], DType::Bool, &dims, None);
    let [off, on] = [0, 1].map(|which| spelling.element(values, which));
    let Spelling { net, at } = spelling;
    let node = &mut net.nodes[at];
    node.kind = Kind::Op(Op::Where);
    node.inputs = vec![Some(hot), Some(on), Some(off)];
    true
}

/// Nodes put before one that they spell out.
struct Spelling<'n> {
    net: &'n mut Net,
    at: usize,
}

impl Spelling<'_> {
    fn add(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        dtype: DType,
        dims: &[usize],
        note: Option<Note>,
    ) -> ValueId {
        let name = self.net.nodes[self.at].name.clone();
        let value = Value { name: name.clone(), dtype, dims: dims.to_vec(), source: Source::Made };
        let out = self.net.fresh(&value);
        let inputs = inputs.iter().copied().map(Some).collect();
        self.net
            .nodes
            .insert(self.at, Node { name, kind: Kind::Op(op), inputs, outputs: vec![Some(out)], note });
        self.at += 1;
        out
    }

    fn cast(&mut self, value: ValueId, to: DType) -> ValueId {
        let dims = self.net.dims(value).to_vec();
        if self.net.get(value).dtype == to {
            value
        } else {
            self.add(Op::Cast(to), &[value], to, &dims, None)
        }
    }

    /// One of a list of elements, known where the list is.
    fn element(&mut self, list: ValueId, which: usize) -> ValueId {
        let dtype = self.net.get(list).dtype;
        if let Some(tensor) = self.net.tensor(list) {
            let one = tensor.bytes()[which * dtype.size()..][..dtype.size()].to_vec();
            let one = Tensor::new(dtype, vec![], one).expect("one element");
            return self.net.known(one);
        }
        let note = Note::Slice { starts: vec![which], steps: vec![1] };
        self.add(Op::Slice, &[list], dtype, &[1], Some(note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_triangle_is_chosen_by_a_known_mask() {
        let mut net = Net::default();
        let x = net.input(&[2, 2]);
        let y = net.op(Op::Trilu { upper: false }, &[x], &[2, 2]);
        net.output(y);
        crate::rewrite::rewrite(&mut net);
        assert_eq!(
            net.to_string(),
            "%1 f32[2, 2] = Chain[Load(0), Load(1), Float(0.0), Select(0, 1, 2)](bool[2, 2]=[true, false, true, \
             true], %0)\n→ %1"
        );
    }

    #[test]
    fn one_hot_vectors_are_one_chain_over_places() {
        let mut net = Net::default();
        let numbers = net.input(&[3]);
        let depth = net.known(Tensor::scalar(4i64));
        let values = net.known(Tensor::from_elements(&[2], &[0.0f32, 1.0]));
        let y = net.op(Op::OneHot { axis: -1 }, &[numbers, depth, values], &[3, 4]);
        net.output(y);
        let rules = crate::rewrite::rewrite(&mut net);
        assert_eq!(rules[0], "one-hot");
        let chains = net.nodes.iter().filter(|node| matches!(node.kind, Kind::Chain(_))).count();
        assert!(net.nodes.len() <= 3 && chains >= 1, "{net}");
    }
}
