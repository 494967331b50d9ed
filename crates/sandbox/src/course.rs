//! The course of one call through a stand-in: entered in the ledger, delayed, served when it is its turn, applied, delayed,
//! answered.
//! What is applied and how an answer looks is left to the services.

use tokio::time::sleep;

use crate::ledger::{Answer, Arrival, Effect, Ledger};
use crate::script::{Knobs, Refuse};

/// What became of a call before it is answered.
#[derive(Debug)]
pub(crate) enum Outcome<R, T> {
    /// Answer with the truth.
    Truth(T),
    /// Answer with this instead of the truth (which is missing where the call was not processed).
    Instead(R, Option<T>),
}

/// Runs one call. Like any real service it does not stop because the caller hangs up: dropping the future
/// marks the call as abandoned, and the rest goes on in a task of its own.
pub(crate) async fn run<R, T, O>(
    ledger: &Ledger,
    knobs: &Knobs<R>,
    arrival: Arrival,
    apply: impl FnOnce() -> (T, Option<Effect>) + Send + 'static,
    answer: impl FnOnce(Outcome<R, T>) -> (Answer, O) + Send + 'static,
) -> O
where
    R: Clone + Refuse + Send + 'static,
    T: Send,
    O: Send + 'static,
{
    let plan = knobs.plan(&arrival.reservation_id);
    let sequence = ledger.begin(arrival);
    let mut guard = HangUp { ledger, sequence, answered: false };
    let book = ledger.clone();
    let course = tokio::spawn(async move {
        let scripted = plan.scripted;
        pause(plan.latency + scripted.delay).await;
        if let Some(capacity) = &plan.capacity {
            capacity.serve().await;
        }
        let applied = scripted.applies.then(apply);
        if let Some((_, Some(effect))) = &applied {
            book.took_effect(sequence, *effect);
        }
        pause(scripted.answer_delay).await;
        let fault = scripted.reply.is_some();
        let outcome = match (scripted.reply, applied) {
            (Some(reply), applied) => Outcome::Instead(reply, applied.map(|(truth, _)| truth)),
            (None, Some((truth, _))) => Outcome::Truth(truth),
            (None, None) => unreachable!("a call that is not processed has a scripted reply"),
        };
        let (answer, out) = answer(outcome);
        book.answered(sequence, answer, fault);
        out
    });
    let out = course.await.expect("a stand-in does not panic");
    guard.answered = true;
    out
}

/// Waits, where there is anything to wait for: a timer's tick is a millisecond, which fast tests would notice.
async fn pause(duration: std::time::Duration) {
    if !duration.is_zero() {
        sleep(duration).await;
    }
}

struct HangUp<'a> {
    ledger: &'a Ledger,
    sequence: u64,
    answered: bool,
}

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.ledger.abandoned(self.sequence);
        }
    }
}
