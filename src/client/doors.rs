//! Ways into this module for the targets in `fuzz/`: each calls what is private, and nothing more. Compiled with the feature
//! `fuzzing` alone, which no image is built with.

use std::time::{Duration, SystemTime};

use url::Url;

use super::{reservation, retry_after};
use crate::event::ReservationId;

/// The wait that a `Retry-After` of this value asks for.
#[must_use]
pub fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    retry_after::parse(value, now)
}

/// Where the Reservation API at `base`, whose path is a slash, is asked for `id`.
#[must_use]
pub fn reservation_url(base: &Url, id: &ReservationId) -> Url {
    reservation::url(base, "", id.as_str())
}
