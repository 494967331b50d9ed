//! The store's operations: which script runs on which keys.
//!
//! A lane has the key of its reservation. On one server, one script changes the record and the
//! lane. In a cluster they may be on different nodes: two scripts run at the same time, and what
//! only one of them granted is given back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures_util::future::join;
use redis::Value;

use super::script::{Argument, Call, Script};
use super::{RedisStore, reply, slot};
use crate::clock::millis;
use crate::event::{EventId, ReservationId, Step, StepSet};
use crate::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, KeyPart, Notice, RecordKey, Store, StoreError,
};
use crate::outage::Shard;

/// Begins the part of a lane's key after the prefix. An event's id has no control characters.
const LANE_MARK: char = '\x01';

/// Where a record and its lane are.
enum KeyPlace {
    /// One script can change all of these.
    Together(Vec<Argument>),
    /// The record and the lane, each with a script of its own.
    Apart(Argument, Argument),
}

impl RedisStore {
    /// Runs a script on these keys.
    async fn run<'a, T>(
        &'a self,
        script: &'a Script,
        keys: Vec<Argument>,
        read: impl Fn(&Value) -> Result<T, StoreError>,
        arguments: impl FnOnce(Call<'_>) -> Call<'_>,
    ) -> Result<T, StoreError> {
        self.connector.run(&arguments(Call::new(script, keys)), read).await
    }

    /// Runs a script on a lane whose record may be on another node.
    async fn run_on_lane<'a, T>(
        &'a self,
        script: &'a Script,
        lane: Argument,
        read: impl Fn(&Value) -> Result<T, StoreError>,
        arguments: impl FnOnce(Call<'_>) -> Call<'_>,
    ) -> Result<T, StoreError> {
        let answer = self.run(script, vec![lane], read, arguments).await;
        answer.map_err(|error| at(KeyPart::Lane, error))
    }

    pub(super) fn record_key(&self, id: &str) -> Argument {
        format!("{}{id}", self.key_prefix).into_bytes()
    }

    pub(super) fn lane_key(&self, id: &ReservationId) -> Argument {
        format!("{}{LANE_MARK}{}", self.key_prefix, id.as_str()).into_bytes()
    }

    /// The prefix alone is not the key of an event: an id is never empty.
    fn notice_key(&self) -> Vec<Argument> {
        vec![self.record_key("")]
    }

    /// Returns the keys. Whether the server is a cluster is known once it is connected.
    async fn place(&self, key: RecordKey<'_>) -> Result<KeyPlace, StoreError> {
        let record = self.record_key(key.id.as_str());
        let Some(reservation_id) = key.lane else {
            return Ok(KeyPlace::Together(vec![record]));
        };
        let lane = self.lane_key(reservation_id);
        Ok(if self.connector.is_known_cluster().await? {
            KeyPlace::Apart(record, lane)
        } else {
            KeyPlace::Together(vec![record, lane])
        })
    }

    async fn enter_lane(
        &self,
        lane: Argument,
        ClaimRequest { token, lasts, sent_at, .. }: ClaimRequest,
    ) -> Result<Option<Duration>, StoreError> {
        self.run_on_lane(&self.scripts.enter_lane, lane, reply::entered, |call| {
            call.bytes(&token.to_bytes()).number(sent_ms(sent_at)).number(millis(lasts))
        })
        .await
    }

    async fn stay_in_lane(
        &self,
        lane: Argument,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.run_on_lane(&self.scripts.stay_in_lane, lane, reply::done, |call| {
            call.bytes(&token.to_bytes()).number(millis(lasts))
        })
        .await
    }

    /// Runs a script on the keys of a record and of a lane, as a claim does on one server. Nothing
    /// is changed: neither is a key of an event.
    pub(super) async fn ping_lanes(&self, pairs: u8) -> Result<(), StoreError> {
        if self.connector.is_known_cluster().await? {
            return Ok(());
        }
        for pair in 0..pairs {
            let lane = format!("{}{LANE_MARK}{LANE_MARK}{pair}", self.key_prefix).into_bytes();
            let keys = vec![self.record_key(""), lane];
            self.run(&self.scripts.ping, keys, reply::notice, |call| call).await?;
        }
        Ok(())
    }

    async fn check_lane(&self, lane: Argument, token: ClaimToken) -> Result<(), StoreError> {
        let script = &self.scripts.check_lane;
        self.run_on_lane(script, lane, reply::done, |call| call.bytes(&token.to_bytes())).await
    }

    async fn leave_lane(&self, lane: Argument, token: ClaimToken) -> Result<(), StoreError> {
        let script = &self.scripts.leave_lane;
        self.run_on_lane(script, lane, reply::done, |call| call.bytes(&token.to_bytes())).await
    }

    async fn claim_record(
        &self,
        keys: Vec<Argument>,
        ClaimRequest { hash, token, lasts, sent_at }: ClaimRequest,
    ) -> Result<Claim, StoreError> {
        let known = Step::ALL.iter().fold(0, |known, step| known | step.bit());
        self.run(&self.scripts.claim, keys, reply::claim, |call| {
            call.bytes(&hash.to_bytes())
                .bytes(&token.to_bytes())
                .number(millis(lasts))
                .number(self.time_to_live_ms)
                .number(known)
                .number(hash.version())
                .number(sent_ms(sent_at))
        })
        .await
    }

    async fn release_record(
        &self,
        keys: Vec<Argument>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.run(&self.scripts.release, keys, reply::done, |call| {
            call.bytes(&token.to_bytes()).number(done.bits()).number(self.time_to_live_ms)
        })
        .await
    }

    /// Gives back what a claim granted of a record and its lane, if it granted only one of them.
    ///
    /// What cannot be given back ends with the claim.
    async fn both_or_none(
        &self,
        (record, lane): (Argument, Argument),
        token: ClaimToken,
        claimed: Result<Claim, StoreError>,
        entered: Result<Option<Duration>, StoreError>,
    ) -> Result<Claim, StoreError> {
        match (claimed, entered) {
            (Ok(Claim::Ours(done)), Ok(None)) => Ok(Claim::Ours(done)),
            (Ok(Claim::Ours(done)), Ok(Some(rest))) => {
                let _ = self.release_record(vec![record], token, done).await;
                Ok(Claim::Behind(rest))
            }
            // Gives back the lane, or the ticket.
            (other, Ok(_)) => {
                let _ = self.leave_lane(lane, token).await;
                other
            }
            // Asked again with the same token, the record is ours again.
            (claimed, entered @ Err(_)) => both(claimed, entered).map(|(claim, _)| claim),
        }
    }
}

/// Returns what two nodes answered, or the error of one of them, and where it was.
fn both<A, B>(
    record: Result<A, StoreError>,
    lane: Result<B, StoreError>,
) -> Result<(A, B), StoreError> {
    match (record, lane) {
        (Ok(record), Ok(lane)) => Ok((record, lane)),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Err(StoreError::Unavailable { .. })) => Err(at(KeyPart::Both, error)),
        (Err(error), _) => Err(error),
    }
}

/// Says where an operation failed, if its error is that there was no answer.
fn at(part: KeyPart, error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable { why, .. } => StoreError::Unavailable { at: part, why },
        StoreError::NotOwner(_) | StoreError::Unreadable(_) | StoreError::Away { .. } => error,
    }
}

/// Returns the time of sending in ms since the Unix epoch.
fn sent_ms(sent_at: SystemTime) -> u64 {
    sent_at.duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[async_trait]
impl Store for RedisStore {
    async fn claim(&self, key: RecordKey<'_>, request: ClaimRequest) -> Result<Claim, StoreError> {
        match self.place(key).await? {
            KeyPlace::Together(keys) => self.claim_record(keys, request).await,
            KeyPlace::Apart(record, lane) => {
                let claimed = self.claim_record(vec![record.clone()], request);
                let (claimed, entered) =
                    join(claimed, self.enter_lane(lane.clone(), request)).await;
                self.both_or_none((record, lane), request.token, claimed, entered).await
            }
        }
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        let renew = |keys| {
            self.run(&self.scripts.renew, keys, reply::done, |call| {
                call.bytes(&token.to_bytes()).number(millis(lasts)).number(self.time_to_live_ms)
            })
        };
        match self.place(key).await? {
            KeyPlace::Together(keys) => renew(keys).await,
            KeyPlace::Apart(record, lane) => {
                // One after the other: a lane is not taken without its record.
                renew(vec![record]).await?;
                self.stay_in_lane(lane, token, lasts).await
            }
        }
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        let record = |keys| {
            self.run(&self.scripts.record, keys, reply::done, |call| {
                call.bytes(&token.to_bytes()).number(done.bits())
            })
        };
        match self.place(key).await? {
            KeyPlace::Together(keys) => record(keys).await,
            KeyPlace::Apart(key, lane) => {
                let (recorded, checked) =
                    join(record(vec![key]), self.check_lane(lane, token)).await;
                both(recorded, checked).map(drop)
            }
        }
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        let complete = |keys| {
            self.run(&self.scripts.complete, keys, reply::done, |call| {
                let stored = reply::stored(how);
                call.bytes(&token.to_bytes()).number(stored).number(self.time_to_live_ms)
            })
        };
        match self.place(key).await? {
            KeyPlace::Together(keys) => complete(keys).await,
            KeyPlace::Apart(record, lane) => {
                let (completed, left) =
                    join(complete(vec![record]), self.leave_lane(lane, token)).await;
                both(completed, left).map(drop)
            }
        }
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        match self.place(key).await? {
            KeyPlace::Together(keys) => self.release_record(keys, token, done).await,
            KeyPlace::Apart(record, lane) => {
                let released = self.release_record(vec![record], token, done);
                let (released, left) = join(released, self.leave_lane(lane, token)).await;
                both(released, left).map(drop)
            }
        }
    }

    fn shard(&self, id: &EventId) -> Shard {
        if !self.connector.is_cluster() {
            return Shard::default();
        }
        Shard::new(slot::slot(&self.record_key(id.as_str())), slot::SLOTS)
    }

    fn lane_shard(&self, id: &ReservationId) -> Shard {
        if !self.connector.is_cluster() {
            return Shard::default();
        }
        Shard::new(slot::slot(&self.lane_key(id)), slot::SLOTS)
    }

    /// Checks whether a record could be written: a server that is full or read-only counts as
    /// unreachable.
    async fn ping(&self) -> Result<Notice, StoreError> {
        self.run(&self.scripts.ping, self.notice_key(), reply::notice, |call| call).await
    }

    async fn post_notice(
        &self,
        read: &[u8],
        text: &[u8],
        lasts: Duration,
    ) -> Result<bool, StoreError> {
        self.run(&self.scripts.post_notice, self.notice_key(), reply::replaced, |call| {
            call.bytes(text).number(millis(lasts)).bytes(read)
        })
        .await
    }
}
