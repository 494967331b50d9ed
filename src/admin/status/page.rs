//! The page: complete without its script, which only refreshes it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{SCRIPT, STYLE};
use crate::metrics::EventTotals;
use crate::status::{
    ActivityReport, BUCKETS, BreakerReport, FailureReport, HeldEventReport, HeldReport, PartReport,
    StatusReport,
};

/// Height of the drawing, in its own units; the successes above, the failures below.
const HEIGHT: u64 = 100;
const MIDDLE: u64 = 60;

/// Renders the report.
pub(super) fn page(report: &StatusReport) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                title { "reservation-worker " (report.process) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "reservation-worker " span.soft { (report.version) } }
                    p { span #refresh role="status" {} }
                }
                main {
                    div #live { (live(report)) }
                    details {
                        summary { "Configuration" }
                        (table("Effective configuration, secrets masked", &[("Variable", false), ("Value", false)], html! {
                            @for (name, value) in &report.configuration {
                                tr { td { code { (name) } } td { code { (value) } } }
                            }
                        }))
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn live(report: &StatusReport) -> Markup {
    html! {
        p {
            @match &report.not_ready {
                None => span.good { "Ready" },
                Some(why) => span.bad { "Not ready: " (why) },
            }
            ". Process " code { (report.process) } ", up " (span_of(report.uptime_s * 1_000))
            ", " (report.held_total) " events held. "
            span.soft { "As of " time datetime=(report.at) { (report.at) } "." }
        }
        @for control in &report.controls {
            p.bad {
                @match control.lever { "pause" => "Paused", lever => { (lever) " is " (control.value) } }
                @if control.scope == "all" { ", for all workers" }
                ", until " time datetime=(control.until) { (control.until) }
                @if !control.reason.is_empty() { ": " (control.reason) }
            }
        }
        (activity(&report.activity))
        div.grid { (services(&report.services)) (parts(&report.parts)) }
        div.grid { (held(&report.held)) (oldest(&report.oldest)) }
        (failures(&report.failures))
    }
}

/// A table that can be scrolled sideways, also with the keyboard.
fn table(caption: &str, heads: &[(&str, bool)], rows: Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for (head, is_number) in heads {
                    th scope="col" class=[is_number.then_some("n")] { (head) }
                } } }
                tbody { (rows) }
            }
        }
    }
}

fn activity(activity: &ActivityReport) -> Markup {
    let EventTotals { succeeded, failed, dropped, retried } = activity.total;
    let highest = |of: fn(&EventTotals) -> u64| activity.buckets.iter().map(of).max().unwrap_or(0);
    let up_max = highest(|bucket| bucket.succeeded + bucket.dropped).max(1);
    let down_max = highest(|bucket| bucket.failed + bucket.retried).max(1);
    let text = format!(
        "The last {} minutes: {succeeded} succeeded, {dropped} dropped, {retried} attempts failed and will be retried, {failed} given up",
        BUCKETS as u64 * activity.bucket_s / 60,
    );
    let first = BUCKETS - activity.buckets.len().min(BUCKETS);
    html! {
        h2 { "Activity" }
        p { (text) "." }
        svg viewBox=(format!("0 0 {} {HEIGHT}", BUCKETS * 10)) preserveAspectRatio="none" role="img" aria-label=(text) {
            @for (n, bucket) in activity.buckets.iter().enumerate() {
                @let up = (bucket.succeeded + bucket.dropped) * MIDDLE / up_max;
                @let down = (bucket.failed + bucket.retried) * (HEIGHT - MIDDLE) / down_max;
                rect class="up" x=((first + n) * 10 + 1) y=(MIDDLE - up) width="8" height=(up) {}
                rect class="down" x=((first + n) * 10 + 1) y=(MIDDLE) width="8" height=(down) {}
            }
        }
        p.soft {
            "Each bar covers " (activity.bucket_s) " s, the newest on the right. Above the middle: settled, at most "
            (up_max) ". Below: failed attempts and events given up, at most " (down_max) "."
        }
    }
}

fn services(services: &[BreakerReport]) -> Markup {
    let heads = [
        ("Service", false),
        ("State", false),
        ("For", true),
        ("Next call", true),
        ("Calls", true),
        ("Limit", true),
    ];
    table(
        "Services",
        &heads,
        html! {
            @for service in services {
                tr {
                    td { (service.name) }
                    td { span class=(word(service.state == "called")) { (service.state) } }
                    td.n { (span_of(service.for_ms)) }
                    td.n { (service.next_call_in_ms.map_or_else(|| "-".to_owned(), span_of)) }
                    td.n { (service.calls) }
                    td.n { (limit(service)) }
                }
            }
        },
    )
}

fn limit(service: &BreakerReport) -> String {
    match (service.calls_max, service.calls_per_second_max) {
        (None, None) => "none".to_owned(),
        (Some(calls), None) => format!("{calls} at once"),
        (None, Some(rate)) => format!("{rate:.1}/s"),
        (Some(calls), Some(rate)) => format!("{calls} at once, {rate:.1}/s"),
    }
}

fn parts(parts: &[PartReport]) -> Markup {
    table(
        "Parts",
        &[("Part", false), ("State", false)],
        html! {
            @for part in parts {
                tr { td { (part.name) } td { span class=(word(part.is_ok)) { (part.state) } } }
            }
        },
    )
}

fn held(held: &[HeldReport]) -> Markup {
    let heads = [("What they do", false), ("Events", true), ("Oldest", true)];
    table(
        "Held events",
        &heads,
        html! {
            @for state in held {
                tr { td { (state.state) } td.n { (state.events) } td.n { (span_of(state.oldest_ms)) } }
            }
            @if held.is_empty() { tr { td colspan="3" { "None" } } }
        },
    )
}

fn oldest(events: &[HeldEventReport]) -> Markup {
    let heads = [("Event", false), ("Reservation", false), ("Age", true), ("What it does", false)];
    table(
        "The events held longest",
        &heads,
        html! {
            @for event in events {
                tr {
                    td { code { (event.event_id) } }
                    td { code { (event.reservation_id) } }
                    td.n { (span_of(event.age_ms)) }
                    td { (event.state) }
                }
            }
            @if events.is_empty() { tr { td colspan="4" { "None" } } }
        },
    )
}

fn failures(failures: &[FailureReport]) -> Markup {
    let heads = [
        ("Time", false),
        ("Type", false),
        ("Reservation", false),
        ("What follows", false),
        ("Class", false),
        ("Code", false),
        ("Trace", false),
    ];
    table(
        "The last failures",
        &heads,
        html! {
            @for failure in failures {
                tr {
                    td { time datetime=(failure.at) { (failure.at) } }
                    td { (failure.event_type) }
                    td { code { (failure.reservation_id) } }
                    td { (failure.reason) }
                    td { (failure.class) }
                    td { (failure.code) }
                    td { code { (failure.trace_id) } }
                }
            }
            @if failures.is_empty() { tr { td colspan="7" { "None" } } }
        },
    )
}

const fn word(is_good: bool) -> &'static str {
    if is_good { "good" } else { "bad" }
}

/// Shows a duration with the unit that fits.
fn span_of(ms: u64) -> String {
    match ms / 1_000 {
        0 => format!("{ms} ms"),
        s @ 1..60 => format!("{s} s"),
        s @ 60..3_600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
    }
}
