//! `dlq` at a terminal: the question, and the number typed.

use std::time::Duration;

use sandbox::process::interrupt;
use sandbox::sqs::Action;
use sandbox::testing::world::{LIMIT, World, eventually};
use tokio::time::timeout;

use crate::dlq::{operator, put};
use crate::terminal::OnTerminal;

/// Redrives twelve of fifteen messages; types this when it is asked. Returns the exit code, what
/// was written, and what is left visible in the dead-letter queue.
async fn redrive(types: &str) -> (i32, String, usize) {
    let world = World::start().await;
    (0..12).for_each(|n| drop(put(&world, n, "rejected")));
    (12..15).for_each(|n| drop(put(&world, n, "forbidden")));
    let arguments = ["dlq", "redrive", "--reason", "rejected", "--rate", "500"];
    let mut terminal = OnTerminal::start(&arguments, &operator(&world));
    let is_asked = || terminal.has_written("Type 12 to redrive them: ");
    eventually("it asks", is_asked).await;
    assert_eq!(world.sqs.counts(&world.dlq).visible, 15, "nothing is held while it asks");
    terminal.types(types);
    let status = timeout(LIMIT, terminal.child.wait()).await.unwrap().unwrap();
    // The last words come through a thread.
    let has_ended = || {
        ["redriven, 0 failed.", "Nothing was changed."]
            .iter()
            .any(|words| terminal.has_written(words))
    };
    eventually("it says what it did", has_ended).await;
    let written = terminal.written.lock().unwrap().clone();
    assert!(written.contains("rejected  reservation.expired       12"), "{written}");
    (status.code().unwrap(), written, world.sqs.counts(&world.dlq).visible)
}

#[tokio::test]
async fn the_right_number_redrives() {
    let (code, written, left) = redrive("12\n").await;
    assert_eq!((code, left), (0, 3), "{written}");
}

#[tokio::test]
async fn another_answer_changes_nothing() {
    for answer in ["13\n", "y\n", "\n", "\u{4}"] {
        let (code, written, left) = redrive(answer).await;
        assert_eq!((code, left), (1, 15), "{written}");
        assert!(written.contains("Nothing was changed."), "{written}");
    }
}

#[tokio::test]
async fn ctrl_c_at_the_question_changes_nothing() {
    let world = World::start().await;
    put(&world, 1, "rejected");
    let arguments = ["dlq", "discard", "--all", "--without-copy"];
    let terminal = OnTerminal::start(&arguments, &operator(&world));
    eventually("it asks", || terminal.has_written("Type 1 to discard it: ")).await;
    interrupt(&terminal.child);
    let mut child = terminal.child;
    let status = timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert_eq!((status.code(), world.sqs.counts(&world.dlq).visible), (Some(130), 1));
}

#[tokio::test]
async fn the_progress_of_a_slow_show_is_removed_at_the_end() {
    let world = World::start().await;
    (0..2).for_each(|n| drop(put(&world, n, "rejected")));
    let slow = Duration::from_millis(800);
    world.sqs.faults(&world.dlq).latency(Action::ReceiveMessage, slow, Duration::ZERO);
    let mut terminal = OnTerminal::start(&["dlq", "show"], &operator(&world));
    let status = timeout(LIMIT, terminal.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    eventually("the line of progress is removed", || {
        let written = terminal.written.lock().unwrap();
        written.contains("looked at") && written.ends_with("\r\u{1b}[K")
    })
    .await;
}
