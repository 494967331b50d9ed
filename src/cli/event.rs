//! Arguments of `event` and `forget`.

use clap::Args;

use crate::event::{EventId, ReservationId};

/// Arguments of `event`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Reads the shared store that IDEMPOTENCY_STORE names, and changes nothing. Only the store's variables
are needed: reservation-worker help variables

Exit codes: 0 shown, also if the store knows nothing of the event; 1 the store cannot be read;
2 the arguments or the configuration are wrong.")]
pub struct EventArgs {
    /// The event's id, as in the log's `event_id`; after `--` if it begins with a dash.
    #[arg(value_name = "ID", value_parser = event_id)]
    pub(crate) id: EventId,
    /// Also shows whose turn it is among the events of this reservation.
    #[arg(long, value_name = "ID", value_parser = reservation_id)]
    pub(crate) reservation: Option<ReservationId>,
    /// Writes one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `forget`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Shows the record, asks, and removes it from the shared store: the next delivery of the event is
handled from its first step. Each step keeps its idempotency key, so what took effect does not take
effect again for as long as the services remember the key.

An event that a process works on is left alone.

Exit codes: 0 forgotten; 1 nothing was forgotten; 2 the arguments or the configuration are wrong.")]
pub struct ForgetArgs {
    /// The event's id, as in the log's `event_id`; after `--` if it begins with a dash.
    #[arg(value_name = "ID", value_parser = event_id)]
    pub(crate) id: EventId,
    /// Does not ask; needed where there is no terminal.
    #[arg(long)]
    pub(crate) yes: bool,
}

fn event_id(text: &str) -> Result<EventId, String> {
    EventId::new(text).map_err(|_| allowed(""))
}

fn reservation_id(text: &str) -> Result<ReservationId, String> {
    ReservationId::new(text).map_err(|_| allowed(", and not `.` or `..`"))
}

fn allowed(also: &str) -> String {
    let bytes_max = crate::event::ID_BYTES_MAX;
    format!("1 to {bytes_max} bytes without control characters{also}")
}
