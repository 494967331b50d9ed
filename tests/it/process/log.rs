//! Every line of the log fits the flat schema, and no secret and no body is in it.

use std::collections::BTreeSet;

use sandbox::reservation_api::{Reply, ReservationStatus};
use sandbox::script::Scripted;
use serde_json::{Map, Value, json};

use crate::program::{Running, SECRET, env, free_port};
use crate::world::{World, approved, eventually, expired, failed};

/// In bodies, where nothing is told from.
const IN_BODY: &str = "body-marker-4711";

/// `2024-01-01T12:00:00.000Z`.
fn is_timestamp(text: &str) -> bool {
    let shape = "dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = |(c, want): (char, char)| if want == 'd' { c.is_ascii_digit() } else { c == want };
    text.len() == shape.len() && text.chars().zip(shape.chars()).all(fits)
}

fn assert_fits(line: &Map<String, Value>) {
    let text = |key: &str| {
        line.get(key).map(|value| value.as_str().unwrap_or_else(|| panic!("{key}: {line:?}")))
    };
    assert!(is_timestamp(text("ts").unwrap()), "{line:?}");
    assert!(["debug", "info", "warn", "error"].contains(&text("level").unwrap()), "{line:?}");
    assert!(!text("msg").unwrap().is_empty(), "{line:?}");
    for (key, value) in line {
        assert!(!value.is_object() && !value.is_array() && !value.is_null(), "{key}: {line:?}");
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        assert!(key.bytes().all(plain), "{key}: {line:?}");
    }
    for key in ["reservation_id", "error"] {
        text(key);
    }
    if let Some(kind) = text("event_type") {
        let known = ["reservation.expired", "payment.approved", "payment.failed", "unknown"];
        assert!(known.contains(&kind), "{line:?}");
    }
    if let Some(outcome) = text("outcome") {
        assert!(["success", "retried", "failed", "dropped"].contains(&outcome), "{line:?}");
    }
    if let Some(id) = text("trace_id") {
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{line:?}");
    }
    for key in ["attempt", "latency_ms"] {
        assert!(line.get(key).is_none_or(Value::is_u64), "{key}: {line:?}");
    }
    assert!(line.get("attempt").is_none_or(|attempt| *attempt != json!(0)), "{line:?}");
}

#[tokio::test]
async fn every_line_is_flat_and_known_and_holds_no_secret() {
    let world = World::start().await;
    let mut variables = env(&world);
    variables.insert("LOG_LEVEL", "debug".to_owned());
    variables.insert("MAX_RETRIES", "1".to_owned());
    // A collector that is not there.
    variables.insert("OTEL_SDK_DISABLED", "false".to_owned());
    variables.insert("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", free_port()));
    let status = Scripted::<Reply>::status;
    let mut worker = Running::started(&variables).await;

    let mut plain = expired("evt-plain", "plain");
    plain["payload"]["note"] = json!(IN_BODY);
    plain["payload"]["error_message"] = json!(IN_BODY);
    world.send(&plain);
    world.emptied().await;
    world.send(&plain);
    world.api.script_for("retried", [status(503).body(IN_BODY)]);
    world.send(&approved("evt-retried", "retried"));
    world.api.script_for("refused", [status(422).body(IN_BODY)]);
    world.send(&failed("evt-refused", "refused"));
    world.api.set_status("superseded", ReservationStatus::Confirmed);
    world.send(&expired("evt-superseded", "superseded"));
    world.api.set_status("money", ReservationStatus::Expired);
    world.send(&approved("evt-money", "money"));
    world.send(&expired("evt-plain", "other"));
    world.sqs.send(&world.queue, format!("not json, {IN_BODY}"));
    world.sqs.send(&world.queue, format!("{{\"type\":\"a\\u0000b\\n{{\",\"note\":\"{IN_BODY}\"}}"));
    world.send(&expired("evt-odd", "odd\u{202e}\"\\{}"));
    world.emptied().await;
    world.api.script_for("used-up", [status(500), status(500)]);
    world.send(&expired("evt-used-up", "used-up"));
    eventually("its retries are used up", || worker.log().contains("Retries used up")).await;
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));

    let log = worker.log();
    let lines: Vec<Map<String, Value>> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    lines.iter().for_each(assert_fits);
    for secret in [SECRET, IN_BODY] {
        assert!(!log.contains(secret), "{}", log.lines().find(|l| l.contains(secret)).unwrap());
    }
    let outcomes: BTreeSet<_> =
        lines.iter().filter_map(|line| line.get("outcome")?.as_str()).collect();
    assert_eq!(outcomes, BTreeSet::from(["dropped", "failed", "retried", "success"]));
    let done = lines.iter().find(|line| line["msg"] == "Event processed successfully").unwrap();
    for key in ["event_type", "reservation_id", "attempt", "latency_ms", "trace_id", "outcome"] {
        assert!(done.contains_key(key), "{key}: {done:?}");
    }
    let unknown = lines.iter().filter(|line| line["msg"].as_str().unwrap().contains("ollector"));
    assert!(unknown.count() <= 1, "a collector that is down is logged once");
}
