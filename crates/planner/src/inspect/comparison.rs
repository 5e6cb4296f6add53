//! Two models, or a model and another one's weights: whether requests to them could share a launch.

use super::{Report, inspect};
use crate::class::{Model, WeightsError, difference};
use crate::pack::{PackError, PackTarget};
use serde_json::{Value, json};
use std::fmt;

/// Whether two models are one architecture.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    /// The first model.
    pub left: Report,
    /// The second; `None` where weights came that do not fit the first.
    pub right: Option<Report>,
    /// The first difference that keeps them apart; `None` when they are one class.
    pub difference: Option<String>,
}

/// Whether `left` and `right` are one class, and if not, what first keeps them apart.
pub fn compare(left: &Model, right: &Model, target: PackTarget) -> Result<Comparison, PackError> {
    Ok(Comparison {
        left: inspect(left, target)?,
        right: Some(inspect(right, target)?),
        difference: difference(&left.class, &right.class),
    })
}

/// A base and weights that [`crate::class::load_over_base`] refused: what does not fit is the difference.
pub fn misfit(base: &Model, why: &WeightsError, target: PackTarget) -> Result<Comparison, PackError> {
    Ok(Comparison { left: inspect(base, target)?, right: None, difference: Some(why.to_string()) })
}

impl Comparison {
    /// Whether they are one class.
    pub fn one_class(&self) -> bool {
        self.difference.is_none()
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        json!({
            "one_class": self.one_class(),
            "difference": self.difference,
            "models": [self.left.to_json(), self.right.as_ref().map(Report::to_json)],
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.difference, &self.right) {
            (None, _) => {
                writeln!(f, "one class: {}", self.left.class.to_hex())?;
                writeln!(f, "requests to these two can share a launch")
            }
            (Some(difference), Some(right)) => {
                writeln!(f, "two classes: {} and {}", self.left.class, right.class)?;
                writeln!(f, "first difference: {difference}")
            }
            (Some(difference), None) => writeln!(f, "not of class {}: {difference}", self.left.class),
        }
    }
}
