//! Messages that are received more than once.

use super::*;

/// Returns the handles that settle the only job.
fn handles(world: &mut World) -> Vec<String> {
    let job = world.start().expect("ready");
    let receipts = world.table.take(&job).receipts;
    receipts.iter().map(|receipt| receipt.handle.0.to_string()).collect()
}

async fn receive(world: &mut World, receive_count: u32) -> bool {
    world.receive_count = receive_count;
    match world.admit_message("m1", "e1", "r1", "show").await {
        Admitted::Joined { replaced, .. } => replaced,
        other @ (Admitted::Ready
        | Admitted::InLane
        | Admitted::Deferred { .. }
        | Admitted::IdReused(..)) => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_receipt_replaces_the_older_one() {
    let mut world = World::new();
    world.admit_message("m1", "e1", "r1", "show").await;
    assert!(receive(&mut world, 2).await);
    assert_eq!(world.limiter.in_use(), 1);
    assert_eq!(handles(&mut world), ["handle-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_with_a_lower_count_is_kept_too() {
    let mut world = World::new();
    world.receive_count = 2;
    world.admit_message("m1", "e1", "r1", "show").await;
    // It may be a newer receipt whose count SQS has not fully updated, or an older one that is
    // late.
    assert!(!receive(&mut world, 1).await);
    assert_eq!(world.limiter.in_use(), 2);
    assert_eq!(handles(&mut world), ["handle-1", "handle-2"]);
}

#[tokio::test(start_paused = true)]
async fn two_receipts_of_unknown_order_are_both_kept() {
    let mut world = World::new();
    world.admit_message("m1", "e1", "r1", "show").await;
    assert!(!receive(&mut world, 1).await);
    assert_eq!(handles(&mut world), ["handle-1", "handle-2"]);
}

#[tokio::test(start_paused = true)]
async fn during_a_drain_a_message_that_is_received_again_stays_with_its_job() {
    let mut world = World::new();
    world.admit_message("m1", "e1", "r1", "show").await;
    let job = world.start().expect("ready");
    let receipt = |message_id: &str, permit: Permit| Receipt {
        message_id: MessageId(message_id.into()),
        handle: ReceiptHandle("newer".into()),
        receive_count: 2,
        leased_at: Instant::now(),
        deadline: Instant::now() + VISIBILITY,
        age_s: None,
        permit,
        span: None,
    };
    let mut permits = world.limiter.reserve().await;
    let same = receipt("m1", permits.take(10).expect("room"));
    let other = receipt("m2", permits.take(10).expect("room"));
    let sibling = Receipt { receive_count: 1, ..receipt("m1", permits.take(10).expect("room")) };
    assert!(!world.table.rejoin(sibling).expect("held"), "both receipts must be kept");
    assert!(world.table.rejoin(same).expect("held"), "the older receipt must be dropped");
    assert_eq!(&*world.table.rejoin(other).expect_err("not held").message_id.0, "m2");
    assert_eq!(&*world.table.take(&job).receipts[0].handle.0, "newer");
}
