//! What a worker holds takes no more memory than `MAX_IN_FLIGHT_MB` allows, and little beside it.
#![cfg(target_os = "linux")]

use std::time::Duration;

use sandbox::testing::program::{Running, env};
use sandbox::testing::world::{World, expired};
use serde_json::json;
use tokio::time::sleep;

/// `MAX_IN_FLIGHT_MB`.
const HELD_MIB: f64 = 32.0;

/// Named by each event: a body of 68 KB, and more than that again once it is read.
const SEATS: usize = 9_900;

/// More than are held.
const EVENTS: usize = 220;

/// Events that leave used blocks of memory behind.
const BEFORE: usize = 50;

/// Time for all to be handled, by a worker that is not optimised.
const EMPTIED_MAX: Duration = Duration::from_secs(300);

/// Returns the memory of the process, in MiB.
fn mib(worker: &Running) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.process.pid()));
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1_024.0
}

async fn held(worker: &Running) -> usize {
    let metrics = worker.answers("/metrics", 200).await;
    let states = metrics.lines().filter(|line| line.starts_with("worker_messages_in_flight{"));
    states.map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum()
}

fn send(world: &World, prefix: &str, events: usize, seats: usize) {
    let seat_ids: Vec<String> = (0..seats).map(|n| format!("{n:04}")).collect();
    for n in 0..events {
        let mut event = expired(&format!("evt-{prefix}-{n}"), &format!("rsv-{prefix}-{n}"));
        event["payload"] = json!({"qty": seats, "seat_ids": seat_ids});
        world.send(&event);
    }
}

#[tokio::test]
async fn events_that_name_thousands_of_seats_are_held_within_the_bound() {
    let world = World::start().await;
    let mut variables = env(&world);
    variables.insert("MAX_IN_FLIGHT_MB", HELD_MIB.to_string());
    variables.insert("LOG_LEVEL", "error".to_owned());
    let worker = Running::start(&variables);
    // The program's own pages are in memory once it has handled events.
    send(&world, "small", 100, 2);
    world.emptied().await;
    let idle_mib = mib(&worker);
    // Blocks of memory that were used before are taken whole.
    send(&world, "handled", BEFORE, SEATS);
    assert!(world.sqs.wait_until(&world.queue, |left| left.total() == 0, EMPTIED_MAX).await);
    world.inventory.go_down().await.unwrap();
    send(&world, "held", EVENTS, SEATS);
    let (mut most, mut same) = (0, 0);
    while same < 20 {
        let now = held(&worker).await;
        (most, same) = if now == most && now > 0 { (now, same + 1) } else { (now, 0) };
        sleep(Duration::from_millis(200)).await;
    }
    let taken_mib = mib(&worker) - idle_mib;
    assert!(taken_mib <= 1.3 * HELD_MIB, "{most} events take {taken_mib:.1} MiB");
    assert!((125..EVENTS).contains(&most), "{most} are held: what holds them back?");
    world.inventory.come_back().await.unwrap();
    assert!(world.sqs.wait_until(&world.queue, |left| left.total() == 0, EMPTIED_MAX).await);
}
