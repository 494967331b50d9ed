//! Ready as soon as the queue has answered anything; health and metrics answer at once, however much there is to do.

use std::time::{Duration, Instant};

use sandbox::testing::program::{Running, env};
use sandbox::testing::world::{World, expired};

/// What Kubernetes allows is a second; a person at a terminal notices more than this.
const ANSWER_MAX: Duration = Duration::from_millis(50);
const READY_MAX: Duration = Duration::from_secs(5);
const EVENTS: usize = 6_000;
const ASKED: usize = 100;

#[tokio::test]
async fn under_full_load_health_answers_within_fifty_milliseconds() {
    let world = World::start().await;
    for n in 0..EVENTS {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    let mut worker = Running::started(&env(&world)).await;
    worker.answers("/readyz", 200).await;
    for path in ["/healthz", "/readyz"] {
        let mut took = Vec::with_capacity(ASKED);
        for _ in 0..ASKED {
            let asked_at = Instant::now();
            assert_eq!(worker.get(path).await.map(|(status, _)| status), Some(200), "{path}");
            took.push(asked_at.elapsed());
        }
        took.sort_unstable();
        // The other tests' work is not ours, and makes most of them late on a busy machine. A worker
        // that is too busy to answer would make all of them late.
        let (early, last) = (took[ASKED / 10], took[ASKED - 1]);
        assert!(early <= ANSWER_MAX, "{path}: a tenth of them within {early:?}, the last {last:?}");
    }
    assert!(world.sqs.counts(&world.queue).total() > 0, "the load was over too early");
    world.emptied().await;
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn on_an_empty_queue_it_is_ready_long_before_a_long_poll_ends() {
    let world = World::start().await;
    let mut variables = env(&world);
    variables.insert("SQS_WAIT_TIME", "20".to_owned());
    let worker = Running::started(&variables).await;
    let begun = Instant::now();
    worker.answers("/readyz", 200).await;
    // A second, where the machine has nothing else to do; the long poll takes 20.
    assert!(begun.elapsed() < READY_MAX, "{:?}", begun.elapsed());
    // Only the first does not wait.
    assert_eq!(world.sqs.ledger(&world.queue).receives, 1);
}
