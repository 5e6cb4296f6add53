//! What is known of a value, and of a node's inputs.

use super::number::Extent;
use super::{Number, Reason};
use crate::shape;
use crate::tensor::Tensor;
use std::fmt;
use tessera_core::DType;

/// What is known of a value.
#[derive(Clone, PartialEq, Debug)]
pub struct Fact {
    /// Element type.
    pub dtype: DType,
    /// Dimensions of one item.
    pub dims: Vec<usize>,
    /// The axis that runs over items (times `dims[axis]` rows each), or `None` for a value that all items share.
    pub items: Option<usize>,
    /// How often the items come round on that axis, 1 for most: its rows are `[round][item][row]`, and one item's are `[round][row]`. A time-major
    /// value `[time, n, width]` read as rows `[time·n, width]` has as many rounds as time has steps.
    pub rounds: usize,
    /// Its elements, when they follow from shapes and literals alone.
    pub known: Option<Known>,
}

/// The elements of a value that follows from shapes and literals alone, per item, row-major.
#[derive(Clone, PartialEq, Debug)]
pub enum Known {
    /// The same for every item and item count.
    Tensor(Tensor),
    /// Integers of which at least one depends on the item count or index.
    Numbers(Vec<Number>),
}

impl Fact {
    /// A value that all items share and of which only the shape is known.
    pub(super) fn shared(dtype: DType, dims: Vec<usize>) -> Fact {
        Fact { dtype, dims, items: None, rounds: 1, known: None }
    }

    pub(super) fn literal(tensor: Tensor) -> Fact {
        let dims = tensor.dims().to_vec();
        Fact { dtype: tensor.dtype(), dims, items: None, rounds: 1, known: Some(Known::Tensor(tensor)) }
    }

    /// A value of unknown elements, its extents given.
    pub(super) fn of_extents(dtype: DType, extents: &[Extent]) -> Result<Fact, Reason> {
        let mut fact = Fact::shared(dtype, Vec::with_capacity(extents.len()));
        for (axis, &extent) in extents.iter().enumerate() {
            fact.dims.push(match extent {
                Extent::Fixed(length) => length,
                Extent::PerItem(_) if fact.items.is_some() => {
                    return Err(Reason::Mixes("two axes of the result would run over items".into()));
                }
                Extent::PerItem(length) => {
                    fact.items = Some(axis);
                    length
                }
            });
        }
        Ok(fact)
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Dimensions of the whole value with `n` items.
    pub fn dims_of(&self, n: usize) -> Vec<usize> {
        let of = |(axis, &dim): (usize, &usize)| if self.items == Some(axis) { dim * n } else { dim };
        self.dims.iter().enumerate().map(of).collect()
    }

    pub(super) fn extent(&self, axis: usize) -> Extent {
        if self.items == Some(axis) {
            Extent::PerItem(self.dims[axis])
        } else {
            Extent::Fixed(self.dims[axis])
        }
    }

    pub(super) fn extents(&self) -> Vec<Extent> {
        (0..self.rank()).map(|axis| self.extent(axis)).collect()
    }

    /// The whole value's dimension on an axis.
    pub(super) fn length(&self, axis: usize) -> Result<Number, Reason> {
        let dim = i64::try_from(self.dims[axis])
            .map_err(|_| Reason::Invalid(format!("the dimension {} overflows", self.dims[axis])))?;
        Ok(if self.items == Some(axis) { Number::items(dim) } else { Number::of(dim) })
    }

    /// Its elements, when they are known integers or booleans.
    pub(super) fn numbers(&self) -> Option<Vec<Number>> {
        match self.known.as_ref()? {
            Known::Numbers(numbers) => Some(numbers.clone()),
            Known::Tensor(tensor) => {
                let numbers: Vec<i64> = match tensor.dtype() {
                    DType::I64 => tensor.elements::<i64>()?,
                    DType::I32 => tensor.elements::<i32>()?.into_iter().map(i64::from).collect(),
                    DType::Bool => tensor.elements::<bool>()?.into_iter().map(i64::from).collect(),
                    _ => return None,
                };
                Some(numbers.into_iter().map(Number::of).collect())
            }
        }
    }

    /// Stores integers as what is known: as a tensor where none depends on items.
    pub(super) fn set_numbers(&mut self, numbers: Vec<Number>) -> Result<(), Reason> {
        let fixed: Option<Vec<i64>> = numbers.iter().map(|number| number.fixed()).collect();
        self.known = Some(match (fixed, self.dtype) {
            (None, _) => Known::Numbers(numbers),
            (Some(fixed), DType::I64) => Known::Tensor(Tensor::from_elements(&self.dims, &fixed)),
            (Some(fixed), DType::I32) => {
                let narrow = fixed.iter().map(|&number| i32::try_from(number)).collect::<Result<Vec<_>, _>>();
                let narrow = narrow.map_err(|_| {
                    Reason::Invalid("an integer of a shape computation overflows 32 bits".into())
                })?;
                Known::Tensor(Tensor::from_elements(&self.dims, &narrow))
            }
            (Some(fixed), DType::Bool) => {
                let truths: Vec<bool> = fixed.iter().map(|&number| number != 0).collect();
                Known::Tensor(Tensor::from_elements(&self.dims, &truths))
            }
            (Some(_), dtype) => return Err(Reason::Mixes(format!("shapes are computed as {dtype}"))),
        });
        Ok(())
    }

    /// The number of elements of one item.
    pub(super) fn count(&self) -> usize {
        shape::count(&self.dims).expect("sizes of stored facts are checked")
    }
}

impl fmt::Display for Fact {
    /// `f32[n, 3]`, `i64[2·n, 4]`, `f32[17×n, 24]`: with `n` the item count, which comes round so many times before the `×`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (axis, dim) in self.dims.iter().enumerate() {
            let comma = if axis > 0 { ", " } else { "" };
            match (self.items == Some(axis), dim) {
                (true, rows) if self.rounds > 1 => match rows / self.rounds {
                    1 => write!(f, "{comma}{}×n", self.rounds)?,
                    rows => write!(f, "{comma}{}×{rows}·n", self.rounds)?,
                },
                (true, 1) => write!(f, "{comma}n")?,
                (true, _) => write!(f, "{comma}{dim}·n")?,
                (false, _) => write!(f, "{comma}{dim}")?,
            }
        }
        f.write_str("]")
    }
}

/// The inputs of a node.
#[derive(Clone, Copy)]
pub(super) struct Args<'a>(pub(super) &'a [Option<&'a Fact>]);

impl<'a> Args<'a> {
    /// An input that must be there.
    pub(super) fn get(self, index: usize) -> Result<&'a Fact, Reason> {
        self.opt(index).ok_or_else(|| Reason::Invalid(format!("input {index} is missing")))
    }

    /// An input that may be left out.
    pub(super) fn opt(self, index: usize) -> Option<&'a Fact> {
        self.0.get(index).copied().flatten()
    }

    /// The integers of an input that shapes depend on, of rank 1 or 0.
    pub(super) fn numbers(self, index: usize, what: &str) -> Result<Vec<Number>, Reason> {
        let fact = self.get(index)?;
        if fact.rank() > 1 || fact.items.is_some() {
            return Err(Reason::Invalid(format!("{what} {fact} are not a list of integers")));
        }
        match fact.numbers() {
            Some(numbers) => Ok(numbers),
            None if matches!(fact.dtype, DType::I64 | DType::I32) => {
                Err(Reason::DataDependent(format!("{what} are not known")))
            }
            None => Err(Reason::Invalid(format!("{what} {fact} are not integers"))),
        }
    }

    /// The same where none may depend on the item count.
    pub(super) fn integers(self, index: usize, what: &str) -> Result<Vec<i64>, Reason> {
        self.numbers(index, what)?
            .into_iter()
            .map(|number| number.fixed().ok_or_else(|| Reason::Mixes(format!("{what} hold {number}"))))
            .collect()
    }

    /// An input that all items must share.
    pub(super) fn shared(self, index: usize, what: &str) -> Result<&'a Fact, Reason> {
        let fact = self.get(index)?;
        shared(fact, what)?;
        Ok(fact)
    }
}

pub(super) fn shared(fact: &Fact, what: &str) -> Result<(), Reason> {
    match fact.items {
        None => Ok(()),
        Some(_) => Err(Reason::Mixes(format!("{what} {fact} differs from item to item"))),
    }
}

impl fmt::Display for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fact) in self.0.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            match fact {
                Some(fact) => write!(f, "{comma}{fact}")?,
                None => write!(f, "{comma}–")?,
            }
        }
        Ok(())
    }
}
