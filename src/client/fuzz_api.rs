//! Entry points for the targets in `fuzz/`: each calls one private function.
//!
//! Compiled only with the feature `fuzzing`, with which no image is built.

use std::time::{Duration, SystemTime};

use url::Url;

use super::{reservation, retry_after};
use crate::event::ReservationId;

/// Returns the delay that a `Retry-After` header of this value requests.
#[must_use]
pub fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    retry_after::parse(value, now)
}

/// Returns the URL of reservation `id` below `base`, whose path is a slash.
#[must_use]
pub fn reservation_url(base: &Url, id: &ReservationId) -> Url {
    reservation::url(base, "", id.as_str())
}
