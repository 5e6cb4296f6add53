//! The CPU device, opened for a test.

use std::sync::mpsc::Receiver;
use tessera_device::conformance::bell;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};

/// All cores, one partition.
pub(crate) struct Cpu {
    pub(crate) device: CpuDevice,
    /// Rings when a launch is over.
    pub(crate) bell: Receiver<()>,
}

impl Cpu {
    pub(crate) fn open() -> Cpu {
        let (wake, bell) = bell();
        let options = CpuOptions { cores: Cores::All, partitions: None, memory_limit: None };
        Cpu { device: CpuDevice::open(&options, wake).unwrap(), bell }
    }
}
