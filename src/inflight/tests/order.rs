//! Order among the events of a reservation where processes share it: by the time of sending.

use std::time::UNIX_EPOCH;

use super::*;

impl World {
    /// Admits an event of the reservation `r` that was sent at this second.
    async fn admit_sent(&mut self, id: &str, second: u64) -> Admitted {
        let (mut job, original, receipt) = self.arrival(&format!("m-{id}"), id, "r", "show").await;
        job.order = Some(UNIX_EPOCH + Duration::from_secs(second));
        self.table.admission().event(job, original, receipt)
    }

    /// Starts and settles all jobs, one after the other. Returns their events.
    fn settle_all(&mut self) -> Vec<String> {
        let mut settled = Vec::new();
        while let Some(job) = self.start() {
            settled.push(job.event.id.as_str().to_owned());
            drop(self.table.take(&job));
        }
        settled
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_events_start_in_the_order_of_sending() {
    let mut world = World::new();
    assert!(matches!(world.admit_sent("e5", 5).await, Admitted::Ready));
    let running = world.start().expect("ready");
    for (id, second) in [("e3", 3), ("e9", 9), ("e2", 2)] {
        assert!(matches!(world.admit_sent(id, second).await, Admitted::InLane), "{id}");
    }
    drop(world.table.take(&running));
    assert_eq!(world.settle_all(), ["e2", "e3", "e9"]);
}

#[tokio::test(start_paused = true)]
async fn a_ready_event_that_has_not_begun_gives_way_to_an_earlier_one() {
    let mut world = World::new();
    for (id, second) in [("e5", 5), ("e7", 7), ("e1", 1)] {
        world.admit_sent(id, second).await;
    }
    assert_eq!(world.table.lock().buffered(), 1, "one event of the reservation is ready");
    assert_eq!(world.settle_all(), ["e1", "e5", "e7"]);
    assert_eq!(world.table.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn events_of_one_receive_start_in_the_order_of_sending() {
    let mut world = World::new();
    let mut arrivals = Vec::new();
    for (id, second) in [("e3", 3), ("e1", 1), ("e2", 2)] {
        let (mut job, original, receipt) = world.arrival(id, id, "r", "show").await;
        job.order = Some(UNIX_EPOCH + Duration::from_secs(second));
        arrivals.push((job, original, receipt));
    }
    let mut admission = world.table.admission();
    for (job, original, receipt) in arrivals {
        admission.event(job, original, receipt);
    }
    drop(admission);
    assert_eq!(world.settle_all(), ["e1", "e2", "e3"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_has_begun_keeps_its_turn() {
    let mut world = World::new();
    world.admit_sent("e5", 5).await;
    let mut begun = world.start().expect("ready");
    begun.attempt = 1;
    world.table.wait(begun, Instant::now() + Duration::from_secs(1));
    world.admit_sent("e1", 1).await;
    assert!(world.start().is_none(), "the earlier event must wait");
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.table.wake_due(Instant::now());
    assert_eq!(world.settle_all(), ["e5", "e1"]);
}

/// Lets the next ready job wait for its turn after another process.
fn falls_behind(world: &mut World, wait: Duration) {
    let mut job = world.start().expect("ready");
    job.turn = Some(TurnWait { since: Instant::now(), asked: 1 });
    world.table.wait(job, Instant::now() + wait);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_for_another_process_gives_way_to_an_earlier_one() {
    let mut world = World::new();
    world.admit_sent("e5", 5).await;
    falls_behind(&mut world, Duration::from_secs(1));
    assert!(matches!(world.admit_sent("e7", 7).await, Admitted::InLane));
    assert!(world.start().is_none(), "it was sent later");
    assert!(matches!(world.admit_sent("e1", 1).await, Admitted::Ready));
    assert_eq!(world.table.waiting_total(), 0, "the timer of the other one is gone");
    let first = world.start().expect("the one sent first");
    assert_eq!(first.event.id.as_str(), "e1");
    drop(world.table.take(&first));
    assert_eq!(world.settle_all(), ["e5", "e7"], "without waiting for the timer");
    assert_eq!(world.table.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_falls_behind_gives_way_to_one_that_came_meanwhile() {
    let mut world = World::new();
    world.admit_sent("e5", 5).await;
    let asking = world.start().expect("ready");
    for (id, second) in [("e7", 7), ("e1", 1), ("e3", 3)] {
        assert!(matches!(world.admit_sent(id, second).await, Admitted::InLane), "{id}");
    }
    world.table.wait(asking, Instant::now() + Duration::from_secs(1));
    assert_eq!(world.settle_all(), ["e1", "e3", "e5", "e7"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_may_be_claimed_keeps_its_turn() {
    let mut world = World::new();
    world.admit_sent("e5", 5).await;
    let asking = world.start().expect("ready");
    asking.lease.claim_asked();
    world.admit_sent("e1", 1).await;
    world.table.wait(asking, Instant::now() + Duration::from_secs(1));
    assert!(world.start().is_none(), "the store may hold its claim");
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.table.wake_due(Instant::now());
    assert_eq!(world.settle_all(), ["e5", "e1"]);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_fifo_group_keep_the_order_of_the_queue() {
    let mut world = World::new();
    world.group = Some("g");
    for (id, second) in [("e5", 5), ("e1", 1)] {
        world.admit_sent(id, second).await;
    }
    assert_eq!(world.settle_all(), ["e5", "e1"]);
}
