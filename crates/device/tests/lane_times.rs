//! What the CPU device tells of each lane of a launch.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;
use tessera_core::{LaunchId, PartitionId, Precision};
use tessera_device::conformance::{Case, bell, cases};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, Finished, Lane, LaneRequest, Launch, Room};

fn case() -> Case {
    cases().into_iter().find(|case| case.name == "gemm 17×64×128").expect("the suite has it")
}

/// Launches of two lanes on one core: the first carries so many items, the second one.
fn launches(items: u32, count: usize) -> Vec<Finished> {
    let (wake, bell) = bell();
    let options = CpuOptions { cores: Cores::These(vec![0]), partitions: None, memory_limit: None };
    let device = CpuDevice::open(&options, wake).unwrap();
    let case = case();
    let mut random = StdRng::seed_from_u64(3);
    let layout = case.layout(device.pack_target(Precision::Fp32).unwrap());
    let packed = case.pack(&case.random_weights(&mut random), &layout);
    let slot = device.upload(case.plan.key.class, &layout, packed).unwrap();
    let room = Room { lanes: 2, items: items + 1 };
    let program = device.compile(&case.plan, &layout, room, PartitionId(0)).unwrap();
    let inputs = case.inputs(&mut random);
    let lane = |items: u32| {
        let inputs = inputs.iter().map(|input| input.repeat(items as usize).into()).collect();
        Lane { slot: slot.clone(), requests: vec![LaneRequest { items, inputs }] }
    };
    let mut finished = Vec::new();
    for id in 0..count as u64 {
        device.submit(Launch { id: LaunchId(id), program, lanes: vec![lane(items), lane(1)] }).unwrap();
        while finished.len() as u64 == id {
            bell.recv_timeout(Duration::from_secs(60)).expect("the device wakes us");
            finished.extend(device.poll());
        }
    }
    finished
}

#[test]
fn a_lane_of_more_items_is_told_to_have_taken_longer() {
    // Of many launches most are not disturbed, whatever else this machine does.
    let launches = launches(32, 101);
    let longer = launches.iter().filter(|launch| launch.lanes[0] > 4 * launch.lanes[1]).count();
    assert!(longer > 60, "the lane of 32 items took longer in {longer} of 101 launches only");
    assert!(
        launches.iter().all(|launch| launch.lanes.iter().sum::<Duration>() <= launch.took),
        "on one core"
    );
}

#[test]
fn steps_are_timed_in_some_launches_and_fit_into_their_lanes() {
    let launches = launches(1, 130);
    let sampled: Vec<_> =
        launches.iter().filter_map(|launch| Some((launch, launch.steps.as_ref()?))).collect();
    assert_eq!(sampled.len(), 2, "the first, and one in 128");
    for (launch, steps) in sampled {
        for (lane, steps) in launch.lanes.iter().zip(steps) {
            let sum: Duration = steps.iter().sum();
            assert!(sum <= *lane && sum > Duration::ZERO, "{sum:?} of {lane:?}");
        }
    }
}
