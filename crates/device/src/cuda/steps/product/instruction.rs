//! The matrix unit's instruction for a tile's width.
//!
//! It names every register of the sums in its text, so the text is written here, once per width and type: a program of a residual network asks for some
//! thousands of them when it is lowered, and for few that differ.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use tessera_core::Precision;

/// Where an instruction takes the weights from. Rows are always in shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Weights {
    Shared,
    /// In registers.
    Held,
}

/// `multiply(sums, a, b)`: 64 outputs by `columns` rows by 32 bytes of k, both factors from shared memory.
pub(super) fn multiply(precision: Precision, columns: usize) -> Arc<str> {
    text(Weights::Shared, precision, columns)
}

/// The same, but for the weights, which a thread has its share of.
pub(super) fn multiply_held(precision: Precision, columns: usize) -> Arc<str> {
    text(Weights::Held, precision, columns)
}

/// By where the weights are, the type and the columns.
type Texts = HashMap<(Weights, Precision, usize), Arc<str>>;

/// The text of an instruction, as it was written when it was first asked for.
fn text(weights: Weights, precision: Precision, columns: usize) -> Arc<str> {
    static WRITTEN: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    let text = written.entry((weights, precision, columns));
    text.or_insert_with(|| multiply_by(weights, precision, columns).into()).clone()
}

fn multiply_by(weights: Weights, precision: Precision, columns: usize) -> String {
    let (depth, kind) = match precision {
        Precision::Fp32 | Precision::Tf32 => (8, "tf32"),
        Precision::Bf16 => (16, "bf16"),
        Precision::Fp16 => (16, "f16"),
    };
    let sums = columns / 2; // of one of 128 threads
    let (a, names, a_operands) = match weights {
        Weights::Shared => ("u64 a", format!("%{sums}"), "\"l\"(a)".to_owned()),
        Weights::Held => {
            let [names, operands] = [
                each(4, |register| format!("%{}", sums + register)),
                each(4, |word| format!("\"r\"(a[{word}])")),
            ];
            ("const u32 (&a)[4]", format!("{{{names}}}"), operands)
        }
    };
    let b = sums + if weights == Weights::Shared { 1 } else { 4 };
    let transposed = match (precision, weights) {
        // Four-byte factors can only lie with k together, so there is nothing to say about transposing; nor of registers.
        (Precision::Fp32 | Precision::Tf32, _) => "",
        (_, Weights::Shared) => ", 0, 0",
        (_, Weights::Held) => ", 0",
    };
    format!(
        "__device__ __forceinline__ void multiply(float (&d)[{sums}], {a}, u64 b) {{\n    \
         asm volatile(\"wgmma.mma_async.sync.aligned.m64n{columns}k{depth}.f32.{kind}.{kind} {{{}}}, {names}, %{b}, 1, 1, 1{transposed};\"\n        \
         : {} : {a_operands}, \"l\"(b));\n}}\n",
        each(sums, |register| format!("%{register}")),
        each(sums, |register| format!("\"+f\"(d[{register}])")),
    )
}

/// A list of operands.
fn each(count: usize, operand: impl Fn(usize) -> String) -> String {
    (0..count).map(operand).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_names_each_of_its_sums_once() {
        let text = multiply(Precision::Bf16, 8);
        assert!(text.contains("m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"), "{text}");
        let text = multiply_held(Precision::Bf16, 8);
        assert!(text.contains("{%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, 1, 1, 1, 0;"), "{text}");
        assert!(Arc::ptr_eq(&text, &multiply_held(Precision::Bf16, 8)), "it is written once");
        assert!(multiply(Precision::Tf32, 56).contains("m64n56k8.f32.tf32.tf32 {%0,"));
        assert_eq!(multiply(Precision::Fp16, 128).matches("+f").count(), 64);
    }
}
