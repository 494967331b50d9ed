//! The course of a call through a stand-in: recorded, delayed, served in its turn, applied,
//! delayed, answered.
//!
//! The services define what is applied and how a response looks.

use tokio::time::sleep;

use crate::ledger::{Answer, Arrival, Effect, Ledger};
use crate::script::{Knobs, Refuse};

/// The result of a call before it is answered.
#[derive(Debug)]
pub(crate) enum Outcome<R, T> {
    /// The true result is the response.
    Truth(T),
    /// A scripted response. The true result is missing if the call was not processed.
    Instead(R, Option<T>),
}

/// Runs one call to its end, as a real service does when the client disconnects: dropping the
/// future marks the call as abandoned, and the rest runs in its own task.
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

/// Sleeps only for non-zero durations: a timer takes at least a millisecond, which would slow fast
/// tests.
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
