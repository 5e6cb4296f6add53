//! Products of sizes that each fit, while all of them together may not.
//!
//! ```text
//!   a value                    at most 2⁴⁰ bytes: inference has seen to it, so its dimensions multiply freely
//!   a result between steps     [`Lowering::bounded`], before anything is made of its dimensions
//!   a list of numbers          [`Lowering::table`], before one is written out for every element of an axis
//!   operations of a step       [`work`], which stops at the largest number; a plan with such a step is refused by name
//! ```
//! Dimensions come from a file and from requests: two values that fit can ask for a product of theirs that nothing could hold or count.

use super::{Lowering, PlanError};
use crate::infer::fits;
use crate::net::Node;
use crate::plan::Step;
use tessera_core::DType;

/// No list that is written out for an axis is longer: whole seconds of sound and images of thousands of pixels have far fewer.
const MOST_NUMBERS: usize = 1 << 22;

/// So many operations for every element of `dims`, or the largest number when there are more.
pub(super) fn work(each: u64, dims: &[usize]) -> u64 {
    dims.iter().fold(each, |product, &dim| product.saturating_mul(dim as u64))
}

/// Refuses steps whose operations, all together, cannot be counted: no sum over some of them can then overflow.
pub(super) fn countable(steps: &[Step]) -> Result<(), PlanError> {
    let sum = steps.iter().try_fold(0u64, |sum, step| sum.checked_add(step.flops));
    let dearest = || steps.iter().max_by_key(|step| step.flops);
    match (sum, dearest()) {
        (None | Some(u64::MAX), Some(step)) => Err(PlanError::TooMuchWork { node: step.name.clone() }),
        _ => Ok(()),
    }
}

impl Lowering<'_> {
    /// Refuses a list of numbers that would be written out for an axis when it is longer than any that is of use.
    pub(super) fn table(&self, node: &Node, length: usize) -> Result<(), PlanError> {
        match length <= MOST_NUMBERS {
            true => Ok(()),
            false => {
                let why = format!("it takes a table of {length} numbers, and {MOST_NUMBERS} is the most");
                Err(self.unsupported(node, why))
            }
        }
    }

    /// Refuses what lies between two steps and is no value of the graph when it is larger than any value may be.
    pub(super) fn bounded(&self, dtype: DType, dims: &[usize]) -> Result<(), PlanError> {
        if fits(dtype, dims) {
            return Ok(());
        }
        let extents: Vec<usize> = dims.iter().copied().filter(|&extent| extent > 0).collect();
        Err(PlanError::TooLarge { bytes: work(dtype.size() as u64, &extents) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BufferId, StepKind};
    use crate::tensor::Tensor;

    #[test]
    fn work_beyond_counting_stops_at_the_largest_number() {
        assert_eq!(work(2, &[3, 5]), 30);
        assert_eq!(work(2, &[]), 2);
        assert_eq!(work(2, &[1 << 40, 1 << 40, 0]), 0, "nothing is computed for no element");
        assert_eq!(work(2, &[1 << 40, 1 << 40]), u64::MAX);
    }

    #[test]
    fn steps_that_cannot_be_counted_are_refused_by_the_dearest_ones_name() {
        let step = |name: &str, flops| {
            let kind = StepKind::Fill { value: Tensor::scalar(0.0f32), out: BufferId(0) };
            Step { name: name.to_owned(), kind, flops }
        };
        let named = |steps: &[Step]| countable(steps).unwrap_err().to_string();
        assert!(named(&[step("small", 1), step("large", u64::MAX)]).contains("`large`"));
        assert!(named(&[step("first", 1 << 63), step("second", (1 << 63) + 1)]).contains("`second`"));
        assert_eq!(countable(&[step("first", 1 << 63), step("second", 1 << 62)]), Ok(()));
        assert_eq!(countable(&[]), Ok(()));
    }
}
