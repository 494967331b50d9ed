//! The real program with many different environments. Separate from the other tests of the program,
//! because it is started some hundred times concurrently.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod any_value;
mod table;
