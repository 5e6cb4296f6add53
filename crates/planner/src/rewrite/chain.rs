//! Element-wise operators become chains, and neighbouring chains one.

use crate::element::register;
use crate::graph::ValueId;
use crate::net::{Kind, Net, Node};
use crate::op::{Binary, Op, Unary};
use crate::plan::ElementOp;

/// More instructions or operands than this make a step that no device runs well.
const MAX_INSTRUCTIONS: usize = 64;
const MAX_INPUTS: usize = 12;
/// A producer that is broadcast is computed again for every reader's element, so it must be short.
const MAX_REPEATED: usize = 6;

/// An element-wise operator of the graph becomes a chain.
pub(super) fn start(net: &mut Net, at: usize) -> bool {
    let Kind::Op(op) = net.nodes[at].kind.clone() else { return false };
    let mut chain = Building::default();
    let inputs = net.nodes[at].inputs.clone();
    let mut read = |index: usize| {
        let id = inputs.get(index).copied().flatten()?;
        Some(chain.load(net, id))
    };
    match op {
        Op::Unary(function) => {
            let Some(x) = read(0) else { return false };
            chain.push(ElementOp::Unary(function, x));
        }
        Op::Binary(function) => {
            let (Some(a), Some(b)) = (read(0), read(1)) else { return false };
            chain.push(ElementOp::Binary(function, a, b));
        }
        Op::Where => {
            let (Some(condition), Some(yes), Some(no)) = (read(0), read(1), read(2)) else { return false };
            chain.push(ElementOp::Select(condition, yes, no));
        }
        Op::Cast(to) => {
            let Some(x) = read(0) else { return false };
            // Loading and storing widens and rounds.
            if inputs[0].is_none_or(|id| register(net.get(id).dtype) != register(to)) {
                chain.push(ElementOp::Cast(register(to), x));
            }
        }
        Op::Clip => {
            let Some(mut x) = read(0) else { return false };
            let (low, high) = (read(1), read(2));
            if let Some(low) = low {
                x = chain.push(ElementOp::Binary(Binary::Max, x, low));
            }
            if let Some(high) = high {
                chain.push(ElementOp::Binary(Binary::Min, x, high));
            }
        }
        _ => return false,
    }
    net.nodes[at].kind = Kind::Chain(chain.program);
    net.nodes[at].inputs = chain.inputs.into_iter().map(Some).collect();
    true
}

/// A chain takes in a chain that only it reads, or reads past an `Expand`.
pub(super) fn extend(net: &mut Net, at: usize) -> bool {
    let Kind::Chain(program) = &net.nodes[at].kind else { return false };
    let Some(out) = net.nodes[at].outputs[0] else { return false };
    for (index, input) in net.nodes[at].inputs.iter().enumerate() {
        let Some(input) = *input else { continue };
        let Some(before) = net.maker(input) else { continue };
        if let Node { kind: Kind::Op(Op::Expand), inputs, .. } = &net.nodes[before] {
            // Reading broadcasts anyway, when the other operands still give the chain its shape, or nothing is expanded.
            let same = |inner: &ValueId| net.dims(*inner) == net.dims(input);
            let given = shape_without(net, at, index) == net.dims(out);
            if let Some(inner) = inputs[0].filter(|inner| given || same(inner)) {
                net.nodes[at].inputs[index] = Some(inner);
                return true;
            }
        }
        let Node { kind: Kind::Chain(inner), inputs: inner_inputs, name, .. } = &net.nodes[before] else {
            continue;
        };
        let repeated = net.dims(input) != net.dims(out);
        let long = program.len() + inner.len() > MAX_INSTRUCTIONS
            || net.nodes[at].inputs.len() + inner_inputs.len() > MAX_INPUTS;
        if long || net.uses(input) != 1 || repeated && !is_short(inner) {
            continue;
        }
        let mut chain = Building::default();
        let made = chain.splice(net, inner, inner_inputs, None);
        chain.splice(net, program, &net.nodes[at].inputs, Some((index, made)));
        let name = format!("{name}+{}", net.nodes[at].name);
        net.nodes[at].kind = Kind::Chain(chain.program);
        net.nodes[at].inputs = chain.inputs.into_iter().map(Some).collect();
        net.nodes[at].name = name;
        return true;
    }
    false
}

fn is_short(program: &[ElementOp]) -> bool {
    let cheap = |op: &ElementOp| match op {
        ElementOp::Unary(function, _) => {
            matches!(function, Unary::Not | Unary::Neg | Unary::Abs | Unary::Relu)
        }
        ElementOp::Binary(function, ..) => {
            !matches!(function, Binary::Pow | Binary::Mod { .. } | Binary::Div)
        }
        _ => true,
    };
    program.len() <= MAX_REPEATED && program.iter().all(cheap)
}

/// The shape that the inputs of a chain other than number `without` broadcast to.
fn shape_without(net: &Net, at: usize, without: usize) -> Vec<usize> {
    let mut shape: Vec<usize> = Vec::new();
    for (_, id) in net.nodes[at].inputs.iter().enumerate().filter(|&(index, _)| index != without) {
        let dims = id.map_or(&[][..], |id| net.dims(id));
        if dims.len() > shape.len() {
            shape.splice(0..0, std::iter::repeat_n(1, dims.len() - shape.len()));
        }
        let lead = shape.len() - dims.len();
        for (to, &dim) in shape[lead..].iter_mut().zip(dims) {
            *to = (*to).max(dim);
        }
    }
    shape
}

/// A chain being put together.
#[derive(Default)]
struct Building {
    inputs: Vec<ValueId>,
    program: Vec<ElementOp>,
}

impl Building {
    /// The register that holds a value: a literal when it is a known scalar.
    fn load(&mut self, net: &Net, id: ValueId) -> usize {
        let literal = net
            .element::<f32>(id)
            .map(ElementOp::Float)
            .or_else(|| net.element::<i64>(id).map(ElementOp::Int))
            .or_else(|| net.element::<bool>(id).map(ElementOp::Bool));
        let instruction = literal.unwrap_or_else(|| {
            let known = self.inputs.iter().position(|&other| other == id);
            ElementOp::Load(known.unwrap_or_else(|| {
                self.inputs.push(id);
                self.inputs.len() - 1
            }))
        });
        self.push(instruction)
    }

    fn push(&mut self, instruction: ElementOp) -> usize {
        self.program.push(instruction);
        self.program.len() - 1
    }

    /// Appends a program that reads `inputs`; a load of input `replaced.0` becomes register `replaced.1`. The register of its result.
    fn splice(
        &mut self,
        net: &Net,
        program: &[ElementOp],
        inputs: &[Option<ValueId>],
        replaced: Option<(usize, usize)>,
    ) -> usize {
        // Where each register of the appended program is now.
        let mut moved: Vec<usize> = Vec::with_capacity(program.len());
        for &instruction in program {
            let register = match instruction {
                ElementOp::Load(index) => match (replaced, inputs[index]) {
                    (Some((which, register)), _) if which == index => register,
                    (_, Some(id)) => self.load(net, id),
                    (_, None) => unreachable!("a chain has no optional inputs"),
                },
                ElementOp::Unary(function, x) => self.push(ElementOp::Unary(function, moved[x])),
                ElementOp::Binary(function, a, b) => {
                    self.push(ElementOp::Binary(function, moved[a], moved[b]))
                }
                ElementOp::Select(condition, yes, no) => {
                    self.push(ElementOp::Select(moved[condition], moved[yes], moved[no]))
                }
                ElementOp::Cast(to, x) => self.push(ElementOp::Cast(to, moved[x])),
                literal => self.push(literal),
            };
            moved.push(register);
        }
        *moved.last().expect("a chain has an instruction")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_chain_with_literals() {
        let mut net = Net::default();
        let x = net.input(&[2, 4]);
        let half = net.float(0.5);
        let product = net.op(Op::Binary(Binary::Mul), &[x, half], &[2, 4]);
        let exp = net.op(Op::Unary(Unary::Exp), &[product], &[2, 4]);
        let sum = net.op(Op::Binary(Binary::Add), &[exp, x], &[2, 4]);
        net.output(sum);
        crate::rewrite::rewrite(&mut net);
        assert_eq!(
            net.to_string(),
            "%4 f32[2, 4] = Chain[Load(0), Float(0.5), Binary(Mul, 0, 1), Unary(Exp, 2), Load(0), \
             Binary(Add, 3, 4)](%0)\n→ %4"
        );
    }

    #[test]
    fn a_dear_function_is_not_computed_again_for_every_broadcast() {
        let mut net = Net::default();
        let x = net.input(&[1, 4]);
        let y = net.input(&[9, 4]);
        let exp = net.op(Op::Unary(Unary::Exp), &[x], &[1, 4]);
        let sum = net.op(Op::Binary(Binary::Add), &[exp, y], &[9, 4]);
        net.output(sum);
        crate::rewrite::rewrite(&mut net);
        assert_eq!(net.nodes.len(), 2);
    }

    #[test]
    fn an_expansion_before_a_broadcast_vanishes() {
        let mut net = Net::default();
        let x = net.input(&[1, 1]);
        let y = net.input(&[1, 4]);
        let shape = net.known(crate::tensor::Tensor::from_elements(&[2], &[1i64, 4]));
        let expanded = net.op(Op::Expand, &[x, shape], &[1, 4]);
        let quotient = net.op(Op::Binary(Binary::Div), &[y, expanded], &[1, 4]);
        net.output(quotient);
        crate::rewrite::rewrite(&mut net);
        assert_eq!(
            net.to_string(),
            "%4 f32[1, 4] = Chain[Load(0), Load(1), Binary(Div, 0, 1)](%1, %0)\n→ %4"
        );
    }
}
