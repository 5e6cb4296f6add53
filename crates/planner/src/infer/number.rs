//! Integers that may mention the item count `n` and the item's own index `i`: their arithmetic, and what can be decided of them.
//!
//! Nothing is known of `n` and `i` but `n ≥ 1` and `0 ≤ i < n`. The pairs `(n, i)` are then exactly `(1, 0) + a·(1, 0) + b·(1, 1)` for
//! whole `a, b ≥ 0`, so the least and greatest value of `c + p·n + q·i` follow from `c + p`, `p` and `p + q`.

use super::Reason;

/// An integer that may depend on the item count `n` and on the item's index `i`: `constant + per_count·n + per_item·i`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Number {
    /// The part that depends on neither.
    pub constant: i64,
    /// Factor of the item count.
    pub per_count: i64,
    /// Factor of the item's index.
    pub per_item: i64,
}

/// How long one axis is, all items together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// So many, whatever the item count.
    Fixed(usize),
    /// So many per item: the axis runs over items.
    PerItem(usize),
}

fn overflow() -> Reason {
    Reason::Invalid("an integer of a shape computation overflows 64 bits".into())
}

impl Number {
    /// A number that depends on nothing.
    pub const fn of(constant: i64) -> Number {
        Number { constant, per_count: 0, per_item: 0 }
    }

    /// `factor·n`.
    pub const fn items(factor: i64) -> Number {
        Number { constant: 0, per_count: factor, per_item: 0 }
    }

    /// Its value where it depends on neither the item count nor the item.
    pub fn fixed(self) -> Option<i64> {
        (self.per_count == 0 && self.per_item == 0).then_some(self.constant)
    }

    /// Its value for item `i` of `n`; `None` on overflow.
    pub fn at(self, n: i64, i: i64) -> Option<i64> {
        let counted = self.per_count.checked_mul(n)?;
        self.constant.checked_add(counted)?.checked_add(self.per_item.checked_mul(i)?)
    }

    fn combine(self, other: Number, with: impl Fn(i64, i64) -> Option<i64>) -> Result<Number, Reason> {
        let number = || {
            Some(Number {
                constant: with(self.constant, other.constant)?,
                per_count: with(self.per_count, other.per_count)?,
                per_item: with(self.per_item, other.per_item)?,
            })
        };
        number().ok_or_else(overflow)
    }

    pub(super) fn add(self, other: Number) -> Result<Number, Reason> {
        self.combine(other, i64::checked_add)
    }

    pub(super) fn sub(self, other: Number) -> Result<Number, Reason> {
        self.combine(other, i64::checked_sub)
    }

    /// The product, where one side is fixed.
    pub(super) fn mul(self, other: Number) -> Result<Number, Reason> {
        let (number, factor) = match (self.fixed(), other.fixed()) {
            (_, Some(factor)) => (self, factor),
            (Some(factor), _) => (other, factor),
            _ => {
                return Err(Reason::Mixes(format!(
                    "the product of {self} and {other} is not linear in the items"
                )));
            }
        };
        number.combine(Number::of(0), |part, _| part.checked_mul(factor))
    }

    /// The quotient, where it is exact or where both sides are multiples of the item count.
    pub(super) fn div(self, other: Number) -> Result<Number, Reason> {
        let counts = |number: Number| number.constant == 0 && number.per_item == 0 && number.per_count != 0;
        if counts(self) && counts(other) {
            return self.per_count.checked_div(other.per_count).map(Number::of).ok_or_else(overflow);
        }
        match (self.fixed(), other.fixed()) {
            (_, Some(0)) => Err(Reason::Invalid("an integer is divided by zero".into())),
            (Some(a), Some(b)) => a.checked_div(b).map(Number::of).ok_or_else(overflow),
            (None, Some(b)) => {
                let exact = [self.constant, self.per_count, self.per_item]
                    .iter()
                    .all(|part| part.checked_rem(b) == Some(0));
                if !exact {
                    return Err(Reason::Mixes(format!(
                        "{self} is not divisible by {b} for every item count"
                    )));
                }
                self.combine(Number::of(0), |part, _| part.checked_div(b))
            }
            _ => Err(Reason::Mixes(format!("the quotient of {self} and {other} depends on the item count"))),
        }
    }

    /// The remainder with the sign of the divisor, where it is the same for every item and item count.
    pub(super) fn modulo(self, other: Number) -> Result<Number, Reason> {
        match other.fixed() {
            Some(0) => Err(Reason::Invalid("an integer is divided by zero".into())),
            Some(m)
                if self.per_count.checked_rem(m) == Some(0) && self.per_item.checked_rem(m) == Some(0) =>
            {
                let rest = self.constant.checked_rem(m).ok_or_else(overflow)?;
                Ok(Number::of(if rest != 0 && (rest < 0) != (m < 0) { rest + m } else { rest }))
            }
            _ => Err(Reason::Mixes(format!("the remainder of {self} by {other} depends on the item count"))),
        }
    }

    /// The least value over all items and item counts; `None` when there is none.
    fn least(self) -> Option<i128> {
        let (c, p, q) = (i128::from(self.constant), i128::from(self.per_count), i128::from(self.per_item));
        (p >= 0 && p + q >= 0).then_some(c + p)
    }

    /// The greatest value over all items and item counts; `None` when there is none.
    fn greatest(self) -> Option<i128> {
        let (c, p, q) = (i128::from(self.constant), i128::from(self.per_count), i128::from(self.per_item));
        (p <= 0 && p + q <= 0).then_some(c + p)
    }

    /// Whether `self < other`, where the answer is the same for every item and item count.
    pub(super) fn less(self, other: Number) -> Result<Option<bool>, Reason> {
        let difference = self.sub(other)?;
        if difference.greatest().is_some_and(|most| most < 0) {
            return Ok(Some(true));
        }
        Ok(difference.least().is_some_and(|least| least >= 0).then_some(false))
    }

    /// Whether both are equal, where the answer is the same for every item and item count.
    pub(super) fn equal(self, other: Number) -> Result<Option<bool>, Reason> {
        let difference = self.sub(other)?;
        if let Some(constant) = difference.fixed() {
            return Ok(Some(constant == 0));
        }
        let apart = difference.least().is_some_and(|least| least > 0)
            || difference.greatest().is_some_and(|most| most < 0);
        Ok(apart.then_some(false))
    }

    /// This number as the length of an axis.
    pub(super) fn extent(self) -> Result<Extent, Reason> {
        let size = |length: i64| {
            usize::try_from(length).map_err(|_| Reason::Invalid(format!("a dimension would be {self}")))
        };
        match self {
            Number { constant, per_count: 0, per_item: 0 } => size(constant).map(Extent::Fixed),
            Number { constant: 0, per_count, per_item: 0 } => size(per_count).map(Extent::PerItem),
            _ => Err(Reason::Mixes(format!("a dimension would be {self}, which is not so many per item"))),
        }
    }
}

impl std::fmt::Display for Number {
    /// `3`, `n`, `2·n`, `5·i + 3`: with `n` the item count and `i` the item's index.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        for (factor, symbol) in [(self.per_count, "n"), (self.per_item, "i")] {
            match factor {
                0 => {}
                1 => parts.push(symbol.to_owned()),
                _ => parts.push(format!("{factor}·{symbol}")),
            }
        }
        if self.constant != 0 || parts.is_empty() {
            parts.push(self.constant.to_string());
        }
        f.write_str(&parts.join(" + "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(constant: i64, per_count: i64, per_item: i64) -> Number {
        Number { constant, per_count, per_item }
    }

    #[test]
    fn comparisons_are_decided_only_where_all_items_and_counts_agree() {
        let (n, i) = (Number::items(1), number(0, 0, 1));
        assert_eq!(n.equal(Number::of(-1)).unwrap(), Some(false));
        assert_eq!(n.equal(Number::of(1)).unwrap(), None);
        assert_eq!(n.less(Number::of(1)).unwrap(), Some(false));
        assert_eq!(n.less(Number::of(2)).unwrap(), None);
        assert_eq!(i.less(Number::of(0)).unwrap(), Some(false));
        assert_eq!(i.less(n).unwrap(), Some(true));
        assert_eq!(n.less(i).unwrap(), Some(false));
        assert_eq!(i.equal(n).unwrap(), Some(false));
        assert_eq!(i.equal(i).unwrap(), Some(true));
    }

    /// Every decision of the module's text, checked against all small items and counts.
    #[test]
    fn decisions_agree_with_trying_every_small_case() {
        for c in -4..4 {
            for p in -2..3 {
                for q in -2..3 {
                    let number = number(c, p, q);
                    let values: Vec<i64> =
                        (1..12).flat_map(|n| (0..n).map(move |i| number.at(n, i).unwrap())).collect();
                    let agrees = |truth: &dyn Fn(i64) -> bool| {
                        let first = truth(values[0]);
                        values.iter().all(|&value| truth(value) == first).then_some(first)
                    };
                    assert_eq!(
                        number.less(Number::of(0)).unwrap(),
                        agrees(&|value| value < 0),
                        "{number} < 0"
                    );
                    if let Some(decided) = number.equal(Number::of(0)).unwrap() {
                        assert_eq!(Some(decided), agrees(&|value| value == 0), "{number} == 0");
                    }
                }
            }
        }
    }

    #[test]
    fn arithmetic_stays_linear_or_says_why_not() {
        let n = Number::items(1);
        assert_eq!(n.mul(Number::of(6)).unwrap().div(Number::of(3)).unwrap(), Number::items(2));
        assert_eq!(Number::items(6).div(Number::items(2)).unwrap(), Number::of(3));
        assert_eq!(number(7, 4, 2).modulo(Number::of(2)).unwrap(), Number::of(1));
        assert_eq!(number(-1, 3, 0).modulo(Number::of(3)).unwrap(), Number::of(2));
        assert!(matches!(n.mul(n), Err(Reason::Mixes(_))));
        assert!(matches!(n.div(Number::of(2)), Err(Reason::Mixes(_))));
        assert!(matches!(n.div(Number::of(0)), Err(Reason::Invalid(_))));
        assert!(matches!(Number::of(i64::MAX).add(Number::of(1)), Err(Reason::Invalid(_))));
        assert!(matches!(Number::of(i64::MIN).div(Number::of(-1)), Err(Reason::Invalid(_))));
    }

    #[test]
    fn a_dimension_is_fixed_or_so_many_per_item() {
        assert_eq!(Number::items(3).extent().unwrap(), Extent::PerItem(3));
        assert_eq!(Number::of(3).extent().unwrap(), Extent::Fixed(3));
        assert!(matches!(Number::of(-2).extent(), Err(Reason::Invalid(_))));
        assert!(matches!(number(1, 1, 0).extent(), Err(Reason::Mixes(_))));
    }
}
