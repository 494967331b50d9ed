//! Fuzzes whole bodies: the worker's decoder and the reference decoder of the tests return the same
//! event or the same reason.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/hostile/judge.rs"]
mod judge;
#[path = "../../tests/hostile/reference.rs"]
mod reference;

fuzz_target!(|body: &str| {
    let _ = judge::judge(body);
});
