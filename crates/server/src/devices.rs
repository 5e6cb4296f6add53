//! Which devices serve: the home of that decision.
//!
//! `auto` is a card where one can be used, else the CPU; the log says which, and why not the other.

use crate::server::StartError;
use crate::settings::{DeviceWord, Settings};
use std::num::NonZeroUsize;
use std::sync::Arc;
use tessera_core::Policy;
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, DeviceError, Wake};

/// Streams of a card under the policy `space`: more than this many launches do not run side by side any faster.
const SPACE_STREAMS: NonZeroUsize = NonZeroUsize::new(16).expect("16 is not zero");
/// And under `space-time`, for classes that cannot share launches. One class uses one of them.
const CLASS_STREAMS: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not zero");

/// Opens one device, once its engine can be woken.
pub type Open<'a> = Box<dyn FnOnce(Wake) -> Result<Arc<dyn Device>, StartError> + Send + 'a>;

/// The devices that the settings name, to be opened one by one. Errors when two of them are, or may be, one.
pub fn all(settings: &Settings) -> Result<Vec<Open<'_>>, StartError> {
    let words = if settings.devices.is_empty() { &[DeviceWord::Auto] } else { settings.devices.as_slice() };
    apart(words).map_err(StartError::Overlap)?;
    Ok(words.iter().map(|word| -> Open<'_> { Box::new(|wake| open_one(word, settings, wake)) }).collect())
}

/// Opens the device that the settings name, where there can be only one. Errors say what is missing and what else can be named.
pub fn open(settings: &Settings, wake: Wake) -> Result<Arc<dyn Device>, StartError> {
    let mut all = all(settings)?;
    match (all.pop(), all.len()) {
        (Some(only), 0) => only(wake),
        (_, others) => Err(StartError::ManyDevices(others + 1)),
    }
}

/// The settings of the device for what the named ones have no kernel for: all cores, in partitions and a precision of its own: what was said of
/// these was said of the named ones. `None` where a CPU is named, which then serves that too.
pub fn spare(settings: &Settings) -> Option<Settings> {
    let is_cpu = |word: &DeviceWord| matches!(word, DeviceWord::Cpu(_));
    let devices = vec![DeviceWord::Cpu(Vec::new())];
    let spare = Settings { devices, precision: None, partitions: None, ..settings.clone() };
    (!settings.devices.iter().any(is_cpu)).then_some(spare)
}

/// Why these words cannot be devices beside each other: they would take each other's cores, or be one card twice.
fn apart(words: &[DeviceWord]) -> Result<(), String> {
    for (index, word) in words.iter().enumerate() {
        for before in &words[..index] {
            let why = match (before, word) {
                (DeviceWord::Auto, _) | (_, DeviceWord::Auto) => {
                    "`auto` stands for one device alone; name each device".to_owned()
                }
                (DeviceWord::Cuda(one), DeviceWord::Cuda(other)) if one == other => {
                    format!("`{word}` is named twice; name each card once")
                }
                (DeviceWord::Cpu(one), DeviceWord::Cpu(other)) => {
                    let common = |core: &&u32| other.is_empty() || other.contains(core);
                    match (one.iter().find(common), one.is_empty(), other.first()) {
                        (Some(core), _, _) | (None, true, Some(core)) => {
                            format!(
                                "`{before}` and `{word}` both have core {core}; name cores that do not overlap, as cpu:0 and cpu:1"
                            )
                        }
                        (None, true, None) => {
                            "`cpu` is named twice; name some of its cores each time, as cpu:0 and cpu:1"
                                .to_owned()
                        }
                        (None, false, _) => continue,
                    }
                }
                _ => continue,
            };
            return Err(why);
        }
    }
    Ok(())
}

fn open_one(word: &DeviceWord, settings: &Settings, wake: Wake) -> Result<Arc<dyn Device>, StartError> {
    match word {
        DeviceWord::Auto => {
            let card = cuda::probe()
                .and_then(|()| cuda::open(0, settings, wake.clone()).map_err(|error| error.to_string()));
            card.or_else(|why| {
                tracing::info!(why, "serving from the CPU");
                cpu(Cores::All, settings, wake)
            })
        }
        DeviceWord::Cpu(cores) if cores.is_empty() => cpu(Cores::All, settings, wake),
        DeviceWord::Cpu(cores) => {
            cpu(Cores::These(cores.iter().map(|&core| core as usize).collect()), settings, wake)
        }
        DeviceWord::Cuda(ordinal) => cuda::open(*ordinal, settings, wake).map_err(|error| match error {
            StartError::Device(cannot @ DeviceError::CannotOpen { .. }) => StartError::NoCard(cannot),
            error => error,
        }),
    }
}

fn cpu(cores: Cores, settings: &Settings, wake: Wake) -> Result<Arc<dyn Device>, StartError> {
    // The other policies have no use for more than one layout.
    let one = Some(NonZeroUsize::MIN).filter(|_| settings.policy != Policy::SpaceTime);
    let options =
        CpuOptions { cores, partitions: partitions(settings).or(one), memory_limit: settings.memory_limit };
    Ok(Arc::new(CpuDevice::open(&options, wake)?))
}

/// How many partitions the user asked for.
fn partitions(settings: &Settings) -> Option<NonZeroUsize> {
    settings.partitions.and_then(|count| NonZeroUsize::try_from(count).ok())
}

/// Cards, where drivers for them exist.
#[cfg(any(target_os = "linux", windows))]
mod cuda {
    use super::{
        Arc, CLASS_STREAMS, Device, NonZeroUsize, Policy, SPACE_STREAMS, Settings, StartError, Wake,
        partitions,
    };
    use tessera_device::cuda::{CudaDevice, CudaOptions};

    pub(super) use tessera_device::cuda::probe;

    pub(super) fn open(
        ordinal: usize,
        settings: &Settings,
        wake: Wake,
    ) -> Result<Arc<dyn Device>, StartError> {
        let auto = match settings.policy {
            Policy::Space => SPACE_STREAMS,
            Policy::SpaceTime => CLASS_STREAMS,
            Policy::Time | Policy::Exclusive => NonZeroUsize::MIN,
        };
        let options = CudaOptions {
            ordinal,
            partitions: partitions(settings).unwrap_or(auto),
            // Nobody is apart under the other policies.
            aside: settings.apart_multiprocessors.filter(|_| settings.policy == Policy::SpaceTime),
            behind: Some(&settings.behind_multiprocessors)
                .filter(|_| settings.policy == Policy::SpaceTime)
                .cloned()
                .unwrap_or_default(),
            memory_limit: settings.memory_limit,
            kernel_cache: settings.kernel_cache.as_ref().map(|folder| folder.join("kernels")),
            tuning: settings.tune,
        };
        Ok(Arc::new(CudaDevice::open(&options, wake)?))
    }
}

/// Elsewhere a card is refused by name.
#[cfg(not(any(target_os = "linux", windows)))]
mod cuda {
    use super::{Arc, Device, DeviceError, Settings, StartError, Wake};

    const WHY: &str = "this system has no CUDA";

    pub(super) fn probe() -> Result<(), String> {
        Err(WHY.to_owned())
    }

    pub(super) fn open(ordinal: usize, _: &Settings, _: Wake) -> Result<Arc<dyn Device>, StartError> {
        Err(DeviceError::CannotOpen { device: format!("cuda:{ordinal}"), why: WHY.to_owned() }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn cpu(cores: &[u32]) -> DeviceWord {
        DeviceWord::Cpu(cores.to_vec())
    }

    #[test]
    fn a_card_in_more_partitions_than_there_are_cores_has_a_spare_cpu_all_the_same() {
        let partitions = NonZeroU32::new(100_000);
        let card = |devices| Settings { devices, partitions, ..Settings::for_repository("models") };
        let found = spare(&card(vec![DeviceWord::Cuda(0)])).expect("no CPU is named");
        assert!(open(&found, Arc::new(|| {})).is_ok());
        assert!(spare(&card(vec![DeviceWord::Cuda(0), cpu(&[1])])).is_none(), "one is named");
    }

    #[test]
    fn a_card_that_is_not_there_is_refused_with_what_serves_without_it() {
        let card = Settings { devices: vec![DeviceWord::Cuda(999)], ..Settings::for_repository("models") };
        let refused = open(&card, Arc::new(|| {})).map(drop).unwrap_err().to_string();
        assert!(refused.starts_with("cuda:999 cannot be opened: "), "{refused}");
        assert!(refused.ends_with("; name `cpu`, or `auto` for a card where one can be used"), "{refused}");
    }

    #[test]
    fn devices_beside_each_other_share_no_core_and_no_card() {
        assert_eq!(apart(&[cpu(&[0]), cpu(&[1, 2]), DeviceWord::Cuda(0), DeviceWord::Cuda(1)]), Ok(()));
        assert_eq!(apart(&[cpu(&[]), DeviceWord::Cuda(0)]), Ok(()));
        let refused = |words: &[DeviceWord]| apart(words).unwrap_err();
        let both = refused(&[cpu(&[0, 1]), cpu(&[3]), cpu(&[1, 2])]);
        assert!(both.contains("`cpu:0-1` and `cpu:1-2` both have core 1"), "{both}");
        assert!(refused(&[cpu(&[]), cpu(&[1])]).contains("both have core 1"));
        assert!(refused(&[cpu(&[1]), cpu(&[])]).contains("both have core 1"));
        assert!(refused(&[cpu(&[]), cpu(&[])]).contains("`cpu` is named twice"));
        assert!(refused(&[DeviceWord::Cuda(1), DeviceWord::Cuda(1)]).contains("`cuda:1` is named twice"));
        assert!(refused(&[DeviceWord::Auto, cpu(&[0])]).contains("`auto`"));
    }
}
