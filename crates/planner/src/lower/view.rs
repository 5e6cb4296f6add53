//! A value as lowering sees it: a walk over something that lies in memory.
//!
//! Reshapes, transposes, slices, splits and expansions only change the walk, so they cost nothing until a reader comes that
//! cannot walk; then one copy is made. Channels-last images need no rule of their own: a convolution's result has the
//! dimensions `[1, C, H, W]` and the strides of `[H][W][C]`, and whoever can walk passes that on.

use crate::plan::{Access, Operand};

/// Elements of `operand`, seen as a tensor of `dims`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct View {
    pub(crate) operand: Operand,
    pub(crate) offset: usize,
    pub(crate) dims: Vec<usize>,
    pub(crate) strides: Vec<isize>,
}

/// The strides of a dense row-major tensor.
pub(crate) fn dense_strides(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * signed(dims[axis].max(1));
    }
    strides
}

/// Sizes of tensors fit `isize`: [`crate::tensor::checked_len`] has seen to it.
pub(crate) fn signed(size: usize) -> isize {
    isize::try_from(size).expect("a tensor's sizes fit memory")
}

impl View {
    /// The whole of `operand`, row-major.
    pub(crate) fn dense(operand: Operand, dims: &[usize]) -> View {
        View { operand, offset: 0, dims: dims.to_vec(), strides: dense_strides(dims) }
    }

    /// A dense buffer that holds the axes of `dims` in the order `order` (outermost first), seen in the order of `dims`.
    pub(crate) fn ordered(operand: Operand, dims: &[usize], order: &[usize]) -> View {
        let inner: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
        let mut strides = vec![0; dims.len()];
        for (&axis, stride) in order.iter().zip(dense_strides(&inner)) {
            strides[axis] = stride;
        }
        View { operand, offset: 0, dims: dims.to_vec(), strides }
    }

    pub(crate) fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    pub(crate) fn access(&self) -> Access {
        Access { operand: self.operand, offset: self.offset, strides: self.strides.clone() }
    }

    /// Axes reordered: axis `i` of the result is axis `order[i]` of this.
    pub(crate) fn permuted(&self, order: &[usize]) -> View {
        View {
            dims: order.iter().map(|&axis| self.dims[axis]).collect(),
            strides: order.iter().map(|&axis| self.strides[axis]).collect(),
            ..self.clone()
        }
    }

    /// `count` elements of one axis from `start`, `step` apart (which may be negative).
    pub(crate) fn sliced(&self, axis: usize, start: usize, step: isize, count: usize) -> View {
        let mut view = self.clone();
        let moved = signed(start) * self.strides[axis];
        view.offset = self.offset.checked_add_signed(moved).expect("a slice starts inside its tensor");
        view.dims[axis] = count;
        view.strides[axis] *= step;
        view
    }

    /// NumPy's broadcast to `dims`, whose rank is at least this one's; `None` when a length is neither equal nor one.
    pub(crate) fn expanded(&self, dims: &[usize]) -> Option<View> {
        let lead = dims.len().checked_sub(self.dims.len())?;
        let mut strides = vec![0; lead];
        for (axis, &dim) in self.dims.iter().enumerate() {
            match (dim, dims[lead + axis]) {
                (from, to) if from == to => strides.push(self.strides[axis]),
                (1, _) => strides.push(0),
                _ => return None,
            }
        }
        Some(View { dims: dims.to_vec(), strides, ..self.clone() })
    }

    /// The same elements in the same row-major order under other dimensions, `None` when no walk does that.
    pub(crate) fn reshaped(&self, dims: &[usize]) -> Option<View> {
        if self.elements() == 0 {
            return Some(View { dims: dims.to_vec(), strides: dense_strides(dims), ..self.clone() });
        }
        // Both shapes without their ones, cut into groups of equal size: each group of old axes must be one walk.
        let old = self.merged();
        let mut strides = vec![0isize; dims.len()];
        let mut old = old.into_iter();
        // What is left of the current old axis, after the new axes that already took their share.
        let (mut left, mut stride) = (1usize, 0isize);
        for (axis, &dim) in dims.iter().enumerate() {
            if dim == 1 {
                continue;
            }
            if left == 1 {
                (left, stride) = old.next()?;
            }
            if left % dim != 0 {
                return None;
            }
            left /= dim;
            strides[axis] = stride * signed(left);
        }
        (left == 1).then(|| View { dims: dims.to_vec(), strides, ..self.clone() })
    }

    /// Lengths and strides with ones left out and neighbours merged where they are one walk.
    fn merged(&self) -> Vec<(usize, isize)> {
        merge(&self.dims, &[&self.strides]).into_iter().map(|(dim, strides)| (dim, strides[0])).collect()
    }

    /// The axes longer than one, outermost in memory first, when the view is the whole of a dense operand of `elements` elements.
    pub(crate) fn dense_order(&self, elements: usize) -> Option<Vec<usize>> {
        if self.offset != 0 || self.elements() != elements {
            return None;
        }
        let order = self.memory_order();
        let mut stride = 1;
        for &axis in order.iter().rev() {
            if self.dims[axis] != 1 {
                if self.strides[axis] != stride {
                    return None;
                }
                stride *= signed(self.dims[axis]);
            }
        }
        Some(order)
    }

    /// All axes by falling stride, those of length one first.
    pub(crate) fn memory_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dims.len()).collect();
        order.sort_by_key(|&axis| match self.dims[axis] {
            1 => std::cmp::Reverse(usize::MAX),
            _ => std::cmp::Reverse(self.strides[axis].unsigned_abs()),
        });
        order
    }

    /// Whether the view is the whole of a dense operand of `elements` elements, in row-major order.
    pub(crate) fn is_dense(&self, elements: usize) -> bool {
        self.offset == 0 && self.elements() == elements && self.is_contiguous()
    }

    /// Whether the elements lie one after the other.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut stride = 1;
        self.elements() == 0
            || (0..self.dims.len()).rev().all(|axis| {
                let fits = self.dims[axis] == 1 || self.strides[axis] == stride;
                stride *= signed(self.dims[axis]);
                fits
            })
    }
}

/// Leaves out axes of length one and merges neighbours that are one walk for every operand.
pub(crate) fn merge(dims: &[usize], strides: &[&[isize]]) -> Vec<(usize, Vec<isize>)> {
    let mut merged: Vec<(usize, Vec<isize>)> = Vec::new();
    for (axis, &dim) in dims.iter().enumerate().filter(|&(_, &dim)| dim != 1) {
        let here: Vec<isize> = strides.iter().map(|strides| strides[axis]).collect();
        match merged.last_mut() {
            Some((outer, before))
                if before.iter().zip(&here).all(|(&outer, &inner)| outer == inner * signed(dim)) =>
            {
                *outer *= dim;
                *before = here;
            }
            _ => merged.push((dim, here)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::BufferId;

    fn whole(dims: &[usize]) -> View {
        View::dense(Operand::Buffer(BufferId(0)), dims)
    }

    #[test]
    fn heads_are_split_from_columns_without_a_copy() {
        let heads = whole(&[1, 5, 8]).reshaped(&[1, 5, 2, 4]).unwrap().permuted(&[0, 2, 1, 3]);
        assert_eq!((heads.dims.as_slice(), &heads.strides[1..]), ([1, 2, 5, 4].as_slice(), &[4, 8, 1][..]));
        assert_eq!(heads.reshaped(&[1, 2, 20]), None);
        let back = heads.permuted(&[0, 2, 1, 3]).reshaped(&[5, 8]).unwrap();
        assert!(back.is_dense(40));
    }

    #[test]
    fn a_reshape_of_a_slice_walks_where_rows_stay_whole() {
        let part = whole(&[3, 4, 2]).sliced(0, 1, 1, 2);
        assert_eq!((part.offset, part.reshaped(&[16]).unwrap().strides), (8, vec![1]));
        let columns = whole(&[3, 4]).sliced(1, 2, 1, 2);
        assert_eq!(columns.reshaped(&[6]), None);
        assert_eq!(columns.reshaped(&[3, 1, 2]).unwrap().strides, [4, 0, 1]);
    }

    #[test]
    fn channels_last_is_an_order_of_memory() {
        let image = View::ordered(Operand::Buffer(BufferId(0)), &[1, 3, 4, 5], &[0, 2, 3, 1]);
        assert_eq!(image.strides[1..], [1, 15, 3]);
        assert_eq!(image.dense_order(60).unwrap(), [0, 2, 3, 1]);
        assert!(!image.is_dense(60));
        assert!(image.permuted(&[0, 2, 3, 1]).is_dense(60));
    }

    #[test]
    fn a_negative_step_walks_backwards() {
        let back = whole(&[4]).sliced(0, 3, -1, 4);
        assert_eq!((back.offset, back.strides.as_slice()), (3, [-1].as_slice()));
        assert!(!back.is_dense(4));
    }

    #[test]
    fn broadcasting_has_stride_zero() {
        let row = whole(&[1, 3]).expanded(&[2, 4, 3]).unwrap();
        assert_eq!(row.strides, [0, 0, 1]);
        assert_eq!(whole(&[2, 3]).expanded(&[4, 3]), None);
    }
}
