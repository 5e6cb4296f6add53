//! A running `tessera serve`.

use crate::client;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// The process; dropped before it ended, it is killed.
pub(crate) struct Tessera {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Tessera {
    /// Serves a repository on free ports, with an eye on it that is quick and no packs of earlier runs.
    pub(crate) fn serve(repository: &Path, flags: &[&str]) -> Tessera {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tessera"))
            .args(["serve", "--http-port", "0", "--metrics-port", "0", "--poll-interval-ms", "50"])
            .args(["--pack-cache", "off", "--log-level", "warn", "--device", "cpu"])
            .arg("--model-repository")
            .arg(repository)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut bound = |before: &str, after: &str| -> SocketAddr {
            let line = lines.next().expect("the address is printed").unwrap();
            let address = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            address.unwrap_or_else(|| panic!("no address in {line:?}")).parse().unwrap()
        };
        let http = bound("tessera: http on http://", "");
        let metrics = bound("tessera: metrics on http://", "/metrics");
        let tessera = Tessera { child, http, metrics };
        client::eventually("the server is ready", || tessera.is_ready());
        tessera
    }

    fn is_ready(&self) -> bool {
        client::get(self.http, "/v2/health/ready").status == 200
    }

    /// The sum of the samples whose names and labels begin so.
    pub(crate) fn sample(&self, series: &str) -> f64 {
        let page = String::from_utf8(client::get(self.metrics, "/metrics").body).unwrap();
        let samples = page.lines().filter(|line| line.starts_with(series));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Bytes of memory that the process has in use, where the system tells.
    pub(crate) fn resident(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }

    /// Sends SIGTERM.
    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    #[cfg(unix)]
    pub(crate) fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Tessera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
