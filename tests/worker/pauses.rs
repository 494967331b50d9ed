//! What fails at once is not tried again at once. On paused time, with calls of a millisecond.

use std::sync::Arc;

use tokio::time::sleep;

use crate::late::Late;
use crate::paused::{Action, Course, Line, SECOND, message, start, start_with};

/// Far below one call a millisecond, and above what any of these makes of its backoff.
const CALLS_MAX: u32 = 120;

/// Calls of that kind within ten seconds.
async fn calls_of(line: &Arc<Line>, action: Action) -> u32 {
    let before = line.calls(action);
    sleep(10 * SECOND).await;
    line.calls(action) - before
}

#[tokio::test(start_paused = true)]
async fn receives_that_fail_are_spaced() {
    let (line, store) = (Line::with([]), Late::new());
    let _running = start_with(&line, &store, |_| {});
    line.set(Action::Receive, Course::Fails);
    let calls = calls_of(&line, Action::Receive).await;
    assert!((2..CALLS_MAX).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn deletes_that_fail_are_spaced() {
    for course in [Course::Fails, Course::EntriesFail] {
        let (line, store) = (Line::with([message("1", "slow-10").0]), Late::new());
        line.set(Action::Delete, course);
        let _running = start_with(&line, &store, |_| {});
        let calls = calls_of(&line, Action::Delete).await;
        assert!((2..CALLS_MAX).contains(&calls), "{course:?}: {calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn releases_that_fail_are_spaced() {
    for course in [Course::Fails, Course::EntriesFail] {
        let (line, store) = (Line::with([message("1", "r1").0]), Late::new());
        line.set(Action::Change, course);
        // It fails once, and is released.
        let _running = start_with(&line, &store, |settings| settings.policy.retries_max = 0);
        let calls = calls_of(&line, Action::Change).await;
        assert!((2..CALLS_MAX).contains(&calls), "{course:?}: {calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn copies_that_fail_are_spaced() {
    let poison = ("m-1".to_owned(), "no event".to_owned());
    let (line, store) = (Line::with([poison]), Late::new());
    line.set(Action::DeadLetter, Course::Fails);
    let _running = start_with(&line, &store, |_| {});
    let calls = calls_of(&line, Action::DeadLetter).await;
    assert!((2..CALLS_MAX).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn extensions_that_fail_are_spaced() {
    for course in [Course::Fails, Course::EntriesFail] {
        let (line, store) = (Line::with([message("1", "r1").0]), Late::new());
        let (_app, _metrics) = start(&line, &store, 30);
        sleep(10 * SECOND).await;
        line.set(Action::Change, course);
        let calls = calls_of(&line, Action::Change).await;
        assert!((2..CALLS_MAX).contains(&calls), "{course:?}: {calls}");
    }
}
