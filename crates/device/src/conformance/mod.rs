//! The suite that every device passes: cases × devices, against the plan's own definition.
//!
//! A case is a small plan with random weights and inputs. It knows nothing of any device. [`check`] runs it for several lane and
//! item counts and asks four things: each answer is the interpreter's ([`tessera_planner::interpret`]) within the
//! tolerance; each answer is the same bits alone, among random neighbours, where an urgent launch and another get in each other's way, and while programs are compiled beside it; a NaN in
//! one lane changes no bit of another; and a request that fails does so alone.

mod cases;

pub use cases::{Case, cases};

use crate::{Device, Finished, Lane, LaneRequest, Launch, RequestError, Room, Slot};
use bytes::Bytes;
use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tessera_core::{DType, LaunchId, PartitionId, Precision, ProgramId};
use tessera_planner::pack::{Matrices, PackTarget};
use tessera_planner::{Packed, SlotLayout, interpret};

/// Largest relative L2 distance between a device's floats and the definition's, for one step from random inputs.
///
/// fp32 sums the same products and differs by the order of sums, fused multiply-adds and the library's functions. tf32 rounds (or cuts) factors
/// to 10 bits; bf16 and fp16 round inputs, weights and results to 8 and 11 bits, and functions such as softmax or gates let those errors
/// grow a little.
pub const fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 1e-5,
        Precision::Tf32 => 2e-3,
        Precision::Fp16 => 2e-3,
        Precision::Bf16 => 2e-2,
    }
}

/// What a case's program has room for.
pub(crate) const ROOM: Room = Room { lanes: 16, items: 64 };
/// Tenants of a case's class.
pub(crate) const TENANTS: usize = 3;

/// How the definition's weights lie.
const DEFINITION: PackTarget =
    PackTarget { device: "definition", precision: Precision::Fp32, matrices: Matrices::Panels(16) };

/// What one request asks, and what the definition answers.
struct Question {
    items: u32,
    inputs: Vec<Bytes>,
    answer: Result<Vec<Vec<u8>>, ()>,
}

/// A device under test.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The device.
    pub device: &'a dyn Device,
    /// Rings when the device's wake is called.
    pub wake: &'a Receiver<()>,
    /// Where programs run.
    pub partition: PartitionId,
    /// How numbers are held.
    pub precision: Precision,
}

impl Subject<'_> {
    fn run(&self, program: ProgramId, lanes: Vec<Lane>) -> Result<Finished, String> {
        let id = LaunchId(0);
        self.device
            .submit(Launch { id, program, lanes, urgent: false })
            .map_err(|error| error.to_string())?;
        loop {
            if let Some(finished) = self.device.poll().pop() {
                return Ok(finished);
            }
            wait(self.device, self.wake)?;
        }
    }
}

/// A case on a device: its program, and tenants of its class.
struct Loaded<'a> {
    subject: &'a Subject<'a>,
    case: &'a Case,
    layout: Arc<SlotLayout>,
    program: ProgramId,
    /// How the definition's weights lie.
    definition: Arc<SlotLayout>,
    /// Their weights as the definition reads them, and where they are on the device.
    tenants: Vec<(Packed, Slot)>,
}

impl Loaded<'_> {
    /// Of so many random items, for a tenant.
    fn question(&self, tenant: usize, items: u32, random: &mut StdRng) -> Question {
        question(self.case, &self.definition, &self.tenants[tenant].0, items, random)
    }

    /// A tenant's, with these requests.
    fn lane(&self, tenant: usize, asked: &[Question]) -> Lane {
        let request =
            |question: &Question| LaneRequest { items: question.items, inputs: question.inputs.clone() };
        Lane { slot: self.tenants[tenant].1.clone(), requests: asked.iter().map(request).collect() }
    }

    fn run(&self, lanes: Vec<Lane>) -> Result<Finished, String> {
        self.subject.run(self.program, lanes)
    }

    fn fault(&self, what: &str) -> String {
        format!("{}: {what}", self.case.name)
    }
}

/// Checks one case on one device. The error says what differed, and the seed is the case's own.
pub fn check(subject: &Subject<'_>, case: &Case) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(case.seed);
    let device = subject.device;
    let target = device.pack_target(subject.precision).map_err(|error| error.to_string())?;
    let (plan, layout) = (case.plan_in(subject.precision), case.layout(target));
    let program =
        device.compile(&plan, &layout, ROOM, subject.partition).map_err(|error| error.to_string())?;
    let definition = case.layout(DEFINITION);
    let tenants: Vec<(Packed, Slot)> = (0..TENANTS)
        .map(|_| {
            let weights = case.random_weights(&mut random);
            let slot = device.upload(case.plan.key.class, &layout, case.pack(&weights, &layout))?;
            Ok((case.pack(&weights, &definition), slot))
        })
        .collect::<Result<_, crate::DeviceError>>()
        .map_err(|error| error.to_string())?;
    let loaded = Loaded { subject, case, layout, program, definition, tenants };
    for lane_count in [1, 3, 16] {
        for items in [1, 2, 7] {
            let mut lanes = Vec::new();
            let mut questions = Vec::new();
            for lane in 0..lane_count {
                // Few enough items for the room: the first lanes carry more.
                let counts = if lane == 0 { vec![items, 1] } else { vec![if lane < 4 { items } else { 1 }] };
                let tenant = random.random_range(0..loaded.tenants.len());
                let asked: Vec<Question> =
                    counts.iter().map(|&items| loaded.question(tenant, items, &mut random)).collect();
                lanes.push((tenant, asked));
            }
            let together = lanes.iter().map(|(tenant, asked)| loaded.lane(*tenant, asked)).collect();
            let finished = loaded.run(together)?;
            tells_of_every_lane(case, &finished)?;
            for ((tenant, asked), answers) in lanes.into_iter().zip(finished.answers) {
                for (question, answer) in asked.into_iter().zip(answers) {
                    questions.push((tenant, question, answer));
                }
            }
            for (tenant, question, answer) in &questions {
                compare(case, tolerance(subject.precision), question, answer)?;
                let one = std::slice::from_ref(question);
                let alone = loaded.run(vec![loaded.lane(*tenant, one)])?;
                if alone.answers[0][0] != *answer {
                    return Err(format!("{}: alone and among {lane_count} lanes differ in bits", case.name));
                }
            }
        }
    }
    urgency_changes_no_bit(&loaded, &mut random)?;
    compiling_changes_no_bit(&loaded, &mut random)?;
    poisoned_lane_stays_alone(&loaded, &mut random)?;
    device.discard(program);
    drop(loaded);
    match device.memory().weights.0 {
        0 => Ok(()),
        left => Err(format!("{}: {left} bytes of weights are still accounted for", case.name)),
    }
}

fn question(case: &Case, layout: &SlotLayout, weights: &Packed, items: u32, random: &mut StdRng) -> Question {
    let inputs: Vec<Vec<Vec<u8>>> = (0..items).map(|_| case.inputs(random)).collect();
    let mut answer: Result<Vec<Vec<u8>>, ()> = Ok(vec![Vec::new(); case.plan.outputs.len()]);
    for item in &inputs {
        let slices: Vec<&[u8]> = item.iter().map(Vec::as_slice).collect();
        let one = interpret::run(&case.plan, layout, weights, &slices);
        answer = answer.and_then(|mut all| {
            let one = one.map_err(|_| ())?;
            all.iter_mut().zip(one).for_each(|(all, one)| all.extend(one));
            Ok(all)
        });
    }
    let joined =
        (0..case.plan.inputs.len()).map(|input| inputs.iter().flat_map(|item| item[input].clone()).collect());
    Question { items, inputs: joined.collect(), answer }
}

fn compare(
    case: &Case,
    tolerance: f64,
    question: &Question,
    answer: &Result<Vec<Bytes>, RequestError>,
) -> Result<(), String> {
    let (want, got) = match (&question.answer, answer) {
        (Err(()), Err(RequestError::IdOutOfRange { .. })) => return Ok(()),
        (Ok(want), Ok(got)) => (want, got),
        (want, got) => return Err(format!("{}: {got:?} where the definition says {want:?}", case.name)),
    };
    for (port, (want, got)) in case.plan.outputs.iter().zip(want.iter().zip(got)) {
        if !port.dtype.is_float() {
            if want.as_slice() != got.as_ref() {
                return Err(format!("{}: {} elements differ", case.name, port.dtype));
            }
            continue;
        }
        // A sum beside a rounding's middle may fall to either side.
        let tolerance = tolerance.max(match port.dtype {
            DType::F16 => 1e-3,
            DType::BF16 => 1e-2,
            _ => 0.0,
        });
        let distance = relative_l2(&floats_of(port.dtype, want), &floats_of(port.dtype, got));
        if distance.is_nan() || distance > tolerance {
            return Err(format!("{}: {distance:e} from the definition, {} items", case.name, question.items));
        }
    }
    Ok(())
}

/// Times of lanes are of all lanes or of none, and times of steps are of every step: a row for each lane, or one where lanes run merged and none has
/// a time of its own.
fn tells_of_every_lane(case: &Case, finished: &Finished) -> Result<(), String> {
    let lanes = finished.answers.len();
    let steps = finished.steps.iter().flatten();
    if (finished.lanes.is_empty() || finished.lanes.len() == lanes)
        && finished.steps.as_ref().is_none_or(|steps| steps.len() == finished.lanes.len().max(1))
        && steps.clone().all(|steps| steps.len() == case.plan.steps.len())
    {
        return Ok(());
    }
    Err(format!("{}: times of {} lanes and {:?} of {lanes}", case.name, finished.lanes.len(), finished.steps))
}

/// An urgent launch that is handed over while another may run: both answer as they do alone, each once.
fn urgency_changes_no_bit(loaded: &Loaded<'_>, random: &mut StdRng) -> Result<(), String> {
    let Loaded { subject, program, .. } = *loaded;
    let mut wanted = HashMap::new();
    for (number, items) in [(0, 17), (1, 3)] {
        let lanes = vec![loaded.lane(number, &[loaded.question(number, items, random)])];
        let alone = loaded.run(lanes.clone())?;
        wanted.insert(LaunchId(number as u64), (lanes, alone.answers));
    }
    for id in [LaunchId(0), LaunchId(1)] {
        let (lanes, urgent) = (wanted[&id].0.clone(), id == LaunchId(1));
        subject.device.submit(Launch { id, program, lanes, urgent }).map_err(|error| error.to_string())?;
    }
    while !wanted.is_empty() {
        for finished in subject.device.poll() {
            match wanted.remove(&finished.id) {
                Some((_, answers)) if answers == finished.answers => {}
                Some(_) => return Err(loaded.fault("urgent and alone differ in bits")),
                None => return Err(loaded.fault(&format!("{} is answered twice", finished.id))),
            }
        }
        if !wanted.is_empty() {
            wait(subject.device, subject.wake)?;
        }
    }
    Ok(())
}

/// Programs of the plan are made, and given back, while launches run, as loaders and requests of new lengths have it: no answer notices, and one that was
/// made so answers as the first does, though it has other room.
fn compiling_changes_no_bit(loaded: &Loaded<'_>, random: &mut StdRng) -> Result<(), String> {
    let Loaded { subject, case, ref layout, .. } = *loaded;
    let lanes: Vec<Lane> = [(0, 3), (1, 1), (0, 2)]
        .map(|(tenant, items)| loaded.lane(tenant, &[loaded.question(tenant, items, random)]))
        .into();
    let alone = loaded.run(lanes.clone())?.answers;
    let (device, partition, plan) = (subject.device, subject.partition, case.plan_in(subject.precision));
    let compile = |room| device.compile(&plan, layout, room, partition).map_err(|error| error.to_string());
    let made = std::thread::scope(|scope| {
        let compiler = scope.spawn(|| {
            device.discard(compile(Room { lanes: 5, items: 9 })?);
            compile(Room { lanes: 3, items: 6 })
        });
        for round in 0.. {
            // Once more than there is need to, so that the last one begins after the last program was made.
            let was_made = compiler.is_finished();
            if loaded.run(lanes.clone())?.answers != alone {
                return Err(loaded.fault(&format!("launch {round} beside a compilation differs in bits")));
            }
            if was_made {
                break;
            }
        }
        compiler.join().map_err(|_| loaded.fault("compiling beside launches panicked"))?
    })?;
    let answers = subject.run(made, lanes)?.answers;
    device.discard(made);
    if answers == alone {
        return Ok(());
    }
    Err(loaded.fault("a program that was compiled beside launches differs in bits"))
}

/// One lane's inputs are all NaN; its neighbours' answers must not notice.
fn poisoned_lane_stays_alone(loaded: &Loaded<'_>, random: &mut StdRng) -> Result<(), String> {
    let healthy = loaded.question(0, 2, random);
    let mut poisoned = loaded.question(1, 2, random);
    for (port, input) in loaded.case.plan.inputs.iter().zip(&mut poisoned.inputs) {
        if port.dtype == DType::F32 {
            *input = f32::NAN.to_le_bytes().repeat(input.len() / 4).into();
        }
    }
    let [healthy, poisoned] =
        [(0, healthy), (1, poisoned)].map(|(tenant, asked)| loaded.lane(tenant, &[asked]));
    let alone = loaded.run(vec![healthy.clone()])?;
    let beside = loaded.run(vec![poisoned, healthy])?;
    if alone.answers[0] == beside.answers[1] {
        Ok(())
    } else {
        Err(loaded.fault("a NaN in one lane changed another"))
    }
}

/// The floats of an answer of any float type.
fn floats_of(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let halves = || bytes.as_chunks().0.iter().map(|two| u16::from_le_bytes(*two));
    match dtype {
        DType::F16 => halves().map(|bits| f16::from_bits(bits).to_f32()).collect(),
        DType::BF16 => halves().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        DType::F64 => bytes.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight) as f32).collect(),
        _ => floats(bytes),
    }
}

/// The floats of an answer.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("a chunk of four"))).collect()
}

/// ‖got − want‖ / ‖want‖; equal infinities and shared NaNs count as equal.
pub fn relative_l2(want: &[f32], got: &[f32]) -> f64 {
    let same = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let pairs = want.iter().zip(got);
    let error: f64 = pairs.map(|(&a, &b)| if same(a, b) { 0.0 } else { square(a - b) }).sum();
    let size: f64 = want.iter().filter(|x| x.is_finite()).map(|&x| square(x)).sum();
    if want.len() != got.len() {
        return f64::NAN;
    }
    (error / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// Runs every case on a subject and lists what failed, by kind of step.
pub fn check_all(subject: &Subject<'_>) -> HashMap<String, String> {
    let failed =
        cases().into_iter().filter_map(|case| check(subject, &case).err().map(|why| (case.name, why)));
    failed.collect()
}

/// For tests: a wake and the bell that it rings.
pub fn bell() -> (crate::Wake, Receiver<()>) {
    let (ring, bell) = std::sync::mpsc::channel();
    // Nobody listens any more when a test is over.
    let wake = move || {
        let _ = ring.send(());
    };
    (Arc::new(wake), bell)
}

/// Waits until a device has rung, or wants to be looked at. Errors when it has not for minutes.
pub fn wait(device: &dyn Device, bell: &Receiver<()>) -> Result<(), String> {
    const LONGEST: Duration = Duration::from_secs(300);
    let due = device.due();
    match bell.recv_timeout(due.unwrap_or(LONGEST)) {
        Err(RecvTimeoutError::Timeout) if due.is_none() => Err(format!("no wake within {LONGEST:?}")),
        Err(RecvTimeoutError::Disconnected) => Err("the device is gone".to_owned()),
        _ => Ok(()),
    }
}
