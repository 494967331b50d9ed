//! What a server says of itself: Redis or Valkey, which version, alone or in a cluster, master or replica, and whether it
//! throws records away when its memory is full.

use std::fmt;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

/// The only policy under which a record lives as long as it should (`maxmemory-policy` in redis.conf).
const KEEPS_RECORDS: &str = "noeviction";

/// A server, by its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    software: String,
    version: String,
    mode: String,
    role: String,
    /// `None` where we may not ask.
    eviction: Option<String>,
}

impl ServerFacts {
    /// Whether it is part of a cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.mode == "cluster"
    }

    /// Whether it is no store but a Sentinel, which only knows where one is.
    pub(super) fn is_sentinel(&self) -> bool {
        self.mode == "sentinel"
    }

    /// Whether it is a replica, which takes no writes. In a cluster they go to a master anyhow.
    pub(super) fn is_lone_replica(&self) -> bool {
        !self.is_cluster() && !matches!(self.role.as_str(), "master" | "")
    }

    /// What is unwise about it.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let policy = self.eviction.as_deref().filter(|policy| *policy != KEEPS_RECORDS)?;
        Some(format!(
            "its maxmemory-policy is {policy}: when memory is short it forgets events, and their duplicates take effect again; set it to {KEEPS_RECORDS}"
        ))
    }
}

/// `redis 7.0.15, standalone`.
impl fmt::Display for ServerFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {}", self.software, self.version, self.mode)
    }
}

/// Asks: `HELLO` (since Redis 6), and, where we may, `INFO memory`.
pub(super) async fn ask(connection: &mut MultiplexedConnection) -> RedisResult<ServerFacts> {
    let hello: Value = redis::cmd("HELLO").arg(2).query_async(connection).await?;
    let info: RedisResult<String> = redis::cmd("INFO").arg("memory").query_async(connection).await;
    let eviction = match info {
        Ok(info) => field(&info, "maxmemory_policy").map(str::to_owned),
        Err(error) if is_a_reply(&error) => None,
        Err(error) => return Err(error),
    };
    Ok(ServerFacts { eviction, ..said(&hello) })
}

fn is_a_reply(error: &RedisError) -> bool {
    error.code().is_some()
}

/// The fields of `HELLO`'s answer: names and values by turns. What is missing stays empty.
fn said(hello: &Value) -> ServerFacts {
    let mut facts = ServerFacts::default();
    let Value::Array(elements) = hello else { return facts };
    for pair in elements.chunks_exact(2) {
        let Ok(name) = String::from_redis_value_ref(&pair[0]) else { continue };
        let place = match name.as_str() {
            "server" => &mut facts.software,
            "version" => &mut facts.version,
            "mode" => &mut facts.mode,
            "role" => &mut facts.role,
            _ => continue,
        };
        *place = String::from_redis_value_ref(&pair[1]).unwrap_or_default();
    }
    facts
}

/// A line `name:value` of an `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
