//! Suspects: jobs that fail while others succeed are tried, and block no others.

use super::*;
use crate::metrics::Service;
use crate::outage::{Dependency, Waiting};

const HOUR: Duration = Duration::from_secs(3_600);

const FRESH: ParkedAs = ParkedAs { is_fresh: true, is_full: true, is_suspect: false };
const TRIED: ParkedAs = ParkedAs { is_fresh: false, is_full: true, is_suspect: false };
const SUSPECT: ParkedAs = ParkedAs { is_fresh: false, is_full: true, is_suspect: true };

fn ids(jobs: &[Box<Job>]) -> Vec<&str> {
    jobs.iter().map(|job| job.event.id.as_str()).collect()
}

impl World {
    /// Admits and starts an event.
    async fn started(&mut self, id: &str) -> Box<Job> {
        self.admit(id, id).await;
        self.start().expect("ready")
    }

    fn wait_as_suspect(&self, job: Box<Job>, service: Service) {
        let guard = self.metrics.suspect(service);
        assert!(self.table.wait_as_suspect(job, guard, Instant::now()).is_none());
    }
}

/// Fresh events never run out, and jobs that have failed still get their turn.
#[tokio::test(start_paused = true)]
async fn every_fourth_resumed_job_is_the_oldest_that_has_failed() {
    let mut world = World::new();
    for (id, how) in [("s1", SUSPECT), ("t1", TRIED), ("s2", SUSPECT), ("t2", TRIED)] {
        let job = world.started(id).await;
        assert!(world.table.park(job, Dependency::Inventory, how).is_none());
    }
    let mut order = Vec::new();
    for n in 0..16 {
        let job = world.started(&format!("f{n}")).await;
        world.table.park(job, Dependency::Inventory, FRESH);
        world.table.unpark(Dependency::Inventory, 1);
        let job = world.start().expect("one");
        let id = job.event.id.as_str().to_owned();
        drop(world.table.take(&job));
        order.push(id);
    }
    let others: Vec<_> = order.iter().enumerate().filter(|(_, id)| !id.starts_with('f')).collect();
    let expected = [(3, "s1"), (7, "t1"), (11, "s2"), (15, "t2")];
    assert!(others.into_iter().map(|(n, id)| (n, id.as_str())).eq(expected), "{order:?}");
}

/// The next suspect is tried however many wait for room, or for a service that is down or paused.
#[tokio::test(start_paused = true)]
async fn a_parked_suspect_does_not_count_as_tried() {
    for how in [SUSPECT, ParkedAs { is_full: false, is_suspect: false, ..SUSPECT }] {
        let mut world = World::new();
        for n in 0..5 {
            let job = world.started(&format!("e{n}")).await;
            world.wait_as_suspect(job, Service::Inventory);
        }
        world.table.wake_due(Instant::now());
        let mut tried = 0;
        while let Some(job) = world.start() {
            tried += 1;
            world.table.park(job, Dependency::Inventory, how);
        }
        assert_eq!((tried, world.table.parked(Dependency::Inventory).total()), (5, 5));
        // Resumed suspects count as being tried until their trial ends.
        world.table.unpark(Dependency::Inventory, 2);
        let (first, second) = (world.start().expect("one"), world.start().expect("another"));
        let job = world.started("e5").await;
        world.wait_as_suspect(job, Service::Inventory);
        world.table.wake_due(Instant::now());
        assert_eq!(
            world.start().is_none(),
            how.is_suspect,
            "the number of tried suspects is limited"
        );
        drop((world.table.take(&first), world.table.take(&second)));
        assert_eq!(world.start().is_some(), how.is_suspect, "the next suspect must start");
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspect_whose_service_is_at_fault_after_all_leaves_its_place_to_the_next() {
    let mut world = World::new();
    for n in 0..3 {
        let job = world.started(&format!("e{n}")).await;
        world.wait_as_suspect(job, Service::Inventory);
    }
    world.table.wake_due(Instant::now());
    let (first, _second) = (world.start().expect("one"), world.start().expect("another"));
    assert!(world.start().is_none(), "as many are tried as may");
    world.table.wait(first, Instant::now() + HOUR);
    assert_eq!(world.start_id().as_deref(), Some("e2"));
}

#[tokio::test(start_paused = true)]
async fn suspects_are_limited_per_service() {
    let mut world = World::new();
    for n in 0..3 {
        let job = world.started(&format!("api-{n}")).await;
        world.wait_as_suspect(job, Service::Reservation);
    }
    let job = world.started("inventory").await;
    world.wait_as_suspect(job, Service::Inventory);
    world.table.wake_due(Instant::now());
    let tried =
        [world.start_id(), world.start_id(), world.start_id()].map(Option::unwrap_or_default);
    assert_eq!(tried, ["api-0", "api-1", "inventory"]);
    assert!(world.start().is_none(), "more than two suspects of a service started");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_of_one_service_is_fresh_at_another() {
    let mut world = World::new();
    let mut job = world.started("e1").await;
    job.suspect = Some(world.metrics.suspect(Service::Reservation));
    world.table.park(job, Dependency::Inventory, FRESH);
    let waiting = Waiting { fresh: 1, tried: 0, suspects: 0 };
    assert_eq!(world.table.parked(Dependency::Inventory), waiting);
}

#[tokio::test(start_paused = true)]
async fn parked_suspects_count_towards_the_limit_of_suspects() {
    let mut world = World::new();
    for n in 0..7 {
        let mut job = world.started(&format!("e{n}")).await;
        job.failures = 1;
        let excess = world.table.park(job, Dependency::Inventory, SUSPECT);
        let excess: Vec<_> = excess.into_iter().collect();
        let expected: &[&str] = if n < 6 { &[] } else { &["e0"] };
        assert_eq!(ids(&excess), expected, "the limit is six");
    }
}

/// A job that waits for room at a service that is called does not wait for the service.
#[tokio::test(start_paused = true)]
async fn only_jobs_that_wait_for_a_service_in_outage_are_parked() {
    let away = ParkedAs { is_full: false, ..FRESH };
    for how in [away, FRESH, TRIED, SUSPECT] {
        let mut world = World::new();
        let job = world.started("e1").await;
        world.table.set_away(Dependency::Inventory, true);
        world.table.park(job, Dependency::Inventory, how);
        assert_eq!(world.table.parked_total(), 1, "{how:?}");
        world.table.set_away(Dependency::Inventory, false);
        assert_eq!(world.table.parked_total(), 0, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn suspects_at_the_concurrency_limit_are_resumed_last() {
    let mut world = World::new();
    for n in 0..4 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        world.table.park(job, Dependency::Inventory, if n < 2 { SUSPECT } else { TRIED });
    }
    let waiting = Waiting { fresh: 0, tried: 2, suspects: 2 };
    assert_eq!(world.table.parked(Dependency::Inventory), waiting);
    let mut order = Vec::new();
    for _ in 0..4 {
        world.table.unpark(Dependency::Inventory, 1);
        order.push(world.start().expect("one").event.id.as_str().to_owned());
    }
    assert_eq!(order, ["e2", "e3", "e0", "e1"]);
}

#[tokio::test(start_paused = true)]
async fn a_limited_number_of_suspects_runs_concurrently() {
    let mut world = World::new();
    for n in 0..5 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        let guard = world.metrics.suspect(Service::Inventory);
        assert!(world.table.wait_as_suspect(job, guard, Instant::now()).is_none());
    }
    world.admit("good", "r9").await;
    world.table.wake_due(Instant::now());
    assert_eq!(world.start_id().as_deref(), Some("good"), "jobs that were ready before come first");
    let first = world.start().expect("a suspect");
    let second = world.start().expect("another one");
    assert!(world.start().is_none(), "only two of five suspects may run");
    let guard = world.metrics.suspect(Service::Inventory);
    assert!(world.table.wait_as_suspect(first, guard, Instant::now() + HOUR).is_none());
    let third = world.start().expect("the next one");
    drop(world.table.take(&second));
    drop(world.table.release(&third, Duration::ZERO));
    assert!(world.start().is_some() && world.start().is_some());
    assert!(world.start().is_none());
}

#[tokio::test(start_paused = true)]
async fn suspects_beyond_their_limit_are_released_oldest_first() {
    let mut world = World::new();
    let mut gone = Vec::new();
    for n in 0..10 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let mut job = world.start().expect("ready");
        job.failures = u32::from(n != 1);
        let guard = world.metrics.suspect(Service::Inventory);
        if let Some(excess) = world.table.wait_as_suspect(job, guard, Instant::now() + HOUR) {
            drop(world.table.release(&excess, HOUR));
            gone.push(excess);
        }
    }
    assert_eq!(ids(&gone), ["e0", "e2", "e3", "e4"], "the limit is six");
    // A job that is no longer a suspect does not count.
    world.admit("e10", "r10").await;
    let job = world.start().expect("ready");
    world.table.wait(job, Instant::now() + HOUR);
    assert_eq!(world.table.held(), 7);
}

#[tokio::test(start_paused = true)]
async fn who_is_no_suspect_any_more_is_not_counted_as_one() {
    for n in 0..3 {
        let mut world = World::new();
        for event in 0..20 {
            let mut job = world.started(&format!("e{event}")).await;
            job.failures = 1;
            world.wait_as_suspect(job, Service::Inventory);
            world.table.wake_due(Instant::now());
            let job = world.start().expect("its trial");
            match n {
                0 => drop(world.table.take(&job)),
                1 => drop(world.table.park(job, Dependency::Inventory, TRIED)),
                _ => world.table.wait(job, Instant::now() + HOUR),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_given_up_is_not_let_go_later() {
    let mut world = World::new();
    let mut excess = Vec::new();
    for n in 0..8 {
        let mut job = world.started(&format!("e{n}")).await;
        job.failures = 1;
        excess.extend(world.table.park(job, Dependency::Inventory, SUSPECT));
    }
    assert_eq!(ids(&excess), ["e0", "e1"]);
    excess.iter().for_each(|job| drop(world.table.release(job, HOUR)));
    world.table.unpark(Dependency::Inventory, usize::MAX);
    let started: Vec<_> = std::iter::from_fn(|| world.start()).collect();
    assert_eq!(started.len(), 6);
}
