//! Looks at a record and at a lane without changing them, and forgets a record: what operators ask.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Value;

use super::script::{Call, script};
use super::{RedisStore, reply};
use crate::event::{EventId, ReservationId, StepSet};
use crate::idempotency::{Handled, StoreError, StoredToken};

// Same values as in the scripts of this module.
const DONE: i64 = 0;
const ELSEWHERE: i64 = 6;
const FOUND: i64 = 9;
const CHANGED: i64 = 10;

// Same values as in `format.lua`.
const IN_PROGRESS: i64 = 1;
const GIVEN_UP: i64 = 2;
const HANDLED: i64 = 3;

/// A record as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// What it says.
    pub state: RecordState,
    /// The token of its last owner.
    pub token: StoredToken,
    /// The steps that are recorded as done. Those of an event that is handled are not all recorded.
    pub steps: StepSet,
    /// The bytes, by which it is known whether it has changed.
    raw: Vec<u8>,
}

/// What a record says about its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// A process works on it.
    InProgress {
        /// The time until its claim ends, unless it is renewed.
        left: Duration,
    },
    /// A process worked on it and has not said how it ended.
    Expired {
        /// The time since its claim ended.
        since: Duration,
    },
    /// Its claim was given back.
    GivenUp {
        /// The time of that, by the store's clock.
        at: SystemTime,
    },
    /// It is handled.
    Handled(Handled),
}

/// Whose turn it is among the events of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneState {
    /// The event that is worked on, by its token, and the time until its turn ends unless renewed.
    pub holder: Option<(StoredToken, Duration)>,
    /// The event that is next, and for how long unless it asks again.
    pub next: Option<(StoredToken, Duration)>,
}

/// What became of a record that was to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// There is none any more.
    Gone,
    /// A process works on the event: its claim ends after this time, unless it is renewed.
    Claimed(Duration),
    /// It is not the record that was shown.
    Changed,
}

impl RedisStore {
    /// Looks an event up; `None` if the store knows nothing of it.
    ///
    /// # Errors
    /// If the store does not answer, or the record cannot be read.
    pub async fn look(&self, id: &EventId) -> Result<Option<StoredRecord>, StoreError> {
        let look = script!(; "look.lua");
        let call = Call::new(&look, vec![self.record_key(id.as_str())]);
        self.connector.run(&call, record).await
    }

    /// Looks the lane of a reservation up.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn look_lane(&self, id: &ReservationId) -> Result<LaneState, StoreError> {
        let look = script!(; "look_lane.lua");
        let call = Call::new(&look, vec![self.lane_key(id)]);
        self.connector.run(&call, lane).await
    }

    /// Forgets an event, if its record is still `seen` and no process works on it.
    ///
    /// # Errors
    /// If the store does not answer: it is not known then whether the record is gone.
    pub async fn forget(&self, id: &EventId, seen: &StoredRecord) -> Result<Forgotten, StoreError> {
        let forget = script!(; "forget.lua");
        let call = Call::new(&forget, vec![self.record_key(id.as_str())]).bytes(&seen.raw);
        self.connector.run(&call, forgotten).await
    }
}

fn record(answer: &Value) -> Result<Option<StoredRecord>, StoreError> {
    match reply::elements(answer) {
        [Value::Int(DONE)] => Ok(None),
        [
            Value::Int(FOUND),
            Value::BulkString(raw),
            Value::Int(kind),
            Value::Int(steps),
            Value::Int(how),
            Value::BulkString(token),
            Value::Int(at_ms),
            Value::Int(now_ms),
        ] => {
            let strange = || reply::strange(answer);
            let at =
                millis(*at_ms).and_then(|at| UNIX_EPOCH.checked_add(at)).ok_or_else(strange)?;
            let state = match *kind {
                IN_PROGRESS => match at_ms - now_ms {
                    left_ms @ 1.. => RecordState::InProgress { left: clamped(left_ms) },
                    left_ms => RecordState::Expired { since: clamped(left_ms.saturating_neg()) },
                },
                GIVEN_UP => RecordState::GivenUp { at },
                HANDLED => RecordState::Handled(Handled { how: reply::handled(*how)?, at }),
                _ => return Err(strange()),
            };
            let steps = u8::try_from(*steps).ok().and_then(StepSet::from_bits);
            let unknown = || StoreError::Unreadable("its steps are of a later version".to_owned());
            let token = self::token(token).ok_or_else(strange)?;
            let steps = steps.ok_or_else(unknown)?;
            Ok(Some(StoredRecord { state, token, steps, raw: raw.clone() }))
        }
        _ => Err(reply::refusal(answer)),
    }
}

fn lane(answer: &Value) -> Result<LaneState, StoreError> {
    let [
        Value::Int(FOUND),
        Value::BulkString(holder),
        Value::Int(held_ms),
        Value::BulkString(next),
        Value::Int(next_ms),
    ] = reply::elements(answer)
    else {
        return Err(reply::refusal(answer));
    };
    let entry = |token: &[u8], left_ms: i64| {
        let token = self::token(token).ok_or_else(|| reply::strange(answer))?;
        Ok((left_ms > 0).then(|| (token, clamped(left_ms))))
    };
    Ok(LaneState { holder: entry(holder, *held_ms)?, next: entry(next, *next_ms)? })
}

fn forgotten(answer: &Value) -> Result<Forgotten, StoreError> {
    match reply::elements(answer) {
        [Value::Int(DONE)] => Ok(Forgotten::Gone),
        [Value::Int(CHANGED)] => Ok(Forgotten::Changed),
        [Value::Int(ELSEWHERE), Value::Int(left_ms)] => Ok(Forgotten::Claimed(clamped(*left_ms))),
        _ => Err(reply::refusal(answer)),
    }
}

fn token(bytes: &[u8]) -> Option<StoredToken> {
    bytes.try_into().ok().map(StoredToken::from_bytes)
}

fn millis(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}

fn clamped(ms: i64) -> Duration {
    millis(ms).unwrap_or(Duration::ZERO)
}
