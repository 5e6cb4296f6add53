//! A model on a device without engine and scheduler: launches are handed over here as the engine does.
//!
//! ```text
//!   open ─▶ plan, a slot each for so many tenants ─▶ compile(room) ─▶ launch(lanes) ─▶ answers, and what it took
//! ```

use crate::spread::Spread;
use crate::{load, zoo};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::rngs::StdRng;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tessera_core::{LaunchId, PartitionId, PlanKey, Precision, ProgramId};
use tessera_device::conformance::{self, bell};
use tessera_device::{Device, Finished, Lane, LaneRequest, Launch, PartitionInfo, Room, Slot};
use tessera_planner::class;
use tessera_planner::graph::ParamId;
use tessera_planner::infer::DimValue;
use tessera_planner::{Plan, SlotLayout, pack};
use tessera_server::devices;

/// Tenants of one model on a device that does nothing else.
#[derive(Debug)]
pub(crate) struct Yard {
    pub(crate) device: Arc<dyn Device>,
    woken: Receiver<()>,
    pub(crate) stock: Stock,
    /// The first of the first layout, in which everything runs.
    pub(crate) partition: PartitionInfo,
}

/// Tenants of one model on a device.
#[derive(Debug)]
pub(crate) struct Stock {
    pub(crate) plan: Arc<Plan>,
    layout: Arc<SlotLayout>,
    slots: Vec<Slot>,
    model: zoo::Model,
}

/// A launch that is over.
pub(crate) struct Over {
    /// From handing it over to its answers.
    pub(crate) took: Duration,
    /// By lane, then by request: one byte string per output.
    pub(crate) answers: Vec<Vec<Vec<Bytes>>>,
}

impl Stock {
    /// Uploads the weights of so many tenants.
    pub(crate) fn load(
        device: &dyn Device,
        model: &zoo::Model,
        precision: Precision,
        tenants: usize,
        seed: u64,
    ) -> Result<Stock> {
        let loaded = |tenant| class::load_bytes(model.bytes(zoo::tenant_seed(seed, tenant)), None);
        let first = loaded(0)?;
        let class = &first.class;
        let bound = class
            .bind_without_free_dims()
            .context("the zoo's models have no free dimension but the batch")?;
        let layout = Arc::new(SlotLayout::of(class.folded(), device.pack_target(precision)?)?);
        let value = |(index, &size): (usize, &u64)| match bound.item_dim {
            Some(item) if item == index => DimValue::Items,
            _ => DimValue::Fixed(size),
        };
        let values: Vec<DimValue> = bound.dims.iter().enumerate().map(value).collect();
        let key = PlanKey { class: class.id, dims: bound.batched_dims().into(), precision };
        let plan = Arc::new(tessera_planner::plan(key, class.folded(), &layout, &values)?);
        let upload = |tenant: usize| -> Result<Slot> {
            let weights = if tenant == 0 { first.weights.clone() } else { loaded(tenant)?.weights };
            let mut source = |id: ParamId| Ok(weights[id.0 as usize].clone());
            let packed = pack::pack(&class.graph, class.folded(), &layout, &mut source)?;
            Ok(device.upload(class.id, &layout, packed)?)
        };
        let slots = (0..tenants).map(upload).collect::<Result<_>>()?;
        Ok(Stock { plan, layout, slots, model: model.clone() })
    }

    /// A program with room for so much.
    pub(crate) fn compile(
        &self,
        device: &dyn Device,
        room: Room,
        partition: PartitionId,
    ) -> Result<ProgramId> {
        Ok(device.compile(&self.plan, &self.layout, room, partition)?)
    }

    /// One item's inputs.
    pub(crate) fn item(&self, random: &mut StdRng) -> Result<Vec<Bytes>> {
        load::inputs(&self.model, &self.plan.inputs, NonZeroU32::MIN, random)
    }

    /// A tenant's request for these items, as one lane.
    pub(crate) fn lane(&self, tenant: usize, items: &[Vec<Bytes>]) -> Lane {
        let input =
            |port: usize| items.iter().map(|item| &item[port][..]).collect::<Vec<_>>().concat().into();
        let inputs = (0..self.plan.inputs.len()).map(input).collect();
        let requests = vec![LaneRequest { items: items.len() as u32, inputs }];
        Lane { slot: self.slots[tenant].clone(), requests }
    }
}

impl Yard {
    /// Opens the device and uploads the weights of so many tenants.
    pub(crate) fn open(
        device: &str,
        model: &zoo::Model,
        precision: Precision,
        tenants: usize,
        seed: u64,
    ) -> Result<Yard> {
        let (wake, woken) = bell();
        let settings = load::settings([("device", device.to_owned())])?;
        let device = devices::open(&settings, wake)?;
        let stock = Stock::load(&*device, model, precision, tenants, seed)?;
        let whole = device.layouts().first().and_then(|layout| layout.first().copied());
        let partition = device.partitions().into_iter().find(|partition| Some(partition.id) == whole);
        let partition = partition.context("a device has a partition")?;
        Ok(Yard { device, woken, stock, partition })
    }

    /// A program with room for so much.
    pub(crate) fn compile(&self, room: Room) -> Result<ProgramId> {
        self.stock.compile(&*self.device, room, self.partition.id)
    }

    /// One item's inputs.
    pub(crate) fn item(&self, random: &mut StdRng) -> Result<Vec<Bytes>> {
        self.stock.item(random)
    }

    /// A tenant's request for these items, as one lane.
    pub(crate) fn lane(&self, tenant: usize, items: &[Vec<Bytes>]) -> Lane {
        self.stock.lane(tenant, items)
    }

    /// Hands a launch over and goes on.
    pub(crate) fn submit(&self, id: u64, program: ProgramId, lanes: Vec<Lane>) -> Result<()> {
        Ok(self.device.submit(Launch { id: LaunchId(id), program, lanes, urgent: false })?)
    }

    /// Waits until the device has something to say.
    pub(crate) fn wait(&self) -> Result<()> {
        conformance::wait(&*self.device, &self.woken).map_err(anyhow::Error::msg)
    }

    /// One launch, alone.
    pub(crate) fn launch(&self, program: ProgramId, lanes: Vec<Lane>) -> Result<Over> {
        let start = Instant::now();
        self.submit(0, program, lanes)?;
        let done: Vec<Finished> = loop {
            self.wait()?;
            let done = self.device.poll();
            if !done.is_empty() {
                break done;
            }
        };
        let took = start.elapsed();
        let answers = done.into_iter().next().context("a launch is over")?.answers;
        let answered = |lane: Vec<_>| lane.into_iter().collect::<Result<Vec<_>, _>>();
        let answers = answers.into_iter().map(answered).collect::<Result<Vec<_>, _>>();
        Ok(Over { took, answers: answers.map_err(|why| anyhow::anyhow!("a request failed: {why:?}"))? })
    }

    /// Launches one after the other for as long as is asked, and three times at least; what each took.
    fn time(&self, program: ProgramId, lane: &Lane, length: Duration) -> Result<Vec<Duration>> {
        const LEAST: usize = 3;
        let start = Instant::now();
        let mut took = Vec::new();
        while took.len() < LEAST || start.elapsed() < length {
            took.push(self.launch(program, vec![lane.clone()])?.took);
        }
        Ok(took)
    }

    /// The median launch of each round, one launch after the other, in milliseconds.
    pub(crate) fn latency_ms(
        &self,
        program: ProgramId,
        lane: &Lane,
        length: Duration,
        rounds: usize,
    ) -> Result<Spread> {
        let median = |_| {
            let mut took = self.time(program, lane, length)?;
            took.sort_unstable();
            Ok(took[took.len() / 2].as_secs_f64() * 1e3)
        };
        Spread::of((0..rounds).map(median).collect::<Result<_>>()?).context("there is a round")
    }

    /// One answer for each item, each as long as the others.
    pub(crate) fn items_of(&self, answer: &[Bytes], items: usize) -> Result<Vec<Vec<Bytes>>> {
        for output in answer {
            ensure!(
                output.len() % items.max(1) == 0,
                "an output of {} bytes for {items} items",
                output.len()
            );
        }
        let item = |number: usize| {
            let part = |output: &Bytes| {
                let each = output.len() / items;
                output.slice(number * each..(number + 1) * each)
            };
            answer.iter().map(part).collect()
        };
        Ok((0..items).map(item).collect())
    }
}
