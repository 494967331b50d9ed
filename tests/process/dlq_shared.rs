//! `dlq` on a dead-letter queue that other queues and other consumers use too.

use sandbox::sqs::{AttributeValue, QueueSpec, Redrive};
use serde_json::json;

use sandbox::testing::program::{Running, env, run};
use sandbox::testing::world::{World, eventually, expired};

use crate::dlq::{all_visible, ids, objects, operator, put};

#[tokio::test]
async fn what_sqs_moved_from_another_queue_is_left_to_it() {
    let world = World::start().await;
    put(&world, 1, "rejected");
    let redrive = Some(Redrive { dlq: "dlq".to_owned(), max_receive_count: 1 });
    let orders = world.sqs.create_queue("orders", QueueSpec { redrive, ..QueueSpec::default() });
    world.sqs.send(&orders, expired("evt-2", "rsv-2").to_string());
    let mut variables = operator(&world);
    variables.insert("SQS_DLQ_URL", orders);
    // At the second receive SQS moves it.
    for _ in 0..2 {
        run(&["dlq", "list"], &variables).await;
    }
    all_visible(&world, &world.dlq, 2);
    let done = objects(&world, &["redrive", "--all", "--yes"], 0).await;
    let summary = &done.last().unwrap()["summary"];
    assert_eq!((&summary["redriven"], &summary["left_of_other_queues"]), (&json!(1), &json!(1)));
    assert_eq!(ids(&world.sqs.peek_all(&world.queue)), ["evt-1"]);
    all_visible(&world, &world.dlq, 1);
    assert_eq!(objects(&world, &["list"], 0).await.len(), 1);
    let listed = objects(&world, &["list", "--from-any-source"], 0).await;
    assert_eq!((&listed[0]["source_queue"], &listed[0]["id"]), (&json!("orders"), &json!("evt-2")));
}

#[tokio::test]
async fn the_workers_copy_names_its_queue() {
    let world = World::start().await;
    let worker = Running::started(&env(&world)).await;
    world.sqs.send(&world.queue, "no event");
    eventually("it is dead-lettered", || world.dead_letters().len() == 1).await;
    drop(worker);
    let copy = &world.dead_letters()[0];
    assert_eq!(copy.attributes["dlq_queue"], AttributeValue::string("events"));
    let listed = objects(&world, &["list"], 0).await;
    assert_eq!(listed[0]["source_queue"], "events");
}
