//! What went wrong between the store and its server, in words for the operator: which server, what it said, what to do where
//! that is known. Never the password, the key or the record.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::excerpt::Excerpt;
use crate::idempotency::StoreError;

/// The server does not let us in, or not do what we need: somebody must change something.
const REFUSALS: &[&str] = &["NOAUTH", "WRONGPASS", "NOPERM", "DENIED"];

/// Answers of a server that another connection may not get: the master has moved, or forgot who we are.
const STALE: &[&str] = &["READONLY", "MASTERDOWN", "NOAUTH"];

/// What the caller is told: whether the operation took place is not known.
pub(super) fn unavailable(server: &str, error: &RedisError) -> StoreError {
    let text = match (error.kind(), answer(error)) {
        (ErrorKind::AuthenticationFailed, _) => refused(server, "WRONGPASS or the like"),
        (_, Some(Answer { code, detail })) => {
            let said = if detail.is_empty() {
                code.to_owned()
            } else {
                format!("{code} {}", Excerpt(detail))
            };
            if REFUSALS.contains(&code) {
                refused(server, &said)
            } else {
                format!("Redis at {server} answers {said}")
            }
        }
        (_, None) => format!("Redis at {server}: {}", Excerpt(&error.to_string())),
    };
    StoreError::Unavailable(text)
}

fn refused(server: &str, what: &str) -> String {
    format!(
        "Redis at {server} refuses us ({what}): check the user and password in IDEMPOTENCY_STORE, and what that user may do"
    )
}

/// An error that the server answered.
struct Answer<'e> {
    code: &'e str,
    detail: &'e str,
}

/// Before version 7 Redis wraps what a script's own command is answered: `ERR Error running script (...): ... -READONLY You
/// can't write`.
fn answer(error: &RedisError) -> Option<Answer<'_>> {
    let (code, detail) = (error.code()?, error.detail().unwrap_or_default());
    let wrapped = detail.match_indices(" -").find_map(|(at, dash)| {
        let inner = detail.get(at + dash.len()..)?;
        let (code, detail) = inner.split_once(' ').unwrap_or((inner, ""));
        let is_code = code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        is_code.then_some(Answer { code, detail: detail.trim() })
    });
    Some(wrapped.unwrap_or(Answer { code, detail }))
}

/// Whether the server does not know the script by its name.
pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the connection itself is in doubt, so that the next operation had better make a new one.
pub(super) fn is_of_the_connection(error: &RedisError) -> bool {
    answer(error).is_none_or(|answer| STALE.contains(&answer.code))
}
