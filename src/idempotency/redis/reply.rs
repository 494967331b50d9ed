//! Parses the scripts' answers. An unexpected answer is an error that says nothing about the event.

use std::time::{Duration, SystemTime};

use redis::Value;

use crate::event::{ContentHash, StepSet};
use crate::idempotency::{Claim, Handled, HandledAs, Lost, Notice, StoreError};

// Same values as in `layout.lua`.
const DONE: i64 = 0;
const NOT_OWNER: i64 = 1;
const UNREADABLE: i64 = 2;
const OURS: i64 = 3;
const WAS_HANDLED: i64 = 4;
const ID_REUSED: i64 = 5;
const ELSEWHERE: i64 = 6;
const BEHIND: i64 = 7;
const LANE_LOST: i64 = 8;

/// Returns the stored number. It must never change: records outlive a version.
pub(super) const fn stored(how: HandledAs) -> u8 {
    match how {
        HandledAs::Applied => 1,
        HandledAs::Superseded => 2,
    }
}

fn handled_as(stored: i64) -> Option<HandledAs> {
    [HandledAs::Applied, HandledAs::Superseded]
        .into_iter()
        .find(|how| i64::from(self::stored(*how)) == stored)
}

/// Parses how an event was handled.
pub(super) fn handled(stored: i64) -> Result<HandledAs, StoreError> {
    let unknown = || format!("it was handled in a way that has the number {stored}");
    handled_as(stored).ok_or_else(|| StoreError::Unreadable(unknown()))
}

/// Parses the answer of `claim`.
pub(super) fn claim(answer: &Value) -> Result<Claim, StoreError> {
    match elements(answer) {
        [Value::Int(OURS), Value::Int(steps)] => {
            let steps = u8::try_from(*steps).ok().and_then(StepSet::from_bits);
            steps.map(Claim::Ours).ok_or_else(|| strange(answer))
        }
        [Value::Int(WAS_HANDLED), Value::Int(how), Value::Int(at_ms)] => {
            let how = handled(*how)?;
            let at_ms = u64::try_from(*at_ms).map_err(|_| strange(answer))?;
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at_ms));
            Ok(Claim::Handled(Handled { how, at: at.ok_or_else(|| strange(answer))? }))
        }
        [Value::Int(ID_REUSED), Value::BulkString(hash)] => {
            let hash = hash.as_slice().try_into().map_err(|_| strange(answer))?;
            Ok(Claim::IdReused(ContentHash::from_bytes(hash)))
        }
        [Value::Int(ELSEWHERE), Value::Int(left_ms)] => {
            Ok(Claim::Elsewhere(left(*left_ms, answer)?))
        }
        [Value::Int(BEHIND), Value::Int(left_ms)] => Ok(Claim::Behind(left(*left_ms, answer)?)),
        _ => Err(refusal(answer)),
    }
}

/// Parses the answer of the script that enters a lane: `None` if the lane is ours.
pub(super) fn entered(answer: &Value) -> Result<Option<Duration>, StoreError> {
    match elements(answer) {
        [Value::Int(DONE)] => Ok(None),
        [Value::Int(BEHIND), Value::Int(left_ms)] => Ok(Some(left(*left_ms, answer)?)),
        _ => Err(refusal(answer)),
    }
}

/// Parses the time that another claim lasts.
fn left(left_ms: i64, answer: &Value) -> Result<Duration, StoreError> {
    let left_ms = u64::try_from(left_ms).map_err(|_| strange(answer))?;
    Ok(Duration::from_millis(left_ms))
}

/// Parses the answer of every other script.
pub(super) fn done(answer: &Value) -> Result<(), StoreError> {
    match elements(answer) {
        [Value::Int(DONE)] => Ok(()),
        _ => Err(refusal(answer)),
    }
}

/// Parses the answer of `ping`.
pub(super) fn notice(answer: &Value) -> Result<Notice, StoreError> {
    match elements(answer) {
        [Value::Int(DONE), Value::BulkString(text), Value::Int(now_ms)] => {
            let now_ms = u64::try_from(*now_ms).map_err(|_| strange(answer))?;
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(now_ms));
            Ok(Notice { text: text.clone(), at: at.ok_or_else(|| strange(answer))? })
        }
        _ => Err(refusal(answer)),
    }
}

/// Parses the answer of `post_notice`: whether the notice was replaced.
pub(super) fn replaced(answer: &Value) -> Result<bool, StoreError> {
    match elements(answer) {
        [Value::Int(NOT_OWNER)] => Ok(false),
        _ => done(answer).map(|()| true),
    }
}

pub(super) fn refusal(answer: &Value) -> StoreError {
    match elements(answer) {
        [Value::Int(NOT_OWNER)] => StoreError::NotOwner(Lost::Claim),
        [Value::Int(LANE_LOST)] => StoreError::NotOwner(Lost::Lane),
        [Value::Int(UNREADABLE), Value::BulkString(why)] => {
            StoreError::Unreadable(String::from_utf8_lossy(why).into_owned())
        }
        _ => strange(answer),
    }
}

pub(super) fn elements(answer: &Value) -> &[Value] {
    if let Value::Array(elements) = answer { elements } else { &[] }
}

/// Describes an unexpected answer by its code only: its content may be confidential.
pub(super) fn strange(answer: &Value) -> StoreError {
    let code = match elements(answer) {
        [Value::Int(code), ..] => format!("begins with {code}"),
        _ => "is not one of this store's".to_owned(),
    };
    StoreError::unavailable(format!("Redis gave an answer that cannot be read: it {code}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn answer(elements: &[Value]) -> Value {
        Value::Array(elements.to_vec())
    }

    #[test]
    fn each_answer_of_a_script_is_read() {
        let (hash, at) = ([7; 16], SystemTime::UNIX_EPOCH + Duration::from_millis(1_500));
        for (answer, expected) in [
            (answer(&[Value::Int(OURS), Value::Int(0)]), Ok(Claim::Ours(StepSet::EMPTY))),
            (
                answer(&[Value::Int(OURS), Value::Int(2)]),
                Ok(Claim::Ours(StepSet::from_bits(2).unwrap())),
            ),
            (
                answer(&[Value::Int(WAS_HANDLED), Value::Int(2), Value::Int(1_500)]),
                Ok(Claim::Handled(Handled { how: HandledAs::Superseded, at })),
            ),
            (
                answer(&[Value::Int(ID_REUSED), Value::BulkString(hash.to_vec())]),
                Ok(Claim::IdReused(ContentHash::from_bytes(hash))),
            ),
            (
                answer(&[Value::Int(ELSEWHERE), Value::Int(250)]),
                Ok(Claim::Elsewhere(Duration::from_millis(250))),
            ),
            (answer(&[Value::Int(NOT_OWNER)]), Err(StoreError::NotOwner(Lost::Claim))),
            (answer(&[Value::Int(LANE_LOST)]), Err(StoreError::NotOwner(Lost::Lane))),
            (
                answer(&[Value::Int(UNREADABLE), Value::BulkString(b"why".to_vec())]),
                Err(StoreError::Unreadable("why".to_owned())),
            ),
        ] {
            assert_eq!(claim(&answer), expected, "{answer:?}");
            if let Err(error) = expected {
                assert_eq!(done(&answer), Err(error), "{answer:?}");
            }
        }
        assert_eq!(done(&answer(&[Value::Int(DONE)])), Ok(()));
    }

    #[test]
    fn unexpected_replies_count_as_unavailable() {
        let strange = [
            Value::Nil,
            Value::Okay,
            answer(&[]),
            answer(&[Value::Int(9)]),
            answer(&[Value::Int(BEHIND), Value::Int(-1)]),
            answer(&[Value::Int(OURS)]),
            answer(&[Value::Int(OURS), Value::Int(8)]),
            answer(&[Value::Int(OURS), Value::Int(-1)]),
            answer(&[Value::Int(WAS_HANDLED), Value::Int(1), Value::Int(-1)]),
            answer(&[Value::Int(ID_REUSED), Value::BulkString(vec![0; 15])]),
            answer(&[Value::Int(ELSEWHERE), Value::Int(-1)]),
        ];
        for answer in strange {
            for read in [claim(&answer).map(drop), entered(&answer).map(drop), done(&answer)] {
                assert!(
                    matches!(read, Err(StoreError::Unavailable { .. })),
                    "{answer:?}: {read:?}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_kind_of_handling_is_unreadable() {
        let later = answer(&[Value::Int(WAS_HANDLED), Value::Int(3), Value::Int(1)]);
        assert!(matches!(claim(&later), Err(StoreError::Unreadable(_))));
    }

    #[test]
    fn every_kind_of_handling_is_read_as_stored() {
        for how in [HandledAs::Applied, HandledAs::Superseded] {
            assert_eq!(handled_as(i64::from(stored(how))), Some(how));
        }
        assert_eq!(handled_as(0), None, "a claimed event is not handled");
    }
}
