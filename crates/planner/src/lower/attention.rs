//! Fused attention: q, k and v walked where they lie, and the result written as its reader wants it.

use super::view::View;
use super::work::work;
use super::{Lowering, PlanError};
use crate::graph::ValueId;
use crate::net::{Kind, Node};
use crate::op::Op;
use crate::plan::{Access, AttentionShape, StepKind};
use tessera_core::DType;

impl Lowering<'_> {
    /// `(q […, queries, d], k […, d, keys], v […, keys, e], mask?)`.
    pub(super) fn attention(&mut self, node: &Node, scale: f32) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let dims = self.net.dims(out).to_vec();
        let rank = dims.len();
        let (lead, queries, value_dim) = (&dims[..rank - 2], dims[rank - 2], dims[rank - 1]);
        let (q, k, v) = (self.input(node, 0)?, self.input(node, 1)?, self.input(node, 2)?);
        let mut swapped: Vec<usize> = (0..k.dims.len()).collect();
        swapped.swap(k.dims.len() - 2, k.dims.len() - 1);
        let k = k.permuted(&swapped);
        let [keys, head_dim] = [k.dims[k.dims.len() - 2], k.dims[k.dims.len() - 1]];
        let q = self.heads(node, &q, lead, [queries, head_dim])?;
        let k = self.heads(node, &k, lead, [keys, head_dim])?;
        let v = self.heads(node, &v, lead, [keys, value_dim])?;
        let mask = match self.optional(node, 3)? {
            Some(mask) => Some(self.heads(node, &mask, lead, [queries, keys])?),
            None => None,
        };
        let heads: usize = lead.iter().product();

        // Written head by head, or, where the next node exchanges heads and queries, query by query: its transpose is then free. The heads of
        // the step are all leading axes, and only the last of them is exchanged.
        let one_axis = lead.iter().rev().skip(1).all(|&dim| dim == 1);
        let exchanged = one_axis && self.exchanges_heads(out, rank);
        let mut order: Vec<usize> = (0..rank).collect();
        if exchanged {
            order.swap(rank - 3, rank - 2);
        }
        let (buffer, view) = self.make(DType::F32, &dims, &order);
        let out_strides =
            if exchanged { [value_dim, heads * value_dim] } else { [queries * value_dim, value_dim] };
        let shape = AttentionShape { heads, queries, keys, head_dim, value_dim, scale };
        // Two products, and about five operations per score for scale, mask, maximum, exponential and sum.
        let flops = work(2 * (head_dim + value_dim) as u64 + 5, &[heads, queries, keys]);
        self.push(node, StepKind::Attention { shape, q, k, v, mask, out: buffer, out_strides }, flops);
        self.set(out, view);
        Ok(())
    }

    /// A view broadcast to `lead + last`, walked as `[heads, last…]`; copied if no walk does that.
    fn heads(
        &mut self,
        node: &Node,
        view: &View,
        lead: &[usize],
        last: [usize; 2],
    ) -> Result<Access, PlanError> {
        let dims = [lead, &last].concat();
        let Some(view) = view.expanded(&dims) else {
            return Err(self.unsupported(node, format!("an operand {:?} does not fit {dims:?}", view.dims)));
        };
        let walk = [lead.iter().product(), last[0], last[1]];
        if let Some(walked) = view.reshaped(&walk) {
            return Ok(walked.access());
        }
        Ok(View::dense(self.dense(node, &view), &walk).access())
    }

    /// Whether the only reader of a value exchanges its second and third axis from the end.
    fn exchanges_heads(&self, value: ValueId, rank: usize) -> bool {
        let [reader] = self.readers[value.0 as usize][..] else { return false };
        let Kind::Op(Op::Transpose { perm }) = &self.net.nodes[reader].kind else { return false };
        let mut exchanged: Vec<usize> = (0..rank).collect();
        rank >= 3 && {
            exchanged.swap(rank - 3, rank - 2);
            *perm == exchanged
        }
    }
}
