//! Cases on a device, through its trait alone.

use super::compare::compare;
use super::ready::{self, Ready};
use super::suite::Case;
use bytes::Bytes;
use std::ops::Range;
use std::sync::mpsc::Receiver;
use tessera_core::{LaunchId, PartitionId, Precision, ProgramId};
use tessera_device::conformance;
use tessera_device::{Device, Lane, LaneRequest, Launch, Room, Slot};
use tessera_planner::PackTarget;

/// A device with the bell that its wake rings.
pub struct OnDevice<'a> {
    /// The device.
    pub device: &'a dyn Device,
    /// See [`tessera_device::conformance::bell`].
    pub bell: &'a Receiver<()>,
    /// Its fp32 layout.
    pub target: PackTarget,
}

impl OnDevice<'_> {
    /// Asks for the case's answer: as one whole request and, where items are independent, all items at once and each on a lane of its own, which
    /// must give the same bits.
    pub fn answers(&self, case: &Case) -> Result<(), String> {
        let whole = ready::whole(case, &case.exported, self.target, Precision::Fp32)?;
        self.one(case, &whole)?;
        match ready::batched(case, self.target, Precision::Fp32) {
            Some(ready) => ready.and_then(|ready| self.one(case, &ready)),
            None => Ok(()),
        }
        .map_err(|why| format!("item by item: {why}"))
    }

    fn one(&self, case: &Case, ready: &Ready) -> Result<(), String> {
        let items = u32::try_from(ready.items).map_err(|error| error.to_string())?;
        let class = ready.model.class.id;
        let room = Room { lanes: items, items };
        let said = |error: tessera_device::DeviceError| error.to_string();
        let slot = self.device.upload(class, &ready.layout, ready.packed.clone()).map_err(said)?;
        let program = self.device.compile(&ready.plan, &ready.layout, room, PartitionId(0)).map_err(said)?;
        let answers = self.compared(case, ready, program, &slot);
        self.device.discard(program);
        answers
    }

    fn compared(&self, case: &Case, ready: &Ready, program: ProgramId, slot: &Slot) -> Result<(), String> {
        let lane = |items: Range<usize>| {
            let cut = |input: &Vec<u8>| {
                let len = input.len() / ready.items;
                Bytes::copy_from_slice(&input[items.start * len..items.end * len])
            };
            let inputs = ready.inputs.iter().map(cut).collect();
            Lane { slot: slot.clone(), requests: vec![LaneRequest { items: items.len() as u32, inputs }] }
        };
        let together = self.run(program, vec![lane(0..ready.items)])?.remove(0);
        compare(case, &ready.tensors(&together)?)?;
        let apart = self.run(program, (0..ready.items).map(|item| lane(item..item + 1)).collect())?;
        for (output, together) in together.iter().enumerate() {
            let joined: Vec<u8> = apart.iter().flat_map(|lane| lane[output].iter().copied()).collect();
            if joined != together.as_ref() {
                return Err(format!("output {output}: other bits on lanes of their own than in one request"));
            }
        }
        Ok(())
    }

    /// The answer of every lane's one request.
    fn run(&self, program: ProgramId, lanes: Vec<Lane>) -> Result<Vec<Vec<Bytes>>, String> {
        let launch = Launch { id: LaunchId(0), program, lanes, urgent: false };
        self.device.submit(launch).map_err(|error| error.to_string())?;
        let finished = loop {
            if let Some(finished) = self.device.poll().pop() {
                break finished;
            }
            conformance::wait(self.device, self.bell)?;
        };
        let answers = finished.answers.into_iter().map(|mut lane| lane.remove(0));
        answers.map(|answer| answer.map_err(|error| error.to_string())).collect()
    }
}
