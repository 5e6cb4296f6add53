//! Einsum's equations.

use std::fmt;

/// Which letter each axis of Einsum's inputs and output has. Letters are numbered in the order in which they are first met.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Equation {
    /// Per input, the letter of each axis; one that stands twice means the diagonal.
    pub inputs: Vec<Vec<u8>>,
    /// The letter of each axis of the output; all others are summed over.
    pub output: Vec<u8>,
}

impl Equation {
    /// The length of every letter; `None` when inputs of these shapes do not have it. A length of one meets any other.
    pub(crate) fn lengths(&self, shapes: &[&[usize]]) -> Option<Vec<usize>> {
        let letters = self.inputs.iter().flatten().map(|&letter| usize::from(letter) + 1).max().unwrap_or(0);
        let mut lengths = vec![1; letters];
        for (labels, dims) in self.inputs.iter().zip(shapes) {
            if labels.len() != dims.len() {
                return None;
            }
            for (&label, &dim) in labels.iter().zip(*dims) {
                let length = &mut lengths[usize::from(label)];
                match (*length, dim) {
                    (have, dim) if have == dim || dim == 1 => {}
                    (1, dim) => *length = dim,
                    _ => return None,
                }
            }
        }
        Some(lengths)
    }
}

impl fmt::Display for Equation {
    /// `ab,bc->ac`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let term = |labels: &[u8]| -> String {
            let letter = |&label: &u8| ('a'..='z').chain('A'..='Z').nth(usize::from(label)).unwrap_or('?');
            labels.iter().map(letter).collect()
        };
        let inputs: Vec<String> = self.inputs.iter().map(|labels| term(labels)).collect();
        write!(f, "{}->{}", inputs.join(","), term(&self.output))
    }
}
