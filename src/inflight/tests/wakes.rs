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

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_job_to_leave_is_told_of_each() {
    let (world, jobs) = World::busy().await;
    let has_left = || world.table.one_left().now_or_never().is_some();
    assert!(!has_left());
    drop(world.table.take(&jobs[0]));
    assert!(has_left() && !has_left());
    drop(world.table.release(&jobs[1], SECOND));
    assert!(has_left());
}

/// It hands back the later messages of the group.
#[tokio::test(start_paused = true)]
async fn the_keeper_is_told_of_what_a_group_left_behind() {
    for how in ["released", "lost", "not copied"] {
        let mut world = World::new();
        world.group = Some("g");
        world.admit("e1", "r1").await;
        world.admit("e2", "r2").await;
        let head = world.start().expect("the head");
        world.is_keeper_told();
        match how {
            "released" => drop(world.table.release(&head, SECOND)),
            "lost" => {
                advance(VISIBILITY).await;
                assert!(world.table.forget_lost(head).is_some());
            }
            _ => world.table.take(&head).turn.expect("its group's").abandon(),
        }
        assert!(world.is_keeper_told(), "{how}");
        assert_eq!(world.table.take_abandoned().len(), 1, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_keeper_is_told_of_a_copy_that_is_due_before_all_extensions() {
    let mut world = World::new();
    world.age = Some(535 * SECOND);
    world.admit("e1", "r1").await;
    world.is_keeper_told();
    let now = Instant::now();
    world.table.set_limits(QueueLimits { receives_max: None, retention: Some(600 * SECOND) });
    assert!(world.is_keeper_told());
    assert_eq!(world.table.next_renewal().map(|at| at - now), Some(5 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn receives_resume_when_enough_buffered_jobs_have_started() {
    let mut world = World::new();
    for n in 0..8 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
    }
    let waiting = tokio::time::timeout(Duration::from_secs(1), world.table.buffer_capacity(0));
    assert!(waiting.await.is_err(), "eight jobs are ready, which is the limit");
    let _job = world.start().expect("ready");
    world.table.buffer_capacity(0).await;
}
