//! Tests of the report, on paused time.
#![allow(clippy::unwrap_used)]

use tokio::time::advance;

use super::*;
use crate::event::{EventType, ReservationId};
use crate::idempotency::Notice;
use crate::inflight::SuspectBounds;
use crate::metrics::Outcome;
use crate::outage::OutageSettings;
use crate::settle::failures::RecentFailure;

/// Creates the sources of a worker that holds nothing.
pub(crate) fn sources(metrics: Arc<Metrics>, health: Arc<Health>) -> StatusSources {
    let settings = OutageSettings {
        calls_max: 20,
        calls_min: 2,
        reservation_target: None,
        inventory_target: None,
    };
    let suspects = SuspectBounds { held_max: 6, tried_max: 2 };
    let (inflight, _) = InFlight::new(10, 8, suspects, Duration::from_secs(30));
    StatusSources {
        health,
        outages: Arc::new(Outages::new(settings, Arc::clone(&metrics))),
        inflight: Arc::new(inflight),
        failures: Arc::default(),
        controls: Arc::new(Controls::new(Arc::clone(&metrics))),
        metrics,
        configuration: vec![("SQS_QUEUE_URL", "http://localhost/queue".to_owned())],
        process: "pod/1".to_owned(),
    }
}

fn status() -> Status {
    Status::new(sources(Arc::new(Metrics::new(&[])), Arc::new(Health::new())))
}

fn failure(n: usize) -> RecentFailure {
    RecentFailure {
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64),
        event_type: Some(EventType::PaymentFailed),
        reservation_id: Some(ReservationId::new(&format!("r{n}")).unwrap()),
        reason: "retry",
        class: "outage",
        code: "http_503".to_owned(),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_is_shown_for_a_second() {
    let status = status();
    let first = status.report();
    advance(Duration::from_millis(999)).await;
    assert!(Arc::ptr_eq(&first, &status.report()));
    advance(Duration::from_millis(1)).await;
    assert!(!Arc::ptr_eq(&first, &status.report()));
}

#[tokio::test(start_paused = true)]
async fn the_newest_fifty_failures_are_kept() {
    let status = status();
    for n in 0..60 {
        status.sources.failures.add(failure(n));
    }
    let report = status.report();
    assert_eq!(report.failures.len(), 50);
    let (newest, oldest) = (&report.failures[0], &report.failures[49]);
    assert_eq!(
        (newest.reservation_id.as_str(), newest.at.as_str()),
        ("r59", "1970-01-01T00:00:59Z")
    );
    assert_eq!(oldest.reservation_id, "r10");
    assert_eq!((newest.class, newest.code.as_str()), ("outage", "http_503"));
}

#[tokio::test(start_paused = true)]
async fn activity_covers_the_last_five_minutes() {
    let status = Arc::new(status());
    let metrics = Arc::clone(&status.sources.metrics);
    let watch = tokio::spawn(Arc::clone(&status).watch());
    tokio::task::yield_now().await;
    metrics.event_settled(Some(EventType::PaymentApproved), Outcome::Success);
    metrics.event_settled(None, Outcome::Failed);
    for bucket in 1..=BUCKETS {
        advance(BUCKET).await;
        tokio::task::yield_now().await;
        let activity = status.make_report().activity;
        assert_eq!(activity.buckets.len(), bucket);
        assert_eq!((activity.total.succeeded, activity.total.failed), (1, 1));
    }
    advance(BUCKET).await;
    tokio::task::yield_now().await;
    let activity = status.make_report().activity;
    assert_eq!((activity.buckets.len(), activity.total.succeeded), (BUCKETS, 0));
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn what_operators_changed_is_shown() {
    let status = status();
    status.sources.controls.pause(Duration::from_secs(60), "a release".to_owned());
    let report = status.report();
    let control = &report.controls[0];
    assert_eq!(
        (control.lever, control.scope, control.reason.as_str()),
        ("pause", "process", "a release")
    );
}

#[tokio::test(start_paused = true)]
async fn levers_of_all_workers_that_cannot_be_read_are_shown() {
    let status = status();
    let shown = || {
        let parts = status.make_report().parts;
        parts.into_iter().find(|part| part.name == "levers of all workers")
    };
    let read = |text: &[u8]| {
        let notice = Notice { text: text.to_vec(), at: SystemTime::now() };
        status.sources.controls.apply_notice(&notice);
    };
    read(b"");
    assert!(shown().is_none());
    read(b"garbage");
    assert!(!shown().unwrap().is_ok);
    read(b"{\"version\":1}");
    assert!(shown().is_none());
}
