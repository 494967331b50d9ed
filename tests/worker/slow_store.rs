//! The effects of a store that is slow or does not answer. On paused time, with a queue and
//! services that answer at once, so every delay is the store's.

use std::sync::atomic::Ordering;

use reservation_worker::event::{Event, StepSet};
use reservation_worker::idempotency::{Claim, ClaimToken, Store};
use reservation_worker::queue::ReceiptHandle;
use reservation_worker::settle::account::Disposition;
use tokio::time::{Instant, sleep};

use crate::late::Late;
use crate::paused::{Line, SECOND, message, start};
use crate::support::{metric, request};

/// Just within the store's timeout.
const SLOW_MS: u64 = 999;
const LOST: &str = "worker_leases_lost_total";

fn crowd(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| message(&n.to_string(), &format!("r{n}")).0).collect()
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_does_not_delay_the_extension_of_leases() {
    let line = Line::with(crowd(100));
    let store = Late::new();
    store.release_ms.store(SLOW_MS, Ordering::SeqCst);
    // The leases of forty messages are lost, so their claims are released.
    let slipped = (0..40).map(|n| ReceiptHandle(format!("m-{n}").into()));
    line.lost.lock().unwrap().extend(slipped);
    let (app, metrics) = start(&line, &store, 30);
    sleep(120 * SECOND).await;
    assert_eq!(metric(&metrics, LOST), 40.0, "only the forty leases are lost");
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_by_its_deadline_although_the_store_is_slow() {
    let line = Line::with(crowd(900));
    let store = Late::new();
    let (app, _metrics) = start(&line, &store, 600);
    sleep(20 * SECOND).await;
    store.release_ms.store(SLOW_MS, Ordering::SeqCst);
    let deadline = Instant::now() + 5 * SECOND;
    let account = app.drain(deadline).await;
    assert!(Instant::now() <= deadline, "{:?} late", deadline.elapsed());
    assert_eq!(account.left_total(Disposition::HandedBack), 900, "{account:?}");
    assert!(account.balances());
}

/// Tries to claim the event for two minutes, twenty times per second.
async fn assert_never_taken(store: &Late, event: &Event) {
    let until = Instant::now() + 120 * SECOND;
    let begun = Instant::now();
    while Instant::now() < until {
        let claim = store.asked_by_another(event).await;
        assert!(matches!(claim, Claim::Elsewhere(_)), "{claim:?} after {:?}", begun.elapsed());
        sleep(SECOND / 20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_does_not_lose_the_claim_of_a_running_event() {
    let (sent, event) = message("1", "slow-200000");
    let (line, store) = (Line::with([sent]), Late::new());
    let (app, _metrics) = start(&line, &store, 30);
    sleep(SECOND).await;
    store.renewals_lost.store(1, Ordering::SeqCst);
    assert_never_taken(&store, &event).await;
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_lease_is_extended_while_it_is_claimed_stays_claimed() {
    // Both are of one reservation: the second is claimed when the first is done, just before the
    // extension.
    let (first, _) = message("1", "slow-14400");
    let (second, event) = message("2", "slow-14400");
    let (line, store) = (Line::with([first, second]), Late::new());
    let (app, metrics) = start(&line, &store, 30);
    sleep(SECOND).await;
    store.claim_ms.store(SLOW_MS, Ordering::SeqCst);
    sleep(14 * SECOND).await;
    for _ in 0..292 {
        let claim = store.asked_by_another(&event).await;
        assert!(matches!(claim, Claim::Elsewhere(_)), "{claim:?}");
        sleep(SECOND / 20).await;
    }
    sleep(5 * SECOND).await;
    let retried = "worker_events_total{outcome=\"retried\",type=\"reservation.expired\"}";
    assert_eq!(metric(&metrics, retried), 0.0);
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn a_drain_releases_a_claim_whose_answer_was_lost() {
    let (sent, event) = message("1", "r1");
    let (line, store) = (Line::with([sent]), Late::new());
    store.claims_mute.store(true, Ordering::SeqCst);
    let (app, _metrics) = start(&line, &store, 600);
    sleep(10 * SECOND).await;
    assert!(matches!(store.asked_by_another(&event).await, Claim::Elsewhere(_)));
    app.drain(Instant::now() + 20 * SECOND).await;
    assert_eq!(store.asked_by_another(&event).await, Claim::Ours(StepSet::EMPTY));
}

#[tokio::test(start_paused = true)]
async fn many_events_claimed_by_another_process_do_not_hold_up_others() {
    let (line, store) = (Line::with(crowd(900)), Late::new());
    for n in 0..900 {
        let (_, event) = message(&n.to_string(), &format!("r{n}"));
        let (hash, hours) = (event.content_hash(), 9_000 * SECOND);
        store
            .store()
            .claim((&event.id).into(), request(hash, ClaimToken::unique(), hours))
            .await
            .unwrap();
    }
    store.claim_ms.store(SLOW_MS, Ordering::SeqCst);
    let (app, metrics) = start(&line, &store, 600);
    // All events were tried to be claimed meanwhile, with slow answers.
    sleep(300 * SECOND).await;
    let (mine, _) = message("mine", "slow-10");
    line.send(&mine, 1);
    sleep(30 * SECOND).await;
    let done = "worker_events_total{outcome=\"success\",type=\"reservation.expired\"}";
    assert_eq!(metric(&metrics, done), 1.0);
    drop(app);
}
