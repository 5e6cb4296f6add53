//! The plan that a request with given free dimensions would run.

use crate::class::{Class, Model};
use crate::infer::{DimValue, InferError};
use crate::lower::{PlanError, plan};
use crate::pack::{PackError, PackTarget, SlotLayout};
use crate::plan::Plan;
use crate::text::{count, flops};
use serde_json::{Value, json};
use std::fmt;
use tessera_core::PlanKey;

/// A plan, and the free dimensions that it is for.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Name and value of every dimension that is fixed in the plan.
    pub dims: Vec<(String, u64)>,
    /// The dimension that counts items and stays open, where items are independent.
    pub items: Option<String>,
    /// Why items are not independent, where one dimension might have counted them.
    pub mixes: Option<String>,
    /// The plan.
    pub plan: Plan,
}

/// Why there is no plan to show.
#[derive(Debug, thiserror::Error)]
pub enum NotPlanned {
    /// Some dimensions have no value.
    #[error(
        "the plan depends on {}; choose {} to see it",
        list(missing.iter().map(|name| format!("`{name}`"))),
        missing.iter().map(|name| format!("--dim {name}=N")).collect::<Vec<_>>().join(" ")
    )]
    Missing {
        /// Their names.
        missing: Vec<String>,
    },
    /// A value was given for a dimension that the model has not.
    #[error(
        "the model has no free dimension `{name}`; {}",
        if known.is_empty() { "all of its dimensions are fixed".to_owned() }
        else { format!("it has {}", list(known.iter().map(|name| format!("`{name}`")))) }
    )]
    Unknown {
        /// What was given.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Two values were given for one dimension.
    #[error("`{name}` is given twice")]
    Twice {
        /// The dimension.
        name: String,
    },
    /// A value was given for the dimension that plans leave open.
    #[error(
        "`{name}` counts items, which are independent: one plan, per item, serves any number of them; leave it out"
    )]
    CountsItems {
        /// The dimension.
        name: String,
    },
    /// The model cannot run with these dimensions, or not at all.
    #[error("the model cannot be planned: {0}")]
    Plan(#[from] PlanError),
    /// Its weights have no layout.
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// The plan of `model` with `given` values for its free dimensions, as the server would make it for a request: items are left open
/// if they are independent. If they are not, the request is one item and its batch is 1 unless given.
pub fn planned(model: &Model, target: PackTarget, given: &[(String, u64)]) -> Result<Planned, NotPlanned> {
    let class = &model.class;
    for (index, (name, _)) in given.iter().enumerate() {
        if !class.free_dims.contains(name) {
            return Err(NotPlanned::Unknown { name: name.clone(), known: class.free_dims.clone() });
        }
        if given[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(NotPlanned::Twice { name: name.clone() });
        }
    }
    let value = |name: &String| given.iter().find(|(given, _)| given == name).map(|&(_, value)| value);
    let item_dim = class.item_dim();
    let counts_items = |dim: &usize| Some(*dim) == item_dim;
    let names = class.free_dims.iter().enumerate();
    let missing: Vec<String> = names
        .filter(|(dim, name)| !counts_items(dim) && value(name).is_none())
        .map(|(_, name)| name.clone())
        .collect();
    if !missing.is_empty() {
        return Err(NotPlanned::Missing { missing });
    }
    let fixed: Vec<u64> = class.free_dims.iter().map(|name| value(name).unwrap_or(1)).collect();
    let layout = SlotLayout::of(class.folded(), target)?;
    let Some(item_dim) = item_dim else {
        let plan = plan_at(class, &layout, &fixed, None)?;
        return Ok(Planned { dims: named(class, &fixed, None), items: None, mixes: None, plan });
    };
    let name = &class.free_dims[item_dim];
    match plan_at(class, &layout, &fixed, Some(item_dim)) {
        Ok(_) if value(name).is_some() => Err(NotPlanned::CountsItems { name: name.clone() }),
        Ok(plan) => {
            let dims = named(class, &fixed, Some(item_dim));
            Ok(Planned { dims, items: Some(name.clone()), mixes: None, plan })
        }
        Err(PlanError::Infer(why @ InferError::MixesItems { .. })) => {
            let plan = plan_at(class, &layout, &fixed, None)?;
            Ok(Planned { dims: named(class, &fixed, None), items: None, mixes: Some(why.to_string()), plan })
        }
        Err(error) => Err(error.into()),
    }
}

fn plan_at(
    class: &Class,
    layout: &SlotLayout,
    fixed: &[u64],
    items: Option<usize>,
) -> Result<Plan, PlanError> {
    let value = |(dim, &size): (usize, &u64)| match items {
        Some(item) if item == dim => DimValue::Items,
        _ => DimValue::Fixed(size),
    };
    let values: Vec<DimValue> = fixed.iter().enumerate().map(value).collect();
    let dims = fixed.iter().enumerate().filter(|(dim, _)| Some(*dim) != items).map(|(_, &size)| size);
    let key = PlanKey { class: class.id, dims: dims.collect(), precision: layout.target.precision };
    plan(key, class.folded(), layout, &values)
}

/// The dimensions that a plan fixes, by name.
fn named(class: &Class, fixed: &[u64], items: Option<usize>) -> Vec<(String, u64)> {
    let all = class.free_dims.iter().zip(fixed).enumerate();
    all.filter(|(dim, _)| Some(*dim) != items).map(|(_, (name, &size))| (name.clone(), size)).collect()
}

/// `a`, `a and b`, `a, b and c`.
fn list(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

impl Planned {
    /// For machines: every step with its kind, its FLOP and the segment that it is launched in.
    pub fn to_json(&self) -> Value {
        let plan = &self.plan;
        let segment = |step: usize| plan.segments.iter().position(|run| run.contains(&step));
        let steps = plan.steps.iter().enumerate().map(|(index, step)| {
            json!({
                "name": step.name,
                "kind": step.kind.name(),
                "flop": step.flops,
                "segment": segment(index),
                "text": plan.step_text(step),
            })
        });
        let dims: serde_json::Map<String, Value> =
            self.dims.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
        json!({
            "dims": dims,
            "batched": plan.batched,
            "items": self.items,
            "mixes_items": self.mixes,
            "flop_per_item": plan.flops_per_item(),
            "arena_bytes_per_item": plan.arena_per_item.0,
            "constants": plan.constants.len(),
            "buffers": plan.buffers.len(),
            "segments": plan.segments.len(),
            "steps": steps.collect::<Value>(),
        })
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        writeln!(f, "work        {} per item", flops(plan.flops_per_item()))?;
        writeln!(f, "arena       {} per item", plan.arena_per_item)?;
        let dims: Vec<String> = self.dims.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let at = if dims.is_empty() { String::new() } else { format!(" at {}", dims.join(", ")) };
        match (&self.items, &self.mixes) {
            (Some(items), _) => writeln!(f, "items       independent, counted by {items}")?,
            (None, Some(why)) => writeln!(f, "items       one request is one item: {why}")?,
            (None, None) => writeln!(f, "items       one request is one item")?,
        }
        let steps = count(plan.steps.len(), "step");
        let (segments, constants) =
            (count(plan.segments.len(), "segment"), count(plan.constants.len(), "constant"));
        writeln!(f, "\nplan{at}: {steps} in {segments}, {constants}")?;
        plan.write_steps(f)
    }
}
