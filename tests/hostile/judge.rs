//! What must hold of every body, whoever wrote it: the worker's decoder says what `reference` says, and what it says can be shown.

use reservation_worker::event::{Event, Poison, decode};
use reservation_worker::telemetry::TraceParent;

use super::reference;

/// Decodes `body`.
///
/// # Panics
/// Where anything does not hold.
pub(crate) fn judge(body: &str) -> Result<Event, Poison> {
    let found = decode(body);
    let shown = || body.chars().take(2000).collect::<String>();
    match (&found, reference::decode(body)) {
        (Ok(event), Ok(expected)) => assert_eq!(*event, expected, "{}", shown()),
        (Err(poison), Err(reason)) => {
            assert_eq!(poison.reason, reason, "{}\n{}", poison.detail, shown());
        }
        (found, expected) => {
            panic!("the decoder says {found:?}, the reference {expected:?}\n{}", shown())
        }
    }
    match &found {
        Ok(event) => check_event(event),
        Err(poison) => check_poison(poison),
    }
    found
}

/// What handlers and clients rely on, without asking again.
fn check_event(event: &Event) {
    for id in [event.id.as_str(), event.reservation_id.as_str(), event.show_id.as_str()] {
        assert!((1..=256).contains(&id.len()) && !id.contains(char::is_control), "{id:?}");
    }
    assert!(!matches!(event.reservation_id.as_str(), "." | ".."));
    if let Some(seats) = event.seats() {
        assert!(seats.quantity >= 1 && seats.seat_ids.len() <= 10_000, "{seats:?}");
        let named = i32::try_from(seats.seat_ids.len()).expect("10,000 fit");
        assert!(named == 0 || named == seats.quantity, "{seats:?}");
    }
    let trace = event.trace_parent.as_deref();
    assert!(trace.is_none_or(|text| TraceParent::parse(text).is_some()), "{trace:?}");
}

/// One line for a log and for the dead letter, whatever the body holds.
fn check_poison(poison: &Poison) {
    let detail = &poison.detail;
    assert!(!detail.is_empty() && detail.len() < 1000, "{detail}");
    assert!(!detail.contains(char::is_control), "{detail:?}");
    // Nor does it show in another order than it is written.
    let reorders = |c| matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!detail.contains(reorders), "{detail:?}");
}
