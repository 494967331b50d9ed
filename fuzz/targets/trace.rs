//! Fuzzes `traceparent`, `tracestate` and `AWSTraceHeader` of a message: the result equals that of
//! the reference parser in the tests and is valid for a header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reservation_worker::telemetry::TraceParent;

#[path = "../../tests/hostile/reference.rs"]
#[allow(dead_code, reason = "only one of its readers is needed here")]
mod reference;

const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn parent(text: &str) {
    let found = TraceParent::parse(text);
    if text.len() > 256 || !text.is_ascii() {
        assert_eq!(found, None);
        return;
    }
    let plain = reference::w3c(text);
    assert_eq!(found.is_some(), plain.is_some(), "{text:?}");
    if let Some(plain) = plain {
        assert_eq!(found, TraceParent::parse(&plain));
    }
}

fn state(text: &str) {
    let parent = TraceParent::parse(GOOD).expect("a valid traceparent");
    let header = parent.with_tracestate(text).tracestate_header();
    assert!(header.len() <= 512);
    assert!(
        header.bytes().all(|byte| (0x20..=0x7e).contains(&byte) || byte == b'\t'),
        "{header:?}"
    );
}

fn x_ray(text: &str) {
    let found = TraceParent::from_xray(text);
    if found.is_some() {
        assert!(text.is_ascii() && text.len() <= 512);
    }
    // The last of each field counts, so this one is sampled; the ids stay the same.
    let Some(found) = TraceParent::from_xray(&format!("{text};Sampled=1")) else { return };
    let last = |name: &str| {
        let fields = text.split(';').filter_map(|field| field.trim().strip_prefix(name));
        fields.last().expect("the field was parsed").to_ascii_lowercase()
    };
    let root = last("Root=1-").replacen('-', "", 1);
    let without_parent =
        TraceParent::from_xray(&format!("Root=1-{}-{};Sampled=1", &root[..8], &root[8..]));
    if Some(&found) != without_parent.as_ref() {
        let parent = last("Parent=");
        let same = format!("Sampled=1;Parent={parent};Root=1-{}-{}", &root[..8], &root[8..]);
        assert_eq!(Some(found), TraceParent::from_xray(&same), "{text:?}");
    }
}

fuzz_target!(|text: &str| {
    parent(text);
    state(text);
    x_ray(text);
});
