//! Which device serves: the home of that decision.
//!
//! `auto` is a card where one can be used, else the CPU; the log says which, and why not the other.

use crate::server::StartError;
use crate::settings::{DeviceWord, Settings};
use std::num::NonZeroUsize;
use std::sync::Arc;
use tessera_core::Policy;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, Wake};

/// Streams of a card under the policy `space`: more than this many launches do not run side by side any faster.
const SPACE_STREAMS: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not zero");

/// Opens the device that the settings name. Errors say what is missing and what else can be named.
pub fn open(settings: &Settings, wake: Wake) -> Result<Arc<dyn Device>, StartError> {
    match settings.devices.as_slice() {
        [] | [DeviceWord::Auto] => {
            let card = cuda::probe()
                .and_then(|()| cuda::open(0, settings, wake.clone()).map_err(|error| error.to_string()));
            card.or_else(|why| {
                tracing::info!(why, "serving from the CPU");
                cpu(Cores::All, settings, wake)
            })
        }
        [DeviceWord::Cpu(cores)] if cores.is_empty() => cpu(Cores::All, settings, wake),
        [DeviceWord::Cpu(cores)] => {
            cpu(Cores::These(cores.iter().map(|&core| core as usize).collect()), settings, wake)
        }
        [DeviceWord::Cuda(ordinal)] => cuda::open(*ordinal, settings, wake),
        many => Err(StartError::ManyDevices(many.len())),
    }
}

fn cpu(cores: Cores, settings: &Settings, wake: Wake) -> Result<Arc<dyn Device>, StartError> {
    let options = CpuOptions {
        cores,
        partitions: partitions(settings).unwrap_or(NonZeroUsize::MIN),
        memory_limit: settings.memory_limit,
    };
    Ok(Arc::new(CpuDevice::open(&options, wake)?))
}

/// How many partitions the user asked for.
fn partitions(settings: &Settings) -> Option<NonZeroUsize> {
    settings.partitions.and_then(|count| NonZeroUsize::try_from(count).ok())
}

/// Cards, where drivers for them exist.
#[cfg(any(target_os = "linux", windows))]
mod cuda {
    use super::{Arc, Device, NonZeroUsize, Policy, SPACE_STREAMS, Settings, StartError, Wake, partitions};
    use tessera_device::cuda::{CudaDevice, CudaOptions};

    pub(super) use tessera_device::cuda::probe;

    pub(super) fn open(
        ordinal: usize,
        settings: &Settings,
        wake: Wake,
    ) -> Result<Arc<dyn Device>, StartError> {
        let auto = if settings.policy == Policy::Space { SPACE_STREAMS } else { NonZeroUsize::MIN };
        let options = CudaOptions {
            ordinal,
            partitions: partitions(settings).unwrap_or(auto),
            memory_limit: settings.memory_limit,
            kernel_cache: settings.kernel_cache.as_ref().map(|folder| folder.join("kernels")),
        };
        Ok(Arc::new(CudaDevice::open(&options, wake)?))
    }
}

/// Elsewhere a card is refused by name.
#[cfg(not(any(target_os = "linux", windows)))]
mod cuda {
    use super::{Arc, Device, Settings, StartError, Wake};
    use tessera_device::DeviceError;

    const WHY: &str = "this system has no CUDA; name `cpu`";

    pub(super) fn probe() -> Result<(), String> {
        Err(WHY.to_owned())
    }

    pub(super) fn open(ordinal: usize, _: &Settings, _: Wake) -> Result<Arc<dyn Device>, StartError> {
        Err(DeviceError::CannotOpen { device: format!("cuda:{ordinal}"), why: WHY.to_owned() }.into())
    }
}
