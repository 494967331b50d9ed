//! The output of the sandbox. Values from the wire are escaped and truncated.

use std::fmt::Write;

use tokio::time::Instant;

use crate::ledger::{Answer, Call, Request, Service};
use crate::servers::Servers;

/// Maximum number of characters shown of a value from the wire.
const SHOWN_MAX: usize = 64;

/// An example event without single quotes, for a shell.
const EXAMPLE: &str = r#"{"id":"evt_1","type":"reservation.expired","reservation_id":"rsv_1","event_id":"evt_2025_1001","ts":"2025-01-01T12:00:00Z","payload":{"qty":2}}"#;

/// Formats the first block. A shell can `eval` it: every line is an `export` or a comment.
#[must_use]
pub fn welcome(servers: &Servers) -> String {
    let mut text = String::from("# in another terminal, before `cargo run`:\n");
    for (name, value) in servers.variables() {
        line_of(&mut text, format_args!("export {name}={value}"));
    }
    text.push_str("\n# send an event, with curl or with the AWS command line:\n");
    let request = serde_json::json!({"QueueUrl": servers.queue_url, "MessageBody": EXAMPLE});
    line_of(
        &mut text,
        format_args!(
            "#   curl -s {} -H 'X-Amz-Target: AmazonSQS.SendMessage' \
             -H 'Content-Type: application/x-amz-json-1.0' -d '{request}'",
            servers.sqs.endpoint_url()
        ),
    );
    line_of(
        &mut text,
        format_args!(
            "#   aws sqs send-message --endpoint-url {} --queue-url {} --message-body '{EXAMPLE}'",
            servers.sqs.endpoint_url(),
            servers.queue_url
        ),
    );
    text.push_str("\n# what the worker does: http://localhost:8040/status\n");
    text.push_str("\n# each call to the services from here on; Ctrl-C ends\n");
    text
}

/// Formats one answered call.
#[must_use]
pub fn line(call: &Call, start: Instant) -> String {
    let service = match call.service {
        Service::ReservationApi => "reservation-api",
        Service::Inventory => "inventory",
    };
    let answer = match &call.answer {
        Answer::Pending => "open".to_owned(),
        Answer::Http(status) => status.to_string(),
        Answer::Grpc(code) => format!("{code:?}"),
        Answer::GrpcStatus(status) => format!("status {status}"),
        Answer::CutShort(status) => format!("{status}, cut short"),
        Answer::Lost => "connection closed".to_owned(),
    };
    let mut note = String::new();
    for (holds, word) in [(call.applied(), ", applied"), (call.repeated_key, ", key seen before")] {
        note.push_str(if holds { word } else { "" });
    }
    format!(
        "{:9.3}s {service:15} {:17} {} {}-> {answer}{note}",
        (call.at - start).as_secs_f64(),
        call.method(),
        shown(&call.reservation_id),
        asked(&call.request),
    )
}

/// Formats the last lines.
#[must_use]
pub fn summary(servers: &Servers) -> String {
    let queue = servers.sqs.ledger(&servers.queue_url);
    let totals = servers.ledger.totals();
    format!(
        "messages: {} sent, {} deleted, {} left, {} dead-lettered; calls: {}, of which {} took effect\n",
        queue.sent,
        queue.deletes_effective,
        servers.sqs.counts(&servers.queue_url).total(),
        servers.sqs.counts(&servers.dlq_url).total(),
        totals.calls,
        totals.effects
    )
}

fn line_of(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String never fails");
}

/// Returns the content of a request with a trailing space, or nothing.
fn asked(request: &Request) -> String {
    match request {
        Request::GetReservation => String::new(),
        Request::PatchReservation(body) => {
            let status = body.get("status").and_then(serde_json::Value::as_str).unwrap_or("?");
            format!("{} ", shown(status))
        }
        Request::ReleaseHold(request) => {
            format!("{} x{} ", shown(&request.reason), request.quantity)
        }
        Request::CommitReservation(request) => format!("x{} ", request.quantity),
        Request::Unknown(what) => format!("{} ", shown(what)),
    }
}

fn shown(value: &str) -> String {
    value.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ledger::Effect;
    use crate::reservation_api::ReservationStatus;
    use crate::servers::Ports;

    fn call(id: &str) -> Call {
        let at = Instant::now();
        Call {
            sequence: 0,
            at,
            service: Service::ReservationApi,
            reservation_id: id.to_owned(),
            raw_path: String::new(),
            key: None,
            traceparent: None,
            tracestate: None,
            baggage: None,
            xray: None,
            request: Request::PatchReservation(serde_json::json!({"status": "EXPIRED"})),
            repeated_key: true,
            effect: Some((Effect::Status(ReservationStatus::Expired), at)),
            answer: Answer::Http(200),
            answered_at: Some(at),
            fault: false,
            abandoned: false,
        }
    }

    #[test]
    fn a_line_has_service_request_response_and_effect() {
        let call = call("rsv_1");
        let expected = "    0.000s reservation-api PATCH             rsv_1 EXPIRED -> 200, applied, key seen before";
        assert_eq!(line(&call, call.at), expected);
    }

    #[test]
    fn values_from_the_wire_are_escaped_and_truncated() {
        let call = call(&format!("a\n\x1b[2J{}", "x".repeat(1000)));
        let line = line(&call, call.at);
        assert!(line.contains(r"a\n\u{1b}[2J"), "{line}");
        assert!(!line.contains('\n') && line.len() < 250);
    }

    #[tokio::test]
    async fn the_welcome_text_is_valid_for_shell_eval() {
        let servers = Servers::start(Ports::default()).await.unwrap();
        let text = welcome(&servers);
        for line in text.lines() {
            assert!(
                line.is_empty() || line.starts_with('#') || line.starts_with("export "),
                "{line}"
            );
        }
        for name in
            ["SQS_QUEUE_URL", "AWS_ENDPOINT_URL", "INVENTORY_GRPC_ADDR", "RESERVATION_API_BASE"]
        {
            assert!(text.contains(&format!("\nexport {name}=")), "{name}");
        }
        serde_json::from_str::<serde_json::Value>(EXAMPLE).unwrap();
        assert!(!EXAMPLE.contains('\''), "the example is printed in single quotes");
    }
}
