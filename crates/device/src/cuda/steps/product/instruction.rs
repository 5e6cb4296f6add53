//! The matrix unit's instruction for a tile's width.
//!
//! It names every register of the sums in its text, so the text is written here, once per width and type.

use tessera_core::Precision;

/// `multiply(sums, a, b)`: 64 outputs by `columns` rows by 32 bytes of k, both factors from shared memory.
pub(super) fn multiply(precision: Precision, columns: usize) -> String {
    let (depth, kind, transposed) = match precision {
        // Four-byte factors can only lie with k together, so there is nothing to say about transposing.
        Precision::Fp32 | Precision::Tf32 => (8, "tf32", ""),
        Precision::Bf16 => (16, "bf16", ", 0, 0"),
        Precision::Fp16 => (16, "f16", ", 0, 0"),
    };
    let sums = columns / 2; // of one of 128 threads
    let registers: Vec<String> = (0..sums).map(|register| format!("%{register}")).collect();
    let operands: Vec<String> = (0..sums).map(|register| format!("\"+f\"(d[{register}])")).collect();
    format!(
        "__device__ __forceinline__ void multiply(float (&d)[{sums}], u64 a, u64 b) {{\n    \
         asm volatile(\"wgmma.mma_async.sync.aligned.m64n{columns}k{depth}.f32.{kind}.{kind} {{{}}}, %{sums}, %{}, 1, 1, 1{transposed};\"\n        \
         : {} : \"l\"(a), \"l\"(b));\n}}\n",
        registers.join(", "),
        sums + 1,
        operands.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_names_each_of_its_sums_once() {
        let text = multiply(Precision::Bf16, 8);
        assert!(text.contains("m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"), "{text}");
        assert!(multiply(Precision::Tf32, 56).contains("m64n56k8.f32.tf32.tf32 {%0,"));
        assert_eq!(multiply(Precision::Fp16, 128).matches("+f").count(), 64);
    }
}
