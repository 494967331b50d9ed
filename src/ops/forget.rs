//! `reservation-worker forget`: removes the record of one event from the shared store.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use super::event::EventReport;
use super::store::{OpenStore, open};
use super::text;
use crate::cli::ForgetArgs;
use crate::config::StorePart;
use crate::event::EventId;
use crate::idempotency::redis::{Forgotten, RecordState, StoredRecord};
use crate::run::EXIT_USAGE;

/// Maximum length of a typed answer that is read, in bytes: an id, and a line end.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Shows the record of an event on `out`, asks, and removes it.
///
/// The exit code is 0 if it is removed, 2 if nobody can be asked or the configuration names no
/// store, else 1.
pub async fn forget(arguments: &ForgetArgs, config: &StorePart, out: &mut impl Write) -> ExitCode {
    let OpenStore { store, place } = match open(config).await {
        Ok(store) => store,
        Err(code) => return code,
    };
    let (id, at) = (&arguments.id, &place.store);
    let seen = match store.look(id).await {
        Ok(Some(record)) => record,
        Ok(None) => {
            let id = text::quoted(id.as_str());
            let prefix = text::quoted(&place.key_prefix);
            return super::fail(
                1,
                &format_args!(
                    "the store at {at} knows nothing of event {id}, under keys that begin with {prefix}"
                ),
            );
        }
        Err(why) => return super::fail(1, &why),
    };
    // A closed pipe must not stand between the question and its answer.
    let _ = EventReport::new(id, &place, Some(&seen)).write(out);
    if let RecordState::InProgress { .. } = seen.state {
        return super::fail(
            1,
            &"nothing was forgotten: a process works on this event; ask again when its claim has ended",
        );
    }
    let _ = writeln!(out, "{}", consequence(&seen));
    let _ = out.flush();
    if !arguments.yes
        && let Err(code) = confirmed(id)
    {
        return code;
    }
    match store.forget(id, &seen).await {
        Ok(Forgotten::Gone) => {
            let _ = writeln!(out, "forgotten: {} at {at}", text::quoted(id.as_str()));
            ExitCode::SUCCESS
        }
        Ok(Forgotten::Claimed(left)) => super::fail(
            1,
            &format_args!(
                "nothing was forgotten: a process has begun to work on this event; its claim ends in {} s, unless renewed",
                left.as_secs()
            ),
        ),
        Ok(Forgotten::Changed) => super::fail(
            1,
            &"nothing was forgotten: the record has changed meanwhile; look at it again",
        ),
        Err(why) => super::fail(
            1,
            &format_args!("it is not known whether the event is forgotten: {why}; look again"),
        ),
    }
}

/// Says what follows from forgetting.
fn consequence(seen: &StoredRecord) -> &'static str {
    match seen.state {
        RecordState::Handled(_) => {
            "Forgotten, it is new: its next delivery does all its steps again. The services' idempotency\nkeys are unchanged, so what took effect does not take effect again while they remember them."
        }
        RecordState::GivenUp { .. }
        | RecordState::Expired { .. }
        | RecordState::InProgress { .. } => {
            "Forgotten, it is new: its next delivery begins with its first step. The services' idempotency\nkeys are unchanged, so what took effect does not take effect again while they remember them."
        }
    }
}

/// Has the id typed on the terminal.
fn confirmed(id: &EventId) -> Result<(), ExitCode> {
    if !io::stdin().is_terminal() {
        let why =
            "nothing was forgotten: there is no terminal to ask on; --yes forgets without asking";
        return Err(super::fail(EXIT_USAGE, &why));
    }
    let _ = write!(io::stderr(), "Type the event's id to forget it: ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::Read::take(io::stdin().lock(), ANSWER_BYTES_MAX).read_line(&mut answer);
    let typed = answer.trim_end_matches(['\n', '\r']);
    if read.is_ok() && typed == id.as_str() {
        Ok(())
    } else {
        Err(super::fail(1, &"nothing was forgotten: that is not the event's id"))
    }
}
