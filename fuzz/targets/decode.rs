//! Whole bodies: whatever comes, the answer is an event or a reason, it can be shown, and the event's request stays on its path.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use reservation_worker::client::doors::reservation_url;
use reservation_worker::event::{Step, decode, idempotency_key};
use reservation_worker::telemetry::TraceParent;
use url::Url;

static BASE: LazyLock<Url> =
    LazyLock::new(|| Url::parse("http://reservation-api:8080").expect("a URL"));

fuzz_target!(|body: &str| {
    let event = match decode(body) {
        Ok(event) => event,
        Err(poison) => {
            assert!(!poison.detail.is_empty() && poison.detail.len() < 1000);
            assert!(!poison.detail.contains(char::is_control));
            return;
        }
    };
    let url = reservation_url(&BASE, &event.reservation_id);
    assert_eq!((url.host_str(), url.port()), (BASE.host_str(), BASE.port()));
    assert_eq!((url.query(), url.fragment()), (None, None));
    let segment = url.path().strip_prefix("/internal/reservations/").expect("on its path");
    assert!(!segment.is_empty() && segment != "." && segment != "..");
    assert!(segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
    let decoded = segment.replace("%2E", ".");
    assert!(decoded != "." && decoded != "..");
    assert_eq!(event.content_hash(), event.clone().content_hash());
    for step in Step::ALL {
        assert_eq!(idempotency_key(&event.id, step).get_version_num(), 5);
    }
    if let Some(parent) = &event.trace_parent {
        assert!(TraceParent::parse(parent).is_some(), "{parent}");
    }
});
