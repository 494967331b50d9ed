//! What the settler does about leases that are extended, lost or over.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::engine::{Engine, LEASE};
use crate::event::ReservationId;
use crate::idempotency::{Lost, StoreError};
use crate::inflight::lease_keeper::LeaseEvents;
use crate::inflight::{HeldClaim, Job, LostJob};
use crate::settle::account::Disposition;

const SECOND: Duration = Duration::from_secs(1);

fn held(job: &Job) -> HeldClaim {
    let reservation_id: ReservationId = job.event.reservation_id.clone();
    HeldClaim { id: job.event.id.clone(), reservation_id, lease: job.lease.clone() }
}

fn away() -> Result<(), StoreError> {
    Err(StoreError::unavailable(""))
}

#[tokio::test(start_paused = true)]
async fn the_claim_of_a_lost_job_is_released() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    let token = job.lease.token();
    engine.settler.lost(LostJob { job, receipts_lost: 2 }).await;
    assert_eq!(*engine.store.asked.lock().unwrap(), [("release", token)]);
    assert_eq!(engine.left(Disposition::LeaseLost), 2);
    assert!(engine.shows("worker_leases_lost_total 2"));
}

#[tokio::test(start_paused = true)]
async fn the_claim_of_a_job_that_was_held_for_too_long_is_released() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    engine.settler.overdue(job).await;
    assert_eq!(engine.store.calls(), ["release"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_message_ends_is_dead_lettered() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    engine.settler.ending(job).await;
    engine.settled().await;
    assert!(engine.queue.asked("dead_letter")[0].says.starts_with("retention_ends"));
    assert_eq!(engine.store.calls(), ["release"]);
    assert_eq!(engine.left(Disposition::DeadLettered), 1);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_job_is_handed_back_at_once_and_its_claim_released() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    LeaseEvents::hand_back(&engine.settler, job).await;
    engine.settled().await;
    assert_eq!(engine.queue.asked("hand_back")[0].hidden, Duration::ZERO);
    assert_eq!(engine.store.calls(), ["release"]);
    assert_eq!(engine.table.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn extensions_are_counted_by_their_results() {
    let engine = Engine::new();
    engine.settler.extended(5, 3, 2);
    for line in [
        "worker_lease_extensions_total 5",
        "worker_lease_extension_failures_total 3",
        "worker_leases_lost_total 2",
    ] {
        assert!(engine.shows(line), "{line}");
    }
    assert_eq!(engine.left(Disposition::LeaseLost), 2);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_tried_again_and_lengthens_the_claim() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    // The lease is extended; the claim still ends with the lease before.
    sleep(LEASE / 2).await;
    let due = engine.table.renewals_due(Instant::now()).due;
    let answer =
        crate::inflight::Renewal::Extended { called_at: Instant::now(), visibility: LEASE };
    engine.table.renewed(vec![(due[0].key, answer)], Instant::now());
    engine.store.others.lock().unwrap().extend([away(), away()]);
    engine.settler.renew_claims(vec![held(&job)]).await;
    assert_eq!(engine.store.calls(), ["renew"; 3]);
    sleep(LEASE - 6 * SECOND).await;
    assert!(job.lease.is_claimed(), "as long as the lease");
    sleep(6 * SECOND).await;
    assert!(!job.lease.is_claimed());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_never_works_ends_before_the_next_one_and_is_spaced_out() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    engine.store.others.lock().unwrap().extend((0..100).map(|_| away()));
    let began_at = Instant::now();
    engine.settler.renew_claims(vec![held(&job)]).await;
    let took = began_at.elapsed();
    assert!((LEASE / 2..LEASE / 2 + 5 * SECOND).contains(&took), "{took:?}");
    let calls = engine.store.calls().len();
    assert!((2..=40).contains(&calls), "{calls} calls");
    assert!(job.lease.is_claimed(), "it is not known to be lost");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_finds_the_claim_lost_is_not_repeated() {
    for error in [StoreError::NotOwner(Lost::Claim), StoreError::NotOwner(Lost::Lane)] {
        let mut engine = Engine::new();
        let job = engine.begun("e1").await;
        engine.store.others.lock().unwrap().push_back(Err(error));
        engine.settler.renew_claims(vec![held(&job)]).await;
        assert_eq!(engine.store.calls(), ["renew"]);
        assert!(!job.lease.is_claimed() && !job.lease.may_be_claimed());
    }
}

/// The answer to the claim may be counted from before the extension.
#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_outstanding_is_renewed_after_it() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    job.lease.claim_asked();
    let claims = vec![held(&job)];
    let mut renewal = std::pin::pin!(engine.settler.renew_claims(claims));
    assert!(timeout(SECOND, &mut renewal).await.is_err());
    assert!(engine.store.calls().is_empty());
    job.lease.claimed(Instant::now() + LEASE / 2);
    renewal.await;
    assert_eq!(engine.store.calls(), ["renew"]);
    sleep(LEASE / 2 + 5 * SECOND).await;
    assert!(job.lease.is_claimed(), "as long as the lease");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_known_to_be_lost_is_not_renewed() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    job.lease.claim_lost();
    let renewal = engine.settler.renew_claims(vec![held(&job)]);
    timeout(Duration::ZERO, renewal).await.expect("nothing is waited for");
    assert!(engine.store.calls().is_empty());
}
