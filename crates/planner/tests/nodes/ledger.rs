//! Which cases do not pass, at which stage they stop, and why: `fixtures/onnx_nodes/not_passing.txt`, and `no_cuda_kernel.txt` for what runs on the
//! CPU device only.
//!
//! One case a line, sorted: `NAME STAGE GROUP: REASON`. A case outside the list must pass every stage; a case in it must stop at its stage. So
//! the list says what is true, and shrinks in the change that makes it shorter. With `TESSERA_LEDGER=write` a test rewrites it (lines that are
//! still true stay as they are), and the difference is there to be reviewed:
//!
//! ```text
//! export TESSERA_LEDGER=write
//! cargo test -p tessera-planner --test onnx_nodes && cargo test -p tessera-device --test onnx_nodes && cargo test -p tessera-device --lib node_tests
//! ```

use super::suite::{Case, folder};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// What a case goes through, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// The file becomes a graph.
    Import,
    /// The reference computes the answer.
    Reference,
    /// The plan, interpreted, computes the answer: for the whole request and, where items are independent, item by item.
    Plan,
    /// The CPU device computes the answer.
    Cpu,
    /// The CUDA device has kernels for the plan.
    Cuda,
}

impl Stage {
    const ALL: [(Stage, &str); 5] = [
        (Stage::Import, "import"),
        (Stage::Reference, "reference"),
        (Stage::Plan, "plan"),
        (Stage::Cpu, "cpu"),
        (Stage::Cuda, "cuda"),
    ];

    /// As the list says it.
    pub fn word(self) -> &'static str {
        Stage::ALL.iter().find(|(stage, _)| *stage == self).unwrap().1
    }
}

/// Where a case stops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// The first stage that it does not pass.
    pub stage: Stage,
    /// Why, after the group that it belongs to.
    pub reason: String,
}

/// What is refused by design, by what the case or the message shows of it.
const BY_DESIGN: [(&str, &str); 3] = [
    ("has a dimension of 0", "empty tensor"),
    ("training mode", "training"),
    ("depends on the data of a request", "shape depends on data"),
];

impl Stop {
    /// A stop for what an error said.
    pub fn new(case: &Case, stage: Stage, why: &str) -> Stop {
        let tensors = case.inputs.iter().map(|(_, tensor)| tensor).chain(&case.outputs);
        let foreign = tensors.into_iter().any(Option::is_none);
        let group = BY_DESIGN.iter().find(|(words, _)| why.contains(words)).map(|(_, group)| *group);
        let group = if foreign { "type that is not served" } else { group.unwrap_or("not yet") };
        Stop { stage, reason: format!("{group}: {}", why.split_whitespace().collect::<Vec<_>>().join(" ")) }
    }
}

/// One of the lists, by case.
pub struct Ledger {
    file: &'static str,
    stops: BTreeMap<String, Stop>,
}

impl Ledger {
    /// What stops before or on the CPU device.
    pub fn not_passing() -> Ledger {
        Ledger::read("not_passing.txt")
    }

    /// What passes on the CPU device and has no kernel on the CUDA device.
    pub fn no_cuda_kernel() -> Ledger {
        Ledger::read("no_cuda_kernel.txt")
    }

    fn read(file: &'static str) -> Ledger {
        let text = std::fs::read_to_string(folder().join(file)).unwrap();
        let line = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let [name, stage, reason] = [(); 3].map(|()| words.next().expect("NAME STAGE REASON").to_owned());
            let stage = Stage::ALL.iter().find(|(_, word)| *word == stage).expect("a stage").0;
            (name, Stop { stage, reason })
        };
        let lines: Vec<_> = text.lines().map(line).collect();
        assert!(lines.is_sorted_by(|one, next| one.0 < next.0), "{file} is sorted, one line a case");
        Ledger { file, stops: lines.into_iter().collect() }
    }

    /// Where the list says that a case stops.
    pub fn stop(&self, case: &Case) -> Option<&Stop> {
        self.stops.get(&case.name)
    }

    /// Compares what was found in a run of `stages` (`None`: a case passes them all) with the list, rewriting it first when asked to. Lines of
    /// other stages say nothing about this run.
    pub fn settle(mut self, found: &BTreeMap<String, Option<Stop>>, stages: &RangeInclusive<Stage>) {
        if std::env::var("TESSERA_LEDGER").is_ok_and(|wish| wish == "write") {
            self.rewrite(found, stages);
        }
        let mut wrong = Vec::new();
        for (name, stop) in found {
            let listed = self.stops.get(name).filter(|stop| stages.contains(&stop.stage));
            match (stop, listed) {
                (Some(stop), None) => {
                    wrong.push(format!("{name}: {} fails: {}", stop.stage.word(), stop.reason));
                }
                (None, Some(_)) => wrong.push(format!("{name}: passes; take its line out of the list")),
                (Some(stop), Some(listed)) if stop.stage != listed.stage => {
                    let (now, then) = (stop.stage.word(), listed.stage.word());
                    wrong.push(format!("{name}: stops at {now} ({}), the list says at {then}", stop.reason));
                }
                _ => {}
            }
        }
        let ours = self.stops.iter().filter(|(_, stop)| stages.contains(&stop.stage));
        let gone = ours.map(|(name, _)| name).filter(|name| !found.contains_key(*name));
        wrong.extend(gone.map(|name| format!("{name}: no such case")));
        summary(found, stages);
        assert!(wrong.is_empty(), "{} differ from {}:\n{}", wrong.len(), self.file, wrong.join("\n"));
    }

    fn rewrite(&mut self, found: &BTreeMap<String, Option<Stop>>, stages: &RangeInclusive<Stage>) {
        for (name, stop) in found {
            let listed = self.stops.get(name).map(|listed| listed.stage);
            match stop {
                Some(stop) if listed != Some(stop.stage) => {
                    self.stops.insert(name.clone(), stop.clone());
                }
                None if listed.is_some_and(|listed| stages.contains(&listed)) => {
                    self.stops.remove(name);
                }
                _ => {}
            }
        }
        let line = |(name, stop): (&String, &Stop)| format!("{name} {} {}\n", stop.stage.word(), stop.reason);
        std::fs::write(folder().join(self.file), self.stops.iter().map(line).collect::<String>()).unwrap();
    }
}

fn summary(found: &BTreeMap<String, Option<Stop>>, stages: &RangeInclusive<Stage>) {
    let passing = found.values().filter(|stop| stop.is_none()).count();
    println!("ONNX node tests: {passing} of {} pass {}", found.len(), stages.end().word());
    let mut stops: BTreeMap<(Stage, &str), usize> = BTreeMap::new();
    for stop in found.values().flatten() {
        let group = stop.reason.split(':').next().unwrap_or_default();
        *stops.entry((stop.stage, group)).or_default() += 1;
    }
    for ((stage, group), count) in stops {
        println!("{count:>5} stop at {}: {group}", stage.word());
    }
}
