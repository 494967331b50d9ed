//! Failed calls are not retried at once. On paused time, with calls of one millisecond.

use std::sync::Arc;

use tokio::time::sleep;

use crate::late::Late;
use crate::paused::{Action, Course, Line, SECOND, message, start, start_with};

/// Far below one call per millisecond, and above the number that any backoff here allows.
const CALLS_MAX: u32 = 120;

/// Returns the number of calls of that kind within ten seconds.
async fn calls_of(line: &Arc<Line>, action: Action) -> u32 {
    let before = line.calls(action);
    sleep(10 * SECOND).await;
    line.calls(action) - before
}

#[tokio::test(start_paused = true)]
async fn failing_receives_back_off() {
    let (line, store) = (Line::with([]), Late::new());
    let _running = start_with(&line, &store, |_| {});
    line.set(Action::Receive, Course::Fails);
    let calls = calls_of(&line, Action::Receive).await;
    assert!((2..CALLS_MAX).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn failing_deletes_back_off() {
    for course in [Course::Fails, Course::EntriesFail] {
        let (line, store) = (Line::with([message("1", "slow-10").0]), Late::new());
        line.set(Action::Delete, course);
        let _running = start_with(&line, &store, |_| {});
        let calls = calls_of(&line, Action::Delete).await;
        assert!((2..CALLS_MAX).contains(&calls), "{course:?}: {calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn failing_releases_back_off() {
    for course in [Course::Fails, Course::EntriesFail] {
        let (line, store) = (Line::with([message("1", "r1").0]), Late::new());
        line.set(Action::Change, course);
        // The event fails once and is released.
        let _running = start_with(&line, &store, |settings| settings.policy.retries_max = 0);
        let calls = calls_of(&line, Action::Change).await;
        assert!((2..CALLS_MAX).contains(&calls), "{course:?}: {calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn failing_dead_letter_copies_back_off() {
    let poison = ("m-1".to_owned(), "no event".to_owned());
    let (line, store) = (Line::with([poison]), Late::new());
    line.set(Action::DeadLetter, Course::Fails);
    let _running = start_with(&line, &store, |_| {});
    let calls = calls_of(&line, Action::DeadLetter).await;
    assert!((2..CALLS_MAX).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn failing_extensions_back_off() {
    for course in [Course::Fails, Course::EntriesFail] {
        let (line, store) = (Line::with([message("1", "r1").0]), Late::new());
        let (_app, _metrics) = start(&line, &store, 30);
        sleep(10 * SECOND).await;
        line.set(Action::Change, course);
        let calls = calls_of(&line, Action::Change).await;
        assert!((2..CALLS_MAX).contains(&calls), "{course:?}: {calls}");
    }
}
