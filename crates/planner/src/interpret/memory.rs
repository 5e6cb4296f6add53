//! One item's arena, one slot's weights and the class's constants, as numbers.

use crate::pack::{Layout, SlotLayout, WeightId};
use crate::plan::{Access, BufferId, Operand, Plan};
use crate::tensor::Element;
use tessera_core::DType;

/// What the steps of one item read and write.
pub(super) struct Memory<'a> {
    plan: &'a Plan,
    layout: &'a SlotLayout,
    weights: &'a [u8],
    arena: Vec<u8>,
}

impl<'a> Memory<'a> {
    pub(super) fn new(plan: &'a Plan, layout: &'a SlotLayout, weights: &'a [u8]) -> Memory<'a> {
        let bytes = usize::try_from(plan.arena_per_item.0).expect("a verified arena fits memory");
        // A pattern that is a NaN as f32: what nobody wrote must not look like a zero.
        Memory { plan, layout, weights, arena: vec![0xff; bytes] }
    }

    pub(super) fn dtype(&self, operand: Operand) -> DType {
        match operand {
            Operand::Buffer(id) => self.plan.buffer(id).dtype,
            Operand::Weight(id) => self.layout.tensors[id.0 as usize].dtype,
            Operand::Constant(id) => self.plan.constants[id.0 as usize].dtype(),
        }
    }

    /// All bytes of an operand, as they lie.
    pub(super) fn bytes(&self, operand: Operand) -> &[u8] {
        match operand {
            Operand::Buffer(id) => {
                let buffer = self.plan.buffer(id);
                &self.arena[buffer.offset..][..buffer.elements * buffer.dtype.size()]
            }
            Operand::Weight(id) => {
                let tensor = &self.layout.tensors[id.0 as usize];
                &self.weights[tensor.offset..][..tensor.bytes()]
            }
            Operand::Constant(id) => self.plan.constants[id.0 as usize].bytes(),
        }
    }

    /// Writes bytes at the start of a buffer; other operands cannot be written.
    pub(super) fn put(&mut self, operand: Operand, bytes: &[u8]) {
        let Operand::Buffer(id) = operand else { panic!("only buffers are written") };
        self.buffer_mut(id)[..bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn buffer_mut(&mut self, id: BufferId) -> &mut [u8] {
        let buffer = self.plan.buffer(id);
        &mut self.arena[buffer.offset..][..buffer.elements * buffer.dtype.size()]
    }

    /// All elements of an operand.
    pub(super) fn elements<T: Element>(&self, operand: Operand) -> Vec<T> {
        assert_eq!(self.dtype(operand), T::DTYPE, "a verified step reads operands by their type");
        self.bytes(operand).chunks_exact(T::DTYPE.size()).map(T::read).collect()
    }

    /// The floats of an operand; weights may be held as halves.
    pub(super) fn floats(&self, operand: Operand) -> Vec<f32> {
        match self.dtype(operand) {
            DType::BF16 => self.elements::<half::bf16>(operand).into_iter().map(f32::from).collect(),
            DType::F16 => self.elements::<half::f16>(operand).into_iter().map(f32::from).collect(),
            _ => self.elements(operand),
        }
    }

    /// The elements of a walk, in row-major order of `dims`.
    pub(super) fn walked<T: Element>(&self, access: &Access, dims: &[usize]) -> Vec<T> {
        let all = self.elements::<T>(access.operand);
        walk(access.offset, &access.strides, dims).map(|at| all[at]).collect()
    }

    /// Writes a whole buffer.
    pub(super) fn set<T: Element>(&mut self, id: BufferId, elements: &[T]) {
        let mut bytes = Vec::with_capacity(elements.len() * T::DTYPE.size());
        elements.iter().for_each(|&element| element.write(&mut bytes));
        assert_eq!(bytes.len(), self.buffer_mut(id).len(), "a step writes its whole buffer");
        self.put(Operand::Buffer(id), &bytes);
    }

    /// A packed matrix as `[groups][k][n]`, however it lies.
    pub(super) fn matrix(&self, id: WeightId) -> Vec<f32> {
        let layout = &self.layout.tensors[id.0 as usize].layout;
        let (Layout::Panels { groups, k, n, .. } | Layout::Blocks { groups, k, n, .. }) = *layout else {
            panic!("a verified step reads matrices as matrices")
        };
        let packed = self.floats(Operand::Weight(id));
        let mut matrix = Vec::with_capacity(groups * k * n);
        for group in 0..groups {
            for row in 0..k {
                matrix.extend((0..n).map(|column| packed[layout.element(group, row, column)]));
            }
        }
        matrix
    }
}

/// The positions of a walk: `offset + Σ index·stride` for every index in row-major order of `dims`.
pub(super) fn walk<'a>(
    offset: usize,
    strides: &'a [isize],
    dims: &'a [usize],
) -> impl Iterator<Item = usize> + 'a {
    let count: usize = dims.iter().product();
    let mut index = vec![0usize; dims.len()];
    let mut at = isize::try_from(offset).expect("a verified offset fits memory");
    (0..count).map(move |_| {
        let here = usize::try_from(at).expect("a verified walk stays inside its operand");
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < dims[axis] {
                break;
            }
            at -= strides[axis] * isize::try_from(dims[axis]).expect("a dimension fits memory");
            index[axis] = 0;
        }
        here
    })
}
