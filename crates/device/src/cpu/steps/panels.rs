//! Panels of intermediate values, made as they are needed: for products whose second factor is no weight.

use super::gemm::WIDTH;

/// Empties working memory for `len` numbers that are to follow a first one at the beginning of a line of the cache: where that is. A vector that
/// lies in two lines costs two reads.
pub(super) fn aligned(numbers: &mut Vec<f32>, len: usize) -> usize {
    const LINE: usize = 64;
    numbers.clear();
    numbers.reserve(len + LINE / size_of::<f32>());
    let start = numbers.as_ptr().addr().wrapping_neg() % LINE / size_of::<f32>();
    numbers.resize(start, 0.0);
    start
}

/// A matrix as its reader walks it: element `(k, n)` is at `first + k·strides[0] + n·strides[1]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    pub(super) x: &'a [f32],
    pub(super) first: isize,
    pub(super) strides: [isize; 2],
}

impl<'a> Matrix<'a> {
    /// The matrix from row `row` on.
    pub(super) fn below(self, row: usize) -> Matrix<'a> {
        Matrix { first: self.first + row as isize * self.strides[0], ..self }
    }

    /// Appends `k × n` elements in panels of [`WIDTH`] columns, zeros beyond the last one.
    pub(super) fn pack(self, k: usize, n: usize, to: &mut Vec<f32>) {
        let [along_k, along_n] = self.strides;
        let start = to.len();
        to.resize(start + n.div_ceil(WIDTH) * k * WIDTH, 0.0);
        for (number, panel) in to[start..].chunks_exact_mut((k * WIDTH).max(1)).enumerate() {
            let first = self.first + (number * WIDTH) as isize * along_n;
            let columns = WIDTH.min(n - number * WIDTH);
            for (k, row) in panel.chunks_exact_mut(WIDTH).enumerate() {
                let at = first + k as isize * along_k;
                if along_n == 1 {
                    row[..columns].copy_from_slice(&self.x[at as usize..at as usize + columns]);
                } else {
                    for (c, to) in row[..columns].iter_mut().enumerate() {
                        *to = self.x[(at + c as isize * along_n) as usize];
                    }
                }
            }
        }
    }

    /// `rows` rows of `k` elements at one distance: where they are if they lie so, else copied. The rows, and their distance.
    pub(super) fn rows(self, rows: usize, k: usize, copy: &'a mut Vec<f32>) -> (&'a [f32], usize) {
        if self.strides[1] == 1
            && let Ok(stride) = usize::try_from(self.strides[0])
        {
            return (&self.x[self.first as usize..], stride);
        }
        copy.clear();
        for row in 0..rows {
            let at = self.first + row as isize * self.strides[0];
            copy.extend((0..k).map(|k| self.x[(at + k as isize * self.strides[1]) as usize]));
        }
        (copy, k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_start_lies_in_whole_lines() {
        let mut numbers = vec![7.0; 3];
        for len in [0, 1, 1000, 5] {
            let start = aligned(&mut numbers, len);
            assert_eq!(numbers.len(), start);
            numbers.resize(start + len, 1.0);
            assert_eq!(numbers.as_ptr().wrapping_add(start).addr() % 64, 0);
        }
    }

    #[test]
    fn a_transposed_matrix_is_packed_column_by_column_and_ends_in_zeros() {
        // Two rows of three, walked as three rows of two.
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let transposed = Matrix { x: &x, first: 0, strides: [1, 3] };
        let mut panels = Vec::new();
        transposed.pack(3, 2, &mut panels);
        assert_eq!(panels.len(), 3 * WIDTH);
        let rows: Vec<&[f32]> = panels.chunks(WIDTH).map(|row| &row[..3]).collect();
        assert_eq!(rows, [[1.0, 4.0, 0.0], [2.0, 5.0, 0.0], [3.0, 6.0, 0.0]]);
        let mut copy = Vec::new();
        assert_eq!(transposed.rows(3, 2, &mut copy), (&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0][..], 2));
    }
}
