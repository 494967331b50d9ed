//! When the duration of a claim starts, what happens when it is lost, and when it is released. On
//! paused time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reservation_worker::event::StepSet;
use reservation_worker::idempotency::{Claim, HandledAs, Store};
use reservation_worker::retry::Backoff;
use tokio::time::sleep;

use crate::late::Late;
use crate::paused::{Line, SECOND, message, paid, start, start_with};
use crate::support::metric;

const SUCCESS: &str = "worker_events_total{outcome=\"success\",type=\"reservation.expired\"}";

/// The claim expires in the store while the answer is on its way: another process may hold it.
#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_arrives_after_its_expiry_makes_no_calls() {
    let (sent, _) = message("1", "slow-10");
    let (line, store) = (Line::with([sent]), Late::new());
    store.claim_ms.store(40_000, Ordering::SeqCst);
    let running = start_with(&line, &store, |_| {});
    sleep(60 * SECOND).await;
    assert_eq!(running.api.calls("slow-10"), 0);
    store.claim_ms.store(0, Ordering::SeqCst);
    sleep(60 * SECOND).await;
    assert_eq!(metric(&running.metrics, SUCCESS), 1.0);
}

/// The first renewal is sent at about 14 s, for 30 s, and answered at 42 s.
///
/// The next one is answered at 57 s. The first step ends in between.
#[tokio::test(start_paused = true)]
async fn a_renewed_claim_lasts_from_the_request_and_not_from_the_answer() {
    let (sent, _) = message("1", "slow-50000");
    let (line, store) = (Line::with([sent]), Late::new());
    store.renew_ms.store(28_000, Ordering::SeqCst);
    let (app, metrics) = start(&line, &store, 30);
    sleep(53 * SECOND).await;
    assert_eq!(metric(&metrics, SUCCESS), 0.0, "the claim is only certain until 44 s");
    let retried = "worker_events_total{outcome=\"retried\",type=\"reservation.expired\"}";
    assert_eq!(metric(&metrics, retried), 1.0);
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_a_renewal_finds_lost_is_requested_again_before_the_next_call() {
    let (sent, event) = paid("1", "paced-20000");
    let (line, store) = (Line::with([sent]), Late::new());
    let running = start_with(&line, &store, |_| {});
    sleep(SECOND).await;
    assert_eq!(running.api.calls("paced-20000"), 1);
    store.taken_by_another(&event).await;
    // The renewal is at about 14 s; the claim was granted until 29 s.
    sleep(25 * SECOND).await;
    assert_eq!(running.api.calls("paced-20000"), 1, "another process holds the claim");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_found_lost_on_completion_is_requested_again() {
    let (sent, event) = paid("1", "slow-2000");
    let (line, store) = (Line::with([sent]), Late::new());
    let running = start_with(&line, &store, |settings| {
        settings.policy.backoff = Backoff { base: SECOND / 10, cap: SECOND };
    });
    sleep(SECOND).await;
    let token = store.taken_by_another(&event).await;
    store.store().complete((&event.id).into(), token, HandledAs::Applied).await.unwrap();
    // The lost claim was granted until 29 s.
    sleep(10 * SECOND).await;
    assert_eq!(store.completions.load(Ordering::SeqCst), 1);
    assert_eq!(metric(&running.metrics, "worker_duplicates_total{reason=\"handled\"}"), 1.0);
    assert_eq!(line.deleted.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_claim_is_released_when_a_message_reaches_the_longest_hold_time() {
    let (sent, event) = message("1", "away-1");
    let (line, store) = (Line::with([sent]), Late::new());
    let (app, _metrics) = start(&line, &store, 3_600);
    let held = Duration::from_secs((11 * 60 + 50) * 60);
    sleep(held - 60 * SECOND).await;
    assert!(matches!(store.asked_by_another(&event).await, Claim::Elsewhere(_)));
    sleep(70 * SECOND).await;
    assert_eq!(store.asked_by_another(&event).await, Claim::Ours(StepSet::EMPTY));
    drop(app);
}
