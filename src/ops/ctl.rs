//! `ctl`: asks or changes the worker of this machine or container.

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::{fail, text};
use crate::admin::control::{ControlRequest, ControlResponse, ask};

/// Asks the worker with this admin port, and writes its answer to `out`: as JSON, or in words.
pub fn ctl(port: u16, request: &ControlRequest, as_json: bool, out: &mut impl Write) -> ExitCode {
    let response = match ask(port, request) {
        Ok(response) => response,
        Err(why) => return fail(1, &why),
    };
    // A closed pipe is not a failure.
    let _ = if as_json { write_json(&response, out) } else { write_text(&response, out) };
    if response.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write_json(response: &ControlResponse, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{}", text::json(response))
}

fn write_text(response: &ControlResponse, out: &mut impl Write) -> std::io::Result<()> {
    match &response.data {
        Some(data) if data.get("held_total").is_some() => write_status(data, out),
        Some(event) => {
            let age_s = event["age_ms"].as_u64().unwrap_or_default() / 1_000;
            writeln!(out, "{}, held for {age_s} s", clean(&event["state"]))
        }
        None if response.ok => writeln!(out, "{}", clean_text(&response.text)),
        None => writeln!(std::io::stderr(), "reservation-worker: {}", clean_text(&response.text)),
    }
}

fn write_status(status: &Value, out: &mut impl Write) -> std::io::Result<()> {
    let ready = match status["not_ready"].as_str() {
        None => "ready".to_owned(),
        Some(why) => format!("not ready: {}", clean_text(why)),
    };
    writeln!(
        out,
        "{} {}, up {} s, {ready}",
        clean(&status["process"]),
        clean(&status["version"]),
        status["uptime_s"]
    )?;
    for control in items(&status["controls"]) {
        let (lever, value) = (clean(&control["lever"]), clean(&control["value"]));
        let (scope, until) = (clean(&control["scope"]), clean(&control["until"]));
        writeln!(out, "{lever} {value} ({scope}) until {until} {}", clean(&control["reason"]))?;
    }
    let total = &status["activity"]["total"];
    writeln!(
        out,
        "last 5 min: {} succeeded, {} dropped, {} retried, {} given up",
        total["succeeded"], total["dropped"], total["retried"], total["failed"]
    )?;
    for service in items(&status["services"]) {
        let for_s = service["for_ms"].as_u64().unwrap_or_default() / 1_000;
        writeln!(
            out,
            "{:<24} {} for {for_s} s, {} calls",
            clean(&service["name"]),
            clean(&service["state"]),
            service["calls"]
        )?;
    }
    for part in items(&status["parts"]).filter(|part| part["is_ok"] == false) {
        writeln!(out, "{:<24} {}", clean(&part["name"]), clean(&part["state"]))?;
    }
    writeln!(out, "{} events held", status["held_total"])?;
    for state in items(&status["held"]) {
        writeln!(out, "{:>8}  {}", state["events"], clean(&state["state"]))?;
    }
    Ok(())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn clean(text: &Value) -> String {
    clean_text(text.as_str().unwrap_or_default())
}

/// Escapes what a terminal would not show: a reason or an id must not reach it as a command.
fn clean_text(text: &str) -> String {
    let is_shown = |c: char| matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if is_shown(c) { clean.push(c) } else { clean.extend(c.escape_unicode()) }
    }
    clean
}
