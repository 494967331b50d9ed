//! The operators' commands, one file each.
//!
//! Each reads only its part of the configuration, and writes to standard output what it has found;
//! questions, progress and errors go to standard error.

pub mod ctl;
pub mod decode;
pub mod dlq;
pub mod event;
pub mod forget;
mod store;
pub mod text;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Reports on standard error why a command ends, and returns its exit code.
pub fn fail(code: u8, why: &dyn Display) -> ExitCode {
    // A closed pipe is not a failure.
    let _ = writeln!(io::stderr(), "reservation-worker: {why}");
    ExitCode::from(code)
}
