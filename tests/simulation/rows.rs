//! The errors that the simulated services return, by class. The engine must react to each class as
//! documented.

use std::time::Duration;

use reservation_worker::client::{CallError, Class, Load};

/// One error that a service may return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its name in the coverage.
    pub(crate) name: &'static str,
    pub(crate) class: Class,
}

const fn row(name: &'static str, class: Class) -> Row {
    Row { name, class }
}

use Class::{Forbidden, MoneyWithoutSeat, Outage, Paced, Permanent, Transient};

/// The Reservation API. Its outage class: the service, or the connection to it, fails.
pub(crate) const API_OUTAGE: [Row; 10] = [
    row("api connect", Outage),
    row("api 200 foreign", Outage),
    row("api 301", Outage),
    row("api 400 foreign", Outage),
    row("api 401", Outage),
    row("api 404 foreign", Outage),
    row("api 405 foreign", Outage),
    row("api 502", Outage),
    row("api 503", Outage),
    row("api 504", Outage),
];
pub(crate) const API_TRANSIENT: [Row; 5] = [
    row("api 500", Transient),
    row("api 501", Transient),
    row("api 505", Transient),
    row("api 408", Transient),
    row("api 425", Transient),
];
pub(crate) const API_PACED: [Row; 5] = [
    row("api 429", Paced),
    row("api 429 paced", Paced),
    row("api 500 paced", Paced),
    row("api 503 paced", Paced),
    row("api 404 foreign paced", Paced),
];
pub(crate) const API_FORBIDDEN: [Row; 1] = [row("api 403", Forbidden)];
pub(crate) const API_PERMANENT: [Row; 4] = [
    row("api 400", Permanent),
    row("api 404 own", Permanent),
    row("api 410", Permanent),
    row("api 422", Permanent),
];

/// The Inventory service.
pub(crate) const INV_OUTAGE: [Row; 7] = [
    row("inv connect", Outage),
    row("inv unavailable", Outage),
    row("inv deadline exceeded", Outage),
    row("inv cancelled", Outage),
    row("inv unauthenticated", Outage),
    row("inv unimplemented", Outage),
    row("inv not grpc", Outage),
];
pub(crate) const INV_TRANSIENT: [Row; 4] = [
    row("inv internal", Transient),
    row("inv unknown", Transient),
    row("inv aborted", Transient),
    row("inv ok without a message", Transient),
];
pub(crate) const INV_PACED: [Row; 3] = [
    row("inv resource exhausted", Paced),
    row("inv unavailable paced", Paced),
    row("inv resource exhausted paced", Paced),
];
pub(crate) const INV_FORBIDDEN: [Row; 1] = [row("inv permission denied", Forbidden)];
pub(crate) const INV_PERMANENT: [Row; 7] = [
    row("inv invalid argument", Permanent),
    row("inv failed precondition", Permanent),
    row("inv already exists", Permanent),
    row("inv out of range", Permanent),
    row("inv data loss", Permanent),
    row("inv status failed", Permanent),
    row("inv status unspecified", Permanent),
];
pub(crate) const INV_MONEY: [Row; 3] = [
    row("inv failed payment", MoneyWithoutSeat),
    row("inv failed expired", MoneyWithoutSeat),
    row("inv failed conflict", MoneyWithoutSeat),
];

impl Row {
    /// The error as the client reports it.
    pub(crate) fn error(self, retry_after: Option<Duration>) -> CallError {
        CallError {
            class: self.class,
            code: self.name.into(),
            detail: "simulated".to_owned(),
            retry_after,
            load: self.load(),
        }
    }

    fn load(self) -> Load {
        match self.name {
            "no answer in time" | "inv deadline exceeded" => Load::TimedOut,
            _ => self.class.into(),
        }
    }

    /// Whether the error names the time of the next call.
    pub(crate) fn names_time(self) -> bool {
        self.name.ends_with(" paced")
    }
}

/// All rows except those that depend on the state of a service.
pub(crate) fn all() -> impl Iterator<Item = Row> {
    [
        &API_OUTAGE[..],
        &API_TRANSIENT,
        &API_PACED,
        &API_FORBIDDEN,
        &API_PERMANENT,
        &INV_OUTAGE,
        &INV_TRANSIENT,
        &INV_PACED,
        &INV_FORBIDDEN,
        &INV_PERMANENT,
        &INV_MONEY,
    ]
    .into_iter()
    .flatten()
    .copied()
}
