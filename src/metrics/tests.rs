//! Tests of the text that Prometheus scrapes.
#![allow(clippy::unwrap_used)]

use super::*;

fn text(metrics: &Metrics) -> String {
    let mut text = Vec::new();
    metrics.render(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn has(metrics: &Metrics, line: &str) -> bool {
    text(metrics).lines().any(|found| found == line)
}

#[test]
fn every_known_series_starts_at_zero() {
    let text = text(&Metrics::new(&["unknown_type", "invalid_json"]));
    let types = EventType::ALL.map(EventType::as_str);
    for kind in types.into_iter().chain(["unknown"]) {
        for outcome in ["success", "failed", "dropped", "retried"] {
            let line = format!("worker_events_total{{outcome=\"{outcome}\",type=\"{kind}\"}} 0\n");
            assert!(text.contains(&line), "{line}");
        }
        let line = format!("worker_latency_seconds_bucket{{type=\"{kind}\",le=\"0.001\"}} 0\n");
        assert!(text.contains(&line), "{line}");
    }
    for line in [
        "sqs_poll_errors_total 0",
        "worker_pool_active_gauge 0",
        "worker_receive_errors_total{kind=\"throttled\"} 0",
        "worker_messages_in_flight{state=\"parked\"} 0",
        "worker_settlements_total{kind=\"dead_letter\"} 0",
        "worker_calls_total{method=\"ReleaseHold\",result=\"outage\",service=\"inventory\"} 0",
        "worker_dead_letters_total{reason=\"unknown_type\"} 0",
        "worker_dead_letters_total{reason=\"other\"} 0",
        "worker_duplicates_total{reason=\"joined\"} 0",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}");
    }
    assert!(text.contains("worker_build_info{version="));
    #[cfg(target_os = "linux")]
    assert!(text.contains("process_resident_memory_bytes"));
}

#[test]
fn each_event_type_is_counted_under_its_own_name() {
    let metrics = Metrics::new(&[]);
    for (n, kind) in EventType::ALL.into_iter().enumerate() {
        for _ in 0..=n {
            metrics.event_settled(Some(kind), Outcome::Success);
        }
        let line = format!(
            "worker_events_total{{outcome=\"success\",type=\"{}\"}} {}",
            kind.as_str(),
            n + 1
        );
        assert!(has(&metrics, &line), "{line}");
    }
    metrics.event_settled(None, Outcome::Failed);
    metrics.event_retried(EventType::PaymentFailed, RetryReason::Outage);
    for line in [
        "worker_events_total{outcome=\"failed\",type=\"unknown\"} 1",
        "worker_events_total{outcome=\"retried\",type=\"payment.failed\"} 1",
        "worker_retries_total{reason=\"outage\"} 1",
        "worker_retries_total{reason=\"paced\"} 0",
    ] {
        assert!(has(&metrics, line), "{line}");
    }
}

#[test]
fn dropped_guards_decrease_their_gauges() {
    let metrics = Metrics::new(&[]);
    let active = metrics.pool_active();
    let mut held = metrics.held(HeldState::Buffered);
    assert!(has(&metrics, "worker_pool_active_gauge 1"));
    assert!(has(&metrics, "worker_messages_in_flight{state=\"buffered\"} 1"));
    held.set(HeldState::Running);
    assert!(has(&metrics, "worker_messages_in_flight{state=\"buffered\"} 0"));
    assert!(has(&metrics, "worker_messages_in_flight{state=\"running\"} 1"));
    drop((active, held));
    assert!(has(&metrics, "worker_pool_active_gauge 0"));
    assert!(has(&metrics, "worker_messages_in_flight{state=\"running\"} 0"));
}

#[test]
fn calls_polls_and_reasons_are_counted_once() {
    let metrics = Metrics::new(&["unknown_type"]);
    metrics.call(Call::PatchReservation, CallResult::Conflict, Duration::from_millis(3));
    metrics.poll_error(QueueErrorKind::Denied);
    metrics.received(0);
    metrics.received(10);
    metrics.dead_letter("unknown_type");
    metrics.dead_letter("never announced");
    metrics.latency(Some(EventType::PaymentApproved), Duration::from_millis(150));
    for line in [
        "worker_calls_total{method=\"PATCH\",result=\"conflict\",service=\"reservation\"} 1",
        "worker_call_duration_seconds_bucket{method=\"PATCH\",service=\"reservation\",le=\"0.005\"} 1",
        "worker_call_duration_seconds_bucket{method=\"PATCH\",service=\"reservation\",le=\"0.0025\"} 0",
        "sqs_poll_errors_total 1",
        "worker_receive_errors_total{kind=\"denied\"} 1",
        "worker_receives_total 2",
        "worker_empty_receives_total 1",
        "worker_messages_received_total 10",
        "worker_dead_letters_total{reason=\"unknown_type\"} 1",
        "worker_dead_letters_total{reason=\"other\"} 1",
        "worker_latency_seconds_bucket{type=\"payment.approved\",le=\"0.25\"} 1",
        "worker_latency_seconds_bucket{type=\"payment.approved\",le=\"0.1\"} 0",
    ] {
        assert!(has(&metrics, line), "{line}\n{}", text(&metrics));
    }
}

#[test]
fn process_gauges_are_shown() {
    let metrics = Metrics::new(&[]);
    metrics.limits(20, 1000);
    metrics.concurrency_limit_min(2);
    metrics.health(true, false);
    metrics.spans_exported(512);
    metrics.spans_dropped(SpanLoss::QueueFull, 7);
    metrics.log_lines_dropped(3);
    metrics.queue_lag(Duration::from_millis(70));
    metrics.breaker(Service::Inventory, BreakerState::Open);
    assert_eq!(metrics.breaker_state(Service::Inventory), Some(BreakerState::Open));
    assert_eq!(metrics.breaker_state(Service::Reservation), Some(BreakerState::Closed));
    assert_eq!(metrics.breaker_state(Service::Sqs), None);
    for line in [
        "worker_pool_size 20",
        "worker_messages_in_flight_max 1000",
        "worker_concurrency_limit_min 2",
        "worker_alive 1",
        "worker_ready 0",
        "worker_spans_exported_total 512",
        "worker_spans_dropped_total{reason=\"queue_full\"} 7",
        "worker_spans_dropped_total{reason=\"export_failed\"} 0",
        "worker_log_lines_dropped_total 3",
        "worker_queue_lag_seconds_bucket{le=\"0.1\"} 1",
        "worker_queue_lag_seconds_bucket{le=\"0.05\"} 0",
        "worker_breaker_state{service=\"inventory\"} 2",
    ] {
        assert!(has(&metrics, line), "{line}\n{}", text(&metrics));
    }
}

#[test]
fn gauges_of_a_service_are_shown() {
    let metrics = Metrics::new(&[]);
    for service in ["reservation", "inventory", "store"] {
        for line in [
            "worker_concurrency_limit{service=\"SERVICE\"} 0",
            "worker_calls_in_flight{service=\"SERVICE\"} 0",
            "worker_suspects{service=\"SERVICE\"} 0",
            "worker_refusing{service=\"SERVICE\"} 0",
            "worker_concurrency_limit_changes_total{direction=\"up\",service=\"SERVICE\"} 0",
            "worker_concurrency_limit_changes_total{direction=\"down\",service=\"SERVICE\"} 0",
            "worker_paced_total{scope=\"event\",service=\"SERVICE\"} 0",
            "worker_paced_total{scope=\"service\",service=\"SERVICE\"} 0",
        ] {
            let line = line.replace("SERVICE", service);
            assert!(has(&metrics, &line), "{line}\n{}", text(&metrics));
        }
    }
    let mut guards = Vec::new();
    for service in Service::ALL {
        metrics.concurrency_limit(service, 8);
        (0..8).for_each(|_| metrics.call_began(service));
        metrics.call_ended(service);
        guards.extend((0..6).map(|_| metrics.suspect(service)));
        metrics.refusing(service, true);
    }
    metrics.refusing(Service::Store, false);
    metrics.limit_changed(Service::Inventory, LimitChange::Down);
    metrics.paced(Service::Reservation, PaceScope::Service);
    for line in [
        "worker_concurrency_limit{service=\"reservation\"} 8",
        "worker_calls_in_flight{service=\"inventory\"} 7",
        "worker_suspects{service=\"store\"} 6",
        "worker_refusing{service=\"reservation\"} 1",
        "worker_refusing{service=\"inventory\"} 1",
        "worker_refusing{service=\"store\"} 0",
        "worker_concurrency_limit_changes_total{direction=\"down\",service=\"inventory\"} 1",
        "worker_concurrency_limit_changes_total{direction=\"up\",service=\"inventory\"} 0",
        "worker_paced_total{scope=\"service\",service=\"reservation\"} 1",
        "worker_paced_total{scope=\"event\",service=\"reservation\"} 0",
    ] {
        assert!(has(&metrics, line), "{line}\n{}", text(&metrics));
    }
    let shown = text(&metrics);
    let sqs: Vec<_> = shown.lines().filter(|line| line.contains("service=\"sqs\"")).collect();
    let is_of_calls = |line: &&str| {
        ["worker_call_duration", "worker_calls_total"].iter().any(|name| line.starts_with(name))
    };
    assert!(sqs.iter().all(is_of_calls), "{sqs:#?}");
}

#[test]
fn a_latency_target_has_a_series_only_if_set() {
    let metrics = Metrics::new(&[]);
    let series = "worker_latency_target_seconds{";
    metrics.latency_target(Service::Store, None);
    metrics.latency_target(Service::Sqs, Some(Duration::from_secs(1)));
    assert!(!text(&metrics).contains(series));
    metrics.latency_target(Service::Reservation, Some(Duration::from_millis(150)));
    assert!(has(&metrics, "worker_latency_target_seconds{service=\"reservation\"} 0.15"));
    assert_eq!(text(&metrics).matches(series).count(), 1);
    metrics.latency_target(Service::Reservation, None);
    assert!(!text(&metrics).contains(series));
}

#[test]
fn label_values_are_distinct() {
    let mut calls = Call::ALL.map(|call| (call.service().as_str(), call.as_str())).to_vec();
    calls.sort_unstable();
    calls.dedup();
    assert_eq!(calls.len(), Call::ALL.len());
    for (place, state) in HeldState::ALL.into_iter().enumerate() {
        assert_eq!(state.index(), place);
    }
}
