//! Where everything of one cell lies in the card's memory.
//!
//! ```text
//!   source   [DISTINCT products][slot | A | Aᵀ | x]       from which all others are copied
//!   weights  [product] slots · A · Aᵀ                      each densely, as its readers want it
//!   merged   [set][x of R | out of R]                      the super-kernel's arenas; cuBLAS uses them too
//!   alone    [product][x | out]                            an arena for each single launch of our kernel
//!   beside   [product] and one of the super-kernel: workspaces; [product] words, zero before any kernel runs; [tenant] errors
//!   tables   [set] of R lanes, [product] of one, [set] of pointers
//! ```

use super::problem::{Definition, OUT, X};
use super::rotation::{DISTINCT, Rotation};
use crate::Room;
use crate::cuda::abi::{Ends, ItemError, LaunchParams};
use crate::cuda::call::KernelCall;
use crate::cuda::program::NoKernel;
use crate::cuda::site::{Site, words_bytes};
use crate::cuda::steps;
use crate::cuda::table::{LaneRow, TableLayout};

/// Where parts begin.
const ALIGNMENT: usize = 256;

/// One tenant, one item.
const ALONE: Room = Room { lanes: 1, items: 1 };

/// Equal pieces, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pieces {
    start: usize,
    bytes: usize,
}

/// Addresses of a cell. With a base of 0, offsets.
#[derive(Debug)]
pub(super) struct Yard<'a> {
    definition: &'a Definition,
    pub(super) rotation: Rotation,
    base: u64,
    source: Pieces,
    slots: Pieces,
    a: Pieces,
    a_transposed: Pieces,
    merged: Pieces,
    alone: Pieces,
    workspaces: Pieces,
    merged_workspace: Pieces,
    words: Pieces,
    errors: Pieces,
    merged_tables: Pieces,
    alone_tables: Pieces,
    pointers: Pieces,
    /// Bytes of the whole.
    pub(super) bytes: usize,
}

impl<'a> Yard<'a> {
    /// Places a cell, on so many multiprocessors.
    pub(super) fn new(definition: &'a Definition, rotation: Rotation, multiprocessors: u32) -> Yard<'a> {
        let mut end = 0;
        let mut pieces = |count: usize, bytes: usize| {
            let start = end;
            end = (start + count * bytes).next_multiple_of(ALIGNMENT);
            Pieces { start, bytes }
        };
        let room = room(rotation);
        let (products, sets) = (rotation.products(), rotation.sets);
        let slot = definition.layout.bytes.0 as usize;
        let real = definition.stored().size();
        let a = definition.sizes.m * definition.sizes.k * real;
        let source = slot + 2 * a + definition.sizes.n * definition.sizes.k * real;
        let arena = definition.plan.arena_per_item.0 as usize;
        let workspace = |room| {
            let bytes = steps::workspace_bytes(&definition.plan, 0, room, multiprocessors);
            (bytes as usize).next_multiple_of(ALIGNMENT)
        };
        let table = |room| TableLayout::new(room, 0).bytes.next_multiple_of(ALIGNMENT);
        Yard {
            definition,
            rotation,
            base: 0,
            source: pieces(DISTINCT, source.next_multiple_of(ALIGNMENT)),
            slots: pieces(products, slot),
            a: pieces(products, a),
            a_transposed: pieces(products, a),
            merged: pieces(sets, (rotation.tenants * arena).next_multiple_of(ALIGNMENT)),
            alone: pieces(products, arena.next_multiple_of(ALIGNMENT)),
            workspaces: pieces(products, workspace(ALONE)),
            merged_workspace: pieces(1, workspace(room)),
            words: pieces(products, words_bytes(multiprocessors)),
            errors: pieces(rotation.tenants, size_of::<ItemError>()),
            merged_tables: pieces(sets, table(room)),
            alone_tables: pieces(products, table(ALONE)),
            pointers: pieces(sets, Matrix::ALL.len() * 8 * rotation.tenants),
            bytes: end,
        }
    }

    /// At an address.
    pub(super) fn at(self, base: u64) -> Yard<'a> {
        Yard { base, ..self }
    }

    /// Where the products' words lie, which are zero before any kernel runs, and their bytes.
    pub(super) fn words(&self) -> (u64, usize) {
        (self.place(self.words, 0), self.rotation.products() * self.words.bytes)
    }

    fn place(&self, pieces: Pieces, index: usize) -> u64 {
        self.base + (pieces.start + index * pieces.bytes) as u64
    }

    fn product(&self, set: usize, tenant: usize) -> usize {
        set * self.rotation.tenants + tenant
    }

    fn item_bytes(&self, id: tessera_planner::plan::BufferId) -> u64 {
        (self.definition.plan.buffer(id).elements * self.definition.stored().size()) as u64
    }

    fn in_arena(&self, arena: u64, id: tessera_planner::plan::BufferId, room: Room, item: usize) -> u64 {
        let start = u64::from(room.items) * self.definition.plan.buffer(id).offset as u64;
        arena + start + item as u64 * self.item_bytes(id)
    }

    /// What lies where among the tenants of a set, for those that take all at once; one address per matrix, densely
    /// behind it the next tenants'.
    pub(super) fn matrix(&self, which: Matrix, set: usize, tenant: usize) -> u64 {
        let product = self.product(set, tenant);
        let arena = self.place(self.merged, set);
        match which {
            Matrix::A => self.place(self.a, product),
            Matrix::ATransposed => self.place(self.a_transposed, product),
            Matrix::B => self.in_arena(arena, X, room(self.rotation), tenant),
            Matrix::C => self.in_arena(arena, OUT, room(self.rotation), tenant),
        }
    }

    /// The array of the tenants' addresses of a matrix.
    pub(super) fn pointers(&self, which: Matrix, set: usize) -> u64 {
        self.place(self.pointers, set) + (which as usize * 8 * self.rotation.tenants) as u64
    }

    /// The result of a product, where a launch for all tenants, or one for it alone, puts it. And its bytes.
    pub(super) fn result(&self, alone: bool, set: usize, tenant: usize) -> (u64, usize) {
        let address = if alone {
            self.in_arena(self.place(self.alone, self.product(set, tenant)), OUT, ALONE, 0)
        } else {
            self.matrix(Matrix::C, set, tenant)
        };
        (address, self.item_bytes(OUT) as usize)
    }

    /// Where the numbers of a distinct product come to the card.
    pub(super) fn source(&self, distinct: usize) -> u64 {
        self.place(self.source, distinct)
    }

    /// What is copied from the source to where it is read: from, to, bytes.
    pub(super) fn copies(&self) -> Vec<(u64, u64, usize)> {
        let x = self.item_bytes(X) as usize;
        let (slot, a) = (self.slots.bytes, self.a.bytes);
        let mut copies = Vec::with_capacity(5 * self.rotation.products());
        for (set, tenant) in (0..self.rotation.sets)
            .flat_map(|set| (0..self.rotation.tenants).map(move |tenant| (set, tenant)))
        {
            let product = self.product(set, tenant);
            let from = self.source(product % DISTINCT);
            let x_from = from + (slot + 2 * a) as u64;
            copies.extend([
                (from, self.place(self.slots, product), slot),
                (from + slot as u64, self.place(self.a, product), a),
                (from + (slot + a) as u64, self.place(self.a_transposed, product), a),
                (x_from, self.matrix(Matrix::B, set, tenant), x),
                (x_from, self.in_arena(self.place(self.alone, product), X, ALONE, 0), x),
            ]);
        }
        copies
    }

    /// Where the tables begin, and their bytes: lanes of sets, lanes of single products, pointers.
    pub(super) fn tables(&self) -> (u64, Vec<u8>) {
        let start = self.merged_tables.start;
        let mut bytes = vec![0; self.bytes - start];
        let row = |product| LaneRow { weights: self.place(self.slots, product), items: 1 };
        let tenants = self.rotation.tenants;
        let merged = TableLayout::new(room(self.rotation), 0);
        for set in 0..self.rotation.sets {
            let rows: Vec<LaneRow> = (0..tenants).map(|tenant| row(self.product(set, tenant))).collect();
            let at = self.merged_tables.start + set * self.merged_tables.bytes - start;
            merged.write(&rows, &[], &Ends::default(), &mut bytes[at..at + merged.bytes]);
            for which in Matrix::ALL {
                let at = (self.pointers(which, set) - self.base) as usize - start;
                for tenant in 0..tenants {
                    let address = self.matrix(which, set, tenant);
                    bytes[at + 8 * tenant..][..8].copy_from_slice(&address.to_le_bytes());
                }
            }
        }
        let alone = TableLayout::new(ALONE, 0);
        for product in 0..self.rotation.products() {
            let at = self.alone_tables.start + product * self.alone_tables.bytes - start;
            alone.write(&[row(product)], &[], &Ends::default(), &mut bytes[at..at + alone.bytes]);
        }
        (self.base + start as u64, bytes)
    }

    /// The step for all tenants of each set.
    ///
    /// `tile` is the place of the kernel among those that compute the step alike.
    pub(super) fn merged_calls(
        &self,
        multiprocessors: u32,
        tile: usize,
    ) -> Result<Vec<Vec<KernelCall>>, NoKernel> {
        let room = room(self.rotation);
        let table = TableLayout::new(room, 0);
        let calls = (0..self.rotation.sets).map(|set| {
            let launch = table.params(self.place(self.merged_tables, set), self.place(self.errors, 0));
            let beside = [self.place(self.merged_workspace, 0), self.place(self.words, 0)];
            self.calls((room, tile), multiprocessors, launch, self.place(self.merged, set), beside)
        });
        calls.collect()
    }

    /// The step for each product alone.
    pub(super) fn alone_calls(&self, multiprocessors: u32) -> Result<Vec<Vec<KernelCall>>, NoKernel> {
        let table = TableLayout::new(ALONE, 0);
        let calls = (0..self.rotation.products()).map(|product| {
            let launch = table.params(self.place(self.alone_tables, product), self.place(self.errors, 0));
            let beside = [self.place(self.workspaces, product), self.place(self.words, product)];
            self.calls((ALONE, 0), multiprocessors, launch, self.place(self.alone, product), beside)
        });
        calls.collect()
    }

    /// The plan's step, exactly as a program lowers it.
    fn calls(
        &self,
        (capacity, tile): (Room, usize),
        multiprocessors: u32,
        launch: LaunchParams,
        arena: u64,
        [workspace, words]: [u64; 2],
    ) -> Result<Vec<KernelCall>, NoKernel> {
        let (plan, layout) = (&self.definition.plan, &self.definition.layout);
        let site = Site {
            plan,
            layout,
            capacity,
            multiprocessors,
            launch,
            arena,
            constants: &[],
            workspace,
            words,
            ports: 0,
        };
        steps::chosen(&site, 0, tile).map_err(|why| NoKernel { step: plan.steps[0].name.clone(), why })
    }
}

/// One of a product's matrices, as cuBLAS reads them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Matrix {
    A,
    ATransposed,
    B,
    C,
}

impl Matrix {
    const ALL: [Matrix; 4] = [Matrix::A, Matrix::ATransposed, Matrix::B, Matrix::C];
}

pub(super) fn room(rotation: Rotation) -> Room {
    let tenants = rotation.tenants as u32;
    Room { lanes: tenants, items: tenants }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sgemm::Sizes;
    use tessera_core::Precision;

    fn definition() -> Definition {
        Definition::new(Sizes { m: 512, n: 3, k: 100 }, Precision::Bf16).unwrap()
    }

    #[test]
    fn nothing_lies_on_anything_else() {
        // Strict, and of so many tiles that blocks may hand sums on: else there are no workspaces.
        let definition = Definition::new(Sizes { m: 512, n: 300, k: 320 }, Precision::Fp32).unwrap();
        let yard = Yard::new(&definition, Rotation { tenants: 5, sets: 3 }, 16).at(1 << 30);
        assert!(yard.workspaces.bytes > 0 && yard.merged_workspace.bytes > 0);
        let mut taken: Vec<(u64, u64)> =
            yard.copies().into_iter().map(|(_, to, bytes)| (to, to + bytes as u64)).collect();
        for (set, tenant) in (0..3).flat_map(|set| (0..5).map(move |tenant| (set, tenant))) {
            for alone in [false, true] {
                let (address, bytes) = yard.result(alone, set, tenant);
                taken.push((address, address + bytes as u64));
            }
        }
        let (tables, bytes) = yard.tables();
        taken.push((tables, tables + bytes.len() as u64));
        let (words, bytes) = yard.words();
        taken.push((words, words + bytes as u64));
        for (pieces, count) in [(yard.workspaces, 15), (yard.merged_workspace, 1), (yard.errors, 5)] {
            let at = (0..count).map(|index| yard.place(pieces, index));
            taken.extend(at.map(|at| (at, at + pieces.bytes as u64)));
        }
        taken.extend((0..DISTINCT).map(|distinct| {
            let source = yard.source(distinct);
            (source, source + yard.source.bytes as u64)
        }));
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{taken:x?}");
        assert!(taken[0].0 >= 1 << 30);
        assert!(taken.last().unwrap().1 <= (1 << 30) + yard.bytes as u64);
    }

    #[test]
    fn tenants_of_a_set_follow_each_other_as_strided_batches_want_it() {
        let definition = definition();
        let yard = Yard::new(&definition, Rotation { tenants: 4, sets: 2 }, 132);
        let Sizes { m, n, k } = definition.sizes;
        for (which, elements) in
            [(Matrix::A, m * k), (Matrix::ATransposed, m * k), (Matrix::B, n * k), (Matrix::C, m * n)]
        {
            let between = yard.matrix(which, 1, 3) - yard.matrix(which, 1, 2);
            assert_eq!(between as usize, elements * 2, "{which:?}");
        }
    }

    #[test]
    fn pointers_name_the_matrices_of_their_set() {
        let definition = definition();
        let yard = Yard::new(&definition, Rotation { tenants: 4, sets: 2 }, 132).at(1 << 32);
        let (start, bytes) = yard.tables();
        let at = (yard.pointers(Matrix::B, 1) - start) as usize + 8 * 3;
        let address = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(address, yard.matrix(Matrix::B, 1, 3));
    }

    #[test]
    fn every_product_of_a_cell_has_the_kernels_of_its_first_set() {
        let specs = |calls: Vec<Vec<KernelCall>>| -> std::collections::BTreeSet<_> {
            calls.into_iter().flatten().map(|call| call.spec).collect()
        };
        for sizes in [(512, 1, 512), (256, 128, 1152), (256, 256, 256)] {
            let (m, n, k) = sizes;
            for precision in Precision::ALL {
                let definition = Definition::new(Sizes { m, n, k }, precision).unwrap();
                for tenants in [1, 2, 10, 120] {
                    let of = |sets, base| {
                        let yard = Yard::new(&definition, Rotation { tenants, sets }, 132).at(base);
                        let (merged, alone) =
                            (yard.merged_calls(132, 0).unwrap(), yard.alone_calls(132).unwrap());
                        assert_eq!((merged.len(), alone.len()), (sets, sets * tenants));
                        (specs(merged), specs(alone))
                    };
                    assert_eq!(of(1, 0), of(3, 1 << 33), "{sizes:?} {precision} R={tenants}");
                }
            }
        }
    }
}
