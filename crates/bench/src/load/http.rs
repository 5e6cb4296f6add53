//! A server of the Open Inference Protocol over HTTP, whoever wrote it.
//!
//! Connections are kept and shared by all tenants, up to a limit: a request that finds all of them busy waits, and that wait counts as the
//! server's, which has not answered those before.

use super::inputs::{Body, Inputs, TensorSpec};
use super::{Ended, Target, Tenant};
use crate::client::{Connection, Reply};
use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// The server, and what each tenant is asked.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
    allowed: Semaphore,
    guests: Vec<Guest>,
}

#[derive(Debug)]
struct Guest {
    path: String,
    /// Tenants whose requests look alike share them.
    bodies: Arc<Vec<Body>>,
}

#[derive(Deserialize)]
struct Metadata {
    inputs: Vec<TensorSpec>,
}

#[derive(Deserialize)]
struct Server {
    #[serde(default)]
    extensions: Vec<String>,
}

impl Http {
    /// Reads what each tenant takes, and makes requests. `send_timeout` sends each tenant's SLO along, for a server that refuses and drops by
    /// deadline. Errors when the server cannot be reached, does not know a tenant, or takes what cannot be made up.
    pub async fn connect(
        address: SocketAddr,
        tenants: &[Tenant],
        inputs: &Inputs,
        connections: NonZeroUsize,
        send_timeout: bool,
    ) -> Result<Http> {
        let mut connection = reached(address).await?;
        let server: Server = read(&mut connection, "/v2").await.context("the server's metadata")?;
        let binary = server.extensions.iter().any(|extension| extension == "binary_tensor_data");
        let mut made = HashMap::new();
        let mut guests = Vec::with_capacity(tenants.len());
        for Tenant { name, slo } in tenants {
            let path = format!("/v2/models/{name}");
            let metadata: Metadata =
                read(&mut connection, &path).await.with_context(|| format!("model `{name}`"))?;
            let timeout = slo.filter(|_| send_timeout);
            let key = (metadata.inputs, timeout);
            let bodies = match made.get(&key) {
                Some(bodies) => Arc::clone(bodies),
                None => {
                    let bodies = inputs.bodies(&key.0, binary, timeout);
                    let bodies = Arc::new(bodies.with_context(|| format!("model `{name}`"))?);
                    made.entry(key).or_insert(bodies).clone()
                }
            };
            guests.push(Guest { path: format!("{path}/infer"), bodies });
        }
        let idle = Mutex::new(vec![connection]);
        Ok(Http { address, idle, allowed: Semaphore::new(connections.get()), guests })
    }

    /// The address of `http://HOST:PORT` or `HOST:PORT`.
    pub async fn resolve(url: &str) -> Result<SocketAddr> {
        ensure!(!url.starts_with("https:"), "{url}: there is no TLS here; name an http:// address");
        let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        ensure!(!host.contains("://"), "{url} is no http:// address; name the server as http://HOST:PORT");
        ensure!(!host.contains('/'), "{url} has a path; name the server alone, as http://HOST:PORT");
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port { host.to_owned() } else { format!("{host}:8000") };
        let mut found =
            tokio::net::lookup_host(&host).await.with_context(|| format!("cannot find {host}"))?;
        found.next().with_context(|| format!("{host} has no address"))
    }

    /// The models that are ready, where the server lists them (Triton's repository extension).
    pub async fn listed(address: SocketAddr) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Model {
            name: String,
            #[serde(default)]
            state: Option<String>,
        }
        let mut connection = reached(address).await?;
        let reply = connection.post("/v2/repository/index", None, Bytes::from_static(b"{}")).await?;
        if reply.status != 200 {
            bail!("the server lists no models ({}); name them with --model", reply.status);
        }
        let models: Vec<Model> = serde_json::from_slice(&reply.body).context("the list of models")?;
        let ready =
            models.into_iter().filter(|model| model.state.as_deref().is_none_or(|state| state == "READY"));
        // A model is listed once for each of its versions.
        let names: BTreeSet<String> = ready.map(|model| model.name).collect();
        let names = Vec::from_iter(names);
        ensure!(!names.is_empty(), "the server lists no model that is ready");
        Ok(names)
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reply(&self, guest: &Guest, number: u64) -> Result<Ended> {
        let _allowed = self.allowed.acquire().await.context("the pool of connections is closed")?;
        // A server may have closed one that was idle for long.
        let idle = self.pool().pop().filter(|connection| !connection.is_closed());
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(self.address).await?,
        };
        let (json_bytes, body) = &guest.bodies[number as usize % guest.bodies.len()];
        let reply = connection.post(&guest.path, *json_bytes, body.clone()).await?;
        self.pool().push(connection);
        Ok(ended(&reply))
    }
}

/// The first connection to a server.
async fn reached(address: SocketAddr) -> Result<Connection> {
    let connection = Connection::open(address).await;
    connection.context("no server answers; start one with `tessera serve`, or name another with --url")
}

/// What an answer says became of its request. One that would be late is refused with the status of one that is, and with when to try again.
fn ended(reply: &Reply) -> Ended {
    match reply.status.as_u16() {
        200 => Ended::Answered,
        429 | 503 => Ended::Refused,
        504 if reply.try_again => Ended::Refused,
        504 => Ended::Expired,
        status => Ended::Failed(format!("{status}: {}", String::from_utf8_lossy(&reply.body))),
    }
}

impl Target for Http {
    async fn ask(&self, tenant: usize, number: u64) -> Ended {
        let reply = self.reply(&self.guests[tenant], number).await;
        reply.unwrap_or_else(|error| Ended::Failed(format!("{error:#}")))
    }
}

async fn read<T: for<'a> Deserialize<'a>>(connection: &mut Connection, path: &str) -> Result<T> {
    let reply = connection.get(path).await?;
    if reply.status != 200 {
        return Err(anyhow!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body)));
    }
    serde_json::from_slice(&reply.body).context("an answer that the Open Inference Protocol does not know")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    #[test]
    fn who_would_be_late_was_refused_and_who_was_late_expired() {
        let answer = |status, try_again| {
            let status = StatusCode::from_u16(status).unwrap();
            ended(&Reply { status, try_again, json_bytes: None, body: Bytes::from_static(b"why") })
        };
        assert_eq!((answer(504, true), answer(504, false)), (Ended::Refused, Ended::Expired));
        assert_eq!((answer(200, false), answer(429, true)), (Ended::Answered, Ended::Refused));
        assert_eq!(answer(500, false), Ended::Failed("500: why".to_owned()));
    }
}
