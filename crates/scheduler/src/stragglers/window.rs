//! The running median of a tenant's last ratios.

/// How many are remembered. Fewer than half of them can be wild without moving the median beyond the others (a running median, Tukey 1977, has a breakdown point
/// of one half), and a tenant that turns slow is seen after eight.
const KEPT: usize = 15;

/// The last [`KEPT`] ratios, oldest overwritten first. 4 bytes each: 10,000 tenants take under a megabyte.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    ratios: [f32; KEPT],
    len: usize,
    next: usize,
}

impl Window {
    pub(crate) fn push(&mut self, ratio: f64) {
        self.ratios[self.next] = ratio as f32;
        self.next = (self.next + 1) % KEPT;
        self.len = (self.len + 1).min(KEPT);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The median of all that are remembered; `None` of none.
    pub(crate) fn median(&self) -> Option<f64> {
        self.median_of_last(KEPT)
    }

    /// The lower median of the last few.
    pub(crate) fn median_of_last(&self, count: usize) -> Option<f64> {
        let count = count.min(self.len);
        let mut last: Vec<f32> =
            (1..=count).map(|back| self.ratios[(self.next + KEPT - back) % KEPT]).collect();
        let middle = count.checked_sub(1)? / 2;
        let (_, median, _) = last.select_nth_unstable_by(middle, f32::total_cmp);
        Some(f64::from(*median))
    }

    pub(crate) fn clear(&mut self) {
        *self = Window::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_last_ones_only() {
        let mut window = Window::default();
        assert_eq!(window.median(), None);
        (0..KEPT).for_each(|_| window.push(1.0));
        (0..7).for_each(|_| window.push(5.0));
        assert_eq!(window.median(), Some(1.0), "seven wild ones of fifteen move nothing");
        window.push(5.0);
        assert_eq!((window.median(), window.len()), (Some(5.0), KEPT));
        assert_eq!(window.median_of_last(3), Some(5.0));
    }
}
