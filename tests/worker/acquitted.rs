//! A suspect whose service has an outage is no suspect any more: all events fail then. On paused
//! time.

use std::sync::atomic::Ordering;

use reservation_worker::retry::Backoff;
use tokio::time::sleep;

use crate::late::Late;
use crate::paused::{Line, Running, SECOND, message, start_with};
use crate::support::metric;

const SUSPECTS: &str = "worker_suspects{service=\"reservation\"}";
const BREAKER: &str = "worker_breaker_state{service=\"reservation\"}";
const PARKED: &str = "worker_messages_in_flight{state=\"parked\"}";

/// Waits until a metric has the value.
async fn becomes(running: &Running, series: &str, value: f64) {
    for _ in 0..1_200 {
        if metric(&running.metrics, series) == value {
            return;
        }
        sleep(SECOND / 10).await;
    }
    panic!("{series} is {}, expected {value}", metric(&running.metrics, series));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_parked_for_an_outage_is_no_suspect_any_more() {
    let (line, store) = (Line::with([message("bad", "away-1").0]), Late::new());
    let running = start_with(&line, &store, |settings| {
        settings.policy.backoff = Backoff { base: SECOND, cap: 2 * SECOND };
    });
    let send = |n| line.send(&message(&format!("good-{n}"), &format!("slow-1-{n}")).0, 1);
    // Other events succeed, in calls that start after the failure of the first.
    sleep(SECOND / 2).await;
    (0..10).for_each(send);
    becomes(&running, SUSPECTS, 1.0).await;
    running.api.is_away.store(true, Ordering::SeqCst);
    (10..40).for_each(send);
    becomes(&running, BREAKER, 2.0).await;
    becomes(&running, PARKED, 31.0).await;
    assert_eq!(metric(&running.metrics, SUSPECTS), 0.0);
    running.api.is_away.store(false, Ordering::SeqCst);
    becomes(&running, PARKED, 0.0).await;
}
