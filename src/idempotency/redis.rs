//! The store that all pods share: Redis 6 or later, or Valkey; standalone or cluster; with or
//! without TLS.
//!
//! Each operation is one script: one round trip, and atomic; in a cluster the lane of a reservation
//! is a second one (`operations`). The time is the server's. A record is a string of 36 bytes
//! (`layout.lua`). It takes about 210 bytes in Redis 7.0, with its key of 55 bytes and its expiry
//! (measured with a million records). A record in progress expires when the claim has ended and the
//! time to live has passed; a handled or given-up record expires after the time to live. A lane is
//! a string of 42 bytes (`layout.lua`), and expires with its holder's turn.
//!
//! Limits: a Redis that fails over, or restarts from disk, loses its last writes. An event that was
//! handled during that time may be handled again, with the same idempotency key for each call. The
//! server must not evict records (`maxmemory-policy noeviction`); when its memory is full, the
//! store is unavailable.

mod access;
mod deadline;
mod fault;
mod inspect;
mod link;
mod operations;
mod reply;
mod script;
mod search;
mod server;
mod slot;

use std::fmt;
use std::time::Duration;

use redis::IntoConnectionInfo;
use url::Url;

pub use self::access::StoreAccess;
pub use self::inspect::{Forgotten, LaneState, RecordState, StoredRecord};
use self::link::RedisConnector;
use self::script::Scripts;
pub use self::search::SearchOutcome;
pub use self::server::ServerInfo;
use super::{Store, StoreError};
use crate::clock::millis;

/// Pairs of keys that [`RedisStore::probe_order`] tries: enough that one pair is apart, on two
/// shards or more.
const ORDER_PROBES: u8 = 8;

/// The error for a URL that is not a valid Redis URL. Its text does not contain the URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(String);

/// A [`Store`] in Redis.
/// Connects at the first operation, and reconnects when needed. Each operation ends within about a
/// second, including the connection.
pub struct RedisStore {
    connector: RedisConnector,
    scripts: Scripts,
    key_prefix: String,
    time_to_live_ms: u64,
}

impl RedisStore {
    /// Creates the store without network access; it logs in with what the URL has.
    /// `key_prefix` begins every key; records live for `time_to_live` after they were settled.
    ///
    /// # Errors
    /// If `url` is not a valid Redis URL.
    pub fn new(url: &Url, key_prefix: &str, time_to_live: Duration) -> Result<Self, BadUrl> {
        Self::with_access(url, StoreAccess::default(), key_prefix, time_to_live)
    }

    /// Creates the store as [`RedisStore::new`] does, with another way to get in.
    ///
    /// # Errors
    /// If `url` is not a valid Redis URL.
    pub fn with_access(
        url: &Url,
        access: StoreAccess,
        key_prefix: &str,
        time_to_live: Duration,
    ) -> Result<Self, BadUrl> {
        // The library's error text contains no part of the URL.
        let info = url.clone().into_connection_info().map_err(|why| BadUrl(why.to_string()))?;
        Ok(Self {
            connector: RedisConnector::new(info, access),
            scripts: Scripts::new(),
            key_prefix: key_prefix.to_owned(),
            time_to_live_ms: millis(time_to_live),
        })
    }

    /// Reads the server's facts, and checks whether it accepts records.
    ///
    /// # Errors
    /// If the server cannot be reached, or does not accept records.
    pub async fn probe(&self) -> Result<ServerInfo, StoreError> {
        let info = self.connector.server_info().await?;
        if info.is_lone_replica() {
            return Err(StoreError::unavailable(format!(
                "Redis at {} is a read-only replica: name the master in IDEMPOTENCY_STORE",
                self.connector.server()
            )));
        }
        self.ping().await?;
        Ok(info)
    }

    /// Checks whether the server runs the scripts that keep order in all processes. One that
    /// spreads keys over shards, and does not say that it is a cluster, runs none on two keys.
    ///
    /// # Errors
    /// If it does not, or cannot be reached.
    pub async fn probe_order(&self) -> Result<(), StoreError> {
        self.ping_lanes(ORDER_PROBES).await
    }
}

/// Omits the password.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("server", &self.connector.server())
            .finish_non_exhaustive()
    }
}
