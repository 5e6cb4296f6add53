//! Kernels to compile and to call: what a plan's steps are turned into, before any driver is involved.
//!
//! ```text
//!   step ─lower─▶ KernelCall { spec, params, grid, block, … } ─▶ one node of the program's graph
//!                      └─ KernelSpec ─NVRTC─▶ cubin              one per distinct specialisation
//! ```
//! All of it is plain data, so that every specialisation can be compiled, and its registers read, where there is no GPU.

use super::abi::LaunchParams;
use bytemuck::Pod;
use std::fmt;
use std::sync::Arc;

/// One specialisation of one kernel: what the compiler gets. The entry is always called `kernel`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct KernelSpec {
    /// The file in `kernels/`.
    pub(crate) source: &'static str,
    /// Names and values for the preprocessor. They hold what belongs to an architecture or a precision; what a request chooses (a length, an
    /// image side) is a parameter, so that a new length compiles nothing.
    pub(crate) defines: Vec<(&'static str, String)>,
    /// The text of `generated.cuh`; empty for kernels that include none.
    pub(crate) generated: Arc<str>,
}

impl KernelSpec {
    /// A specialisation with no defines yet.
    pub(crate) fn new(source: &'static str) -> KernelSpec {
        KernelSpec { source, defines: Vec::new(), generated: Arc::default() }
    }

    /// With one more define.
    pub(crate) fn define(mut self, name: &'static str, value: impl fmt::Display) -> KernelSpec {
        self.defines.push((name, format!("{value}")));
        self
    }
}

impl fmt::Display for KernelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.source)?;
        self.defines.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// One launch of one kernel.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct KernelCall {
    pub(crate) spec: KernelSpec,
    /// The bytes of the kernel's parameters.
    pub(crate) params: Vec<u8>,
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads of a block.
    pub(crate) block: u32,
    /// Dynamic shared memory of a block.
    pub(crate) shared_bytes: u32,
    /// Blocks of a cluster; 1 for none.
    pub(crate) cluster: u32,
}

/// The parameters of a kernel: `launch`, then what the kernel says.
pub(crate) trait Params: Pod {}

impl KernelCall {
    /// A call of a kernel whose parameters are `params`.
    pub(crate) fn new<P: Params>(spec: KernelSpec, params: &P, grid: [u32; 3], block: u32) -> KernelCall {
        let spec = spec.define("PARAMS_BYTES", size_of::<P>());
        KernelCall {
            spec,
            params: bytemuck::bytes_of(params).to_vec(),
            grid,
            block,
            shared_bytes: 0,
            cluster: 1,
        }
    }

    /// A call of a kernel whose parameters are `params`, then a list as long as the specialisation says.
    pub(crate) fn with_list<P: Params, T: Pod>(
        spec: KernelSpec,
        params: &P,
        list: &[T],
        grid: [u32; 3],
        block: u32,
    ) -> KernelCall {
        assert!(size_of::<P>().is_multiple_of(align_of::<T>()), "no gap before the list");
        let mut call = KernelCall::new(spec, params, grid, block);
        call.params.extend_from_slice(bytemuck::cast_slice(list));
        call.spec.defines.retain(|(name, _)| *name != "PARAMS_BYTES");
        call.spec = call.spec.define("PARAMS_BYTES", call.params.len());
        call
    }

    /// With so much dynamic shared memory.
    pub(crate) fn shared(mut self, bytes: usize) -> KernelCall {
        self.shared_bytes = u32::try_from(bytes).expect("a block's shared memory is under 4 GiB");
        self
    }

    /// Has the kernel round what it writes, for a matrix unit that would cut it: `FACTOR`, see `types.cuh`.
    pub(crate) fn round(&mut self) {
        self.spec.defines.push(("FACTOR", "1".to_owned()));
    }

    /// Tells the kernel where to say when it began.
    pub(crate) fn tell_at(&mut self, address: u64) {
        let place = std::mem::offset_of!(LaunchParams, began);
        self.params[place..place + size_of::<u64>()].copy_from_slice(&address.to_le_bytes());
    }

    /// With clusters of so many blocks, of which the grid is a multiple along x.
    pub(crate) fn clusters_of(mut self, blocks: usize) -> KernelCall {
        assert!((self.grid[0] as usize).is_multiple_of(blocks), "the grid is whole clusters");
        self.cluster = blocks as u32;
        self
    }
}

/// Asserts in one place that parameters begin with the launch.
macro_rules! params {
    ($name:ident) => {
        impl crate::cuda::call::Params for $name {}
        const _: () = assert!(std::mem::offset_of!($name, launch) == 0);
    };
}
pub(crate) use params;

/// The launch's table is what every kernel's parameters begin with.
const _: () = assert!(size_of::<LaunchParams>() == 48);
