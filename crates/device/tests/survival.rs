//! What the CPU device outlives: tenants that leave in the middle of a launch, kernels that panic, memory that runs out.

#![allow(clippy::unwrap_used)] // a test that cannot prepare itself fails where it stands

use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tessera_core::{Bytes, LaunchId, PartitionId, Precision, ProgramId};
use tessera_device::conformance::{Case, bell, cases};
use tessera_device::cpu::{Cores, CpuDevice, CpuOptions};
use tessera_device::{Device, DeviceError, Finished, Lane, LaneRequest, Launch, RequestError, Room, Slot};
use tessera_planner::SlotLayout;
use tessera_planner::plan::StepKind;

fn open(memory_limit: Option<Bytes>) -> (CpuDevice, Receiver<()>) {
    let (wake, bell) = bell();
    let options = CpuOptions { cores: Cores::These(vec![0]), partitions: None, memory_limit };
    (CpuDevice::open(&options, wake).unwrap(), bell)
}

fn case() -> Case {
    cases().into_iter().find(|case| case.name == "gemm 17×64×128").expect("the suite has it")
}

fn layout(device: &CpuDevice, case: &Case) -> Arc<SlotLayout> {
    case.layout(device.pack_target(Precision::Fp32).unwrap())
}

fn upload(device: &CpuDevice, case: &Case, seed: u64) -> Result<Slot, DeviceError> {
    let layout = layout(device, case);
    let packed = case.pack(&case.random_weights(&mut StdRng::seed_from_u64(seed)), &layout);
    device.upload(case.plan.key.class, &layout, packed)
}

fn compile(device: &CpuDevice, case: &Case) -> ProgramId {
    let room = Room { lanes: 1, items: 1 };
    device.compile(&case.plan, &layout(device, case), room, PartitionId(0)).unwrap()
}

fn submit(device: &CpuDevice, case: &Case, program: ProgramId, slot: Slot) {
    let inputs = case.inputs(&mut StdRng::seed_from_u64(3)).into_iter().map(Into::into).collect();
    let lanes = vec![Lane { slot, requests: vec![LaneRequest { items: 1, inputs }] }];
    device.submit(Launch { id: LaunchId(0), program, lanes, urgent: false }).unwrap();
}

fn finished(device: &CpuDevice, bell: &Receiver<()>, count: usize) -> Vec<Finished> {
    let mut all = Vec::new();
    while all.len() < count {
        bell.recv_timeout(Duration::from_secs(60)).expect("the device wakes us");
        all.extend(device.poll());
    }
    all
}

#[test]
fn a_launch_in_flight_keeps_the_weights_of_a_tenant_that_left() {
    let (device, bell) = open(None);
    let case = case();
    let program = compile(&device, &case);
    let slot = upload(&device, &case, 1).unwrap();
    submit(&device, &case, program, slot.clone());
    let stayed = finished(&device, &bell, 1).remove(0).answers;
    // Forty launches wait behind one core while their tenant leaves and another takes new memory.
    (0..40).for_each(|_| submit(&device, &case, program, slot.clone()));
    drop(slot);
    let other = upload(&device, &case, 2).unwrap();
    for launch in finished(&device, &bell, 40) {
        assert_eq!(launch.answers, stayed);
    }
    assert_eq!(device.memory().weights, layout(&device, &case).bytes, "only the other tenant is left");
    drop(other);
    assert_eq!(device.memory().weights, Bytes::ZERO);
}

#[test]
fn a_kernel_that_panics_fails_its_launch_and_nothing_else() {
    let (device, bell) = open(None);
    let case = case();
    let mut broken = case.clone();
    let plan = Arc::make_mut(&mut broken.plan);
    let StepKind::Gemm { x, .. } = &mut plan.steps[0].kind else { panic!("the case is a product") };
    x.offset = 1 << 40;
    let (program, broken_program) = (compile(&device, &case), compile(&device, &broken));
    let slot = upload(&device, &case, 1).unwrap();
    submit(&device, &case, program, slot.clone());
    let before = finished(&device, &bell, 1).remove(0).answers;
    submit(&device, &case, broken_program, slot.clone());
    let lost = finished(&device, &bell, 1).remove(0).answers;
    assert!(matches!(lost[0][0], Err(RequestError::DeviceFailed(_))), "{lost:?}");
    submit(&device, &case, program, slot.clone());
    assert_eq!(finished(&device, &bell, 1).remove(0).answers, before);
}

#[test]
fn weights_beyond_the_limit_are_refused_until_others_leave() {
    let case = case();
    let one = layout(&open(None).0, &case).bytes;
    let (device, _bell) = open(Some(one));
    let first = upload(&device, &case, 1).unwrap();
    let refused = upload(&device, &case, 2).unwrap_err();
    assert!(matches!(refused, DeviceError::OutOfMemory { free: Bytes::ZERO, .. }), "{refused}");
    drop(first);
    upload(&device, &case, 2).unwrap();
}
