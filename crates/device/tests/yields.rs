//! Urgent launches on the CPU device: they go before what runs at the next boundary between segments, and in an arena of their own.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

mod network;

use network::Network;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tessera_core::{LaunchId, PartitionId, ProgramId};
use tessera_device::conformance::bell;
use tessera_device::cpu::{self, Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, Finished, Lane, LaneRequest, Launch, Room, Slot};

/// The device on one core, a long network and a short one.
struct Scene {
    device: CpuDevice,
    bell: Receiver<()>,
    long: (ProgramId, Lane),
    short: (ProgramId, Lane),
    /// What arenas take once a worker has run the long one, and the short one aside.
    arenas: u64,
}

/// Items of the long launch: many milliseconds, in runs of eight.
const LONG: u32 = 64;

impl Scene {
    fn open() -> Scene {
        let (wake, bell) = bell();
        let options = CpuOptions { cores: Cores::These(vec![0]), partitions: None, memory_limit: None };
        let device = CpuDevice::open(&options, wake).unwrap();
        let arena =
            |network: &Network, items: u64| (items * network.plan.arena_per_item.0).next_multiple_of(64);
        let of = |name: &str, items: u32| {
            let network = Network::load(&device, name);
            let room = Room { lanes: 1, items };
            let program = device.compile(&network.plan, &network.layout, room, PartitionId(0)).unwrap();
            ((program, network.lane(items, 3)), arena(&network, u64::from(items.min(8))))
        };
        let (long, long_arena) = of("mobilenet_v2_035-0", LONG);
        let (short, short_arena) = of("mlp-0", 2);
        Scene { device, bell, long, short, arenas: long_arena + short_arena }
    }

    fn submit(&self, id: u64, (program, lane): &(ProgramId, Lane), urgent: bool) {
        let launch = Launch { id: LaunchId(id), program: *program, lanes: vec![lane.clone()], urgent };
        self.device.submit(launch).unwrap();
    }

    /// The next so many launches, in the order in which they were over.
    fn over(&self, count: usize) -> Vec<Finished> {
        let mut over = Vec::new();
        while over.len() < count {
            self.bell.recv_timeout(Duration::from_secs(60)).expect("the device wakes us");
            over.extend(self.device.poll());
        }
        over
    }
}

#[test]
fn urgent_launches_go_before_what_runs_in_their_own_order_and_change_no_bit() {
    let scene = Scene::open();
    scene.submit(0, &scene.long, false);
    scene.submit(1, &scene.short, false);
    let alone: Vec<_> = scene.over(2).into_iter().map(|finished| finished.answers).collect();
    scene.submit(2, &scene.long, false);
    scene.submit(3, &scene.short, false);
    scene.submit(4, &scene.short, true);
    scene.submit(5, &scene.short, true);
    let over = scene.over(4);
    let order: Vec<u64> = over.iter().map(|finished| finished.id.0).collect();
    assert_eq!(order, [4, 5, 2, 3]);
    for finished in over {
        let want = if finished.id == LaunchId(2) { &alone[0] } else { &alone[1] };
        assert_eq!(&finished.answers, want, "{}", finished.id);
    }
}

#[test]
fn a_run_that_is_under_way_stands_back_and_is_not_waited_for() {
    let scene = Scene::open();
    let Scene { long: (program, lane), .. } = &scene;
    let LaneRequest { inputs, .. } = &lane.requests[0];
    let one_run = |input: &bytes::Bytes| input.slice(..input.len() * 8 / LONG as usize);
    let request = LaneRequest { items: 8, inputs: inputs.iter().map(one_run).collect() };
    let run = (*program, Lane { slot: lane.slot.clone(), requests: vec![request] });
    // It takes milliseconds: of many most are still under way when the urgent one comes, and have begun before, whatever else this machine does.
    let overtakes = |id: u64| {
        scene.submit(2 * id, &run, false);
        // Before it has begun, whatever is urgent is first in any case.
        std::thread::sleep(Duration::from_micros(500));
        scene.submit(2 * id + 1, &scene.short, true);
        scene.over(2)[0].id == LaunchId(2 * id + 1)
    };
    let overtaken = (0..21).filter(|id| overtakes(*id)).count();
    assert!(overtaken > 10, "{overtaken} of 21 runs stood back");
}

#[test]
fn the_longest_segment_is_a_small_part_of_a_launch_of_many() {
    let scene = Scene::open();
    // One that others disturb tells of them: of several the least disturbed counts.
    let parts = (0..5).map(|id| {
        scene.submit(id, &scene.long, false);
        let finished = scene.over(1).remove(0);
        finished.longest_segment.expect("a CPU yields").as_secs_f64() / finished.took.as_secs_f64()
    });
    let part = parts.fold(f64::INFINITY, f64::min);
    assert!(part > 0.0 && part < 0.125, "{part}: eight runs follow each other, and each has many segments");
}

#[test]
fn what_an_urgent_launch_needs_beside_what_it_interrupts_is_accounted_for() {
    let scene = Scene::open();
    assert_eq!(scene.device.memory().arenas.0, 0);
    scene.submit(0, &scene.long, false);
    scene.submit(1, &scene.short, true);
    assert_eq!(scene.over(2)[0].id, LaunchId(1));
    assert_eq!(scene.device.memory().arenas.0, scene.arenas);
}
