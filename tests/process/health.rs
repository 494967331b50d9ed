//! The worker is ready after the first answer of the queue; health endpoints answer at once,
//! whatever the load.

use std::time::{Duration, Instant};

use sandbox::testing::program::{Running, env};
use sandbox::testing::world::{World, expired};

/// Kubernetes waits for one second; a user notices longer delays than this.
const ANSWER_MAX: Duration = Duration::from_millis(50);
const READY_MAX: Duration = Duration::from_secs(5);
/// Events in the queue at the start, and for each request: more than are handled meanwhile.
const BACKLOG: usize = 500;
const MEANWHILE: usize = 10;
const ASKED: usize = 100;

#[tokio::test]
async fn under_full_load_health_answers_within_fifty_milliseconds() {
    let world = World::start().await;
    let mut numbers = 0..;
    let mut send = |count| {
        for n in numbers.by_ref().take(count) {
            world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
        }
    };
    send(BACKLOG);
    let mut worker = Running::started(&env(&world)).await;
    worker.answers("/readyz", 200).await;
    for path in ["/healthz", "/readyz"] {
        let mut took = Vec::with_capacity(ASKED);
        for _ in 0..ASKED {
            send(MEANWHILE);
            let asked_at = Instant::now();
            assert_eq!(worker.get(path).await.map(|(status, _)| status), Some(200), "{path}");
            took.push(asked_at.elapsed());
        }
        took.sort_unstable();
        // Other tests on a busy machine can delay most requests, but not all. A worker that is too
        // busy to answer would delay all.
        let (first, last) = (took[0], took[ASKED - 1]);
        assert!(first <= ANSWER_MAX, "{path}: the fastest took {first:?}, the slowest {last:?}");
    }
    assert!(world.sqs.counts(&world.queue).total() > 0, "the load ended too early");
    world.emptied().await;
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn on_an_empty_queue_the_worker_is_ready_before_a_long_poll_ends() {
    let world = World::start().await;
    let mut variables = env(&world);
    variables.insert("SQS_WAIT_TIME", "20".to_owned());
    let worker = Running::started(&variables).await;
    let begun = Instant::now();
    worker.answers("/readyz", 200).await;
    // One second on an idle machine; a long poll takes 20.
    assert!(begun.elapsed() < READY_MAX, "{:?}", begun.elapsed());
    // Only the first receive does not wait.
    assert_eq!(world.sqs.ledger(&world.queue).receives, 1);
}
