//! From when claims are counted, what their loss means, and when they are let go. On paused time.

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

/// The store's clock ran while its answer was on the way: others may have the event by then.
#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_takes_as_long_as_it_lasts_lets_nothing_begin() {
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

/// The claim is renewed at about 14 s, for 30 s; the answer comes at 42 s, the next one's at 57 s. The first step ends in between.
#[tokio::test(start_paused = true)]
async fn a_renewal_counts_from_the_asking_too() {
    let (sent, _) = message("1", "slow-50000");
    let (line, store) = (Line::with([sent]), Late::new());
    store.renew_ms.store(28_000, Ordering::SeqCst);
    let (app, metrics) = start(&line, &store, 30);
    sleep(53 * SECOND).await;
    assert_eq!(metric(&metrics, SUCCESS), 0.0, "it was ours until 44 s, for all that we know");
    let retried = "worker_events_total{outcome=\"retried\",type=\"reservation.expired\"}";
    assert_eq!(metric(&metrics, retried), 1.0);
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_a_renewal_finds_lost_is_asked_for_anew_before_the_next_call() {
    let (sent, event) = paid("1", "paced-20000");
    let (line, store) = (Line::with([sent]), Late::new());
    let running = start_with(&line, &store, |_| {});
    sleep(SECOND).await;
    assert_eq!(running.api.calls("paced-20000"), 1);
    store.taken_by_another(&event).await;
    // Renewed at about 14 s; its own end, that it was told of, is at 29 s.
    sleep(25 * SECOND).await;
    assert_eq!(running.api.calls("paced-20000"), 1, "another process has it");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_found_lost_at_the_end_is_asked_for_anew() {
    let (sent, event) = paid("1", "slow-2000");
    let (line, store) = (Line::with([sent]), Late::new());
    let running = start_with(&line, &store, |settings| {
        settings.policy.backoff = Backoff { base: SECOND / 10, cap: SECOND };
    });
    sleep(SECOND).await;
    let token = store.taken_by_another(&event).await;
    store.store().complete(&event.id, token, HandledAs::Applied).await.unwrap();
    // The claim that it believed in would have lasted for 29 s.
    sleep(10 * SECOND).await;
    assert_eq!(store.completions.load(Ordering::SeqCst), 1);
    assert_eq!(metric(&running.metrics, "worker_duplicates_total{reason=\"handled\"}"), 1.0);
    assert_eq!(line.deleted.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_has_been_held_for_as_long_as_may_be_is_let_go_by_the_store_too() {
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
