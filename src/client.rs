//! The two services as the handlers see them. One call is one attempt: retries, pacing and outages are left to the callers.

pub mod classify;
pub mod error;
mod proto;
mod retry_after;
