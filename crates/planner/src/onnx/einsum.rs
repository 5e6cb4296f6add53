//! Einsum: its equation, with every form that ONNX allows resolved to letters per axis.
//!
//! ```text
//!   "...ij, ...jk"   implicit output: the ellipsis, then letters that stand once, in alphabetical order
//!   "i...i->...i"    repeated letters are the diagonal; the ellipsis is the axes that are left, aligned at their end
//! ```
//! Letters become numbers in the order in which they are first met, so that equations which differ in their letters alone are one class.

use crate::onnx::convert::{invalid, unsupported};
use crate::onnx::table::{Made, Refusal, Site};
use crate::op::{Equation, Op};

pub(crate) fn einsum(site: &mut Site<'_, '_>) -> Made {
    let text = site.attributes.string("equation")?.ok_or_else(|| invalid("has no equation"))?;
    let mut ranks = Vec::with_capacity(site.inputs.len());
    for index in 0..site.inputs.len() {
        ranks.push(site.known(index).rank);
    }
    let equation = parsed(text, &ranks)?;
    site.finish(Op::Einsum(equation), site.inputs.to_vec(), 1);
    Ok(())
}

/// One axis: of a letter, or of the ellipsis, counted from its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Label {
    Letter(char),
    Dots(usize),
}

fn parsed(text: &str, ranks: &[Option<usize>]) -> Result<Equation, Refusal> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (text.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        return Err(invalid(format!(
            "has {} inputs, but its equation has {} terms",
            ranks.len(),
            terms.len()
        )));
    }
    let mut inputs = Vec::with_capacity(terms.len());
    for (term, rank) in terms.iter().zip(ranks) {
        let letters = letters(term)?;
        let dots = match (term.contains("..."), rank) {
            (false, _) => 0,
            (true, Some(rank)) => rank
                .checked_sub(letters)
                .ok_or_else(|| invalid(format!("says `{term}` of an input of {rank} dimensions")))?,
            (true, None) => {
                return Err(unsupported(
                    "an ellipsis needs the number of dimensions of its input; run `onnx.shape_inference` over the model",
                ));
            }
        };
        if !term.contains("...") && rank.is_some_and(|rank| rank != letters) {
            return Err(invalid(format!(
                "says `{term}` of an input of {} dimensions",
                rank.unwrap_or_default()
            )));
        }
        inputs.push(labels(term, dots));
    }
    let all = || inputs.iter().flatten().copied();
    let most_dots = all().filter(|label| matches!(label, Label::Dots(_))).map(|label| match label {
        Label::Dots(back) => back + 1,
        Label::Letter(_) => 0,
    });
    let most_dots = most_dots.max().unwrap_or(0);
    let output = match right {
        Some(right) => {
            letters(right)?;
            labels(right, most_dots)
        }
        None => {
            let once = |c: char| all().filter(|&label| label == Label::Letter(c)).count() == 1;
            let mut letters: Vec<char> = all()
                .filter_map(|label| match label {
                    Label::Letter(c) => once(c).then_some(c),
                    Label::Dots(_) => None,
                })
                .collect();
            letters.sort_unstable();
            let dots = (0..most_dots).rev().map(Label::Dots);
            dots.chain(letters.into_iter().map(Label::Letter)).collect()
        }
    };
    for (at, label) in output.iter().enumerate() {
        if output[..at].contains(label) || !all().any(|given| given == *label) {
            return Err(invalid(format!(
                "has an output `{}` with a letter twice or of no input",
                right.unwrap_or_default()
            )));
        }
    }
    let mut numbers: Vec<Label> = Vec::new();
    let mut number = |label: Label| {
        let at = numbers.iter().position(|&known| known == label).unwrap_or_else(|| {
            numbers.push(label);
            numbers.len() - 1
        });
        at as u8 // there are 52 letters, and tensors of fewer than 100 axes
    };
    let inputs = inputs.into_iter().map(|term| term.into_iter().map(&mut number).collect()).collect();
    let output = output.into_iter().map(&mut number).collect();
    Ok(Equation { inputs, output })
}

/// How many letters a term has.
fn letters(term: &str) -> Result<usize, Refusal> {
    let letters = term.replacen("...", "", 1);
    match letters.chars().all(|c| c.is_ascii_alphabetic()) {
        true if letters.len() <= 64 => Ok(letters.len()),
        _ => Err(invalid(format!("has a term `{term}` of more than letters and one ellipsis"))),
    }
}

fn labels(term: &str, dots: usize) -> Vec<Label> {
    let dots = (0..dots).rev().map(Label::Dots);
    match term.split_once("...") {
        None => term.chars().map(Label::Letter).collect(),
        Some((before, after)) => {
            before.chars().map(Label::Letter).chain(dots).chain(after.chars().map(Label::Letter)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, ranks: &[usize]) -> String {
        let ranks: Vec<Option<usize>> = ranks.iter().copied().map(Some).collect();
        parsed(text, &ranks).map_or_else(|refusal| format!("{refusal:?}"), |equation| equation.to_string())
    }

    #[test]
    fn letters_are_renamed_in_the_order_of_their_use() {
        assert_eq!(shown("bij, bjk -> bik", &[3, 3]), "abc,acd->abd");
        assert_eq!(shown("xpq,xqr->xpr", &[3, 3]), "abc,acd->abd");
    }

    #[test]
    fn without_an_arrow_letters_that_stand_once_are_kept_in_order() {
        assert_eq!(shown("ij,jk", &[2, 2]), "ab,bc->ac");
        assert_eq!(shown("ba", &[2]), "ab->ba");
        assert_eq!(shown("ii", &[2]), "aa->");
    }

    #[test]
    fn an_ellipsis_is_the_axes_that_are_left_aligned_at_their_end() {
        assert_eq!(shown("...ij,...jk", &[4, 3]), "abcd,bde->abce");
        assert_eq!(shown("...ii->...i", &[3]), "abb->ab");
        assert_eq!(shown("i...->...", &[1]), "a->");
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, ranks) in [
            ("ij->ijk", &[2][..]),
            ("ij->ii", &[2]),
            ("i,j", &[1]),
            ("i1", &[2]),
            ("ij", &[3]),
            ("......", &[6]),
        ] {
            assert!(shown(text, ranks).starts_with("Invalid"), "{text}");
        }
    }
}
