//! Devices that are open, each under the engine, with everybody who is served loaded.

use super::{Setting, Wrapped};
use crate::load::{self, Guest, House, InProcess, Target, Tenant};
use crate::simulate::{Log, Recorder};
use anyhow::{Context, Result};
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use tessera_core::{Policy, ProgramId, SlotId};
use tessera_device::slowed::Slowed;
use tessera_device::{Device, Wake};
use tessera_server::server::StartError;
use tokio::runtime::Runtime;

/// Launches that are written down, and what each model's run.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) log: Arc<Log>,
    pub(super) programs: Vec<ProgramId>,
    /// By tenant: the number of its model, and where its weights lie.
    pub(super) seats: Vec<(usize, SlotId)>,
}

/// A device that was opened for a policy. One that is opened for `space` may be divided as no other policy wants it.
#[derive(Debug)]
pub(super) struct Opened {
    for_space: bool,
    partitions: String,
    behind: String,
    interrupts: bool,
    pub(super) target: Arc<InProcess>,
    pub(super) house: House,
    pub(super) slowed: Option<Arc<Slowed>>,
    pub(super) record: Option<Record>,
}

/// What the policy runs on, opened when it is first wanted. Kept until the place is closed, as policies may come in turns; but not when the device is
/// to be divided or to yield otherwise.
pub(super) fn open<'a>(
    setting: &Setting,
    runtime: &Runtime,
    opened: &'a mut Vec<Opened>,
    policy: Policy,
    heard: &mut dyn FnMut(&str),
) -> Result<&'a Opened> {
    let for_space = policy == Policy::Space;
    let as_wanted = |opened: &Opened| {
        opened.partitions == setting.partitions
            && opened.behind == setting.behind
            && opened.interrupts == setting.interrupts
    };
    for other in opened.extract_if(.., |opened| !as_wanted(opened)) {
        other.house.close(other.target);
    }
    let at = opened.iter().position(|opened| opened.for_space == for_space);
    let at = match at {
        Some(at) => at,
        None => {
            opened.push(open_for(setting, runtime, policy, heard)?);
            opened.len() - 1
        }
    };
    Ok(&opened[at])
}

fn open_for(
    setting: &Setting,
    runtime: &Runtime,
    policy: Policy,
    heard: &mut dyn FnMut(&str),
) -> Result<Opened> {
    let settings = load::settings([
        ("device", setting.device.clone()),
        ("policy", policy.to_string()),
        ("precision", setting.precision.clone()),
        ("partitions", setting.partitions.clone()),
        ("behind_multiprocessors", setting.behind.clone()),
        ("interrupt", if setting.interrupts { "on" } else { "off" }.to_owned()),
    ])?;
    let guest = |(number, tenant): (usize, &Tenant)| Guest {
        model: setting.models[number % setting.models.len()].clone(),
        slo: tenant.slo,
    };
    let guests: Vec<Guest> = setting.tenants.iter().enumerate().map(guest).collect();
    let items = (NonZeroU32::MIN, setting.seed);
    let (slowed, log) = (OnceLock::new(), Arc::new(Log::default()));
    let wrap = |device: Arc<dyn Device>, wake: Wake| -> Result<Arc<dyn Device>, StartError> {
        Ok(match setting.around {
            Wrapped::Bare => device,
            Wrapped::Slowable => {
                let device = Slowed::around(device, wake)?;
                slowed.get_or_init(|| device).clone()
            }
            Wrapped::Recorded => Arc::new(Recorder::of(device, log.clone())),
        })
    };
    let (target, house) = InProcess::open_on(runtime, &settings, &guests, items, &wrap, heard)?;
    let record = match setting.around {
        Wrapped::Recorded => {
            let models = setting.models.len();
            let seats = house.slots().enumerate().map(|(tenant, slot)| (tenant % models, slot)).collect();
            let programs = programs(runtime, &target, &log, models)?;
            Some(Record { log, programs, seats })
        }
        Wrapped::Bare | Wrapped::Slowable => None,
    };
    let for_space = policy == Policy::Space;
    Ok(Opened {
        for_space,
        partitions: setting.partitions.clone(),
        behind: setting.behind.clone(),
        interrupts: setting.interrupts,
        target,
        house,
        slowed: slowed.into_inner(),
        record,
    })
}

/// What launches of each model run: the first tenants have the models in turn, and are asked once each.
fn programs(runtime: &Runtime, target: &Arc<InProcess>, log: &Log, models: usize) -> Result<Vec<ProgramId>> {
    let program = |model| {
        log.forget();
        let ended = runtime.block_on(target.ask(model, 0));
        log.take().last().map(|ran| ran.program).with_context(|| format!("nothing was launched: {ended:?}"))
    };
    (0..models).map(program).collect()
}
