//! The store that all pods share: a Redis 6 or later, or a Valkey, alone or as a cluster, with or without TLS.
//!
//! Each operation is one script on one key, hence one round trip, and all or nothing; the time is the server's own. A record is a
//! string of 36 bytes (`format.lua`), and takes about 210 of Redis 7.0's with its key of 55 and its expiry (a million measured). In progress it lives for as long as the claim lasts and the time to live after
//! that; handled or given up, for the time to live.
//!
//! What it cannot promise: a Redis that fails over, or restarts from what it last wrote to disk, forgets its last moments. An event
//! handled in them may be handled again, each call with the same key as before. The server must not evict records
//! (`maxmemory-policy noeviction`); when its memory is full, the store is unavailable.

mod deadline;
mod fault;
mod link;
mod reply;
mod script;
mod server;
mod slot;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use redis::{IntoConnectionInfo, Value};
use url::Url;

use self::link::Connector;
use self::script::{Call, Script, Scripts};
pub use self::server::ServerFacts;
use super::{Claim, HandledAs, Store, StoreError, Token};
use crate::clock::millis;
use crate::event::{ContentHash, EventId, Step, StepSet};
use crate::outage::Shard;

/// A URL that names no Redis that can be connected to. Says why, without the URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(String);

/// A [`Store`] in a Redis. Connects when it is first used, and again whenever it must; each operation ends within about a
/// second, connecting included.
pub struct RedisStore {
    connector: Connector,
    scripts: Scripts,
    key_prefix: String,
    time_to_live_ms: u64,
}

impl RedisStore {
    /// Touches no network. `key_prefix` begins every key; records live for `time_to_live` after they were settled.
    ///
    /// # Errors
    /// Where `url` is not one of a Redis.
    pub fn new(url: &Url, key_prefix: &str, time_to_live: Duration) -> Result<Self, BadUrl> {
        // The library's words on a URL hold no part of it.
        let info = url.clone().into_connection_info().map_err(|why| BadUrl(why.to_string()))?;
        Ok(Self {
            connector: Connector::new(info),
            scripts: Scripts::new(),
            key_prefix: key_prefix.to_owned(),
            time_to_live_ms: millis(time_to_live),
        })
    }

    /// What the server says of itself, and whether it takes records.
    ///
    /// # Errors
    /// Where it cannot be reached, or does not take them.
    pub async fn probe(&self) -> Result<ServerFacts, StoreError> {
        let facts = self.connector.facts().await?;
        if facts.is_lone_replica() {
            return Err(StoreError::Unavailable(format!(
                "Redis at {} is a read-only replica: name the master in IDEMPOTENCY_STORE",
                self.connector.server()
            )));
        }
        self.ping().await?;
        Ok(facts)
    }

    async fn run<'a, T>(
        &'a self,
        script: &'a Script,
        id: &str,
        read: impl Fn(&Value) -> Result<T, StoreError>,
        arguments: impl FnOnce(Call<'_>) -> Call<'_>,
    ) -> Result<T, StoreError> {
        let key = format!("{}{id}", self.key_prefix);
        self.connector.run(&arguments(Call::new(script, key.as_bytes())), read).await
    }
}

/// Without the password.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("server", &self.connector.server())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn claim(
        &self,
        id: &EventId,
        hash: ContentHash,
        token: Token,
        lasts: Duration,
    ) -> Result<Claim, StoreError> {
        let known = Step::ALL.iter().fold(0, |known, step| known | step.bit());
        let script = &self.scripts.claim;
        self.run(script, id.as_str(), reply::claim, |call| {
            call.bytes(&hash.to_bytes())
                .bytes(&token.to_bytes())
                .number(millis(lasts))
                .number(self.time_to_live_ms)
                .number(known)
                .number(hash.version())
        })
        .await
    }

    async fn renew(&self, id: &EventId, token: Token, lasts: Duration) -> Result<(), StoreError> {
        let script = &self.scripts.renew;
        self.run(script, id.as_str(), reply::done, |call| {
            call.bytes(&token.to_bytes()).number(millis(lasts)).number(self.time_to_live_ms)
        })
        .await
    }

    async fn record(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), StoreError> {
        let script = &self.scripts.record;
        self.run(script, id.as_str(), reply::done, |call| {
            call.bytes(&token.to_bytes()).number(done.bits())
        })
        .await
    }

    async fn complete(&self, id: &EventId, token: Token, how: HandledAs) -> Result<(), StoreError> {
        let script = &self.scripts.complete;
        self.run(script, id.as_str(), reply::done, |call| {
            call.bytes(&token.to_bytes()).number(reply::stored(how)).number(self.time_to_live_ms)
        })
        .await
    }

    async fn release(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), StoreError> {
        let script = &self.scripts.release;
        self.run(script, id.as_str(), reply::done, |call| {
            call.bytes(&token.to_bytes()).number(done.bits()).number(self.time_to_live_ms)
        })
        .await
    }

    fn shard(&self, id: &EventId) -> Shard {
        if !self.connector.is_cluster() {
            return Shard::default();
        }
        let key = format!("{}{}", self.key_prefix, id.as_str());
        Shard::new(slot::slot(key.as_bytes()), slot::SLOTS)
    }

    /// Whether a record could be written: a server that is full, or may only be read, is of no use either.
    async fn ping(&self) -> Result<(), StoreError> {
        // The prefix alone is no event's key.
        self.run(&self.scripts.ping, "", reply::done, |call| call).await
    }
}
