//! The product as a plan of one step, numbers for it, and what must come out.
//!
//! ```text
//!   BLAS, column-major    C[m, n] = A[m, k] · B[k, n]
//!   plan, row-major     out[n, m] = x[n, k] · w[k, m]        the same bytes: out is C, x is B, w is A
//! ```

use super::rotation::DISTINCT;
use crate::cuda::target;
use crate::sgemm::Sizes;
use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tessera_core::{Bytes, ClassId, DType, PlanKey, Precision};
use tessera_planner::fold::Role;
use tessera_planner::pack::{PackError, lay};
use tessera_planner::plan::{Access, Buffer, BufferId, Epilogue, Operand, Port, Step, StepKind};
use tessera_planner::{Plan, SlotLayout, WeightId};

/// Where buffers of the plan begin: a multiple of this, as the planner has it.
const ALIGNMENT: usize = 64;

/// Rows of a result that are looked at.
const ROWS: usize = 8;

/// The plan's two buffers.
pub(super) const X: BufferId = BufferId(0);
pub(super) const OUT: BufferId = BufferId(1);

/// What is multiplied, without the numbers.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) sizes: Sizes,
    pub(super) precision: Precision,
    pub(super) plan: Plan,
    pub(super) layout: SlotLayout,
}

impl Definition {
    /// The plan of one linear layer without bias, as a file with such a layer would give it.
    pub(super) fn new(sizes: Sizes, precision: Precision) -> Result<Definition, PackError> {
        let Sizes { m, n, k } = sizes;
        let layout = SlotLayout::of_roles([("w", Role::Matrix, [k, m].as_slice())], target(precision))?;
        let out_offset = (n * k * DType::F32.size()).next_multiple_of(ALIGNMENT);
        let end = out_offset + (n * m * DType::F32.size()).next_multiple_of(ALIGNMENT);
        let buffer = |elements, offset| Buffer { dtype: DType::F32, elements, offset, live: 0..1 };
        let port =
            |dims: [usize; 2], id| Port { dtype: DType::F32, dims: dims.to_vec(), at: Operand::Buffer(id) };
        let kind = StepKind::Gemm {
            x: Access { operand: Operand::Buffer(X), offset: 0, strides: vec![k as isize, 1] },
            w: WeightId(0),
            rows: n,
            k,
            n: m,
            epilogue: Epilogue::default(),
            out: OUT,
        };
        let plan = Plan {
            key: PlanKey { class: ClassId([0; 16]), dims: [].into(), precision },
            batched: true,
            inputs: vec![port([n, k], X)],
            outputs: vec![port([n, m], OUT)],
            steps: vec![Step { name: "product".to_owned(), kind, flops: sizes.flops() as u64 }],
            buffers: vec![buffer(n * k, 0), buffer(n * m, out_offset)],
            arena_per_item: Bytes(end as u64),
            constants: Vec::new(),
            segments: std::iter::once(0..1).collect(),
        };
        Ok(Definition { sizes, precision, plan, layout })
    }

    /// How floats are held.
    pub(super) fn stored(&self) -> DType {
        self.precision.stored(DType::F32)
    }

    /// Bytes of A, B and C of one product.
    pub(super) fn product_bytes(&self) -> usize {
        self.sizes.elements() * self.stored().size()
    }

    /// The largest relative L2 distance from the exact result: the order of sums in fp32; factors of 10 bits in tf32;
    /// results of 8 (and 11) bits in halves, whose factors are exact here.
    pub(super) fn tolerance(&self) -> f64 {
        match self.precision {
            Precision::Fp32 => 1e-5,
            Precision::Tf32 | Precision::Fp16 => 2e-3,
            Precision::Bf16 => 1e-2,
        }
    }
}

/// One product's numbers as the device gets them, and its result.
#[derive(Debug)]
pub(super) struct Numbers {
    /// The weights as plans read them.
    pub(super) slot: Vec<u8>,
    /// A, column-major.
    pub(super) a: Vec<u8>,
    /// A, row-major.
    pub(super) a_transposed: Vec<u8>,
    /// B, column-major, which is x.
    pub(super) x: Vec<u8>,
    /// Rows of the result that are looked at, each with its exact elements.
    want: Vec<(usize, Vec<f64>)>,
}

impl Numbers {
    /// Random numbers for [`DISTINCT`] products.
    pub(super) fn random(definition: &Definition) -> Vec<Numbers> {
        let mut random = StdRng::seed_from_u64(7);
        (0..DISTINCT).map(|_| Numbers::new(definition, &mut random)).collect()
    }

    fn new(definition: &Definition, random: &mut StdRng) -> Numbers {
        let Sizes { m, n, k } = definition.sizes;
        let stored = definition.stored();
        let mut floats =
            |count: usize| -> Vec<f32> { (0..count).map(|_| random.random_range(-1.0..1.0)).collect() };
        let (w, x) = (floats(k * m), floats(n * k));
        let tensor = &definition.layout.tensors[0];
        let mut slot = vec![0; definition.layout.bytes.0 as usize];
        let dense: Vec<u8> = w.iter().flat_map(|x| x.to_le_bytes()).collect();
        lay(Role::Matrix, &[k, m], &dense, tensor, &mut slot);
        let turned: Vec<f32> = (0..m * k).map(|index| w[index % k * m + index / k]).collect();
        // The result of the numbers as they are held.
        let held = |numbers: &[f32]| decoded(&encoded(numbers, stored), stored);
        let (held_w, held_x) = (held(&w), held(&x));
        let row = |row: usize| {
            let mut sums = vec![0.0f64; m];
            for (x, w) in held_x[row * k..][..k].iter().zip(held_w.chunks_exact(m)) {
                sums.iter_mut().zip(w).for_each(|(sum, &w)| *sum += f64::from(*x) * f64::from(w));
            }
            (row, sums)
        };
        let rows = ROWS.min(n);
        Numbers {
            slot,
            a: encoded(&w, stored),
            a_transposed: encoded(&turned, stored),
            x: encoded(&x, stored),
            want: (0..rows).map(|index| row((index + 1) * n / rows - 1)).collect(),
        }
    }

    /// ‖got − want‖ / ‖want‖ over the rows that are looked at; NaN when the result holds one.
    pub(super) fn error(&self, definition: &Definition, out: &[u8]) -> f64 {
        let (m, stored) = (definition.sizes.m, definition.stored());
        let got = decoded(out, stored);
        let (mut error, mut size) = (0.0, 0.0);
        for (row, want) in &self.want {
            for (&got, want) in got[row * m..][..m].iter().zip(want) {
                error += (f64::from(got) - want).powi(2);
                size += want.powi(2);
            }
        }
        (error / size).sqrt()
    }
}

/// Floats as they are held.
fn encoded(numbers: &[f32], stored: DType) -> Vec<u8> {
    match stored {
        DType::BF16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        DType::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// Floats that are held so.
fn decoded(bytes: &[u8], stored: DType) -> Vec<f32> {
    let half = |bytes: &[u8], number: fn([u8; 2]) -> f32| {
        bytes.as_chunks().0.iter().map(|&two| number(two)).collect()
    };
    match stored {
        DType::BF16 => half(bytes, |two| bf16::from_le_bytes(two).to_f32()),
        DType::F16 => half(bytes, |two| f16::from_le_bytes(two).to_f32()),
        _ => bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_planner::verify;

    const SIZES: Sizes = Sizes { m: 96, n: 5, k: 70 };

    #[test]
    fn the_plan_is_one_that_the_planner_could_have_made() {
        for precision in Precision::ALL {
            let definition = Definition::new(SIZES, precision).unwrap();
            verify::verify(&definition.plan, &definition.layout).unwrap();
        }
    }

    #[test]
    fn a_right_result_has_no_error_and_a_wrong_one_has() {
        for precision in Precision::ALL {
            let definition = Definition::new(SIZES, precision).unwrap();
            let all = Numbers::random(&definition);
            let stored = definition.stored();
            let (w, x) = (decoded(&all[0].a, stored), decoded(&all[0].x, stored));
            let element = |index: usize| -> f32 {
                let (row, column) = (index / SIZES.m, index % SIZES.m);
                (0..SIZES.k).map(|i| x[row * SIZES.k + i] * w[i * SIZES.m + column]).sum()
            };
            let mut out: Vec<f32> = (0..SIZES.m * SIZES.n).map(element).collect();
            assert!(all[0].error(&definition, &encoded(&out, stored)) < definition.tolerance());
            assert!(all[1].error(&definition, &encoded(&out, stored)) > 0.5, "another tenant's result");
            assert!(all[0].error(&definition, &vec![0; out.len() * stored.size()]) > 0.5, "nothing written");
            *out.last_mut().unwrap() = f32::NAN;
            assert!(all[0].error(&definition, &encoded(&out, stored)).is_nan());
        }
    }

    #[test]
    fn a_transposed_is_a_the_other_way_round() {
        let definition = Definition::new(SIZES, Precision::Fp32).unwrap();
        let numbers = &Numbers::random(&definition)[0];
        let (a, turned) = (decoded(&numbers.a, DType::F32), decoded(&numbers.a_transposed, DType::F32));
        for (row, column) in [(0, 1), (69, 95), (33, 2)] {
            assert_eq!(a[row * SIZES.m + column], turned[column * SIZES.k + row]);
        }
    }
}
