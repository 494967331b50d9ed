//! Arguments, configuration, `check`, `health` and the admin port.

use std::net::{Ipv4Addr, TcpListener};

use reservation_worker::config::VARIABLES;
use sandbox::sqs::{Action, ErrorCode, Fault, QueueSpec};

use sandbox::testing::program::{Env, Running, SECRET, env, free_port, run, stderr, stdout};
use sandbox::testing::world::{World, eventually, expired};

/// Checks that neither the queue nor a service was called.
fn assert_untouched(world: &World) {
    let seen = world.sqs.ledger(&world.queue);
    assert_eq!(
        (seen.receives, seen.delivered, seen.entries.len()),
        (0, 0, 1),
        "calls other than the test's own send"
    );
    assert_eq!(world.ledger.totals().calls, 0);
}

#[tokio::test]
async fn every_invalid_variable_is_reported_and_no_call_is_made() {
    let world = World::start().await;
    world.send(&expired("evt-1", "a"));
    let bad = [
        ("SQS_WAIT_TIME", "21"),
        ("SQS_VISIBILITY_TIMEOUT", "4"),
        ("WORKER_CONCURRENCY", "0"),
        ("CONCURRENCY_MIN", "1001"),
        ("MAX_IN_FLIGHT", "20001"),
        ("MAX_IN_FLIGHT_MB", "1"),
        ("MAX_RETRIES", "11"),
        ("BACKOFF_BASE_MS", "30001"),
        ("BACKOFF_MAX_MS", "900001"),
        ("INVENTORY_GRPC_ADDR", "ftp://inventory"),
        ("INVENTORY_TIMEOUT_MS", "9"),
        ("INVENTORY_LATENCY_TARGET_MS", "60000"),
        ("INVENTORY_CA_FILE", "/nowhere/ca.pem"),
        ("RESERVATION_API_BASE", "not a url"),
        ("RESERVATION_API_TOKEN_FILE", "/dev/null"),
        ("RESERVATION_TIMEOUT_MS", "60001"),
        ("RESERVATION_LATENCY_TARGET_MS", "soon"),
        ("IDEMPOTENCY_STORE", "postgres://x"),
        ("IDEMPOTENCY_TTL", "59"),
        ("IDEMPOTENCY_CAPACITY", "zero"),
        ("SHUTDOWN_GRACE", "901"),
        ("SERVER_PORT", "65536"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("WORKER_THREADS", "65"),
        ("OTEL_SDK_DISABLED", "perhaps"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ];
    let mut variables = env(&world);
    variables.extend(bad.map(|(name, value)| (name, value.to_owned())));
    for command in [&[][..], &["check"], &["health"]] {
        let output = run(command, &variables).await;
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let said = stderr(&output);
        for (name, value) in bad {
            // By OpenTelemetry's specification, invalid values of its variables lead to a warning
            // only.
            if name.starts_with("OTEL_") {
                continue;
            }
            let line = said.lines().find(|line| line.contains(name));
            let line = line.unwrap_or_else(|| panic!("{name} is missing in\n{said}"));
            assert!(line.contains(value), "no value: {line}");
            assert!(line.contains("must be"), "no rule: {line}");
        }
        assert!(!said.contains(SECRET));
    }
    assert_untouched(&world);
}

#[tokio::test]
async fn every_missing_required_variable_is_reported() {
    let output = run(&[], &Env::new()).await;
    assert_eq!(output.status.code(), Some(2));
    for name in ["SQS_QUEUE_URL", "INVENTORY_GRPC_ADDR", "RESERVATION_API_BASE"] {
        assert!(stderr(&output).contains(name), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn a_used_admin_port_is_reported_before_any_receive() {
    let world = World::start().await;
    world.send(&expired("evt-1", "a"));
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut variables = env(&world);
    variables.insert("SERVER_PORT", port.clone());
    let output = run(&[], &variables).await;
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(
        said.contains("SERVER_PORT") && said.contains(&port) && said.contains("allowed"),
        "{said}"
    );
    assert_untouched(&world);
}

#[tokio::test]
async fn known_arguments_are_accepted_and_others_are_rejected() {
    let none = Env::new();
    let output = run(&["help", "variables"], &none).await;
    assert_eq!(output.status.code(), Some(0));
    for variable in VARIABLES {
        assert!(stdout(&output).contains(variable.name), "{}", variable.name);
    }
    for also in [&["--help"][..], &["help", "check"], &["completions", "bash"], &["man"]] {
        let output = run(also, &none).await;
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{also:?}");
        assert!(stdout(&output).contains("reservation-worker"), "{also:?}");
    }
    let output = run(&["--version"], &none).await;
    let version = format!("reservation-worker {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), version));
    let output = run(&["--frobnicate"], &none).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--frobnicate"), "{}", stderr(&output));
}

#[tokio::test]
async fn check_succeeds_with_the_stand_ins_and_changes_nothing() {
    let world = World::start().await;
    world.send(&expired("evt-1", "a"));
    let mut variables = env(&world);
    variables.insert("OTEL_SDK_DISABLED", "false".to_owned());
    variables.insert("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", free_port()));
    let output = run(&["check"], &variables).await;
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let collector = said.lines().find(|line| line.contains(" collector ")).unwrap();
    assert!(collector.contains("warn") && collector.contains("OTEL_SDK_DISABLED"), "{collector}");
    for part in
        ["queue", "visibility timeout", "dead-letter queue", "Reservation API", "Inventory service"]
    {
        let ok =
            said.lines().any(|line| line.trim_start().starts_with("ok ") && line.contains(part));
        assert!(ok, "{part}: {said}");
    }
    assert!(!said.contains(SECRET) && !stderr(&output).contains(SECRET));
    assert_eq!(world.sqs.ledger(&world.queue).delivered, 0);
    assert_eq!(world.ledger.totals().effects, 0);
}

/// Runs `check` with one fault: it exits with 1 and its line about the fault names a remedy.
async fn check_fails(world: &World, variables: &Env, part: &str, says: &str) {
    let output = run(&["check"], variables).await;
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{part}: {said}");
    let line = said.lines().find(|line| line.contains("FAIL")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(part), "{line}");
    assert!(line.contains(says), "{says}: {line}");
    assert_eq!(world.sqs.ledger(&world.queue).delivered, 0);
}

#[tokio::test]
async fn check_reports_each_fault() {
    let world = World::start().await;
    let good = env(&world);
    let with = |name: &'static str, value: String| {
        let mut variables = good.clone();
        variables.insert(name, value);
        variables
    };
    let missing = with("SQS_QUEUE_URL", format!("{}-none", world.queue));
    check_fails(&world, &missing, "queue", "SQS_QUEUE_URL").await;
    let nowhere = with("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", free_port()));
    check_fails(&world, &nowhere, "queue", "AWS_ENDPOINT_URL").await;
    let faults = world.sqs.faults(&world.queue);
    let denied = Fault::Error(ErrorCode::AccessDenied);
    faults.fail_sometimes(Action::GetQueueAttributes, 1.0, denied);
    check_fails(&world, &good, "queue", "credentials").await;
    faults.clear();
    world.api.go_down().await.unwrap();
    check_fails(&world, &good, "Reservation API", "RESERVATION_API_BASE").await;
    world.api.come_back().await.unwrap();
    world.inventory.go_down().await.unwrap();
    check_fails(&world, &good, "Inventory service", "INVENTORY_GRPC_ADDR").await;
    world.inventory.come_back().await.unwrap();
    let output = run(&["check"], &good).await;
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

#[tokio::test]
async fn check_warns_about_a_missing_dead_letter_queue() {
    let world = World::with(QueueSpec::default()).await;
    let output = run(&["check"], &env(&world)).await;
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.lines().any(|l| l.contains("warn") && l.contains("SQS_DLQ_URL")), "{said}");
}

#[tokio::test]
async fn check_warns_about_a_dead_letter_queue_with_a_smaller_size_limit() {
    let world = World::start().await;
    let variables = env(&world);
    world.sqs.set_attribute(&world.dlq, "MaximumMessageSize", "262144");
    let output = run(&["check"], &variables).await;
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let says = "at most 262144 bytes, the queue 1048576";
    assert!(said.lines().any(|l| l.contains("warn") && l.contains(says)), "{said}");
}

#[tokio::test]
async fn the_admin_port_reports_health_and_metrics() {
    let world = World::start().await;
    let variables = env(&world);
    let output = run(&["health"], &variables).await;
    assert_eq!(output.status.code(), Some(1), "no worker is running");

    let worker = Running::started(&variables).await;
    for path in ["/healthz", "/health", "/readyz", "/ready"] {
        worker.answers(path, 200).await;
    }
    let output = run(&["health"], &variables).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let metrics = worker.answers("/metrics", 200).await;
    for name in [
        "worker_events_total",
        "worker_latency_seconds_bucket",
        "sqs_poll_errors_total",
        "worker_pool_active_gauge",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}");
    }
    let faults = world.sqs.faults(&world.queue);
    faults.fail_sometimes(Action::ReceiveMessage, 1.0, Fault::Error(ErrorCode::AccessDenied));
    for path in ["/readyz", "/ready"] {
        let why = worker.answers(path, 503).await;
        let why: serde_json::Value = serde_json::from_str(&why).unwrap();
        assert!(why.is_object(), "{why}");
    }
    worker.answers("/healthz", 200).await;
    faults.clear();
    worker.answers("/readyz", 200).await;
    eventually("the log has both lines", || {
        worker.log().contains("Polling fails") && worker.log().contains("Polling works again")
    })
    .await;
}
