//! Owners' quotas: what was said of them, and one count for the whole server.
//!
//! ```text
//!   settings, every tenant.toml ─agreed─▶ Quota of an owner ─▶ tessera_scheduler::Quotas ◀─ enter ─ request ─▶ a device
//!                                                                       ▲───────── Pass dropped ──────┘
//! ```
//! An owner's tenants may be on several devices, and one request may be tried on several. So a request is counted here, once, when it is known to be well
//! formed and before it goes to any device; and it counts until its [`Pass`] is dropped, which no way out can forget. The rule itself is pure and in the scheduler's crate;
//! here are its words and its one copy.
//!
//! What a `tenant.toml` says is said of the tenant's owner. Where several of its tenants say something the tightest counts, so that no file loosens what another set; where none says
//! anything the settings do.

use crate::events::{Events, News, Who};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tessera_core::{Moment, OwnerId, TenantId};
use tessera_scheduler::{Counted, Knock, Quota, Quotas, Rate, Refusal};

/// A number, or none on purpose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Limit<T> {
    /// So much.
    To(T),
    /// Any number. Greater than every other.
    Off,
}

/// So many requests or items a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speed {
    counted: Counted,
    milli_per_s: NonZeroU32,
}

/// What a rate may be.
const SPEEDS: &str =
    "off, or so many a second, at least 0.001: 100 (requests), 0.5, \"100 requests\" or \"500 items\"";

impl FromStr for Limit<Speed> {
    type Err = String;

    fn from_str(word: &str) -> Result<Limit<Speed>, String> {
        if word == "off" {
            return Ok(Limit::Off);
        }
        let (number, counted) = match word.split_once(' ').map(|(number, of)| (number, of.trim())) {
            None => (word, Counted::Requests),
            Some((number, "requests")) => (number, Counted::Requests),
            Some((number, "items")) => (number, Counted::Items),
            Some(_) => return Err(SPEEDS.to_owned()),
        };
        // In whole thousandths, which is finer than anybody means a rate.
        let milli = number.parse::<f64>().ok().map(|number| (number * 1000.0).round());
        let milli = milli.filter(|milli| (1.0..=f64::from(u32::MAX)).contains(milli));
        let milli_per_s = milli.and_then(|milli| NonZeroU32::new(milli as u32)).ok_or(SPEEDS)?;
        Ok(Limit::To(Speed { counted, milli_per_s }))
    }
}

impl FromStr for Limit<NonZeroU32> {
    type Err = String;

    fn from_str(word: &str) -> Result<Limit<NonZeroU32>, String> {
        if word == "off" {
            return Ok(Limit::Off);
        }
        word.parse().map(Limit::To).map_err(|_| "off, or a whole number from 1 on".to_owned())
    }
}

/// As in a `tenant.toml`: a number, or words.
impl<'de, T> Deserialize<'de> for Limit<T>
where
    Limit<T>: FromStr<Err = String>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit<T>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Whole(i64),
            Number(f64),
            Word(String),
        }
        let word = match Given::deserialize(deserializer) {
            Ok(Given::Whole(number)) => number.to_string(),
            Ok(Given::Number(number)) => number.to_string(),
            Ok(Given::Word(word)) => word,
            Err(_) => String::new(),
        };
        word.parse().map_err(|allowed| D::Error::custom(format!("a quota must be {allowed}")))
    }
}

/// What one source says of an owner's quota; `None` is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Said {
    /// How many a second.
    pub rate: Option<Limit<Speed>>,
    /// How many at one moment after a rest; else what a second brings.
    pub burst: Option<NonZeroU32>,
    /// How many requests in the server at once.
    pub concurrency: Option<Limit<NonZeroU32>>,
}

/// The quota of an owner whose tenants say this.
fn agreed(said: impl Iterator<Item = Said> + Clone, settings: Said) -> Quota {
    let tightest = |limit: &Limit<Speed>| match limit {
        Limit::To(speed) => (0, speed.milli_per_s.get()),
        Limit::Off => (1, 0),
    };
    let rate = said.clone().filter_map(|said| said.rate).min_by_key(tightest).or(settings.rate);
    let burst = said.clone().filter_map(|said| said.burst).min().or(settings.burst);
    let concurrency = said.filter_map(|said| said.concurrency).min().or(settings.concurrency);
    let rate = match rate {
        Some(Limit::To(Speed { counted, milli_per_s })) => {
            let second = NonZeroU32::new(milli_per_s.get().div_ceil(1000)).unwrap_or(NonZeroU32::MIN);
            Some(Rate { counted, milli_per_s, burst: burst.unwrap_or(second) })
        }
        Some(Limit::Off) | None => None,
    };
    let concurrency = match concurrency {
        Some(Limit::To(limit)) => Some(limit),
        Some(Limit::Off) | None => None,
    };
    Quota { rate, concurrency }
}

#[derive(Debug, Default)]
struct State {
    quotas: Quotas,
    /// Every owner that has tenants, or whose quota is not whole again.
    names: HashMap<String, OwnerId>,
    owners_ever: u64,
    /// Owners without tenants, to be forgotten.
    leaving: Vec<(String, OwnerId)>,
    tenants: HashMap<OwnerId, HashMap<TenantId, (Said, Arc<Who>)>>,
}

impl State {
    /// The number of an owner, whose tenants come: the same as before for as long as anything is known of it.
    fn owner(&mut self, name: &str) -> OwnerId {
        if let Some(owner) = self.names.get(name) {
            return *owner;
        }
        let owner = OwnerId(self.owners_ever);
        self.owners_ever += 1;
        self.names.insert(name.to_owned(), owner);
        owner
    }

    /// Forgets owners without tenants. To come back is no way to a new burst: the last quota stays until it is whole again.
    fn tidy(&mut self, now: Moment) {
        let State { quotas, names, leaving, tenants, .. } = self;
        leaving.retain(|(name, owner)| {
            let gone = !tenants.contains_key(owner);
            if gone && quotas.forget(now, *owner) {
                names.remove(name);
                return false;
            }
            gone
        });
    }
}

/// The quotas of all owners, and what they have used.
#[derive(Debug)]
pub struct Door {
    state: Mutex<State>,
    settings: Said,
    started: Instant,
    events: Arc<Events>,
}

impl Door {
    /// Nobody has come yet. `settings` count for owners of whom nothing else is said.
    pub fn new(settings: Said, events: Arc<Events>) -> Arc<Door> {
        Arc::new(Door { state: Mutex::default(), settings, started: Instant::now(), events })
    }

    /// A tenant's part in its owner's quota, for as long as the answer lives.
    pub fn stake(self: &Arc<Self>, tenant: TenantId, said: Said, who: Arc<Who>) -> Arc<Stake> {
        let mut state = self.state();
        let owner = state.owner(&who.owner);
        state.tenants.entry(owner).or_default().insert(tenant, (said, who));
        state.tidy(self.now());
        self.agree(&mut state, owner);
        Arc::new(Stake { door: self.clone(), owner, tenant })
    }

    /// Tells of refusals that were gathered and not told yet; to be called now and then.
    pub fn tell(&self) {
        let now = self.now();
        let mut state = self.state();
        let (events, lost) = state.quotas.take_events(now);
        let who = |tenant: TenantId| {
            let found = state.tenants.values().find_map(|tenants| tenants.get(&tenant));
            found.map(|(_, who)| who.clone())
        };
        let named: Vec<_> = events
            .into_iter()
            .map(|event| {
                let who = event.what.tenant().and_then(who);
                (event, who)
            })
            .collect();
        drop(state);
        for (event, who) in named {
            self.events.tell_of(now.since(event.at), News::decided(None, &event.what, who));
        }
        if lost > 0 {
            self.events.tell(News::untold(None, lost));
        }
    }

    fn agree(&self, state: &mut State, owner: OwnerId) {
        let said = state.tenants.get(&owner).into_iter().flat_map(HashMap::values).map(|(said, _)| *said);
        let quota = agreed(said, self.settings);
        state.quotas.set(self.now(), owner, quota);
    }

    fn now(&self) -> Moment {
        Moment::at(self.started.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tenant's part in the quota of its owner.
#[derive(Debug)]
pub struct Stake {
    door: Arc<Door>,
    owner: OwnerId,
    tenant: TenantId,
}

impl Stake {
    /// Its owner's number below the server.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// Lets a request of so many items in, or says why not.
    pub fn enter(&self, items: NonZeroU32) -> Result<Pass, Refusal> {
        let knock = Knock { tenant: self.tenant, owner: self.owner, items };
        let entered = self.door.state().quotas.enter(self.door.now(), knock);
        match entered {
            Ok(()) => Ok(Pass { door: self.door.clone(), owner: self.owner }),
            Err(refusal) => {
                self.door.tell();
                Err(refusal)
            }
        }
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        let mut state = self.door.state();
        if let Some(tenants) = state.tenants.get_mut(&self.owner) {
            let went = tenants.remove(&self.tenant);
            if tenants.is_empty() {
                state.tenants.remove(&self.owner);
                state.leaving.extend(went.map(|(_, who)| (who.owner.clone(), self.owner)));
                state.tidy(self.door.now());
                return;
            }
        }
        self.door.agree(&mut state, self.owner);
    }
}

/// A request that was let in. It counts until this is dropped.
#[derive(Debug)]
#[must_use = "the request counts until this is dropped"]
pub struct Pass {
    door: Arc<Door>,
    owner: OwnerId,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.door.state().quotas.leave(self.owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(word: &str) -> Option<Limit<Speed>> {
        Some(word.parse().unwrap())
    }

    fn places(word: &str) -> Option<Limit<NonZeroU32>> {
        Some(word.parse().unwrap())
    }

    fn shown(said: &[Said], settings: Said) -> (Option<(u32, u32)>, Option<u32>) {
        let Quota { rate, concurrency } = agreed(said.iter().copied(), settings);
        (rate.map(|rate| (rate.milli_per_s.get(), rate.burst.get())), concurrency.map(NonZeroU32::get))
    }

    #[test]
    fn rates_are_numbers_and_what_they_count() {
        let speed = |word: &str| match word.parse::<Limit<Speed>>() {
            Ok(Limit::To(speed)) => Some((speed.counted, speed.milli_per_s.get())),
            _ => None,
        };
        assert_eq!(speed("100"), Some((Counted::Requests, 100_000)));
        assert_eq!(speed("0.5 requests"), Some((Counted::Requests, 500)));
        assert_eq!(speed("500 items"), Some((Counted::Items, 500_000)));
        assert_eq!("off".parse::<Limit<Speed>>(), Ok(Limit::Off));
        for wrong in ["0", "-1", "many", "5 apples", "1e10", "", "NaN", "0.0001"] {
            assert!(wrong.parse::<Limit<Speed>>().unwrap_err().contains("items"), "{wrong}");
        }
        assert!("0".parse::<Limit<NonZeroU32>>().is_err() && "8".parse::<Limit<NonZeroU32>>().is_ok());
    }

    #[test]
    fn the_tightest_of_an_owners_tenants_counts_and_the_settings_where_none_says_anything() {
        let settings = Said { rate: rate("100"), burst: None, concurrency: places("8") };
        assert_eq!(shown(&[Said::default()], settings), (Some((100_000, 100)), Some(8)));
        let wide = Said { rate: rate("off"), burst: None, concurrency: places("off") };
        assert_eq!(
            shown(&[wide, Said::default()], settings),
            (None, None),
            "a file may lift what the settings say"
        );
        let tight = Said { rate: rate("2.5"), burst: NonZeroU32::new(7), concurrency: places("3") };
        assert_eq!(
            shown(&[wide, tight], settings),
            (Some((2500, 7)), Some(3)),
            "and not what another file says"
        );
        assert_eq!(
            shown(&[Said { rate: rate("2.5"), ..Said::default() }], Said::default()).0,
            Some((2500, 3))
        );
    }

    #[test]
    fn a_request_counts_until_its_pass_is_dropped_and_refusals_are_told_with_names() {
        let events = Arc::new(Events::default());
        let door = Door::new(Said { concurrency: places("1"), ..Said::default() }, events.clone());
        let who = Arc::new(Who { tenant: "a".into(), version: Some(1), owner: "acme".into() });
        let stake = door.stake(TenantId(0), Said::default(), who.clone());
        let other = door.stake(TenantId(1), Said::default(), who);
        let pass = stake.enter(NonZeroU32::MIN).unwrap();
        let refused = other.enter(NonZeroU32::MIN).unwrap_err().to_string();
        assert!(refused.contains("1 of 1"), "{refused}");
        drop(stake);
        assert!(other.enter(NonZeroU32::MIN).is_err(), "it is not over because its tenant went");
        drop(pass);
        drop(other.enter(NonZeroU32::MIN).unwrap());
        assert!(events.metrics().encode().contains("tessera_events_total{kind=\"refused\"} 1"));
    }

    #[test]
    fn owners_that_went_are_forgotten_and_one_that_comes_back_at_once_gets_no_new_burst() {
        let door = Door::new(Said { rate: rate("0.001"), ..Said::default() }, Arc::default());
        let who = |owner: &str| Arc::new(Who { tenant: "a".into(), version: Some(1), owner: owner.into() });
        for number in 0..100 {
            drop(door.stake(TenantId(number), Said::default(), who(&format!("owner-{number}"))));
        }
        assert!(door.state().names.is_empty(), "their bursts were whole");
        let stake = door.stake(TenantId(100), Said::default(), who("acme"));
        let (owner, pass) = (stake.owner(), stake.enter(NonZeroU32::MIN));
        drop((stake, pass));
        let stake = door.stake(TenantId(101), Said::default(), who("acme"));
        assert_eq!(stake.owner(), owner);
        assert!(stake.enter(NonZeroU32::MIN).is_err(), "one in a thousand seconds");
        assert_eq!(door.state().names.len(), 1);
    }
}
