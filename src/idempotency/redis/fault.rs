//! Error texts for the operator: the server, its answer, and the remedy if it is known. Never the
//! password, the key or the record.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::escaped::Escaped;
use crate::idempotency::StoreError;

/// Error codes of a server that denies access: the configuration must be changed.
const REFUSALS: &[&str] = &["NOAUTH", "WRONGPASS", "NOPERM", "DENIED"];

/// Error code of a server that knows the user, but does not allow a command or a key.
pub(super) const NOT_PERMITTED: &str = "NOPERM";

/// What to do about a missing permission.
const PERMIT: &str = "give that user the permissions in docs/idempotency.md, for keys that begin with IDEMPOTENCY_KEY_PREFIX";

/// Error code of a server that spreads keys over shards, for a script on keys of two of them.
const APART: &str = "CROSSSLOT";

/// What to do about it: one script changes the record of an event and the lane of its reservation.
const ORDER_APART: &str = "this is a proxy or a server that spreads keys over shards, and does not say that it is a cluster; order in all pods changes two keys at once: set SHARED_ORDER=false, or name a node of the cluster itself in IDEMPOTENCY_STORE";

/// Error codes that a new connection may not get: the master has moved, or the server lost our
/// login.
const STALE: &[&str] = &["READONLY", "MASTERDOWN", "NOAUTH"];

/// Converts an error into [`StoreError::Unavailable`]: it is not known whether the operation took
/// place. `check` says what to check if the login is refused.
pub(super) fn unavailable(server: &str, check: &str, error: &RedisError) -> StoreError {
    let text = match (error.kind(), answer(error)) {
        (ErrorKind::AuthenticationFailed, _) => refused(server, "WRONGPASS or the like", check),
        (_, Some(ServerError { code, detail })) => {
            let said = if detail.is_empty() {
                code.to_owned()
            } else {
                format!("{code} {}", Escaped(detail))
            };
            if code == APART {
                format!("Redis at {server} answers {said}: {ORDER_APART}")
            } else if code == NOT_PERMITTED {
                refused(server, &said, PERMIT)
            } else if REFUSALS.contains(&code) {
                refused(server, &said, check)
            } else {
                format!("Redis at {server} answers {said}")
            }
        }
        (_, None) => format!("Redis at {server}: {}", Escaped(&error.to_string())),
    };
    StoreError::unavailable(text)
}

fn refused(server: &str, what: &str, check: &str) -> String {
    format!("Redis at {server} refuses us ({what}): {check}")
}

/// An error reply of the server.
struct ServerError<'e> {
    code: &'e str,
    detail: &'e str,
}

/// Returns the server's error reply. Before version 7, Redis wraps the reply to a command inside a
/// script: `ERR Error running script (...): ... -READONLY You can't write`.
fn answer(error: &RedisError) -> Option<ServerError<'_>> {
    let (code, detail) = (error.code()?, error.detail().unwrap_or_default());
    let wrapped = detail.match_indices(" -").find_map(|(at, dash)| {
        let inner = detail.get(at + dash.len()..)?;
        let (code, detail) = inner.split_once(' ').unwrap_or((inner, ""));
        let is_code = code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        is_code.then_some(ServerError { code, detail: detail.trim() })
    });
    Some(wrapped.unwrap_or(ServerError { code, detail }))
}

/// Whether the server does not know the script by its SHA-1.
pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the connection itself is suspect, so that the next operation should open a new one.
pub(super) fn is_of_the_connection(error: &RedisError) -> bool {
    answer(error).is_none_or(|answer| STALE.contains(&answer.code))
}
