//! Jobs that leave the table from wherever they are leave nothing behind.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_job_that_leaves_the_middle_of_its_lane_does_not_hold_up_the_later_ones() {
    let mut world = World::new();
    for id in ["e1", "e2", "e3"] {
        world.admit(id, "r1").await;
        advance(Duration::from_secs(4)).await;
    }
    let first = world.start().expect("e1");
    advance(Duration::from_secs(3)).await;
    assert_eq!(world.renew(extended).claims.len(), 0);
    advance(Duration::from_secs(4)).await;
    let lost = world.renew(|| Renewal::Lost).lost;
    assert_eq!(lost.iter().map(|job| job.event.id.as_str()).collect::<Vec<_>>(), ["e2"]);
    drop(world.table.take(&first));
    assert_eq!(world.start_id().as_deref(), Some("e3"));
}

#[tokio::test(start_paused = true)]
async fn extended_receipts_are_counted_until_they_are_settled() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    advance(VISIBILITY / 2).await;
    assert_eq!(world.table.renewals_due(Instant::now()).due.len(), 1, "an extension is open");
    for n in 2..5 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
    }
    let kept = world.arrival("kept", "kept", "kept", "show").await.2;
    world.table.keep(kept, Instant::now());
    assert_eq!(world.table.extended(), 5);
    let removed = world.table.take(&job);
    assert_eq!((removed.receipts.len(), world.table.extended()), (1, 4));
    drop(removed);
    assert_eq!(world.limiter.in_use(), 4, "its room is free");
}

/// Their keys stay in the channel, which has room for one key a held message.
#[tokio::test(start_paused = true)]
async fn a_key_that_did_not_fit_is_sent_as_soon_as_one_has_been_read() {
    let mut world = World::of(2, VISIBILITY);
    for id in ["e1", "e2"] {
        world.admit(id, id).await;
    }
    advance(VISIBILITY / 2).await;
    assert_eq!(world.renew(|| Renewal::Lost).lost.len(), 2);
    for id in ["e3", "e4"] {
        world.admit(id, id).await;
    }
    assert_eq!(world.start_id().as_deref(), Some("e3"));
    assert_eq!(world.start_id().as_deref(), Some("e4"));
}
