//! Steps that one kernel does give the bits that they give one after the other.
//!
//! A step whose results are an output too is done by itself, so a plan that shows everything it computes is the same plan with no steps joined.

use super::{chosen, cuda};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tessera_core::{LaunchId, PartitionId, Precision};
use tessera_device::conformance::{self, Case};
use tessera_device::cuda::CudaDevice;
use tessera_device::{Device, Lane, LaneRequest, Launch, Room, Slot};
use tessera_planner::Plan;
use tessera_planner::plan::{Operand, Port};

const ROOM: Room = Room { lanes: 4, items: 9 };

/// The plan with every buffer that a step writes among its outputs, behind its own.
fn showing_all(plan: &Plan) -> Plan {
    let mut shown = plan.clone();
    let written = plan.steps.iter().flat_map(|step| step.kind.writes()).map(|write| write.buffer);
    shown.outputs.extend(written.map(|id| {
        let buffer = plan.buffer(id);
        Port { dtype: buffer.dtype, dims: vec![buffer.elements], at: Operand::Buffer(id) }
    }));
    shown
}

/// An image, some of whose floats are such as sums and maxima treat apart.
fn odd_floats(bytes: &[u8], random: &mut StdRng) -> Vec<u8> {
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e30, f32::MIN_POSITIVE / 4.0];
    let float = |four: &[u8]| match random.random_range(0..150) {
        which @ 0..6 => odd[which].to_le_bytes(),
        _ => four.try_into().unwrap(),
    };
    bytes.chunks_exact(4).flat_map(float).collect()
}

/// What lanes with these images answer, as the plan's first output.
fn answers(
    (device, bell): (&CudaDevice, &Receiver<()>),
    (plan, case): (Plan, &Case),
    slots: &[Slot],
    images: &[Bytes],
) -> Vec<Bytes> {
    let layout = case.layout(device.pack_target(plan.key.precision).unwrap());
    let item = plan.inputs[0].bytes_per_item();
    let program = device.compile(&Arc::new(plan), &layout, ROOM, PartitionId(0)).unwrap();
    let lane = |(slot, image): (&Slot, &Bytes)| {
        let request = LaneRequest { items: (image.len() / item) as u32, inputs: vec![image.clone()] };
        Lane { slot: slot.clone(), requests: vec![request] }
    };
    let lanes = slots.iter().zip(images).map(lane).collect();
    device.submit(Launch { id: LaunchId(1), program, lanes, urgent: false }).unwrap();
    let finished = loop {
        if let Some(finished) = device.poll().pop() {
            break finished;
        }
        conformance::wait(device, bell).unwrap();
    };
    device.discard(program);
    finished.answers.into_iter().map(|mut lane| lane.remove(0).unwrap().remove(0)).collect()
}

#[test]
fn joined_steps_give_the_bits_of_one_after_the_other() {
    let Some((device, bell)) = cuda() else { return };
    let mut compared = 0;
    for case in chosen().iter().filter(|case| case.name.contains("stem") && case.plan.steps.len() > 1) {
        for precision in Precision::ALL {
            let mut random = StdRng::seed_from_u64(case.seed);
            let plan = case.plan_in(precision);
            let layout = case.layout(device.pack_target(precision).unwrap());
            let slots: Vec<Slot> = (0..3)
                .map(|_| {
                    let weights = case.random_weights(&mut random);
                    device.upload(plan.key.class, &layout, case.pack(&weights, &layout)).unwrap()
                })
                .collect();
            let images: Vec<Bytes> = [1, 5, 2]
                .map(|items| {
                    let floats: Vec<u8> =
                        (0..items).flat_map(|_| case.inputs(&mut random).remove(0)).collect();
                    odd_floats(&floats, &mut random).into()
                })
                .into();
            let ask = |plan: Plan| answers((&device, &bell), (plan, case), &slots, &images);
            let [joined, apart] = [Plan::clone(&plan), showing_all(&plan)].map(ask);
            assert!(joined == apart, "{} in {precision}", case.name);
            compared += 1;
        }
    }
    assert!(compared > 20 || std::env::var_os("TESSERA_CASES").is_some(), "{compared} cases");
}
