//! Cases and the runner: some run concurrently, each in its own worlds; a failed case does not stop
//! others.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::failed::Failed;
use crate::world::Setting;

/// Maximum duration of a case.
const CASE_MAX: Duration = Duration::from_secs(900);

/// The result of a completed case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// All conditions held; the text has the figures.
    Held(String),
    /// Skipped because this machine lacks something. In CI this is a failure.
    LeftOut(String),
}

/// The future of a run.
pub type Run = Pin<Box<dyn Future<Output = Result<Seen, Failed>> + Send>>;

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// The name for the command line.
    pub name: &'static str,
    /// The injected fault.
    pub injected: &'static str,
    /// The conditions that must hold.
    pub must_hold: &'static str,
    /// Whether it has a short form, which `make test` runs.
    pub is_short: bool,
    /// Runs it.
    pub run: fn(Setting) -> Run,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name)
    }
}

/// A case and its result.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The case.
    pub case: Case,
    /// The result.
    pub seen: Result<Seen, Failed>,
    /// The duration.
    pub took: Duration,
}

impl Verdict {
    /// Returns whether it counts as passed. A skipped case passes except in CI.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        match &self.seen {
            Ok(Seen::Held(_)) => true,
            Ok(Seen::LeftOut(_)) => std::env::var_os("CI").is_none(),
            Err(_) => false,
        }
    }
}

/// Runs the cases, `at_once` at a time, and reports each one as it ends. Returns the results in the
/// order of the list.
pub async fn run_all(
    cases: &[Case],
    setting: &Setting,
    at_once: usize,
    tell: impl Fn(&Verdict),
) -> Vec<Verdict> {
    let turns = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    for (place, case) in cases.iter().copied().enumerate() {
        let (turns, setting) = (Arc::clone(&turns), setting.clone());
        running.spawn(async move {
            let _turn = turns.acquire().await.expect("the semaphore is never closed");
            let began = Instant::now();
            // A task of its own, so that a panic fails only this case.
            let mut task = JoinSet::new();
            task.spawn((case.run)(setting));
            let seen = match timeout(CASE_MAX, task.join_next()).await {
                Ok(Some(Ok(seen))) => seen,
                Ok(Some(Err(panic))) => Err(Failed(format!("the harness panicked: {panic}"))),
                Ok(None) => unreachable!("one task was spawned"),
                Err(_) => Err(Failed(format!("not done within {} s", CASE_MAX.as_secs()))),
            };
            (place, Verdict { case, seen, took: began.elapsed() })
        });
    }
    let mut results = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (place, result) = ended.expect("the task that runs a case does not panic");
        tell(&result);
        results.push((place, result));
    }
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Runs `count` rounds, `at_once` at a time. The first failure ends all.
///
/// # Errors
/// The first failure.
pub async fn rounds<T, F>(
    count: usize,
    at_once: usize,
    round: impl Fn(usize) -> F,
) -> Result<Vec<T>, Failed>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failed>> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    for number in 0..count {
        let (turns, round) = (Arc::clone(&turns), round(number));
        running.spawn(async move {
            let _turn = turns.acquire().await.expect("the semaphore is never closed");
            round.await
        });
    }
    let mut done = Vec::with_capacity(count);
    while let Some(ended) = running.join_next().await {
        done.push(ended.map_err(|panic| Failed(format!("the harness panicked: {panic}")))??);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &'static str, run: fn(Setting) -> Run) -> Case {
        Case { name, injected: "", must_hold: "", is_short: true, run }
    }

    #[tokio::test]
    async fn a_failing_or_panicking_case_does_not_pass_and_does_not_stop_others() {
        let cases = [
            case("panics", |_| Box::pin(async { panic!("on purpose") })),
            case("fails", |_| Box::pin(async { Err(Failed("it is so".to_owned())) })),
            case("holds", |_| Box::pin(async { Ok(Seen::Held("1".to_owned())) })),
        ];
        let here = std::path::PathBuf::new();
        let setting = Setting { program: here.clone(), folder: here, is_short: true };
        let verdicts = run_all(&cases, &setting, 1, |_| {}).await;
        let passed: Vec<bool> = verdicts.iter().map(Verdict::has_passed).collect();
        assert_eq!(passed, [false, false, true]);
        assert!(verdicts[0].seen.as_ref().is_err_and(|failed| failed.0.contains("panicked")));
        assert!(!crate::report::sum(&verdicts).1);
    }

    #[tokio::test]
    async fn a_failed_round_fails_the_run() {
        let round = |number: usize| async move {
            if number == 7 { Err(Failed("the eighth".to_owned())) } else { Ok(number) }
        };
        assert_eq!(rounds(10, 3, round).await, Err(Failed("the eighth".to_owned())));
        assert_eq!(rounds(3, 3, round).await.map(|done| done.len()), Ok(3));
    }
}
