//! A request's shapes against the declared ones: which values its free dimensions take, and how many items it brings.

use crate::class::Class;
use crate::graph::Dim;

/// The free dimensions of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// The value of every free dimension, in the class's order.
    pub dims: Vec<u64>,
    /// The free dimension that counts items: it stands at axis 0 of every input and nowhere else. Whether items are
    /// independent is for the planner to prove.
    pub item_dim: Option<usize>,
    /// How many items there are; 1 where no dimension counts them.
    pub items: u64,
}

impl Bound {
    /// The values of all free dimensions but the one that counts items: what names a plan whose items are independent.
    pub fn batched_dims(&self) -> Vec<u64> {
        let others = self.dims.iter().enumerate().filter(|(index, _)| Some(*index) != self.item_dim);
        others.map(|(_, &value)| value).collect()
    }
}

/// A request's shape is not one that the model takes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", self.said(&self.names.iter().map(String::as_str).collect::<Vec<_>>()))]
pub struct ShapeMismatch {
    /// What the class calls its inputs.
    names: Vec<String>,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    /// Another number of inputs.
    Count { got: usize },
    /// Another shape than the declared one; where they differ in the first axis alone, `first` is what that is fixed to.
    Shape { input: usize, expected: String, got: Vec<u64>, first: Option<u64> },
    /// One free dimension with two values.
    Disagree { dim: String, first: (usize, u64), second: (usize, u64) },
    /// Nothing in it.
    Empty { input: usize, axis: usize, got: Vec<u64> },
    /// More than can be counted.
    Overflows { input: usize, got: Vec<u64> },
}

impl ShapeMismatch {
    /// The message, with the names that a tenant's model gives to the inputs.
    pub fn for_inputs(&self, names: &[&str]) -> String {
        self.said(names)
    }

    fn said(&self, names: &[&str]) -> String {
        let name = |input: &usize| names.get(*input).copied().unwrap_or("?");
        match &self.what {
            What::Count { got } => format!("{got} inputs came, but the model takes {}", self.names.len()),
            What::Shape { input, expected, got, first } => {
                let way_out = first.map(|first| {
                    format!(
                        "; its first axis is fixed to {first}: where that is the batch, export the model with a free \
                         first axis (`dynamic_axes` or `dynamic_shapes` of `torch.onnx.export`)"
                    )
                });
                let way_out = way_out.unwrap_or_default();
                format!("input `{}` has shape {got:?}, but the model takes {expected}{way_out}", name(input))
            }
            What::Disagree { dim, first, second } => format!(
                "dimension `{dim}` is {} in input `{}` and {} in input `{}`",
                first.1,
                name(&first.0),
                second.1,
                name(&second.0)
            ),
            What::Empty { input, axis, got } => format!(
                "input `{}` has shape {got:?}: axis {axis} is empty, and every dimension must be at least 1",
                name(input)
            ),
            What::Overflows { input, got } => {
                format!("input `{}` has shape {got:?}, which is more than can be held", name(input))
            }
        }
    }
}

impl Class {
    /// The free dimensions of a request with these shapes, in the order of the class's inputs.
    pub fn bind(&self, shapes: &[&[u64]]) -> Result<Bound, ShapeMismatch> {
        let mismatch = |what| ShapeMismatch {
            names: self.graph.inputs.iter().map(|input| input.name.clone()).collect(),
            what,
        };
        if shapes.len() != self.graph.inputs.len() {
            return Err(mismatch(What::Count { got: shapes.len() }));
        }
        // The value of each free dimension, and the input that first gave it.
        let mut found: Vec<Option<(usize, u64)>> = vec![None; self.free_dims.len()];
        for (input, (declared, &shape)) in self.graph.inputs.iter().zip(shapes).enumerate() {
            let fits = |(dim, &size): (&Dim, &u64)| match dim {
                Dim::Fixed(fixed) => *fixed == size,
                Dim::Free(_) => true,
            };
            if declared.dims.len() != shape.len() || !declared.dims.iter().zip(shape).all(fits) {
                let expected = self.declared(&declared.dims);
                let first = match (&declared.dims[..], shape) {
                    ([Dim::Fixed(first), rest @ ..], [_, got @ ..])
                        if rest.len() == got.len() && rest.iter().zip(got).all(fits) =>
                    {
                        Some(*first)
                    }
                    _ => None,
                };
                return Err(mismatch(What::Shape { input, expected, got: shape.to_vec(), first }));
            }
            if let Some(axis) = shape.iter().position(|&size| size == 0) {
                return Err(mismatch(What::Empty { input, axis, got: shape.to_vec() }));
            }
            let bytes =
                shape.iter().try_fold(declared.dtype.size() as u64, |bytes, &size| bytes.checked_mul(size));
            if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
                return Err(mismatch(What::Overflows { input, got: shape.to_vec() }));
            }
            for (dim, &size) in declared.dims.iter().zip(shape) {
                let Dim::Free(index) = *dim else { continue };
                match found[index] {
                    Some(first) if first.1 != size => {
                        let dim = self.free_dims[index].clone();
                        return Err(mismatch(What::Disagree { dim, first, second: (input, size) }));
                    }
                    Some(_) => {}
                    None => found[index] = Some((input, size)),
                }
            }
        }
        let dims: Vec<u64> =
            found.iter().map(|found| found.expect("a free dimension stands in some input").1).collect();
        let item_dim = self.item_dim();
        Ok(Bound { items: item_dim.map_or(1, |dim| dims[dim]), item_dim, dims })
    }

    /// The binding for one item of a class whose free dimensions only count items: such a class has one plan.
    pub fn bind_without_free_dims(&self) -> Option<Bound> {
        let item_dim = self.item_dim();
        let others = (0..self.free_dims.len()).filter(|&dim| Some(dim) != item_dim).count();
        (others == 0).then(|| Bound { dims: vec![1; self.free_dims.len()], item_dim, items: 1 })
    }

    /// The free dimension that stands at axis 0 of every input and nowhere else.
    pub(crate) fn item_dim(&self) -> Option<usize> {
        let inputs = &self.graph.inputs;
        let Some(&Dim::Free(index)) = inputs.first()?.dims.first() else { return None };
        let item = Dim::Free(index);
        let stands = |dims: &Vec<Dim>| dims.first() == Some(&item) && !dims[1..].contains(&item);
        inputs.iter().all(|input| stands(&input.dims)).then_some(index)
    }

    /// `[batch, 3, 224, 224]`.
    fn declared(&self, dims: &[Dim]) -> String {
        let words: Vec<String> = dims.iter().map(|dim| self.dim_name(dim)).collect();
        format!("[{}]", words.join(", "))
    }

    /// A dimension in words: its size, or the name of a free one.
    pub(crate) fn dim_name(&self, dim: &Dim) -> String {
        match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Free(index) => self.free_dims[*index].clone(),
        }
    }
}
