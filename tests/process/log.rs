//! Every log line follows the flat schema, and no line contains a secret or a message body.

use std::collections::BTreeSet;

use sandbox::reservation_api::{Reply, ReservationStatus};
use sandbox::script::Scripted;
use serde_json::{Map, Value, json};

use sandbox::testing::log_schema::assert_log_fits;
use sandbox::testing::program::{Running, SECRET, env, free_port};
use sandbox::testing::world::{World, approved, eventually, expired, failed};

/// A text in bodies, in fields that no log line may show.
const IN_BODY: &str = "body-marker-4711";

#[tokio::test]
async fn every_log_line_follows_the_schema_and_contains_no_secret() {
    let world = World::start().await;
    let mut variables = env(&world);
    variables.insert("LOG_LEVEL", "debug".to_owned());
    variables.insert("MAX_RETRIES", "1".to_owned());
    // No collector is listening.
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
    let mut seatless = expired("evt-seatless", "seatless");
    seatless["payload"] = json!({"qty": 0});
    world.send(&seatless);
    world.sqs.send(&world.queue, format!("not json, {IN_BODY}"));
    world.sqs.send(&world.queue, format!("{{\"type\":\"a\\u0000b\\n{{\",\"note\":\"{IN_BODY}\"}}"));
    world.send(&expired("evt-odd", "odd\u{202e}\"\\{}"));
    world.send(&expired("evt-\u{1b}[31m\r\n{\"level\":\"fake\"}", &"new\nline\u{0}".repeat(14)));
    world.emptied().await;
    world.api.script_for("used-up", [status(500), status(500)]);
    world.send(&expired("evt-used-up", "used-up"));
    eventually("the log reports used-up retries", || worker.log().contains("Retries used up"))
        .await;
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));

    let log = worker.log();
    assert_log_fits(&log, false);
    let lines: Vec<Map<String, Value>> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
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
    let poison = lines.iter().find(|line| line.get("reservation_id") == Some(&json!("seatless")));
    let poison = poison.expect("a line with the reservation of the invalid event");
    assert_eq!(
        (&poison["outcome"], &poison["event_id"]),
        (&json!("failed"), &json!("evt-seatless"))
    );
    let unknown = lines.iter().filter(|line| line["msg"].as_str().unwrap().contains("ollector"));
    assert!(unknown.count() <= 1, "a collector that is down is logged more than once");
}
