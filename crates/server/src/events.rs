//! What happened, for whoever runs the server: decisions against somebody, and tenants and devices that come and go.
//!
//! ```text
//!   engines ─ what their schedulers decided ─┐             ┌▶ ring of the last MOST ─▶ GET /v2/events?after=SEQ
//!   registry ─ loaded, failed, unloaded ─────┼▶ Events ────┼▶ one line of the log
//!   quotas ─ refused ────────────────────────┘  number     └▶ tessera_events_total{kind}
//! ```
//! One ring for the whole server, so that numbers give one order and a reader keeps one place. Whoever reads too slowly is told how many events went
//! by unread; nobody who writes ever waits for a reader. How often something may be told is decided where it is decided: refusals are gathered by the
//! scheduler (`tessera_scheduler::Happened`), so an overload cannot flush everything else out.
//!
//! | kind | what happened |
//! |---|---|
//! | `loaded`, `load_failed`, `unloaded` | a version of a tenant came, could not come, went; without a version, a tenant's entry in the repository makes no sense |
//! | `no_kernel`, `other_precision` | a tenant is served by a device that suits it less: a step has no kernel on the other, or the other was lost |
//! | `few_devices` | a `tenant.toml` asks for more `replicas` than devices are named; the tenant is on all that take it |
//! | `no_plan` | requests bring dimensions that a device refuses to compile for |
//! | `can_meet`, `cannot_meet` | whether a tenant's SLO can be kept at all, when that becomes known or changes |
//! | `refused`, `expired` | requests that were not let in, or waited too long, with how many |
//! | `heard`, `acquitted` | a tenant runs alone for a few launches, suspected of slowing others or as a witness, and shares again |
//! | `evicted`, `probation`, `returned` | a tenant slowed others and runs by itself, is tried again, shares again |
//! | `interrupted` | urgent launches went before others that ran |
//! | `rearranged`, `recycled`, `device_slow` | a device was cut anew, a slow partition was opened anew, a device is slow for good |
//! | `device_lost`, `tenants_moved` | a device failed, and its tenants are loaded elsewhere |
//! | `untold` | so many events were too many to be told |

mod asked;
mod clock;
mod words;

pub use asked::Asked;
pub use clock::rfc3339;

use crate::log::NUMBERS;
use crate::metrics::Metrics;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tessera_scheduler::{Happened, Verdict};
use tokio::sync::Notify;
use tracing::Level;
use tracing::field::display;

/// Events that are kept: at some hundred bytes each, a few megabytes.
const MOST: usize = 8192;

/// A version of a tenant, and who pays for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Who {
    /// The tenant's name.
    pub tenant: String,
    /// The version, where it is about one.
    pub version: Option<u64>,
    /// Its owner's name.
    pub owner: String,
}

/// Something to be told.
#[derive(Clone, PartialEq, Debug)]
pub struct News {
    /// What kind of event it is: a word of a small closed set.
    pub kind: &'static str,
    /// The device that it happened on; none where it concerns the whole server.
    pub device: Option<String>,
    /// Whom it happened to.
    pub who: Option<Arc<Who>>,
    /// What, and why.
    pub text: String,
    /// The numbers in the text, by name, with their units.
    pub numbers: Map<String, Value>,
}

impl News {
    /// What a device's scheduler decided, or, for all of them, the quotas.
    pub fn decided(device: Option<&str>, what: &Happened, who: Option<Arc<Who>>) -> News {
        let (kind, text, numbers) = (what.kind(), what.to_string(), words::numbers(what));
        News { kind, device: device.map(str::to_owned), who, text, numbers }
    }

    /// So many refusals and expiries were not told one by one.
    pub fn untold(device: Option<&str>, events: u64) -> News {
        let text = format!("{events} more events of tenants that were refused, too many to tell each");
        let numbers = by_name(json!({ "events": events }));
        News { kind: "untold", device: device.map(str::to_owned), who: None, text, numbers }
    }

    /// Whether a tenant's SLO can be met, which has just become known or has just changed.
    pub fn judged(device: Option<String>, who: Option<Arc<Who>>, verdict: &Verdict) -> News {
        let kind = if verdict.can_be_met() { "can_meet" } else { "cannot_meet" };
        News { kind, device, who, text: verdict.to_string(), numbers: words::of_verdict(verdict) }
    }

    fn level(&self) -> Level {
        match self.kind {
            "device_lost" => Level::ERROR,
            "recycled" | "device_slow" | "refused" | "expired" | "evicted" | "load_failed" | "no_kernel"
            | "other_precision" | "few_devices" | "no_plan" | "untold" | "cannot_meet" => Level::WARN,
            _ => Level::INFO,
        }
    }
}

/// Numbers of an event as `json!({ … })` writes them.
pub(crate) fn by_name(numbers: Value) -> Map<String, Value> {
    if let Value::Object(numbers) = numbers { numbers } else { Map::new() }
}

/// One event, numbered.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// Its number: from 1 on, without gaps, in the order in which the server heard of them.
    pub seq: u64,
    /// When it happened.
    pub time: SystemTime,
    /// What.
    pub news: News,
}

impl Told {
    /// As readers get it; `device`, `tenant`, `version` and `owner` are there where the event has them.
    pub fn json(&self) -> Value {
        let Told { seq, time, news } = self;
        let mut json = json!({ "seq": seq, "time": clock::rfc3339(*time), "kind": news.kind });
        if let Some(device) = &news.device {
            json["device"] = json!(device);
        }
        if let Some(who) = &news.who {
            (json["tenant"], json["owner"]) = (json!(who.tenant), json!(who.owner));
            if let Some(version) = who.version {
                json["version"] = json!(version);
            }
        }
        (json["text"], json["numbers"]) = (json!(news.text), json!(news.numbers));
        json
    }
}

/// An answer to a reader.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// In order of their numbers.
    pub events: Vec<Arc<Told>>,
    /// What to ask for next: `after` this.
    pub next: u64,
    /// Events after the number asked for that are not kept any more.
    pub lost: u64,
}

impl Page {
    /// As readers get it.
    pub fn json(&self) -> Value {
        let events: Vec<Value> = self.events.iter().map(|told| told.json()).collect();
        json!({ "events": events, "next": self.next, "lost": self.lost })
    }
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<Told>>,
    /// The number of the last event; 0 before any.
    last: u64,
    /// Nobody waits any more.
    closed: bool,
}

/// All events of a server. Shared by `Arc`.
#[derive(Debug, Default)]
pub struct Events {
    ring: Mutex<Ring>,
    came: Notify,
    metrics: Arc<Metrics>,
}

impl Events {
    /// No events yet; they are counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Events {
        Events { metrics, ..Events::default() }
    }

    /// Where they are counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Something happened just now.
    pub fn tell(&self, news: News) {
        self.tell_of(Duration::ZERO, news);
    }

    /// Something happened so long `ago`. Costs some microseconds, most of them for the line of the log.
    pub fn tell_of(&self, ago: Duration, news: News) {
        let now = SystemTime::now();
        let time = now.checked_sub(ago).unwrap_or(now);
        self.metrics.event(news.kind);
        let mut ring = self.ring();
        ring.last += 1;
        let told = Arc::new(Told { seq: ring.last, time, news });
        if ring.kept.len() == MOST {
            ring.kept.pop_front();
        }
        ring.kept.push_back(told.clone());
        drop(ring);
        self.came.notify_waiters();
        log(&told);
    }

    /// What a reader asks for; waits for the first event to come if there is none and the reader wants that.
    pub async fn page(&self, asked: Asked) -> Page {
        let until = tokio::time::Instant::now() + asked.wait;
        loop {
            // Made before the look, so that what comes in between wakes it.
            let mut came = std::pin::pin!(self.came.notified());
            came.as_mut().enable();
            let (page, closed) = self.kept(asked);
            if !page.events.is_empty() || closed || tokio::time::timeout_at(until, came).await.is_err() {
                return page;
            }
        }
    }

    /// From now on readers get what there is, and none waits: the server is about to stop.
    pub fn close(&self) {
        self.ring().closed = true;
        self.came.notify_waiters();
    }

    fn kept(&self, asked: Asked) -> (Page, bool) {
        let ring = self.ring();
        // A number that was not given out yet is of a server that ran here before: then all of it is new.
        let after = if asked.after > ring.last { 0 } else { asked.after };
        let first = ring.kept.front().map_or(ring.last + 1, |told| told.seq);
        let lost = first.saturating_sub(after + 1);
        let skip = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let events: Vec<Arc<Told>> = ring.kept.iter().skip(skip).take(asked.limit).cloned().collect();
        let next = events.last().map_or(ring.last, |told| told.seq);
        (Page { events, next, lost }, ring.closed)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(told: &Told) {
    let Told { seq, news, .. } = told;
    let News { kind, device, who, text, numbers } = news;
    let (device, who) = (device.as_deref(), who.as_deref());
    let (tenant, owner) = (who.map(|who| who.tenant.as_str()), who.map(|who| who.owner.as_str()));
    let version = who.and_then(|who| who.version);
    let numbers = (!numbers.is_empty()).then(|| display(Value::Object(numbers.clone())));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(seq, kind, device, tenant, version, owner, { NUMBERS } = numbers, "{text}")
        };
    }
    match news.level() {
        Level::ERROR => line!(error),
        Level::WARN => line!(warn),
        _ => line!(info),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(text: impl Into<String>) -> News {
        News { kind: "loaded", device: None, who: None, text: text.into(), numbers: Map::new() }
    }

    fn ask(after: u64, limit: usize) -> Asked {
        Asked { after, limit, wait: Duration::ZERO }
    }

    #[tokio::test]
    async fn a_reader_goes_on_where_it_was() {
        let events = Events::default();
        (1..=5).for_each(|number| events.tell(news(number.to_string())));
        let first = events.page(ask(0, 3)).await;
        assert_eq!((first.events.len(), first.next, first.lost), (3, 3, 0));
        let rest = events.page(ask(first.next, 3)).await;
        assert_eq!(rest.events.iter().map(|told| told.news.text.as_str()).collect::<Vec<_>>(), ["4", "5"]);
        assert_eq!(events.page(ask(rest.next, 3)).await, Page { events: Vec::new(), next: 5, lost: 0 });
    }

    #[tokio::test]
    async fn a_slow_reader_hears_how_many_it_missed() {
        let events = Events::default();
        (0..MOST + 7).for_each(|number| events.tell(news(number.to_string())));
        let page = events.page(ask(2, 1)).await;
        assert_eq!((page.lost, page.next), (5, 8), "1 to 7 are gone, and 1 and 2 were read");
    }

    #[tokio::test]
    async fn a_reader_of_an_earlier_server_hears_everything() {
        let events = Events::default();
        events.tell(news("first"));
        assert_eq!(events.page(ask(4711, 9)).await.events.len(), 1);
    }

    #[tokio::test]
    async fn a_reader_may_wait_for_news_until_it_comes_or_the_server_stops() {
        let events = Arc::new(Events::default());
        let patient = Asked { wait: Duration::from_secs(600), ..ask(0, 9) };
        let reader = tokio::spawn({
            let events = events.clone();
            async move { events.page(patient).await }
        });
        tokio::task::yield_now().await;
        events.tell(news("at last"));
        assert_eq!(reader.await.unwrap().events.len(), 1);
        events.close();
        assert_eq!(events.page(Asked { after: 1, ..patient }).await.events.len(), 0, "it does not wait");
    }

    #[test]
    fn an_event_in_json_has_its_number_time_tenant_and_numbers() {
        let who = Who { tenant: "a".into(), version: Some(3), owner: "acme".into() };
        let numbers = Map::from_iter([("requests".into(), json!(7))]);
        let news = News { device: Some("cpu:0".into()), who: Some(Arc::new(who)), numbers, ..news("so") };
        let told = Told { seq: 9, time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000), news };
        let expected = json!({
            "seq": 9, "time": "1970-01-01T00:00:01.500000Z", "kind": "loaded", "device": "cpu:0",
            "tenant": "a", "version": 3, "owner": "acme", "text": "so", "numbers": { "requests": 7 },
        });
        assert_eq!(told.json(), expected);
    }
}
