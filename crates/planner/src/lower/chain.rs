//! Element-wise chains: one pass, in the order in which the largest operand lies.

use super::view::{View, merge};
use super::work::work;
use super::{Lowering, PlanError};
use crate::element;
use crate::net::Node;
use crate::plan::{Access, ElementOp, StepKind};
use tessera_core::DType;

/// What a chain makes.
pub(super) struct Made<'a> {
    pub(super) dtype: DType,
    pub(super) dims: &'a [usize],
    /// In which its axes lie.
    pub(super) order: &'a [usize],
}

impl Lowering<'_> {
    pub(super) fn chain(&mut self, node: &Node, program: &[ElementOp]) -> Result<(), PlanError> {
        let out = self.output_id(node)?;
        let dims = self.net.dims(out).to_vec();
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for index in 0..node.inputs.len() {
            let view = self.input(node, index)?;
            let Some(view) = view.expanded(&dims) else {
                let why = format!("an operand {:?} cannot be broadcast to {dims:?}", view.dims);
                return Err(self.unsupported(node, why));
            };
            inputs.push(view);
        }
        let dtypes: Vec<DType> = inputs.iter().map(|view| self.dtype_of(view.operand)).collect();
        // A float of the model's own types is rounded as it is written; all others are what the chain makes.
        let dtype = self.net.get(out).dtype;
        if let (&[ElementOp::Load(input)], Some(view)) = (program, inputs.first())
            && dtypes[input] == dtype
        {
            self.set(out, view.clone());
            return Ok(());
        }
        // The result lies as the largest operand does: channels-last stays channels-last.
        let whole =
            |view: &&View| view.dims.iter().zip(&view.strides).all(|(&dim, &stride)| dim == 1 || stride != 0);
        let order = match inputs.iter().find(whole) {
            Some(view) => view.memory_order(),
            None => (0..dims.len()).collect(),
        };
        let view = self.elementwise(node, &inputs, program, Made { dtype, dims: &dims, order: &order })?;
        self.set(out, view);
        Ok(())
    }

    /// A step that computes `program` over operands of the result's dimensions.
    pub(super) fn elementwise(
        &mut self,
        node: &Node,
        inputs: &[View],
        program: &[ElementOp],
        Made { dtype, dims, order }: Made<'_>,
    ) -> Result<View, PlanError> {
        let dtypes: Vec<DType> = inputs.iter().map(|view| self.dtype_of(view.operand)).collect();
        element::types(&dtypes, program).map_err(|error| self.unsupported(node, error.to_string()))?;
        let (buffer, view) = self.make(dtype, dims, order);
        let walked: Vec<View> = inputs.iter().map(|view| view.permuted(order)).collect();
        let walked_dims: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
        let out_strides = super::view::dense_strides(&walked_dims);
        let mut strides: Vec<&[isize]> = vec![&out_strides];
        strides.extend(walked.iter().map(|view| view.strides.as_slice()));
        let merged = merge(&walked_dims, &strides);
        let inputs = walked
            .iter()
            .enumerate()
            .map(|(index, view)| Access {
                operand: view.operand,
                offset: view.offset,
                strides: merged.iter().map(|(_, strides)| strides[index + 1]).collect(),
            })
            .collect();
        let computes = |op: &&ElementOp| {
            matches!(
                op,
                ElementOp::Unary(..) | ElementOp::Binary(..) | ElementOp::Select(..) | ElementOp::Cast(..)
            )
        };
        let flops = work(program.iter().filter(computes).count() as u64, dims);
        let kind = StepKind::Elementwise {
            dims: merged.iter().map(|(dim, _)| *dim).collect(),
            inputs,
            program: program.to_vec(),
            out: buffer,
        };
        self.push(node, kind, flops);
        Ok(view)
    }
}
