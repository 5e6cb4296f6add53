//! Tenants of one architecture, asked at several lengths one request after the other.

use crate::onnx_writer::{Axis, OnnxWriter, Range};
use anyhow::Result;
use bytes::Bytes;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tessera_core::{RequestId, TenantId};
use tessera_device::Slot;
use tessera_server::backstage::Backstage;
use tessera_server::classes::ClassEntry;
use tessera_server::engine::{Incoming, Wait};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Lengths that are there from the start.
pub(super) const LENGTHS: [u64; 2] = [16, 32];
/// The one that comes later.
pub(super) const LATER: u64 = 48;
/// Numbers of a token.
const WIDTH: usize = 128;

/// Two linear layers over sequences of any length.
pub(super) fn network(name: &str) -> OnnxWriter {
    let mut net = OnnxWriter::new(name);
    let axes = [Axis::Free("batch"), Axis::Free("tokens"), Axis::Of(WIDTH)];
    let mut x = net.input("tokens", &axes);
    for layer in ["first", "second"] {
        let weight = net.weight(layer, &[WIDTH, WIDTH], Range::of_variance(2.0 / WIDTH as f32));
        x = net.node("MatMul", &[&x, &weight], &[]);
        x = net.node("Relu", &[&x], &[]);
    }
    net.output("answer", &x, &axes);
    net
}

/// Tenants that are loaded, and where they are asked.
pub(super) struct House {
    pub(super) backstage: Backstage,
    pub(super) tenants: Vec<(TenantId, Arc<ClassEntry>, Slot)>,
    pub(super) requests: AtomicU64,
}

/// One request that is over.
pub(super) struct Asked {
    pub(super) sent: Instant,
    pub(super) took: Duration,
    pub(super) hit: bool,
    pub(super) length: u64,
    pub(super) answer: Vec<Bytes>,
}

impl House {
    async fn ask(&self, tenant: usize, length: u64) -> Result<Asked> {
        let (id, class, _) = &self.tenants[tenant];
        let bound = class.class.bind(&[&[1, length, WIDTH as u64]])?;
        let sent = Instant::now();
        let hit = class.planned_before(&bound).is_some();
        let plan = class.planned(&bound).await?;
        let engine = &self.backstage.means.engine;
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (reply, wait) = Wait::on(engine, request);
        let number = |place: u64| ((place * 37 + length) % 101) as f32 / 50.0 - 1.0;
        let input: Vec<u8> =
            (0..length * WIDTH as u64).flat_map(|place| number(place).to_le_bytes()).collect();
        let offered = engine.offer(Incoming {
            request,
            tenant: *id,
            plan: plan.key.clone(),
            items: NonZeroU32::MIN,
            batchable: plan.plan.batched,
            inputs: vec![input.into()],
            arrived: Instant::now(),
            timeout: None,
            reply,
        });
        offered.with_neighbours().await;
        let answer = wait.answer().await?;
        Ok(Asked { sent, took: sent.elapsed(), hit, length, answer })
    }
}

/// All requests of a run.
pub(super) struct Served {
    /// By tenant, in their order.
    pub(super) tenants: Vec<Vec<Asked>>,
    /// At the length that came later, where one did.
    pub(super) newcomer: Option<Vec<Asked>>,
}

/// Every tenant asks, one request after the other, at the lengths in turn. In the middle, where `later`, the first asks twice at another length too.
pub(super) fn serve(runtime: &Runtime, house: &Arc<House>, length: Duration, later: bool) -> Result<Served> {
    let end = Instant::now() + length;
    let loops = |tenant: usize| {
        let house = house.clone();
        async move {
            let mut asked = Vec::new();
            for length in LENGTHS.into_iter().cycle() {
                asked.push(house.ask(tenant, length).await?);
                if Instant::now() >= end && asked.len() >= LENGTHS.len() {
                    break;
                }
            }
            anyhow::Ok((tenant, asked))
        }
    };
    runtime.block_on(async {
        let mut asking: JoinSet<_> = (0..house.tenants.len()).map(loops).collect();
        let newcomer = later.then(|| {
            let house = house.clone();
            tokio::spawn(async move {
                tokio::time::sleep(length / 2).await;
                anyhow::Ok(vec![house.ask(0, LATER).await?, house.ask(0, LATER).await?])
            })
        });
        let mut asked: Vec<Vec<Asked>> = house.tenants.iter().map(|_| Vec::new()).collect();
        while let Some(over) = asking.join_next().await {
            let (tenant, of_tenant) = over??;
            asked[tenant] = of_tenant;
        }
        let newcomer = match newcomer {
            Some(newcomer) => Some(newcomer.await??),
            None => None,
        };
        Ok(Served { tenants: asked, newcomer })
    })
}
