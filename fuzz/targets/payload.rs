//! Fuzzes payloads: the first byte selects the type and the place, the rest is the payload. The
//! check is the same as for whole bodies.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/hostile/judge.rs"]
mod judge;
#[path = "../../tests/hostile/reference.rs"]
mod reference;

const TYPES: [&str; 4] =
    ["reservation.expired", "payment.approved", "payment.failed", "payment.status_updated"];

fuzz_target!(|input: (u8, &str)| {
    let (choice, payload) = input;
    let name = TYPES[usize::from(choice) % TYPES.len()];
    let body = if choice & 0x80 == 0 {
        format!(
            r#"{{"id":"e","type":"{name}","reservation_id":"r","event_id":"s","payload":{payload}}}"#
        )
    } else {
        // The input is members of the event object, without braces.
        format!(r#"{{"id":"e","type":"{name}","reservation_id":"r","event_id":"s",{payload}}}"#)
    };
    let _ = judge::judge(&body);
});
