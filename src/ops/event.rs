//! `reservation-worker event`: what the shared store knows of one event, and whose turn it is among
//! the events of its reservation.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::store::{OpenStore, StorePlace, open};
use super::text;
use crate::cli::EventArgs;
use crate::config::StorePart;
use crate::event::{EventId, ReservationId, Step};
use crate::idempotency::redis::{LaneState, RecordState, SearchOutcome, StoredRecord};
use crate::idempotency::{StoreError, StoredToken};

/// How long the event is searched whose turn it is: some millions of records.
const SEARCH_MAX: Duration = Duration::from_secs(10);

/// Shows the record of an event on `out`, and the lane of a reservation where one is named.
///
/// The exit code is 0 if the store could be read, 2 if the configuration names none, else 1.
pub async fn event(arguments: &EventArgs, config: &StorePart, out: &mut impl Write) -> ExitCode {
    let OpenStore { store, place } = match open(config).await {
        Ok(store) => store,
        Err(code) => return code,
    };
    let record = match store.look(&arguments.id).await {
        Ok(record) => record,
        Err(why) => return super::fail(1, &why),
    };
    let mut found = EventReport::new(&arguments.id, &place, record.as_ref());
    if let Some(reservation) = &arguments.reservation {
        let lane = match store.look_lane(reservation).await {
            Ok(lane) => lane,
            Err(why) => return super::fail(1, &why),
        };
        let own = record.as_ref().map(|record| record.token);
        let mut lane = LaneReport::new(reservation, lane, own);
        if let Some(turn) = &mut lane.turn
            && !turn.is_own
        {
            turn.searched(store.find(turn.stored, SEARCH_MAX).await);
        }
        found.lane = Some(lane);
    }
    let written =
        if arguments.json { writeln!(out, "{}", text::json(&found)) } else { found.write(out) };
    // A closed pipe (`| head`) does not change what was found.
    drop(written);
    ExitCode::SUCCESS
}

/// What the store knows.
#[derive(Debug, Serialize)]
pub(super) struct EventReport {
    event_id: String,
    #[serde(flatten)]
    place: StorePlace,
    state: ShownState,
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_ends_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_ended_ms_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    steps_done: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<LaneReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ShownState {
    Unknown,
    InProgress,
    ClaimEnded,
    GivenUp,
    Handled,
}

/// Whose turn it is among the events of a reservation.
#[derive(Debug, Serialize)]
struct LaneReport {
    reservation_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn: Option<TurnReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<TurnReport>,
}

#[derive(Debug, Serialize)]
struct TurnReport {
    /// Whether it is the turn of the event that was asked for.
    is_own: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    /// Why it is not known which event it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_found: Option<String>,
    process: Option<String>,
    token: String,
    ends_in_ms: u64,
    #[serde(skip)]
    stored: StoredToken,
}

/// Why it is not known whose turn it is, if the search ended with nothing.
const NO_RECORD: &str = "no record has its token";

impl TurnReport {
    /// Takes what a search for the event brought.
    fn searched(&mut self, searched: Result<SearchOutcome, StoreError>) {
        self.not_found = match searched {
            Ok(SearchOutcome::Found(id)) => {
                self.event_id = Some(id.as_str().to_owned());
                None
            }
            Ok(SearchOutcome::NotThere) => Some(NO_RECORD.to_owned()),
            Ok(SearchOutcome::TimeIsUp) => {
                let seconds = SEARCH_MAX.as_secs();
                Some(format!("not all records could be searched within {seconds} s"))
            }
            Ok(SearchOutcome::Denied) => {
                Some("the search for it needs the permission +scan".to_owned())
            }
            Err(why) => Some(format!("the search for it failed: {why}")),
        };
    }
}

impl EventReport {
    pub(super) fn new(id: &EventId, place: &StorePlace, record: Option<&StoredRecord>) -> Self {
        let mut found = Self {
            event_id: id.as_str().to_owned(),
            place: place.clone(),
            state: ShownState::Unknown,
            how: None,
            at: None,
            claim_ends_in_ms: None,
            claim_ended_ms_ago: None,
            process: record.and_then(|record| process(record.token)),
            token: record.map(|record| hex(record.token)),
            steps_done: Vec::new(),
            lane: None,
        };
        let Some(record) = record else { return found };
        let done = Step::ALL.into_iter().filter(|step| record.steps.contains(*step));
        found.steps_done = done.map(Step::as_str).collect();
        match record.state {
            RecordState::InProgress { left } => {
                found.state = ShownState::InProgress;
                found.claim_ends_in_ms = Some(millis(left));
            }
            RecordState::Expired { since } => {
                found.state = ShownState::ClaimEnded;
                found.claim_ended_ms_ago = Some(millis(since));
            }
            RecordState::GivenUp { at } => {
                found.state = ShownState::GivenUp;
                found.at = Some(text::utc(at));
            }
            RecordState::Handled(handled) => {
                found.state = ShownState::Handled;
                found.how = Some(handled.how.as_str());
                found.at = Some(text::utc(handled.at));
            }
        }
        found
    }

    /// Writes it as text.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let state = match self.state {
            ShownState::Unknown => "unknown to the store",
            ShownState::InProgress => "in progress",
            ShownState::ClaimEnded => "in progress, but its claim has ended",
            ShownState::GivenUp => "given up",
            ShownState::Handled => "handled",
        };
        writeln!(out, "event {}: {state}", text::quoted(&self.event_id))?;
        let StorePlace { store, key_prefix } = &self.place;
        let place = format!("{store}, keys begin with {}", text::quoted(key_prefix));
        line(out, "store", Some(&place))?;
        let steps = match (self.state, self.steps_done.is_empty()) {
            (ShownState::Unknown | ShownState::Handled, _) => None,
            (ShownState::InProgress | ShownState::ClaimEnded | ShownState::GivenUp, true) => {
                Some("none".into())
            }
            (ShownState::InProgress | ShownState::ClaimEnded | ShownState::GivenUp, false) => {
                Some(self.steps_done.join(", "))
            }
        };
        line(out, "how", self.how)?;
        line(out, "at", self.at.as_deref())?;
        line(out, "process", self.process.as_deref())?;
        line(out, "steps done", steps.as_deref())?;
        let ends = self.claim_ends_in_ms.map(|ms| format!("in {}, unless renewed", seconds(ms)));
        line(out, "claim ends", ends.as_deref())?;
        let ended = self.claim_ended_ms_ago.map(|ms| format!("{} ago", seconds(ms)));
        line(out, "claim ended", ended.as_deref())?;
        let then = match self.state {
            ShownState::Unknown => {
                "it was never begun, or it is forgotten, or it waits: in the queue, or in a process\n  behind another event of its reservation (--reservation ID shows whose turn it is)"
            }
            ShownState::ClaimEnded | ShownState::GivenUp => {
                "its next delivery goes on after the steps that are done"
            }
            ShownState::InProgress => "another delivery of it waits for this one",
            ShownState::Handled => "another delivery of it is deleted without effect",
        };
        writeln!(out, "  {then}")?;
        self.lane.as_ref().map_or(Ok(()), |lane| lane.write(out))
    }
}

impl LaneReport {
    fn new(id: &ReservationId, lane: LaneState, own: Option<StoredToken>) -> Self {
        let turn = |(token, left): (StoredToken, Duration)| TurnReport {
            is_own: own == Some(token),
            event_id: None,
            not_found: None,
            process: process(token),
            token: hex(token),
            ends_in_ms: millis(left),
            stored: token,
        };
        Self {
            reservation_id: id.as_str().to_owned(),
            turn: lane.holder.map(turn),
            next: lane.next.map(turn),
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "reservation {}", text::quoted(&self.reservation_id))?;
        match &self.turn {
            None => writeln!(out, "  no event of it is worked on in order")?,
            Some(turn) => {
                let whose = match (&turn.event_id, turn.is_own, &turn.not_found) {
                    (_, true, _) => "this event".to_owned(),
                    (Some(id), false, _) => format!("event {}", text::quoted(id)),
                    (None, false, why) => {
                        let why = why.as_deref().unwrap_or(NO_RECORD);
                        format!("another event: {why}")
                    }
                };
                line(out, "turn of", Some(&whose))?;
                line(out, "process", turn.process.as_deref())?;
                let ends = format!("in {}, unless renewed", seconds(turn.ends_in_ms));
                line(out, "turn ends", Some(&ends))?;
            }
        }
        let next = self.next.as_ref().and_then(|next| next.process.as_deref());
        let next = next.map(|process| format!("an event that waits in the process {process}"));
        line(out, "next", next.as_deref())
    }
}

fn line(out: &mut impl Write, name: &str, value: Option<&str>) -> io::Result<()> {
    value.map_or(Ok(()), |value| writeln!(out, "  {name:<12} {value}"))
}

fn process(token: StoredToken) -> Option<String> {
    token.process().map(|process| process.to_string())
}

fn hex(token: StoredToken) -> String {
    format!("{:016x}", u64::from_be_bytes(token.to_bytes()))
}

fn millis(duration: Duration) -> u64 {
    crate::clock::millis(duration)
}

/// Shows milliseconds as seconds with one decimal.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn shown(searched: Result<SearchOutcome, StoreError>) -> String {
        let token = StoredToken::from_bytes([7; 8]);
        let lane = LaneState { holder: Some((token, SEARCH_MAX)), next: None };
        let mut lane = LaneReport::new(&ReservationId::new("rsv").unwrap(), lane, None);
        lane.turn.as_mut().unwrap().searched(searched);
        let mut out = Vec::new();
        lane.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_search_says_how_it_ended_and_names_the_permission_only_if_that_is_missing() {
        let found = shown(Ok(SearchOutcome::Found(EventId::new("evt").unwrap())));
        assert!(found.contains("turn of      event \"evt\"\n"), "{found}");
        for (searched, words) in [
            (Ok(SearchOutcome::NotThere), "another event: no record has its token"),
            (Ok(SearchOutcome::TimeIsUp), "not all records could be searched within 10 s"),
            (Ok(SearchOutcome::Denied), "the search for it needs the permission +scan"),
            (Err(StoreError::unavailable("timeout")), "the search for it failed: timeout"),
        ] {
            let is_denied = searched == Ok(SearchOutcome::Denied);
            let said = shown(searched);
            assert!(said.contains(words), "{said}");
            assert_eq!(said.contains("+scan"), is_denied, "{said}");
        }
    }
}
