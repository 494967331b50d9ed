//! `make faults`; see `faults::command`.
#![allow(clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;

use faults::command::{Options, execute};

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => execute(&options).await,
        Err(message) => Err(message),
    };
    done.unwrap_or_else(|message| {
        eprintln!("faults: {message}");
        ExitCode::from(2)
    })
}
