//! Rows of an output, or some columns of each: memory that one thread writes while others write what is beside it.
//!
//! ```text
//!   row 0   ████████ · · · · │ ░░░░ · ·       a view is exclusive, and splitting makes two of one:
//!   row 1   ████████ · · · · │ ░░░░ · ·       by rows, as slices can be, or by columns, as they cannot
//! ```

use std::marker::PhantomData;

/// `count` rows of `columns` numbers, `stride` apart.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    first: *mut f32,
    stride: usize,
    count: usize,
    columns: usize,
    numbers: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view is the only way to its numbers while it lives, as a `&mut [f32]` is, which may be sent.
unsafe impl Send for Rows<'_> {}

impl<'a> Rows<'a> {
    /// `count` rows of `columns` numbers that begin `stride` apart. Panics when the numbers do not reach, or rows overlap.
    pub(crate) fn new(numbers: &'a mut [f32], stride: usize, count: usize, columns: usize) -> Rows<'a> {
        assert!(count < 2 || columns <= stride, "rows overlap");
        assert!(count == 0 || numbers.len() >= (count - 1) * stride + columns, "the output is too short");
        Rows { first: numbers.as_mut_ptr(), stride, count, columns, numbers: PhantomData }
    }

    /// Rows that follow each other.
    pub(crate) fn dense(numbers: &'a mut [f32], columns: usize) -> Rows<'a> {
        let count = numbers.len().checked_div(columns).unwrap_or(0);
        Rows::new(numbers, columns, count, columns)
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Numbers of each.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Numbers from the beginning of one to that of the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Where they begin.
    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.first
    }

    /// The first `row` rows, and the others.
    pub(crate) fn split_rows(self, row: usize) -> (Rows<'a>, Rows<'a>) {
        assert!(row <= self.count, "fewer rows");
        let first = self.first.wrapping_add(row * self.stride);
        (Rows { count: row, ..self }, Rows { first, count: self.count - row, ..self })
    }

    /// The first `column` columns, and the others.
    pub(crate) fn split_columns(self, column: usize) -> (Rows<'a>, Rows<'a>) {
        assert!(column <= self.columns, "fewer columns");
        let first = self.first.wrapping_add(column);
        (Rows { columns: column, ..self }, Rows { first, columns: self.columns - column, ..self })
    }

    /// Some rows each: `share` of them, the last ones fewer.
    pub(crate) fn chunks(self, share: usize) -> Vec<Rows<'a>> {
        let mut chunks = Vec::new();
        let mut rest = self;
        while rest.count > share {
            let (now, later) = rest.split_rows(share);
            chunks.push(now);
            rest = later;
        }
        chunks.push(rest);
        chunks
    }

    /// The same, for a shorter time.
    pub(crate) fn again(&mut self) -> Rows<'_> {
        Rows { ..*self }
    }

    /// A part, for a shorter time: `rows` rows from `row` on, of each `columns` columns from `column` on.
    pub(crate) fn part(&mut self, row: usize, rows: usize, column: usize, columns: usize) -> Rows<'_> {
        let (_, from_row) = self.again().split_rows(row);
        let (_, from_column) = from_row.split_rows(rows).0.split_columns(column);
        from_column.split_columns(columns).0
    }

    /// Row number `row`. Panics when there is none.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.count, "fewer rows");
        // SAFETY: the row is there, and nobody else's, as `new` and the splits have seen to; `self` is borrowed as long as it is.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.columns) }
    }

    /// All rows as one slice, if they follow each other.
    pub(crate) fn whole(&mut self) -> Option<&mut [f32]> {
        // SAFETY: without gaps, rows are so many numbers, all of which are there and nobody else's.
        (self.stride == self.columns)
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.first, self.count * self.columns) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_split_off_are_written_side_by_side() {
        let mut numbers = [0.0f32; 12];
        let rows = Rows::new(&mut numbers, 5, 2, 4);
        let (left, right) = rows.split_columns(3);
        let (mut above, mut below) = left.split_rows(1);
        std::thread::scope(|scope| {
            scope.spawn(move || above.row(0).fill(1.0));
            scope.spawn(move || below.row(0).fill(2.0));
            scope.spawn(move || {
                let mut right = right;
                (0..2).for_each(|row| right.row(row).fill(3.0));
            });
        });
        assert_eq!(numbers, [1.0, 1.0, 1.0, 3.0, 0.0, 2.0, 2.0, 2.0, 3.0, 0.0, 0.0, 0.0]);
        let mut rows = Rows::new(&mut numbers, 5, 2, 4);
        assert_eq!(rows.part(1, 1, 2, 2).row(0), [2.0, 3.0]);
        assert!(rows.whole().is_none());
        assert_eq!(Rows::dense(&mut numbers, 6).whole().unwrap().len(), 12);
    }

    #[test]
    #[should_panic(expected = "the output is too short")]
    fn rows_that_are_not_there_are_refused() {
        Rows::new(&mut [0.0; 8], 5, 2, 4);
    }

    #[test]
    #[should_panic(expected = "rows overlap")]
    fn rows_that_overlap_are_refused() {
        Rows::new(&mut [0.0; 80], 3, 2, 4);
    }
}
