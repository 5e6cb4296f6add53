//! A load's figures, in perf_analyzer's words, for people and for machines.

use crate::latency::Latencies;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Tenants that are shown one by one; of more, those that fared worst.
const SHOWN: usize = 16;

/// What was asked of the target.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// So many requests on their way, always.
    Concurrency(usize),
    /// So many requests a second.
    RequestRate(f64),
    /// What a file says.
    Trace,
}

/// Latencies, in milliseconds; zero where nothing was answered.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Milliseconds {
    /// The mean.
    pub avg: f64,
    /// The standard deviation.
    pub std: f64,
    /// The median.
    pub p50: f64,
    /// Of ten, nine are at most this.
    pub p90: f64,
    /// Of twenty, nineteen.
    pub p95: f64,
    /// Of a hundred, ninety-nine.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Milliseconds {
    pub(crate) fn of(latencies: &Latencies) -> Milliseconds {
        let ms = |length: Duration| length.as_secs_f64() * 1e3;
        let percentile = |percent| ms(latencies.percentile(percent));
        Milliseconds {
            avg: ms(latencies.mean()),
            std: ms(latencies.deviation()),
            p50: percentile(50.0),
            p90: percentile(90.0),
            p95: percentile(95.0),
            p99: percentile(99.0),
            max: ms(latencies.most()),
        }
    }
}

/// One level of load.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// What was asked for.
    pub level: Level,
    /// Requests that were due while the clock ran. Each is one of answered, refused, expired, failed and unanswered.
    pub sent: u64,
    /// The same, per second.
    pub send_rate: f64,
    /// Requests that were answered with outputs.
    pub answered: u64,
    /// Of those, within their tenant's SLO, or while the clock ran where it has none.
    pub in_time: u64,
    /// Inferences per second that were answered while the clock ran: requests times the items of each.
    pub throughput: f64,
    /// Requests in time, per second.
    pub goodput: f64,
    /// The part of the requests of tenants with an SLO that were answered within it; `null` where no tenant has one.
    pub in_slo: Option<f64>,
    /// Not let in (429, 503, or 504 and `Retry-After`).
    pub refused: u64,
    /// Out of time while they waited (504 without it).
    pub expired: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Without an answer when nobody waited any more.
    pub unanswered: u64,
    /// Of answered requests, from the moment each was due.
    pub latency_ms: Milliseconds,
    /// The 99th percentile of those that were due in each tenth of the measured time; zero where nothing was answered. How far they are apart says how well
    /// that of the whole is known.
    pub p99_ms_by_part: Vec<f64>,
    /// How late requests left: where this is not small beside the latency, the load generator is what was measured.
    pub send_lag_p99_ms: f64,
    /// Why the first that failed did.
    pub first_failure: Option<String>,
    /// By tenant, in their order.
    pub tenants: Vec<TenantRow>,
}

/// One tenant under one level of load; as in [`Row`].
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)] // each field is that of `Row`
pub struct TenantRow {
    pub name: String,
    pub slo_ms: Option<f64>,
    pub sent: u64,
    pub answered: u64,
    pub in_time: u64,
    pub goodput: f64,
    pub refused: u64,
    pub expired: u64,
    pub failed: u64,
    pub unanswered: u64,
    pub latency_ms: Milliseconds,
}

impl TenantRow {
    /// The part of what was sent that was in time.
    pub fn part(&self) -> f64 {
        self.in_time as f64 / self.sent.max(1) as f64
    }
}

/// A load test.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// What was asked, in words.
    pub target: String,
    /// How arrivals came, in words.
    pub arrivals: String,
    /// What each run measured, in seconds.
    pub seconds: f64,
    /// Items of each request.
    pub items: u32,
    /// A level each.
    pub rows: Vec<Row>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}; {}; {:.0} s a level; latencies in ms, from the moment a request was due\n",
            self.target, self.arrivals, self.seconds
        )?;
        writeln!(f, "{Header}")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        for row in &self.rows {
            if let Some(why) = &row.first_failure {
                writeln!(f, "\n{} failed at {}; the first: {why}", row.failed, row.level)?;
            }
            if row.send_lag_p99_ms > row.latency_ms.p99 / 3.0 {
                let lag = row.send_lag_p99_ms;
                writeln!(
                    f,
                    "\nat {} requests left up to {lag:.1} ms (p99) late: this machine could not send as asked",
                    row.level
                )?;
            }
        }
        self.rows.last().map_or(Ok(()), |row| write_tenants(f, row))
    }
}

/// The head of a table of [`Row`]s.
pub(crate) struct Header;

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<20} {:>10} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>7} {:>10}",
            "",
            "infer/sec",
            "goodput/s",
            "in SLO",
            "avg",
            "p50",
            "p90",
            "p95",
            "p99",
            "refused",
            "expired",
            "failed",
            "unanswered"
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Milliseconds { avg, p50, p90, p95, p99, .. } = self.latency_ms;
        let [avg, p50, p90, p95, p99] = [avg, p50, p90, p95, p99].map(|ms| latency(ms, self.answered));
        let in_slo = self.in_slo.map_or("–".to_owned(), |part| format!("{:.1}%", 100.0 * part));
        write!(
            f,
            "{:<20} {:>10.1} {:>9.1} {in_slo:>7} {avg:>9} {p50:>9} {p90:>9} {p95:>9} {p99:>9} {:>8} {:>8} {:>7} {:>10}",
            self.level.to_string(),
            self.throughput,
            self.goodput,
            self.refused,
            self.expired,
            self.failed,
            self.unanswered
        )
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Concurrency(clients) => write!(f, "concurrency {clients}"),
            Level::RequestRate(rate) => write!(f, "request rate {rate:.0}"),
            Level::Trace => f.write_str("trace"),
        }
    }
}

/// A latency of so many answers, which without any is none.
fn latency(ms: f64, answered: u64) -> String {
    if answered == 0 { "–".to_owned() } else { format!("{ms:.2}") }
}

fn write_tenants(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    if row.tenants.len() < 2 {
        return Ok(());
    }
    let mut shown: Vec<&TenantRow> = row.tenants.iter().filter(|tenant| tenant.sent > 0).collect();
    if shown.len() > SHOWN {
        shown.sort_by(|a, b| a.part().total_cmp(&b.part()).then(b.sent.cmp(&a.sent)));
        writeln!(f, "\nthe {SHOWN} of {} tenants that fared worst at {}", row.tenants.len(), row.level)?;
        shown.truncate(SHOWN);
    } else {
        writeln!(f, "\ntenants at {}", row.level)?;
    }
    writeln!(
        f,
        "{:<24} {:>7} {:>8} {:>9} {:>8} {:>9} {:>9} {:>8} {:>8} {:>7} {:>10}",
        "tenant",
        "SLO",
        "sent",
        "goodput/s",
        "in time",
        "p50",
        "p99",
        "refused",
        "expired",
        "failed",
        "unanswered"
    )?;
    for tenant in shown {
        let slo = tenant.slo_ms.map_or("–".to_owned(), |slo| format!("{slo:.0}"));
        writeln!(
            f,
            "{:<24} {slo:>7} {:>8} {:>9.1} {:>7.1}% {:>9} {:>9} {:>8} {:>8} {:>7} {:>10}",
            tenant.name,
            tenant.sent,
            tenant.goodput,
            100.0 * tenant.part(),
            latency(tenant.latency_ms.p50, tenant.answered),
            latency(tenant.latency_ms.p99, tenant.answered),
            tenant.refused,
            tenant.expired,
            tenant.failed,
            tenant.unanswered
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Ended, Sample, Tally, Tenant, Times};

    #[test]
    fn a_tenant_without_answers_has_no_latency_in_the_table() {
        let tenant = |name: &str| Tenant { name: name.to_owned(), slo: None };
        let second = Duration::from_secs(1);
        let times = Times { warmup: Duration::ZERO, length: second, grace: second };
        let mut tally = Tally::new(vec![tenant("well"), tenant("refused")], times, 1);
        let (lag, latency) = (Duration::ZERO, Duration::from_millis(3));
        for (tenant, ended) in [Ended::Answered, Ended::Refused].into_iter().enumerate() {
            tally.count(&Sample { tenant, due: Duration::ZERO, lag, latency, ended });
        }
        let (target, arrivals) = ("here".to_owned(), "at once".to_owned());
        let rows = vec![tally.row(Level::Concurrency(1))];
        let table = Report { target, arrivals, seconds: 1.0, items: 1, rows }.to_string();
        let latencies = |name: &str| -> Vec<String> {
            let row = table.lines().find(|line| line.starts_with(name)).unwrap();
            row.split_whitespace().skip(5).take(2).map(str::to_owned).collect()
        };
        assert_eq!(latencies("well"), ["3.00", "3.00"], "{table}");
        assert_eq!(latencies("refused"), ["–", "–"], "{table}");
    }
}
