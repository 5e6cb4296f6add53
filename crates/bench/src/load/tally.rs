//! Counts what became of requests, in all and by tenant.

use super::report::{Level, Milliseconds, Row, TenantRow};
use super::{Ended, Sample, Tenant, Times};
use crate::latency::Latencies;

/// Parts of the measured time whose percentiles are told beside that of the whole: how far they are apart says how well it is known.
const PARTS: usize = 10;

/// Everything that was heard of a load. Memory is bounded by tenants, not by requests, unless samples are kept.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By tenant, or by group of tenants.
    tenants: Vec<(Tenant, Counts)>,
    /// Whose counts are a tenant's.
    of: Vec<usize>,
    times: Times,
    items: u32,
    lag: Latencies,
    /// Of requests that were due in each part of the measured time.
    parts: [Latencies; PARTS],
    first_failure: Option<String>,
    /// Every sample, warm-up included, where they are kept.
    kept: Option<Vec<Sample>>,
}

/// What became of some requests.
#[derive(Clone, Debug, Default)]
struct Counts {
    sent: u64,
    /// Answered, ever.
    answered: u64,
    /// Answered before the measured time was over.
    in_window: u64,
    in_time: u64,
    refused: u64,
    expired: u64,
    failed: u64,
    unanswered: u64,
    latencies: Latencies,
}

impl Tally {
    /// Of a load of these tenants, whose requests bring so many items each.
    pub fn new(tenants: Vec<Tenant>, times: Times, items: u32) -> Tally {
        let tenants: Vec<_> = tenants.into_iter().map(|tenant| (tenant, Counts::default())).collect();
        let of = (0..tenants.len()).collect();
        let (lag, parts) = Default::default();
        Tally { tenants, of, times, items, lag, parts, first_failure: None, kept: None }
    }

    /// The same, with every sample kept, those of the warm-up, too.
    pub(crate) fn keeping(self) -> Tally {
        Tally { kept: Some(Vec::new()), ..self }
    }

    /// The samples that were kept.
    pub(crate) fn into_samples(self) -> Vec<Sample> {
        self.kept.unwrap_or_default()
    }

    /// The same, with a row for each of these groups instead of each tenant: tenants belong to them in turn, as they do to models, and have
    /// the SLO of theirs.
    pub fn by_group(self, groups: &[Tenant]) -> Tally {
        let of = (0..self.of.len()).map(|tenant| tenant % groups.len()).collect();
        let tenants = groups.iter().map(|group| (group.clone(), Counts::default())).collect();
        Tally { tenants, of, ..self }
    }

    /// The same, with two rows: one of the first tenant, and one of all others together.
    pub fn first_beside_others(self) -> Tally {
        let of = (0..self.of.len()).map(|tenant| tenant.min(1)).collect();
        let named = |name: &str, number: usize| {
            let slo = self.tenants.get(number).and_then(|(tenant, _)| tenant.slo);
            (Tenant { name: name.to_owned(), slo }, Counts::default())
        };
        Tally { of, tenants: vec![named("the first", 0), named("the others", 1)], ..self }
    }

    /// How many tenants there are.
    pub fn tenants(&self) -> usize {
        self.of.len()
    }

    /// Takes in what became of a request, unless it was due in the warm-up.
    pub fn count(&mut self, sample: &Sample) {
        if let Some(kept) = &mut self.kept {
            kept.push(sample.clone());
        }
        if sample.due < self.times.warmup {
            return;
        }
        self.lag.record(sample.lag);
        let (tenant, counts) = &mut self.tenants[self.of[sample.tenant]];
        counts.sent += 1;
        match &sample.ended {
            Ended::Answered => {
                let before_the_end = sample.due + sample.latency <= self.times.end();
                counts.answered += 1;
                counts.in_window += u64::from(before_the_end);
                // Without an SLO an answer is in time while the clock runs: else a queue without end would be no fault.
                counts.in_time += u64::from(tenant.slo.map_or(before_the_end, |slo| sample.latency <= slo));
                counts.latencies.record(sample.latency);
                let at = (sample.due - self.times.warmup).as_secs_f64() / self.times.length.as_secs_f64();
                self.parts[((at * PARTS as f64) as usize).min(PARTS - 1)].record(sample.latency);
            }
            Ended::Refused => counts.refused += 1,
            Ended::Expired => counts.expired += 1,
            Ended::Unanswered => counts.unanswered += 1,
            Ended::Failed(why) => {
                counts.failed += 1;
                self.first_failure.get_or_insert_with(|| why.clone());
            }
        }
    }

    /// The figures.
    pub fn row(&self, level: Level) -> Row {
        let mut all = Counts::default();
        let mut with_slo = (0, 0);
        for (tenant, counts) in &self.tenants {
            all.add(counts);
            if tenant.slo.is_some() {
                with_slo = (with_slo.0 + counts.sent, with_slo.1 + counts.in_time);
            }
        }
        let seconds = self.times.length.as_secs_f64();
        let rate = |count: u64| count as f64 / seconds;
        Row {
            level,
            sent: all.sent,
            send_rate: rate(all.sent),
            answered: all.answered,
            in_time: all.in_time,
            throughput: rate(all.in_window) * f64::from(self.items),
            goodput: rate(all.in_time),
            in_slo: (with_slo.0 > 0).then(|| with_slo.1 as f64 / with_slo.0 as f64),
            refused: all.refused,
            expired: all.expired,
            failed: all.failed,
            unanswered: all.unanswered,
            latency_ms: Milliseconds::of(&all.latencies),
            p99_ms_by_part: self.parts.iter().map(|part| part.percentile(99.0).as_secs_f64() * 1e3).collect(),
            send_lag_p99_ms: self.lag.percentile(99.0).as_secs_f64() * 1e3,
            first_failure: self.first_failure.clone(),
            tenants: self.tenants.iter().map(|(tenant, counts)| counts.row(tenant, seconds)).collect(),
        }
    }
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.in_window += other.in_window;
        self.in_time += other.in_time;
        self.refused += other.refused;
        self.expired += other.expired;
        self.failed += other.failed;
        self.unanswered += other.unanswered;
        self.latencies.merge(&other.latencies);
    }

    fn row(&self, tenant: &Tenant, seconds: f64) -> TenantRow {
        TenantRow {
            name: tenant.name.clone(),
            slo_ms: tenant.slo.map(|slo| slo.as_secs_f64() * 1e3),
            sent: self.sent,
            answered: self.answered,
            goodput: self.in_time as f64 / seconds,
            in_time: self.in_time,
            refused: self.refused,
            expired: self.expired,
            failed: self.failed,
            unanswered: self.unanswered,
            latency_ms: Milliseconds::of(&self.latencies),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_request_is_counted_once_and_goodput_is_what_came_in_time() {
        let times = Times { warmup: Duration::ZERO, length: Duration::from_secs(1), grace: Duration::ZERO };
        let tenant = |name: &str, slo| Tenant { name: name.into(), slo };
        let tenants = vec![tenant("a", Some(Duration::from_millis(10))), tenant("b", None)];
        let mut tally = Tally::new(tenants, times, 2);
        let mut count = |tenant, due, latency, ended| {
            let of = Duration::from_millis;
            tally.count(&Sample { tenant, due: of(due), lag: Duration::ZERO, latency: of(latency), ended });
        };
        count(0, 0, 5, Ended::Answered);
        count(0, 0, 50, Ended::Answered);
        count(0, 999, 9, Ended::Answered); // in time, though after the clock
        count(1, 0, 500, Ended::Answered);
        count(1, 900, 500, Ended::Answered);
        count(1, 0, 0, Ended::Refused);
        count(0, 0, 9, Ended::Expired);
        count(0, 0, 9, Ended::Failed("first".into()));
        count(0, 0, 9, Ended::Failed("second".into()));
        count(1, 0, 9, Ended::Unanswered);
        let row = tally.row(Level::Trace);
        assert_eq!(
            (row.sent, row.answered, row.refused, row.expired, row.failed, row.unanswered),
            (10, 5, 1, 1, 2, 1)
        );
        assert_eq!((row.throughput, row.goodput), (6.0, 3.0));
        assert_eq!(row.in_slo, Some(2.0 / 6.0), "of the requests of tenants with an SLO");
        assert_eq!(row.first_failure.as_deref(), Some("first"));
        let answered: Vec<usize> = (0..PARTS).filter(|part| row.p99_ms_by_part[*part] > 0.0).collect();
        assert_eq!(answered, [0, 9], "the parts in which what was answered was due");
        assert_eq!((row.tenants[0].goodput, row.tenants[1].goodput), (2.0, 1.0));
    }

    #[test]
    fn a_group_counts_all_its_tenants() {
        let times = Times { warmup: Duration::ZERO, length: Duration::from_secs(1), grace: Duration::ZERO };
        let named = |name: &str| Tenant { name: name.into(), slo: Some(Duration::from_millis(10)) };
        let tenants = ["0", "1", "2"].map(named).to_vec();
        let mut tally = Tally::new(tenants, times, 1).by_group(&[named("even"), named("odd")]);
        for tenant in 0..3 {
            let latency = Duration::from_millis(4 * tenant as u64 + 4);
            let ended = Ended::Answered;
            tally.count(&Sample { tenant, due: Duration::ZERO, lag: Duration::ZERO, latency, ended });
        }
        let row = tally.row(Level::Trace);
        let groups: Vec<_> = row.tenants.iter().map(|group| (group.sent, group.in_time)).collect();
        assert_eq!((groups, tally.tenants()), (vec![(2, 1), (1, 1)], 3));
    }
}
