//! How a stand-in is told to misbehave: answers scripted for the next calls, rules for a part of the reservations (`rule`),
//! faults drawn at random from a seed, latency, and how much it takes (`capacity`). What an answer looks like on the wire
//! is left to each service.

mod capacity;
mod rule;

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

pub use capacity::{Capacity, RateLimit, Refuse};
pub use rule::{Rule, is_in_share};

/// One call's course: when and whether it takes effect, and what is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Scripted<R> {
    /// Whether the call is processed (its effect applied) at all.
    pub(crate) applies: bool,
    /// Pause before that.
    pub(crate) delay: Duration,
    /// Pause between that and the answer.
    pub(crate) answer_delay: Duration,
    /// What is answered instead of the truth.
    pub(crate) reply: Option<R>,
}

impl<R> Scripted<R> {
    /// The true answer: lets one call pass in the middle of a script.
    #[must_use]
    pub fn normal() -> Self {
        Self { applies: true, delay: Duration::ZERO, answer_delay: Duration::ZERO, reply: None }
    }

    /// `reply` instead of processing the call; see [`Scripted::applying`].
    pub(crate) fn replying(reply: R) -> Self {
        Self { applies: false, reply: Some(reply), ..Self::normal() }
    }

    /// Processes the call all the same, so that its effect is applied though the answer denies it.
    #[must_use]
    pub fn applying(self) -> Self {
        Self { applies: true, ..self }
    }

    /// Waits this long before anything happens. A caller that hangs up meanwhile does not stop the call.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Waits this long between the effect and the answer.
    #[must_use]
    pub fn answering_after(self, answer_delay: Duration) -> Self {
        Self { answer_delay, ..self }
    }
}

/// Replies that can get lost.
pub trait Lose {
    /// The connection is closed instead of an answer.
    fn lost() -> Self;
}

impl<R: Lose> Scripted<R> {
    /// The call is processed, then the connection is closed without an answer.
    #[must_use]
    pub fn lost_reply() -> Self {
        Self::replying(R::lost()).applying()
    }

    /// The connection is closed without an answer, and the call is not processed.
    #[must_use]
    pub fn hang_up() -> Self {
        Self::replying(R::lost())
    }
}

/// Latency of every call, and what goes wrong by chance.
#[derive(Clone, Debug)]
pub struct Faults<R> {
    latency: Duration,
    jitter: Duration,
    seed: u64,
    chances: Vec<(f64, Scripted<R>)>,
}

impl<R> Default for Faults<R> {
    fn default() -> Self {
        Self { latency: Duration::ZERO, jitter: Duration::ZERO, seed: 0, chances: Vec::new() }
    }
}

impl<R> Faults<R> {
    /// No latency, no faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every call takes `latency` plus up to `jitter` (uniform).
    #[must_use]
    pub fn latency(self, latency: Duration, jitter: Duration) -> Self {
        Self { latency, jitter, ..self }
    }

    /// Where the random choices start from (0 unless told).
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// This share of calls (0 to 1; all shares together at most 1) goes like this.
    ///
    /// # Panics
    ///
    /// Where the shares exceed 1: the later ones would silently never happen.
    #[must_use]
    pub fn with(mut self, share: f64, scripted: Scripted<R>) -> Self {
        self.chances.push((share, scripted));
        let sum: f64 = self.chances.iter().map(|(share, _)| share).sum();
        assert!(share >= 0.0 && sum <= 1.0 + 1e-9, "the shares of faults add up to more than 1");
        self
    }
}

/// The knobs of one stand-in, changeable while it runs.
#[derive(Debug)]
pub(crate) struct Knobs<R> {
    settings: Mutex<Settings<R>>,
}

#[derive(Debug)]
struct Settings<R> {
    next_for: HashMap<String, VecDeque<Scripted<R>>>,
    next: VecDeque<Scripted<R>>,
    rules: Vec<Rule<R>>,
    faults: Faults<R>,
    random: fastrand::Rng,
    rate_limit: Option<RateLimit>,
    capacity: Option<Capacity>,
}

/// What a call is to go through.
#[derive(Debug)]
pub(crate) struct Plan<R> {
    pub(crate) latency: Duration,
    pub(crate) scripted: Scripted<R>,
    /// What it waits for before it is processed; `None` where there are servers for everyone, or it is not processed.
    pub(crate) capacity: Option<Capacity>,
}

impl<R: Clone + Refuse> Knobs<R> {
    pub(crate) fn new() -> Self {
        Self {
            settings: Mutex::new(Settings {
                next_for: HashMap::new(),
                next: VecDeque::new(),
                rules: Vec::new(),
                faults: Faults::default(),
                random: fastrand::Rng::with_seed(0),
                rate_limit: None,
                capacity: None,
            }),
        }
    }

    pub(crate) fn script(&self, answers: impl IntoIterator<Item = Scripted<R>>) {
        self.settings().next.extend(answers);
    }

    pub(crate) fn script_for(
        &self,
        reservation_id: &str,
        answers: impl IntoIterator<Item = Scripted<R>>,
    ) {
        self.settings().next_for.entry(reservation_id.to_owned()).or_default().extend(answers);
    }

    pub(crate) fn clear_script(&self) {
        let mut settings = self.settings();
        settings.next.clear();
        settings.next_for.clear();
    }

    pub(crate) fn script_left(&self) -> usize {
        let settings = self.settings();
        settings.next.len() + settings.next_for.values().map(VecDeque::len).sum::<usize>()
    }

    pub(crate) fn set_faults(&self, faults: Faults<R>) {
        let mut settings = self.settings();
        settings.random = fastrand::Rng::with_seed(faults.seed);
        settings.faults = faults;
    }

    pub(crate) fn set_rules(&self, rules: impl IntoIterator<Item = Rule<R>>) {
        self.settings().rules = rules.into_iter().collect();
    }

    pub(crate) fn set_rate_limit(&self, limit: Option<RateLimit>) {
        self.settings().rate_limit = limit;
    }

    pub(crate) fn set_capacity(&self, capacity: Option<Capacity>) {
        self.settings().capacity = capacity;
    }

    /// The course of the next call: refused at once where the rate limit says so; else what is scripted for its
    /// reservation, else for anyone, else what the first rule that fits says, else what chance says.
    pub(crate) fn plan(&self, reservation_id: &str) -> Plan<R> {
        let settings = &mut *self.settings();
        if settings.rate_limit.as_mut().is_some_and(|limit| !limit.lets_in()) {
            let scripted = Scripted::replying(R::refused(capacity::REFUSED_FOR));
            return Plan { latency: Duration::ZERO, scripted, capacity: None };
        }
        let jitter = settings.faults.jitter.mul_f64(settings.random.f64());
        let latency = settings.faults.latency + jitter;
        let own = settings.next_for.get_mut(reservation_id).and_then(VecDeque::pop_front);
        let scripted = own.or_else(|| settings.next.pop_front());
        let ruled = || settings.rules.iter().find_map(|rule| rule.course(reservation_id)).cloned();
        let scripted = scripted.or_else(ruled).unwrap_or_else(|| settings.draw());
        let capacity = settings.capacity.clone().filter(|_| scripted.applies);
        Plan { latency, scripted, capacity }
    }

    fn settings(&self) -> MutexGuard<'_, Settings<R>> {
        self.settings.lock().expect("no one panics while holding the knobs")
    }
}

impl<R: Clone> Settings<R> {
    fn draw(&mut self) -> Scripted<R> {
        let mut left = self.random.f64();
        for (share, scripted) in &self.faults.chances {
            if left < *share {
                return scripted.clone();
            }
            left -= share;
        }
        Scripted::normal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Refuse for &str {
        fn refused(_: Duration) -> Self {
            "refused"
        }
    }

    #[test]
    fn a_rule_comes_after_a_script_and_before_chance_and_the_first_that_fits_counts() {
        let knobs = Knobs::new();
        knobs.set_faults(Faults::none().with(1.0, Scripted::replying("chance")));
        knobs.set_rules([
            Rule::of(|id| id == "a", Scripted::replying("first")),
            Rule::of(|id| id != "c", Scripted::replying("second")),
        ]);
        knobs.script_for("a", [Scripted::replying("script")]);
        let replies = ["a", "a", "b", "c"].map(|id| knobs.plan(id).scripted.reply);
        assert_eq!(replies, ["script", "first", "second", "chance"].map(Some));
        knobs.set_rules([]);
        assert_eq!(knobs.plan("a").scripted.reply, Some("chance"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_beyond_the_limit_is_refused_at_once_and_takes_no_script_and_no_server() {
        let knobs = Knobs::new();
        knobs.set_faults(Faults::none().latency(Duration::from_secs(1), Duration::ZERO));
        knobs.set_rate_limit(Some(RateLimit::per_second(1)));
        knobs.set_capacity(Some(Capacity::new(1, Duration::from_secs(1))));
        assert!(knobs.plan("a").capacity.is_some());
        knobs.script([Scripted::replying("script")]);
        let refused = knobs.plan("a");
        assert_eq!(refused.scripted.reply, Some("refused"));
        assert!(refused.capacity.is_none() && refused.latency.is_zero());
        tokio::time::advance(Duration::from_secs(1)).await;
        let scripted = knobs.plan("a");
        assert_eq!((scripted.scripted.reply, scripted.capacity.is_some()), (Some("script"), false));
    }

    #[test]
    fn what_is_scripted_for_one_reservation_comes_before_what_is_scripted_for_all() {
        let knobs = Knobs::new();
        knobs.script([Scripted::replying("all")]);
        knobs.script_for("a", [Scripted::replying("a")]);
        assert_eq!(knobs.plan("a").scripted.reply, Some("a"));
        assert_eq!(knobs.plan("b").scripted.reply, Some("all"));
        assert_eq!(knobs.plan("b").scripted, Scripted::normal());
        assert_eq!(knobs.script_left(), 0);
    }

    #[test]
    fn chance_keeps_to_its_shares_and_repeats_with_its_seed() {
        let draw = || {
            let knobs = Knobs::new();
            knobs.set_faults(
                Faults::none()
                    .seed(7)
                    .with(0.25, Scripted::replying("x"))
                    .with(0.25, Scripted::replying("y")),
            );
            (0..4000).map(|_| knobs.plan("a").scripted.reply).collect::<Vec<_>>()
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        for fault in ["x", "y"] {
            let count = drawn.iter().filter(|reply| **reply == Some(fault)).count();
            assert!((850..1150).contains(&count), "{fault}: {count} of 4000");
        }
    }

    #[test]
    #[should_panic(expected = "more than 1")]
    fn shares_beyond_1_are_refused() {
        let _ = Faults::none().with(0.6, Scripted::replying("")).with(0.6, Scripted::replying(""));
    }
}
