//! Checks that hold for every body: the decoder and `reference` agree, and the result can be shown.

use reservation_worker::event::{BodyTrace, Event, NoEvent, Poison, W3cParent, decode};

use super::reference;

/// The SQS id of the message of every body.
pub(crate) const MESSAGE_ID: &str = "5f1ae4ac-1b0b-4b6e-8a39-6f5f1c9a4a11";

/// Decodes `body` and checks the result.
///
/// # Panics
/// If a check fails.
pub(crate) fn judge(body: &str) -> Result<Event, NoEvent> {
    let found = decode(body, MESSAGE_ID);
    let shown = || body.chars().take(2000).collect::<String>();
    match (&found, reference::decode(body, MESSAGE_ID)) {
        (Ok(event), Ok(expected)) => assert_eq!(*event, expected, "{}", shown()),
        (Err(NoEvent::Poison(poison)), Err(Some(reason))) => {
            assert_eq!(poison.reason, reason, "{}\n{}", poison.detail, shown());
        }
        (Err(NoEvent::NoChange(_)), Err(None)) => {}
        (found, expected) => {
            panic!("the decoder returns {found:?}, the reference {expected:?}\n{}", shown())
        }
    }
    match &found {
        Ok(event) => check_event(event),
        Err(NoEvent::Poison(poison)) => check_poison(poison),
        Err(NoEvent::NoChange(no_change)) => {
            let status = &no_change.status;
            assert!(status.len() < 1000 && !status.contains(char::is_control), "{status}");
        }
    }
    found
}

/// Checks what handlers and clients rely on.
fn check_event(event: &Event) {
    let show_id = event.show_id.as_ref().map(|show_id| show_id.as_str());
    for id in [event.id.as_str(), event.reservation_id.as_str()].into_iter().chain(show_id) {
        assert!((1..=256).contains(&id.len()) && !id.contains(char::is_control), "{id:?}");
    }
    assert!(!matches!(event.reservation_id.as_str(), "." | ".."));
    assert!(event.lacks_hold() || event.seats().is_none() || show_id.is_some(), "{event:?}");
    if let Some(seats) = event.seats() {
        assert!(seats.quantity >= 1 && seats.seat_ids.len() <= 10_000, "{seats:?}");
        let named = i32::try_from(seats.seat_ids.len()).expect("10,000 fit");
        assert!(named == 0 || named == seats.quantity, "{seats:?}");
    }
    let trace = event.trace.as_ref();
    let is_read_back =
        |trace: &BodyTrace| W3cParent::parse(&trace.parent.to_string()) == Some(trace.parent);
    assert!(trace.is_none_or(is_read_back), "{trace:?}");
}

/// Checks that the detail is one line for a log and a dead letter.
fn check_poison(poison: &Poison) {
    let detail = &poison.detail;
    assert!(!detail.is_empty() && detail.len() < 1000, "{detail}");
    assert!(!detail.contains(char::is_control), "{detail:?}");
    // No character changes the order in which the text is shown.
    let reorders = |c| matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!detail.contains(reorders), "{detail:?}");
}
