//! The tasks that wait for the table are told when there is something to do.

use std::pin::pin;

use futures_util::FutureExt;

use super::*;
use crate::metrics::Service;
use crate::outage::Dependency;

const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// Returns whether the lease keeper was told of an earlier extension since the last call.
    fn is_keeper_told(&self) -> bool {
        self.table.renewals_changed().now_or_never().is_some()
    }

    /// Returns whether the scheduler was told of an earlier timer since the last call.
    fn is_scheduler_told(&self) -> bool {
        self.table.timers_changed().now_or_never().is_some()
    }

    /// Admits and starts as many jobs as may be buffered.
    async fn busy() -> (Self, Vec<Box<Job>>) {
        let mut world = Self::new();
        for n in 0..8 {
            world.admit(&format!("e{n}"), &format!("r{n}")).await;
        }
        let jobs = std::iter::from_fn(|| world.start()).collect();
        (world, jobs)
    }

    /// Checks that nothing more may be buffered before `act`, and that the poller is told then.
    fn assert_room_after(&self, act: impl FnOnce()) {
        let mut capacity = pin!(self.table.buffer_capacity(0));
        assert!(capacity.as_mut().now_or_never().is_none(), "as many are buffered as may");
        act();
        assert!(capacity.as_mut().now_or_never().is_some(), "the poller is told");
    }
}

#[tokio::test(start_paused = true)]
async fn the_keeper_is_told_of_an_extension_that_is_due_before_all_others() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    assert!(world.is_keeper_told(), "it may wait for the first for ever");
    advance(SECOND).await;
    world.admit("e2", "r2").await;
    assert!(!world.is_keeper_told(), "due later");
    world.lease = 10 * SECOND;
    world.admit("e3", "r3").await;
    assert!(world.is_keeper_told());
    world.lease = 5 * SECOND;
    world.admit("e3", "r3").await;
    assert!(world.is_keeper_told(), "a copy joins");
    let kept = world.arrival("kept", "e4", "r4", "show").await.2;
    world.lease = 2 * SECOND;
    let rejoins = world.arrival("message-1", "e1", "r1", "show").await.2;
    world.table.keep(kept, Instant::now());
    assert!(!world.is_keeper_told(), "due with another");
    assert!(world.table.rejoin(rejoins).is_ok() && world.is_keeper_told());
}

#[tokio::test(start_paused = true)]
async fn the_scheduler_is_told_of_a_timer_that_ends_before_all_others() {
    let (world, jobs) = World::busy().await;
    let waits_s = [20, 30, 10, 15, 5];
    for (n, (job, wait_s)) in jobs.into_iter().zip(waits_s).enumerate() {
        let until = Instant::now() + wait_s * SECOND;
        if n < 2 {
            world.table.wait(job, until);
        } else {
            let guard = world.metrics.suspect(Service::Inventory);
            assert!(world.table.wait_as_suspect(job, guard, until).is_none());
        }
        assert_eq!(world.is_scheduler_told(), n % 2 == 0, "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_poller_is_told_of_room_however_it_comes_about() {
    let mut world = World::new();
    for n in 0..8 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
    }
    let (table, key) = (Arc::clone(&world.table), world.ready.try_recv().expect("ready"));
    world.assert_room_after(|| assert!(table.start(key).is_some()));
    world.admit("e9", "r9").await;
    world.assert_room_after(|| world.table.set_buffer_max(9));

    let (world, jobs) = World::busy().await;
    let how = ParkedAs { is_fresh: true, is_full: true, is_suspect: false };
    for job in jobs {
        world.table.park(job, Dependency::Inventory, how);
    }
    world.assert_room_after(|| world.table.set_away(Dependency::Inventory, true));

    let (world, jobs) = World::busy().await;
    world.table.set_rationed(true);
    for job in jobs {
        world.table.wait_in_turn(job, Instant::now() + SECOND);
    }
    world.assert_room_after(|| world.table.set_rationed(false));
}
