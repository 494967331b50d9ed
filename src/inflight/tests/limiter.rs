//! Memory of a job.

use super::*;

const MIB: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn memory_added_to_a_job_counts_until_it_is_settled() {
    let mut world = World::new();
    world.limiter = InFlightLimiter::new(100, 4 << 20);
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    assert_eq!(world.limiter.reserve().await.len(), 3);
    world.table.grow(&job, 2 * MIB);
    assert_eq!(world.limiter.reserve().await.len(), 1);
    let removed = world.table.take(&job);
    // The job is no longer held, so `grow` has no effect.
    world.table.grow(&job, MIB);
    assert_eq!(world.limiter.reserve().await.len(), 1);
    drop(removed);
    assert_eq!(world.limiter.reserve().await.len(), 4);
}
