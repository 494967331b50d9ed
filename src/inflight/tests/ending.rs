//! Retention period: a message is not hidden so long that SQS drops it before it is seen again.

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3_600);
const LONG: Duration = Duration::from_secs(11 * 3_600);

impl World {
    /// Sets the limits of the queue in the table.
    pub(super) fn limit(&self, receives_max: ReceivesMax, retention: Option<Duration>) {
        self.table.lock().set_limits(RedriveLimits { receives_max, retention });
    }
}

/// Hides a message for `after` on each of its receives, and returns the resulting times.
async fn hidden(world: &mut World, age: Duration, receives: u32, after: Duration) -> Vec<Duration> {
    let (mut times, mut now) = (Vec::new(), Duration::ZERO);
    for receive_count in 1..=receives {
        world.age = Some(age + now);
        world.receive_count = receive_count;
        let (_, _, receipt) = world.arrival("m", "e", "r", "show").await;
        let time = world.table.hidden(&receipt, after, Instant::now());
        times.push(time);
        now += time;
    }
    times
}

#[tokio::test(start_paused = true)]
async fn a_message_gets_all_its_receives_before_its_retention_ends() {
    let mut world = World::new();
    world.limit(ReceivesMax::Limit(10), Some(4 * DAY));
    let times = hidden(&mut world, Duration::ZERO, 10, LONG).await;
    let all: Duration = times.iter().sum();
    assert!(all < 4 * DAY && all > 3 * DAY, "{all:?}");
    assert!(
        times.iter().all(|time| *time > Duration::from_secs(8 * 3_600)),
        "not evenly spaced: {times:?}"
    );
    let short = Duration::from_secs(900);
    assert_eq!(hidden(&mut world, Duration::ZERO, 10, short).await, [short; 10]);
    let times = hidden(&mut world, 4 * DAY - Duration::from_secs(1_800), 3, short).await;
    assert!(times.iter().sum::<Duration>() < Duration::from_secs(1_700), "{times:?}");
    assert!(
        times.iter().all(|time| *time > Duration::from_secs(60)),
        "too close together: {times:?}"
    );
    let times = hidden(&mut world, 4 * DAY - Duration::from_secs(60), 10, short).await;
    assert!(times.iter().sum::<Duration>() < Duration::from_secs(60), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_of_unknown_or_ending_retention_is_still_hidden_for_a_while() {
    let mut world = World::new();
    assert_eq!(hidden(&mut world, 5 * DAY, 1, LONG).await, [LONG]);
    world.limit(ReceivesMax::Unlimited, Some(4 * DAY));
    assert_eq!(hidden(&mut world, Duration::ZERO, 1, LONG).await, [LONG]);
    assert_eq!(hidden(&mut world, 5 * DAY, 1, LONG).await, [Duration::from_secs(1)]);
    assert_eq!(hidden(&mut world, 5 * DAY, 1, Duration::ZERO).await, [Duration::ZERO]);
    world.age = None;
    let (_, _, receipt) = world.arrival("m", "e", "r", "show").await;
    assert_eq!(world.table.hidden(&receipt, LONG, Instant::now()), LONG);
}

/// The copy would come days after the end of the lease.
#[tokio::test(start_paused = true)]
async fn a_retention_that_is_far_puts_off_no_extension() {
    let mut world = World::new();
    world.age = Some(Duration::ZERO);
    world.admit("e1", "r1").await;
    let next = world.table.next_renewal();
    world.limit(ReceivesMax::Limit(3), Some(4 * DAY));
    assert_eq!(world.table.next_renewal(), next);
}
