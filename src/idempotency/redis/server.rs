//! Reads a server's facts: Redis or Valkey, version, standalone or cluster, master or replica, and
//! whether it evicts records when its memory is full.

use std::fmt;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

/// The only `maxmemory-policy` (redis.conf) that never evicts a record.
const KEEPS_RECORDS: &str = "noeviction";

/// The facts that a server reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    software: String,
    version: String,
    mode: String,
    role: String,
    /// The eviction policy; `None` if the user may not read it.
    eviction: Option<String>,
}

impl ServerInfo {
    /// Whether the server is part of a cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.mode == "cluster"
    }

    /// Whether the server is a Sentinel, which stores no records and only knows the master.
    pub(super) fn is_sentinel(&self) -> bool {
        self.mode == "sentinel"
    }

    /// Whether the server is a standalone replica, which accepts no writes. In a cluster, writes go
    /// to a master.
    pub(super) fn is_lone_replica(&self) -> bool {
        !self.is_cluster() && !matches!(self.role.as_str(), "master" | "")
    }

    /// Returns advice about an unsafe configuration.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let policy = self.eviction.as_deref().filter(|policy| *policy != KEEPS_RECORDS)?;
        Some(format!(
            "its maxmemory-policy is {policy}: when memory is short it forgets events, and their duplicates take effect again; set it to {KEEPS_RECORDS}"
        ))
    }
}

/// Formats the facts: `redis 7.0.15, standalone`.
impl fmt::Display for ServerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {}", self.software, self.version, self.mode)
    }
}

/// Calls `HELLO` (since Redis 6), and `INFO memory` if the user may.
pub(super) async fn ask(connection: &mut MultiplexedConnection) -> RedisResult<ServerInfo> {
    let hello: Value = redis::cmd("HELLO").arg(2).query_async(connection).await?;
    let info: RedisResult<String> = redis::cmd("INFO").arg("memory").query_async(connection).await;
    let eviction = match info {
        Ok(info) => field(&info, "maxmemory_policy").map(str::to_owned),
        Err(error) if is_a_reply(&error) => None,
        Err(error) => return Err(error),
    };
    Ok(ServerInfo { eviction, ..said(&hello) })
}

fn is_a_reply(error: &RedisError) -> bool {
    error.code().is_some()
}

/// Parses the answer of `HELLO`: alternating names and values. Missing fields stay empty.
fn said(hello: &Value) -> ServerInfo {
    let mut info = ServerInfo::default();
    let Value::Array(elements) = hello else { return info };
    for pair in elements.chunks_exact(2) {
        let Ok(name) = String::from_redis_value_ref(&pair[0]) else { continue };
        let place = match name.as_str() {
            "server" => &mut info.software,
            "version" => &mut info.version,
            "mode" => &mut info.mode,
            "role" => &mut info.role,
            _ => continue,
        };
        *place = String::from_redis_value_ref(&pair[1]).unwrap_or_default();
    }
    info
}

/// Returns the value of a line `name:value` of an `INFO` answer.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
