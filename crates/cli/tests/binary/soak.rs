//! Many tenants of ten classes under mixed random requests, while tenants come, change and go.
//!
//! ```text
//!   alone   each tenant asked each of its questions by itself: the answers to be had, and no two tenants' alike
//!   load    clients ask at random; every answer is its own tenant's, to the last bit
//!           meanwhile some tenants vanish and return, others have their weights replaced
//!   rest    everybody is back; memory is weights and arenas, and little else
//! ```
//! The short one runs with every test. The long one, 200 tenants and 100,000 requests:
//! `cargo test -p tessera-cli --test binary soak -- --ignored --nocapture`

use crate::client::eventually;
use crate::models::{Body, KINDS};
use crate::process::Tessera;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tessera_bench::client::{Connection, Reply};

struct Soak {
    tenants: usize,
    requests: u64,
}

#[test]
fn every_answer_is_its_own_tenants_while_tenants_come_change_and_go() {
    Soak { tenants: 40, requests: 5_000 }.run();
}

#[test]
#[ignore = "takes a minute; how to run it stands in CONTRIBUTING.md"]
fn two_hundred_tenants_and_a_hundred_thousand_requests() {
    Soak { tenants: 200, requests: 100_000 }.run();
}

const CLIENTS: u64 = 16;
const QUESTIONS: usize = 4;
/// Memory that a server takes whoever its tenants are: 15 MiB on two cores.
const ITSELF: f64 = (24 << 20) as f64;

/// What a tenant does while it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// Serves.
    Stays,
    /// Vanishes and returns.
    Goes,
    /// Has its weights replaced, again and again.
    Changes,
}

struct Tenant {
    name: String,
    habit: Habit,
    /// Its model; of one that changes, two.
    models: Vec<Vec<u8>>,
    questions: Vec<Body>,
    /// By question: the bytes that answer it, from each of its models.
    answers: Vec<Vec<bytes::Bytes>>,
}

impl Tenant {
    fn of(number: usize) -> Tenant {
        let kind = &KINDS[number % KINDS.len()];
        let habit = match number / KINDS.len() % 4 {
            1 => Habit::Goes,
            3 => Habit::Changes,
            _ => Habit::Stays,
        };
        let seeds = (0..if habit == Habit::Changes { 2 } else { 1 }).map(|other| (number * 2 + other) as u64);
        // Tenants of a kind are asked the same questions, so that one's answer cannot pass for another's.
        let question = |at: usize| kind.request([1, 1, 2, 5][at], [3, 16, 9, 3][at], at as u64);
        Tenant {
            name: format!("{}-{}", kind.name, number / KINDS.len()),
            habit,
            models: seeds.map(|seed| kind.onnx(seed)).collect(),
            questions: (0..QUESTIONS).map(question).collect(),
            answers: vec![Vec::new(); QUESTIONS],
        }
    }

    fn path(&self) -> String {
        format!("/v2/models/{}/infer", self.name)
    }

    async fn ask(&self, connection: &mut Connection, question: usize) -> Reply {
        let body = &self.questions[question];
        connection.post(&self.path(), Some(body.json_bytes), body.bytes.clone()).await.unwrap()
    }

    /// Puts a model where the repository looks, whole or not at all.
    fn place(&self, repository: &Path, model: usize) {
        let beside = repository.join(format!(".{}.part", self.name));
        fs::write(&beside, &self.models[model]).unwrap();
        fs::rename(&beside, self.at(repository)).unwrap();
    }

    fn at(&self, repository: &Path) -> std::path::PathBuf {
        repository.join(format!("{}.onnx", self.name))
    }
}

/// What became of the load.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    away: AtomicU64,
}

impl Soak {
    fn run(&self) {
        let repository = tempfile::tempdir().unwrap();
        let mut tenants: Vec<Tenant> = (0..self.tenants).map(Tenant::of).collect();
        tenants.iter().for_each(|tenant| tenant.place(repository.path(), 0));
        let tessera = Tessera::serve(repository.path(), &[]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        println!("{} tenants loaded; resident {}", tenants.len(), mib(tessera.resident()));
        runtime.block_on(alone(&tessera, repository.path(), &mut tenants));
        let tenants = Arc::new(tenants);
        println!("asked alone; resident {}", mib(tessera.resident()));
        let (began, before) = (Instant::now(), Sampled::of(&tessera));
        let tally = runtime.block_on(self.load(&tessera, repository.path(), &tenants));
        let (took, after) = (began.elapsed(), Sampled::of(&tessera));
        println!(
            "{} requests in {took:.1?}: {:.0}/s, {} answered, {} found their tenant away, {:.2} lanes per launch",
            self.requests,
            self.requests as f64 / took.as_secs_f64(),
            tally.answered.load(Ordering::Relaxed),
            tally.away.load(Ordering::Relaxed),
            (after.lanes - before.lanes) / (after.launches - before.launches)
        );
        tenants.iter().for_each(|tenant| tenant.place(repository.path(), 0));
        runtime.block_on(everybody_is_right(&tessera, &tenants));
        memory_at_rest(&tessera);
    }

    async fn load(&self, tessera: &Tessera, repository: &Path, tenants: &Arc<Vec<Tenant>>) -> Arc<Tally> {
        let (tally, over) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let unrest = std::thread::spawn({
            let (tenants, repository, over) = (tenants.clone(), repository.to_owned(), over.clone());
            move || come_change_and_go(&tenants, &repository, &over)
        });
        let left = Arc::new(AtomicU64::new(self.requests));
        let clients = (0..CLIENTS).map(|seed| {
            let (tenants, tally, left) = (tenants.clone(), tally.clone(), left.clone());
            let http = tessera.http;
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed);
                let mut connection = Connection::open(http).await.unwrap();
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    let tenant = &tenants[random.random_range(0..tenants.len())];
                    let question = random.random_range(0..QUESTIONS);
                    let reply = tenant.ask(&mut connection, question).await;
                    check(tenant, question, &reply, &tally);
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        over.store(true, Ordering::Relaxed);
        let rounds = unrest.join().unwrap();
        println!("{rounds} tenants went and returned, or changed");
        assert!(rounds > 0);
        tally
    }
}

/// Once nothing is asked and nothing loads, the process holds weights and arenas, and little else.
fn memory_at_rest(tessera: &Tessera) {
    // Gauges of memory are read off twice a second.
    std::thread::sleep(Duration::from_millis(1500));
    let of = |kind: &str| {
        tessera.sample(&format!("tessera_device_memory_bytes{{device=\"cpu\",kind=\"{kind}\"}}"))
    };
    let (weights, arenas) = (of("weights"), of("arenas"));
    let Some(resident) = tessera.resident() else {
        println!("skipped: memory at rest (this system does not tell)");
        return;
    };
    let ratio = resident as f64 / (weights + arenas);
    println!(
        "at rest: weights {}, arenas {}, resident {}: {ratio:.3} of weights and arenas",
        mib(Some(weights as u64)),
        mib(Some(arenas as u64)),
        mib(Some(resident))
    );
    // With few small tenants what the process takes by itself counts for more: code, stacks, ten classes with their plans.
    let allowed = (1.1 * (weights + arenas)).max(weights + arenas + ITSELF);
    assert!(resident as f64 <= allowed, "more than {}", mib(Some(allowed as u64)));
}

fn mib(bytes: Option<u64>) -> String {
    bytes
        .map_or_else(|| "unknown".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}

/// Launches so far.
struct Sampled {
    launches: f64,
    lanes: f64,
}

impl Sampled {
    fn of(tessera: &Tessera) -> Sampled {
        let lanes = tessera.sample("tessera_launch_lanes_sum");
        Sampled { launches: tessera.sample("tessera_launch_lanes_count"), lanes }
    }
}

/// Asks each model each question by itself, and keeps the answers. No two models of a kind answer alike.
async fn alone(tessera: &Tessera, repository: &Path, tenants: &mut [Tenant]) {
    let mut connection = Connection::open(tessera.http).await.unwrap();
    let mut seen = HashSet::new();
    for tenant in tenants {
        for model in 0..tenant.models.len() {
            if model > 0 {
                tenant.place(repository, model);
            }
            for question in 0..QUESTIONS {
                let answer = loop {
                    let reply = tenant.ask(&mut connection, question).await;
                    assert_eq!(
                        reply.status,
                        200,
                        "{}: {}",
                        tenant.name,
                        String::from_utf8_lossy(&reply.body)
                    );
                    let answer = tensors(&reply);
                    // Of a model that was just replaced the earlier one's answer is no news.
                    if !tenant.answers[question].contains(&answer) {
                        break answer;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                };
                let kind = tenant.name.rsplit_once('-').unwrap().0.to_owned();
                assert!(seen.insert((kind, question, answer.clone())), "{} answers as another", tenant.name);
                tenant.answers[question].push(answer);
            }
        }
    }
}

/// The tensors of an answer, without the JSON that names the tenant.
fn tensors(reply: &Reply) -> bytes::Bytes {
    reply.body.slice(reply.json_bytes.unwrap()..)
}

fn check(tenant: &Tenant, question: usize, reply: &Reply, tally: &Tally) {
    match reply.status.as_u16() {
        200 => {
            let answer = tensors(reply);
            assert!(
                tenant.answers[question].contains(&answer),
                "{} question {question}: not its answer",
                tenant.name
            );
            tally.answered.fetch_add(1, Ordering::Relaxed);
        }
        404 | 503 if tenant.habit == Habit::Goes => drop(tally.away.fetch_add(1, Ordering::Relaxed)),
        status => {
            panic!("{} ({:?}): {status} {}", tenant.name, tenant.habit, String::from_utf8_lossy(&reply.body))
        }
    }
}

/// Until it is over: tenants that go are taken away and put back, those that change get one or the other weights.
fn come_change_and_go(tenants: &[Tenant], repository: &Path, over: &AtomicBool) -> usize {
    let mut random = StdRng::seed_from_u64(99);
    let restless: Vec<&Tenant> = tenants.iter().filter(|tenant| tenant.habit != Habit::Stays).collect();
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        let tenant = restless[random.random_range(0..restless.len())];
        let at = tenant.at(repository);
        match tenant.habit {
            Habit::Goes => {
                fs::remove_file(at).unwrap();
                // Long enough for its absence to be seen.
                std::thread::sleep(Duration::from_millis(100));
                tenant.place(repository, 0);
            }
            _ => tenant.place(repository, random.random_range(0..tenant.models.len())),
        }
        rounds += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    rounds
}

async fn everybody_is_right(tessera: &Tessera, tenants: &[Tenant]) {
    let mut connection = Connection::open(tessera.http).await.unwrap();
    eventually("all are back", || tessera.sample("tessera_tenants") == tenants.len() as f64);
    for tenant in tenants {
        for question in 0..QUESTIONS {
            // One that changes may show its other weights a little longer.
            for _ in 0..1000 {
                let reply = tenant.ask(&mut connection, question).await;
                assert_eq!(reply.status, 200, "{}: {}", tenant.name, String::from_utf8_lossy(&reply.body));
                if tensors(&reply) == tenant.answers[question][0] {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let reply = tenant.ask(&mut connection, question).await;
            assert_eq!(tensors(&reply), tenant.answers[question][0], "{}", tenant.name);
        }
    }
}
