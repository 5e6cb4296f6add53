//! The device that serves what the named ones have no kernel for: every core of this machine, opened when it is first needed.
//!
//! A class with a step that a card has no kernel for runs there whole, slower and in that device's precision, and its tenants say so. Nothing
//! else is placed there, and a server whose named devices are all lost ends although this one runs: started anew it has its card again, or says why not, while
//! what was sized for a card would be late from here on. Whoever wants a CPU to take over names it (`--device cuda:0 --device cpu`).
//!
//! It is opened once; where it cannot be, say for want of memory, the next tenant that needs it tries again. Where its engine has ended, which only a fault of ours does,
//! its tenants are told failed, with what they lack.

use crate::backstage::Backstage;
use crate::devices;
use crate::engine::Running;
use crate::events::Events;
use crate::fleet::Station;
use crate::server::StartError;
use crate::settings::Settings;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::runtime::Handle;

type Open = Box<dyn Fn() -> Result<Backstage, StartError> + Send>;

/// A device that is there when it is asked for.
#[derive(Default)]
pub struct Spare {
    /// Taken when it was opened, or is not to be any more.
    open: Mutex<Option<Open>>,
    station: OnceLock<Station>,
    engine: Mutex<Option<Running>>,
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spare").field("station", &self.station).finish_non_exhaustive()
    }
}

impl Spare {
    /// For a server of these settings; none where they name a CPU already. Needs a tokio runtime, in which its engine will answer.
    pub fn beside(settings: &Settings, events: Arc<Events>) -> Spare {
        let runtime = Handle::current();
        let opener = |settings: Settings| -> Open {
            Box::new(move || {
                let _inside = runtime.enter();
                Backstage::beside(&settings, events.clone(), |wake| devices::open(&settings, wake))
            })
        };
        Spare { open: Mutex::new(devices::spare(settings).map(opener)), ..Spare::default() }
    }

    /// It, opened now if it was not. `None` where there is none, or it cannot be opened, which the log has then said.
    pub fn station(&self) -> Option<&Station> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.as_ref().map(|open| open()) {
            Some(Ok(backstage)) => {
                *open = None;
                let (means, engine) = backstage.into_parts();
                *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine);
                let _ = self.station.set(Station::new(means));
            }
            Some(Err(error)) => {
                tracing::error!(%error, "no device can be opened for what the others have no kernel for");
            }
            None => {}
        }
        self.station.get()
    }

    /// It, if it was needed so far.
    pub fn opened(&self) -> Option<&Station> {
        self.station.get()
    }

    /// Ends its engine, if there is one: what it was given is answered first.
    pub fn stop(&self) {
        // Not to be opened any more.
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
        engine.into_iter().for_each(Running::stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Fleet;
    use crate::registry::{Found, Registry};
    use crate::settings::DeviceWord;
    use std::num::NonZeroUsize;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};
    use tessera_device::around::Around;
    use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
    use tessera_device::{Device, DeviceError, Room, Wake};
    use tessera_planner::{Plan, SlotLayout};

    /// A device that has no kernel for anything.
    #[derive(Debug)]
    struct Bare(CpuDevice);

    impl Around for Bare {
        fn inner(&self) -> &dyn Device {
            &self.0
        }

        fn check(&self, plan: &Plan, _: &SlotLayout, _: Room) -> Result<(), DeviceError> {
            let (device, step) = ("bare".to_owned(), plan.steps[0].name.clone());
            Err(DeviceError::NoKernel { device, step, why: "it has none".to_owned() })
        }
    }

    fn bare(wake: Wake) -> Result<Arc<dyn Device>, StartError> {
        let options = CpuOptions { cores: Cores::These(vec![0]), partitions: None, memory_limit: None };
        Ok(Arc::new(Bare(CpuDevice::open(&options, wake)?)))
    }

    fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_spare_device_that_could_not_be_opened_is_tried_again_by_who_needs_it_next() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let settings = Settings { pack_cache: None, ..Settings::for_repository(".") };
        let tried = AtomicU32::new(0);
        let open = move || match tried.fetch_add(1, Ordering::Relaxed) {
            0 => Err(DeviceError::Failed { device: "cpu".to_owned(), why: "no memory".to_owned() }.into()),
            1 => Backstage::beside(&settings, Arc::default(), bare),
            _ => panic!("it is open"),
        };
        let spare = Spare { open: Mutex::new(Some(Box::new(open))), ..Spare::default() };
        assert!(spare.station().is_none() && spare.opened().is_none());
        assert!(spare.station().is_some_and(Station::runs));
        assert!(spare.station().is_some() && spare.opened().is_some(), "once is enough");
        spare.stop();
    }

    #[test]
    fn tenants_of_a_spare_device_whose_engine_ended_are_not_called_ready() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let folder = tempfile::tempdir().unwrap();
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/mlp-0.onnx");
        std::fs::copy(model, folder.path().join("mlp.onnx")).unwrap();
        let settings = Settings {
            devices: vec![DeviceWord::Auto],
            pack_cache: None,
            ..Settings::for_repository(folder.path())
        };
        let events: Arc<Events> = Arc::default();
        let (means, engine) = Backstage::beside(&settings, events.clone(), bare).unwrap().into_parts();
        let fleet = Arc::new(Fleet::new(vec![means], Spare::beside(&settings, events)));
        let registry = Registry::new(&settings, fleet.clone());
        let watch = registry.watch(Duration::from_millis(10), NonZeroUsize::MIN).unwrap();
        eventually("the spare device serves it", || matches!(registry.find("mlp", None), Found::Ready(_)));

        fleet.spare().opened().unwrap().means.engine.stop();
        eventually("it is told what the other device lacks", || match registry.find("mlp", None) {
            Found::Failed(why) => why.contains("bare has no kernel for step") && why.contains("name `cpu`"),
            _ => false,
        });
        watch.stop();
        engine.stop();
        fleet.spare().stop();
    }
}
