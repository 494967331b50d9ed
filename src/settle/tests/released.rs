//! Releases and deletes that fail: tried again, spaced out, while the lease lasts.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::engine::{Engine, LEASE};
use super::told::Told;
use crate::inflight::lease_keeper::LeaseEvents;
use crate::inflight::{Receipt, Renewal};
use crate::metrics::QueueAction;
use crate::queue::QueueErrorKind::{Denied, Network};
use crate::settle::account::Disposition;
use crate::settle::batch::Settlement;

const SECOND: Duration = Duration::from_secs(1);

impl Engine {
    /// Admits an event, takes its job out of the table, and returns its receipt.
    async fn receipt(&mut self, id: &str) -> Receipt {
        let job = self.begun(id).await;
        self.table.take(&job).receipts.pop().unwrap()
    }

    async fn delete(&mut self, id: &str) {
        let receipt = self.receipt(id).await;
        let delete = Settlement::Delete(receipt, Disposition::Deleted);
        self.settler.batches.send(delete).await;
    }

    async fn release(&mut self, id: &str, after: Duration) {
        let receipt = self.receipt(id).await;
        LeaseEvents::release(&self.settler, receipt, after).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_is_tried_again_with_the_same_delay() {
    let mut engine = Engine::new();
    engine.queue.tell("hand_back", [Told::Fails(Network), Told::Entries, Told::Entries]);
    engine.release("e1", 7 * SECOND).await;
    engine.settled().await;
    let asked = engine.queue.asked("hand_back");
    let hidden: Vec<_> = asked.iter().map(|asked| asked.hidden.as_secs()).collect();
    assert_eq!(hidden, [7; 4]);
    assert_eq!(engine.left(Disposition::HandedBack), 1);
    assert!(engine.shows(r#"worker_settlement_failures_total{kind="release"} 3"#));
    assert!(engine.shows(r#"worker_settlements_total{kind="release"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_never_works_is_tried_ever_less_often_until_its_lease_ends() {
    let mut engine = Engine::new();
    let began_at = Instant::now();
    engine.queue.break_down("hand_back", Network);
    engine.release("e1", SECOND).await;
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Unsettled), 1);
    assert!((LEASE..LEASE + 5 * SECOND).contains(&began_at.elapsed()), "{:?}", began_at.elapsed());
    let calls = engine.queue.asked("hand_back").len();
    assert!((5..=25).contains(&calls), "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn a_release_is_tried_rarely_while_visibility_cannot_be_changed() {
    let mut engine = Engine::new();
    engine.queue.tell("hand_back", [Told::Fails(Denied); 4]);
    engine.release("e1", SECOND).await;
    engine.settled().await;
    let pauses = engine.queue.pauses("hand_back");
    let secs: Vec<_> = pauses.iter().map(Duration::as_secs).collect();
    assert_eq!(secs, [0, 4, 4, 4], "one denied call is no evidence");
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_receipt_is_invalid_counts_as_lost() {
    let mut engine = Engine::new();
    engine.queue.tell("hand_back", [Told::Lost]);
    engine.release("e1", SECOND).await;
    engine.settled().await;
    assert_eq!(engine.queue.asked("hand_back").len(), 1);
    assert_eq!(engine.left(Disposition::LeaseLost), 1);
}

/// A third of a short lease may never be enough for SQS.
#[tokio::test(start_paused = true)]
async fn a_release_that_timed_out_is_given_more_time() {
    let mut engine = Engine::new();
    engine.lease = 9 * SECOND;
    engine.queue.tell("hand_back", [Told::Takes(Duration::from_millis(3_500)); 9]);
    engine.release("e1", SECOND).await;
    engine.settled().await;
    assert_eq!(engine.queue.asked("hand_back").len(), 2);
    assert_eq!(engine.left(Disposition::HandedBack), 1);
}

#[tokio::test(start_paused = true)]
async fn releases_are_sent_ten_at_a_time_or_after_a_short_wait() {
    let mut engine = Engine::new();
    for n in 0..12 {
        engine.release(&format!("e{n}"), SECOND).await;
    }
    engine.settled().await;
    let sizes: Vec<_> =
        engine.queue.asked("hand_back").iter().map(|asked| asked.entries.len()).collect();
    assert_eq!(sizes, [10, 2]);
    assert!(engine.queue.pauses("hand_back")[0] >= Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn while_deletes_fail_one_call_probes_and_all_are_deleted_when_it_works() {
    let mut engine = Engine::new();
    engine.queue.break_down("delete", Denied);
    engine.delete("first").await;
    sleep(5 * SECOND).await;
    assert!(engine.actions.is_failing(QueueAction::Delete));
    for n in 0..25 {
        engine.delete(&format!("e{n}")).await;
    }
    let before = engine.queue.asked("delete").len();
    sleep(6 * SECOND).await;
    let probes = engine.queue.asked("delete").split_off(before);
    assert!(probes.len() <= 20, "{} calls in six seconds", probes.len());
    let apart = probes.windows(2).map(|calls| calls[1].at - calls[0].at).min();
    assert!(apart.is_none_or(|apart| apart >= Duration::from_millis(100)), "{apart:?}");
    assert!(engine.actions.is_waited_for(QueueAction::Delete));
    engine.queue.mend("delete");
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 26);
    assert!(!engine.actions.is_waited_for(QueueAction::Delete));
}

#[tokio::test(start_paused = true)]
async fn a_kept_delete_waits_for_the_extension_of_its_lease() {
    let mut engine = Engine::new();
    engine.queue.break_down("delete", Network);
    engine.delete("e1").await;
    // Its lease is extended before it is tried with too little time left.
    sleep(LEASE - 4 * SECOND).await;
    let now = Instant::now();
    let due = engine.table.renewals_due(now).due;
    assert_eq!(due.len(), 1, "the lease of a kept delete is extended");
    engine.queue.mend("delete");
    sleep(2 * SECOND).await;
    assert_eq!(engine.left(Disposition::Deleted), 0, "its extension is not answered");
    let extended = Renewal::Extended { called_at: now, visibility: LEASE };
    engine.table.renewed(vec![(due[0].key, extended)], Instant::now());
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kept_delete_whose_receipt_is_lost_leaves_the_account_balanced() {
    let mut engine = Engine::new();
    engine.queue.break_down("delete", Network);
    engine.delete("e1").await;
    sleep(LEASE - 4 * SECOND).await;
    let due = engine.table.renewals_due(Instant::now()).due;
    engine.table.renewed(vec![(due[0].key, Renewal::Lost)], Instant::now());
    engine.settled().await;
    assert_eq!(engine.left(Disposition::LeaseLost), 1);
    assert!(engine.settler.account.balances());
    assert!(engine.shows("worker_leases_lost_total 1"));
}

/// No extension would come that is worth waiting for.
#[tokio::test(start_paused = true)]
async fn without_extensions_a_kept_delete_is_tried_to_the_end_of_its_lease() {
    let mut engine = Engine::new();
    engine.queue.tell("extend", [Told::Fails(Denied); 2]);
    for _ in 0..2 {
        assert!(engine.instrumented.extend(&[]).await.is_err());
    }
    engine.queue.break_down("delete", Denied);
    engine.delete("e1").await;
    sleep(LEASE - 6 * SECOND).await;
    engine.queue.mend("delete");
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_batch_is_sent_at_the_end() {
    let mut engine = Engine::new();
    engine.delete("e1").await;
    engine.release("e2", SECOND).await;
    let closing_at = Instant::now();
    let closed = engine.close().await;
    assert!(closing_at.elapsed() < Duration::from_millis(50), "it waits for no full batch");
    assert!(closed.account.balances());
    let calls = closed.queue.asked("delete").len() + closed.queue.asked("hand_back").len();
    assert_eq!(calls, 2);
}
