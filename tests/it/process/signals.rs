//! SIGTERM, SIGINT, a second one, and `kill -9`.

use std::time::{Duration, Instant};

use sandbox::reservation_api::Reply;
use sandbox::script::{Faults, Scripted};
use serde_json::{Value, json};

use crate::program::{Running, env};
use crate::world::{LIMIT, World, eventually, expired};

fn last_line(worker: &Running) -> Value {
    serde_json::from_str(worker.log().lines().last().unwrap()).unwrap()
}

#[tokio::test]
async fn either_signal_ends_it_with_code_0_and_its_account_as_the_last_line() {
    for terminate in [true, false] {
        let world = World::start().await;
        let mut worker = Running::started(&env(&world)).await;
        for n in 0..5 {
            world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
        }
        world.sqs.send(&world.queue, "poison");
        world.emptied().await;
        let begun = Instant::now();
        if terminate {
            worker.process.terminate()
        } else {
            worker.process.interrupt()
        }
        assert_eq!(worker.exit_code().await, Some(0));
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
        let account = last_line(&worker);
        assert_eq!(account["msg"], "Stopped", "{account}");
        for (term, count) in [
            ("received", 6),
            ("deleted", 5),
            ("dead_lettered", 1),
            ("handed_back", 0),
            ("unsettled", 0),
        ] {
            assert_eq!(account[term], json!(count), "{term}: {account}");
        }
        assert_eq!(account["balanced"], json!(true), "{account}");
    }
}

#[tokio::test]
async fn work_in_hand_is_finished_before_it_leaves() {
    let world = World::start().await;
    let slow = Scripted::<Reply>::normal().delayed(Duration::from_secs(2));
    world.api.script_for("a", [slow]);
    let mut worker = Running::started(&env(&world)).await;
    world.send(&expired("evt-1", "a"));
    assert!(world.ledger.wait_until(|ledger| ledger.totals().calls == 1, LIMIT).await);
    worker.process.terminate();
    eventually("it is leaving", || worker.log().contains("\"Leaving\"")).await;
    // Not ready any more, and alive.
    if let Some((status, _)) = worker.get("/readyz").await {
        assert_eq!(status, 503);
    }
    assert_eq!(worker.exit_code().await, Some(0));
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert_eq!(world.sqs.counts(&world.queue).total(), 0);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (terminate, code) in [(true, 143), (false, 130)] {
        let world = World::start().await;
        let stuck = Scripted::<Reply>::normal().delayed(Duration::from_secs(9));
        world.api.script_for("a", [stuck]);
        let mut worker = Running::started(&env(&world)).await;
        world.send(&expired("evt-1", "a"));
        assert!(world.ledger.wait_until(|ledger| ledger.totals().calls == 1, LIMIT).await);
        worker.process.terminate();
        eventually("it is leaving", || worker.log().contains("\"Finishing what is in hand\""))
            .await;
        if terminate {
            worker.process.terminate()
        } else {
            worker.process.interrupt()
        }
        assert_eq!(worker.exit_code().await, Some(code));
        assert!(!worker.log().contains("\"Stopped\""), "it did not wait");
        assert_eq!(world.sqs.counts(&world.queue).total(), 1, "the message is not lost");
    }
}

#[tokio::test]
async fn killed_in_the_middle_it_loses_nothing_and_every_effect_happens_once() {
    let world = World::start().await;
    let busy = Faults::none().latency(Duration::from_millis(2), Duration::from_millis(20));
    world.api.set_faults(busy.seed(5).with(0.05, Scripted::<Reply>::lost_reply()));
    let mut variables = env(&world);
    variables.insert("SQS_VISIBILITY_TIMEOUT", "5".to_owned());
    let count = 200;
    for n in 0..count {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    for target in [40, 120] {
        let mut worker = Running::start(&variables);
        let middle =
            world.ledger.wait_until(|ledger| ledger.totals().effects >= target, LIMIT).await;
        assert!(middle, "{}", worker.log());
        worker.kill().await;
        assert_eq!(worker.exit_code().await, None, "killed");
        assert!(world.sqs.counts(&world.queue).total() > 0, "killed in the middle");
    }
    let mut worker = Running::start(&variables);
    world.emptied().await;
    for n in 0..count {
        assert_eq!(world.ledger.effects_for(&format!("r{n}")).len(), 2, "r{n}");
    }
    assert_eq!(world.ledger.totals().effects, 2 * count);
    assert_eq!(world.sqs.peek_all(&world.dlq), []);
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}
