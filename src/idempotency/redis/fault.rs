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
    let text = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) => refused(server, "WRONGPASS or the like"),
        (_, Some(code)) if REFUSALS.contains(&code) => refused(server, &said(code, error)),
        (_, Some(code)) => format!("Redis at {server} answers {}", said(code, error)),
        (_, None) => format!("Redis at {server}: {}", Excerpt(&error.to_string())),
    };
    StoreError::Unavailable(text)
}

fn refused(server: &str, what: &str) -> String {
    format!(
        "Redis at {server} refuses us ({what}): check the user and password in IDEMPOTENCY_STORE, and what that user may do"
    )
}

fn said(code: &str, error: &RedisError) -> String {
    error.detail().map_or_else(|| code.to_owned(), |detail| format!("{code} {}", Excerpt(detail)))
}

/// Whether the server does not know the script by its name.
pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the connection itself is in doubt, so that the next operation had better make a new one.
pub(super) fn is_of_the_connection(error: &RedisError) -> bool {
    error.code().is_none_or(|code| STALE.contains(&code))
}
