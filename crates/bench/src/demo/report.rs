//! The demo's table, and what can be said of it.

use super::Row;
use std::fmt::{Display, Formatter, Result};
use std::time::Duration;
use tessera_core::Policy;

/// A row per policy, what they show, and what to try next.
pub(super) struct Report<'a> {
    pub(super) rows: &'a [Row],
    /// How long each policy was under load.
    pub(super) length: Duration,
}

impl Display for Report<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let seconds = self.length.as_secs_f64();
        writeln!(
            out,
            "{:<11} {:>10} {:>9} {:>9} {:>9} {:>8} {:>13}",
            "policy", "answered/s", "p50 ms", "p99 ms", "in SLO", "refused", "lanes/launch"
        )?;
        for row in self.rows {
            writeln!(
                out,
                "{:<11} {:>10.0} {:>9.2} {:>9.2} {:>8.1}% {:>8} {:>13.2}",
                row.policy.name(),
                row.load.answered as f64 / seconds,
                row.load.latency_ms.p50,
                row.load.latency_ms.p99,
                100.0 * row.in_slo(),
                row.load.refused + row.load.expired,
                row.lanes_per_launch
            )?;
        }
        let sent = self.rows.first().map_or(0, |row| row.load.sent);
        writeln!(
            out,
            "\n{sent} requests were sent to each policy. Latency counts from the moment a request was due to leave. `in SLO` is the\n\
             part of all requests with an SLO that were answered within it; refused ones count as misses.\n"
        )?;
        if let Some(said) = verdict(self.rows) {
            writeln!(out, "{said}\n")?;
        }
        writeln!(
            out,
            "When sharing pays: while requests for one class meet in the queue, and the device has room that one tenant's request leaves\n\
             idle. On a CPU there is little such room: every core is busy with one request at a time, so a fused launch saves waiting\n\
             more than work, and the policies answer about as many. On a GPU one request leaves most of the card idle, and\n\
             filling it is the point.\n\n\
             Next: `tessera demo --rate {:.0}` (overload: who is refused, who waits), `tessera demo --tenants 200`,\n\
             `tessera serve --model-repository DIR` (your models), README.md.",
            2.0 * sent as f64 / seconds
        )
    }
}

/// What the rows say of sharing, in both directions.
fn verdict(rows: &[Row]) -> Option<String> {
    let shared = rows.iter().find(|row| row.policy == Policy::SpaceTime)?;
    let turns = rows.iter().find(|row| row.policy == Policy::Time)?;
    let lanes = shared.lanes_per_launch;
    if lanes < 1.1 {
        let text = "Here requests hardly ever met: the machine was too quick for this load, and launches were not shared.";
        return Some(text.to_owned());
    }
    let points = 100.0 * (shared.in_slo() - turns.in_slo());
    let than = match points {
        points if points > 1.0 => {
            format!("{points:.0} points more of the deadlines were kept than with tenants in turn")
        }
        points if points < -1.0 => {
            format!("{:.0} points fewer of the deadlines were kept than with tenants in turn", -points)
        }
        _ => "as many deadlines were kept as with tenants in turn".to_owned(),
    };
    Some(format!("Here a launch of space-time carried {lanes:.1} tenants on average, and {than}."))
}
