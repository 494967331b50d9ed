//! The real program in the environments that it is put into. Apart from the other tests of the program, as it is started some
//! hundred times at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod any_value;
mod table;
