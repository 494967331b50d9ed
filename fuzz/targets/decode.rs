//! Fuzzes whole bodies: the result is an event or a printable reason, and the request of an event
//! stays on its path. The same bytes are what the command `decode` reads: what it writes can be shown.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use reservation_worker::client::fuzz_api::reservation_url;
use reservation_worker::event::{NoEvent, Step, decode, idempotency_key};
use reservation_worker::telemetry::TraceParent;
use url::Url;

static BASE: LazyLock<Url> =
    LazyLock::new(|| Url::parse("http://reservation-api:8080").expect("a valid URL"));

const MESSAGE_ID: &str = "5f1ae4ac-1b0b-4b6e-8a39-6f5f1c9a4a11";

fuzz_target!(|body: &str| {
    for said in reservation_worker::ops::decode::fuzz_api::everything_said(body) {
        assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    }
    let event = match decode(body, MESSAGE_ID) {
        Ok(event) => event,
        Err(NoEvent::NoChange(no_change)) => {
            assert!(no_change.status.len() < 1000 && !no_change.status.contains(char::is_control));
            return;
        }
        Err(NoEvent::Poison(poison)) => {
            assert!(!poison.detail.is_empty() && poison.detail.len() < 1000);
            assert!(!poison.detail.contains(char::is_control));
            return;
        }
    };
    let url = reservation_url(&BASE, &event.reservation_id);
    assert_eq!((url.host_str(), url.port()), (BASE.host_str(), BASE.port()));
    assert_eq!((url.query(), url.fragment()), (None, None));
    let segment =
        url.path().strip_prefix("/internal/reservations/").expect("the path has the API's prefix");
    assert!(!segment.is_empty() && segment != "." && segment != "..");
    assert!(segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
    let decoded = segment.replace("%2E", ".");
    assert!(decoded != "." && decoded != "..");
    assert_eq!(event.content_hash(), event.clone().content_hash());
    for step in Step::ALL {
        assert_eq!(idempotency_key(&event.id, step).get_version_num(), 5);
    }
    if let Some(trace) = &event.trace {
        let shown = trace.parent.to_string();
        assert!(TraceParent::parse(&shown).is_some(), "{trace:?}");
    }
});
