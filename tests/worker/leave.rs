//! Drains at moments that are hard to handle. On paused time.

use reservation_worker::queue::ReceiptHandle;
use reservation_worker::settle::account::Disposition;
use tokio::time::{Instant, sleep};

use crate::late::Late;
use crate::paused::{Action, Course, Line, SECOND, message, start, start_with};

fn handle(text: &str) -> ReceiptHandle {
    ReceiptHandle(text.into())
}

#[tokio::test(start_paused = true)]
async fn a_drain_starts_no_further_job_while_a_receive_is_open() {
    let (line, store) =
        (Line::with(["slow-500-a", "slow-500-b"].map(|name| message(name, name).0)), Late::new());
    let running = start_with(&line, &store, |settings| settings.concurrency = 1);
    // The second event is buffered; the open receive lasts for 900 ms more.
    sleep(SECOND / 10).await;
    let account = running.app.drain(Instant::now() + 20 * SECOND).await;
    assert_eq!((running.api.calls("slow-500-a"), running.api.calls("slow-500-b")), (1, 0));
    assert_eq!(account.left_total(Disposition::HandedBack), 1);
    assert_eq!(*line.shown.lock().unwrap(), [(handle("m-slow-500-b"), std::time::Duration::ZERO)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_last_receive_delivers_again_stays_with_its_running_job() {
    let (sent, _) = message("1", "slow-3000");
    let (line, store) = (Line::with([sent.clone()]), Late::new());
    let running = start_with(&line, &store, |_| {});
    sleep(SECOND / 10).await;
    line.send(&sent, 2);
    let account = running.app.drain(Instant::now() + 20 * SECOND).await;
    assert_eq!(*line.shown.lock().unwrap(), [], "a message that is being handled was handed back");
    assert_eq!(*line.deleted.lock().unwrap(), [handle("m-1/2")]);
    assert!(account.balances(), "{account:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_hands_a_message_back_although_its_extension_hangs() {
    let (sent, _) = message("1", "r1");
    let (line, store) = (Line::with([sent]), Late::new());
    let (app, _metrics) = start(&line, &store, 30);
    sleep(5 * SECOND).await;
    let before = line.calls(Action::Change);
    line.set(Action::Change, Course::HangsOnce);
    while line.calls(Action::Change) == before {
        sleep(SECOND / 100).await;
    }
    let account = app.drain(Instant::now() + 4 * SECOND).await;
    let shown = line.shown.lock().unwrap().clone();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].0, handle("m-1"));
    assert_eq!(account.left_total(Disposition::HandedBack), 1, "{account:?}");
}
