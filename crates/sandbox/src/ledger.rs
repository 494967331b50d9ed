//! The ledger of the stand-ins: one entry per call in order of arrival, with request, effect and
//! response. Tests and the demo compare the worker with it.
//!
//! It only records: the stand-ins hold the state, and readers of the ledger check a run.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

mod call;
mod tally;

pub(crate) use call::Arrival;
pub use call::{Answer, Call, Effect, Request, Service};
pub use tally::Tally;

/// Maximum number of calls in memory. Older ones are removed, and totals stay exact, so that a
/// sandbox can run for days.
const CALLS_KEPT_MAX: usize = 1_000_000;

/// The ledger of one or both stand-ins. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    /// A counter of changes that wakes waiting tasks.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Book {
    /// Maximum number of calls in `calls`.
    kept_max: usize,
    calls: VecDeque<Call>,
    /// Number of calls removed from the front of `calls`.
    forgotten: u64,
    by_reservation: HashMap<String, Vec<u64>>,
    keys: HashSet<(Service, String)>,
    totals: Totals,
}

/// Totals of all calls, including removed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Received calls.
    pub calls: u64,
    /// Calls that changed something.
    pub effects: u64,
    /// Calls with a known idempotency key.
    pub repeated_keys: u64,
    /// Calls with a scripted or random fault as response.
    pub faults: u64,
    /// Calls not answered yet.
    pub in_progress: u64,
    /// The peak of calls in progress.
    pub in_progress_peak: u64,
}

impl Ledger {
    /// Returns all calls in memory, in order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.book().calls.iter().cloned().collect()
    }

    /// Returns the call at this position; `None` if it was removed or has not arrived.
    #[must_use]
    pub fn call(&self, sequence: u64) -> Option<Call> {
        self.book().get(sequence).cloned()
    }

    /// Returns the calls in memory from position `sequence` on.
    #[must_use]
    pub fn calls_since(&self, sequence: u64) -> Vec<Call> {
        let book = self.book();
        let known = usize::try_from(sequence.saturating_sub(book.forgotten)).unwrap_or(usize::MAX);
        book.calls.iter().skip(known).cloned().collect()
    }

    /// Returns the calls for this reservation, in order of arrival.
    #[must_use]
    pub fn calls_for(&self, reservation_id: &str) -> Vec<Call> {
        let book = self.book();
        let sequences = book.by_reservation.get(reservation_id).map_or(&[][..], Vec::as_slice);
        sequences.iter().filter_map(|sequence| book.get(*sequence).cloned()).collect()
    }

    /// Returns the effects for this reservation, in the order of the calls.
    #[must_use]
    pub fn effects_for(&self, reservation_id: &str) -> Vec<Effect> {
        self.calls_for(reservation_id)
            .iter()
            .filter_map(|call| call.effect.map(|(effect, _)| effect))
            .collect()
    }

    /// Returns the totals of all calls so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.book().totals
    }

    /// Waits until `what` holds, with a check after each change. Returns `false` if `limit` passes
    /// first.
    ///
    /// Cancel-safe.
    pub async fn wait_until(&self, what: impl Fn(&Self) -> bool, limit: Duration) -> bool {
        let mut changes = self.shared.changed.subscribe();
        let met = async {
            while !what(self) {
                changes.changed().await.expect("the ledger keeps the sender");
            }
        };
        timeout(limit, met).await.is_ok() || what(self)
    }

    /// Returns a receiver that is notified of each new entry, effect and response.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Records a call and returns its position. Its answer is `Answer::Pending` until
    /// [`Ledger::answered`].
    pub(crate) fn begin(&self, arrival: Arrival) -> u64 {
        let sequence = self.book().begin(arrival);
        self.wake();
        sequence
    }

    /// Records the effect of a call with the current time.
    pub(crate) fn took_effect(&self, sequence: u64, effect: Effect) {
        let mut book = self.book();
        book.totals.effects += 1;
        if let Some(call) = book.get_mut(sequence) {
            call.effect = Some((effect, Instant::now()));
        }
        drop(book);
        self.wake();
    }

    /// Records the response.
    pub(crate) fn answered(&self, sequence: u64, answer: Answer, fault: bool) {
        let mut book = self.book();
        book.totals.in_progress -= 1;
        book.totals.faults += u64::from(fault);
        if let Some(call) = book.get_mut(sequence) {
            call.answer = answer;
            call.answered_at = Some(Instant::now());
            call.fault = fault;
        }
        drop(book);
        self.wake();
    }

    /// Records that the client disconnected before the response.
    pub(crate) fn abandoned(&self, sequence: u64) {
        if let Some(call) = self.book().get_mut(sequence) {
            call.abandoned = true;
        }
        self.wake();
    }

    fn wake(&self) {
        self.shared.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.shared.book.lock().expect("no code panics under this lock")
    }
}

impl Default for Book {
    fn default() -> Self {
        Self {
            kept_max: CALLS_KEPT_MAX,
            calls: VecDeque::new(),
            forgotten: 0,
            by_reservation: HashMap::new(),
            keys: HashSet::new(),
            totals: Totals::default(),
        }
    }
}

impl Book {
    fn begin(&mut self, arrival: Arrival) -> u64 {
        let sequence = self.totals.calls;
        let repeated_key = arrival
            .key
            .as_ref()
            .is_some_and(|key| !self.keys.insert((arrival.service, key.clone())));
        self.totals.calls += 1;
        self.totals.repeated_keys += u64::from(repeated_key);
        self.totals.in_progress += 1;
        self.totals.in_progress_peak = self.totals.in_progress_peak.max(self.totals.in_progress);
        self.by_reservation.entry(arrival.reservation_id.clone()).or_default().push(sequence);
        self.calls.push_back(Call {
            sequence,
            at: Instant::now(),
            service: arrival.service,
            reservation_id: arrival.reservation_id,
            raw_path: arrival.raw_path,
            key: arrival.key,
            traceparent: arrival.traceparent,
            tracestate: arrival.tracestate,
            baggage: arrival.baggage,
            xray: arrival.xray,
            request: arrival.request,
            repeated_key,
            effect: None,
            answer: Answer::Pending,
            answered_at: None,
            fault: false,
            abandoned: false,
        });
        if self.calls.len() > self.kept_max {
            self.forget_oldest();
        }
        sequence
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.calls.pop_front() else {
            return;
        };
        self.forgotten += 1;
        if let Some(sequences) = self.by_reservation.get_mut(&oldest.reservation_id) {
            sequences.retain(|sequence| *sequence != oldest.sequence);
            if sequences.is_empty() {
                self.by_reservation.remove(&oldest.reservation_id);
            }
        }
        if let Some(key) = oldest.key {
            self.keys.remove(&(oldest.service, key));
        }
    }

    fn get(&self, sequence: u64) -> Option<&Call> {
        self.calls.get(usize::try_from(sequence.checked_sub(self.forgotten)?).ok()?)
    }

    fn get_mut(&mut self, sequence: u64) -> Option<&mut Call> {
        self.calls.get_mut(usize::try_from(sequence.checked_sub(self.forgotten)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(id: &str, key: &str) -> Arrival {
        Arrival {
            service: Service::ReservationApi,
            reservation_id: id.to_owned(),
            raw_path: String::new(),
            key: Some(key.to_owned()),
            traceparent: None,
            tracestate: None,
            baggage: None,
            xray: None,
            request: Request::GetReservation,
        }
    }

    #[test]
    fn totals_and_indexes_count_every_call() {
        let ledger = Ledger::default();
        let first = ledger.begin(arrival("a", "k"));
        let second = ledger.begin(arrival("b", "k"));
        ledger.took_effect(second, Effect::SeatsReleased);
        ledger.answered(second, Answer::Http(200), false);
        ledger.answered(first, Answer::Http(503), true);
        let expected = Totals {
            calls: 2,
            effects: 1,
            repeated_keys: 1,
            faults: 1,
            in_progress: 0,
            in_progress_peak: 2,
        };
        assert_eq!(ledger.totals(), expected);
        assert_eq!(ledger.effects_for("a"), []);
        assert_eq!(ledger.effects_for("b"), [Effect::SeatsReleased]);
        assert_eq!(ledger.calls_since(1).len(), 1);
        assert!(!ledger.calls()[0].repeated_key && ledger.calls()[1].repeated_key);
    }

    #[test]
    fn the_oldest_calls_are_removed_above_the_limit_and_totals_stay() {
        let ledger = Ledger::default();
        let mut book = ledger.book();
        book.kept_max = 3;
        for number in 0..5 {
            book.begin(arrival(&number.to_string(), &number.to_string()));
        }
        assert_eq!((book.calls.len(), book.forgotten, book.totals.calls), (3, 2, 5));
        assert_eq!((book.by_reservation.len(), book.keys.len()), (3, 3));
        assert!(book.get(1).is_none() && book.get(2).is_some_and(|call| call.sequence == 2));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_change_or_with_the_limit() {
        let ledger = Ledger::default();
        let limit = Duration::from_secs(1);
        assert!(!ledger.wait_until(|ledger| ledger.totals().calls == 1, limit).await);
        let (met, _) =
            tokio::join!(ledger.wait_until(|ledger| ledger.totals().calls == 1, limit), async {
                tokio::task::yield_now().await;
                ledger.begin(arrival("a", "k"))
            });
        assert!(met);
    }
}
