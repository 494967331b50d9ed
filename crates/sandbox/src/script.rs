//! Faults of a stand-in: scripted responses for the next calls, rules for a part of the
//! reservations (`rule`), random faults from a seed, latency, and limits (`capacity`). The services
//! define how a response looks.

mod capacity;
mod rule;

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

pub use capacity::{Capacity, RateLimit, Refuse};
pub use rule::{Rule, is_in_share};

/// The course of one call: when and whether it takes effect, and the response.
#[derive(Clone, Debug, PartialEq)]
pub struct Scripted<R> {
    /// Whether the call is processed, with its effect.
    pub(crate) applies: bool,
    /// Pause before the effect.
    pub(crate) delay: Duration,
    /// Pause between effect and response.
    pub(crate) answer_delay: Duration,
    /// A response instead of the true one.
    pub(crate) reply: Option<R>,
}

impl<R> Scripted<R> {
    /// The true response, for a normal call within a script.
    #[must_use]
    pub fn normal() -> Self {
        Self { applies: true, delay: Duration::ZERO, answer_delay: Duration::ZERO, reply: None }
    }

    /// Responds with `reply` instead of processing the call; see [`Scripted::applying`].
    pub(crate) fn replying(reply: R) -> Self {
        Self { applies: false, reply: Some(reply), ..Self::normal() }
    }

    /// Processes the call as well, so that its effect is applied despite the response.
    #[must_use]
    pub fn applying(self) -> Self {
        Self { applies: true, ..self }
    }

    /// Waits this long before the effect. A client that disconnects meanwhile does not stop the
    /// call.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Waits this long between effect and response.
    #[must_use]
    pub fn answering_after(self, answer_delay: Duration) -> Self {
        Self { answer_delay, ..self }
    }
}

/// Replies that can be lost.
pub trait Lose {
    /// Closes the connection instead of a response.
    fn lost() -> Self;
}

impl<R: Lose> Scripted<R> {
    /// Processes the call, then closes the connection without a response.
    #[must_use]
    pub fn lost_reply() -> Self {
        Self::replying(R::lost()).applying()
    }

    /// Closes the connection without a response and without processing the call.
    #[must_use]
    pub fn hang_up() -> Self {
        Self::replying(R::lost())
    }
}

/// Latency of all calls, and random faults.
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
    /// No latency and no faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Sets the latency of every call: `latency` plus up to `jitter` (uniform).
    #[must_use]
    pub fn latency(self, latency: Duration, jitter: Duration) -> Self {
        Self { latency, jitter, ..self }
    }

    /// Sets the seed of the random choices (default 0).
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets the course of this share of calls (0 to 1; the sum of all shares is at most 1).
    ///
    /// # Panics
    ///
    /// If the sum exceeds 1: the last faults would never happen.
    #[must_use]
    pub fn with(mut self, share: f64, scripted: Scripted<R>) -> Self {
        self.chances.push((share, scripted));
        let sum: f64 = self.chances.iter().map(|(share, _)| share).sum();
        assert!(share >= 0.0 && sum <= 1.0 + 1e-9, "the shares of faults add up to more than 1");
        self
    }
}

/// The settings of one stand-in, which can change at run time.
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

/// The course of a call.
#[derive(Debug)]
pub(crate) struct Plan<R> {
    pub(crate) latency: Duration,
    pub(crate) scripted: Scripted<R>,
    /// The servers that it waits for; `None` without a limit or if it is not processed.
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

    /// Returns the course of the next call. A rate limit refuses it at once. Otherwise the first of
    /// these applies: the script of its reservation, the general script, the first matching rule,
    /// random faults.
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
        self.settings.lock().expect("no code panics under this lock")
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
    fn scripts_override_rules_and_the_first_matching_rule_overrides_random_faults() {
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
    async fn a_call_above_the_rate_limit_uses_no_script_and_no_server() {
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
    fn the_script_of_a_reservation_overrides_the_general_script() {
        let knobs = Knobs::new();
        knobs.script([Scripted::replying("all")]);
        knobs.script_for("a", [Scripted::replying("a")]);
        assert_eq!(knobs.plan("a").scripted.reply, Some("a"));
        assert_eq!(knobs.plan("b").scripted.reply, Some("all"));
        assert_eq!(knobs.plan("b").scripted, Scripted::normal());
        assert_eq!(knobs.script_left(), 0);
    }

    #[test]
    fn random_faults_keep_their_shares_and_repeat_with_their_seed() {
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
    fn shares_above_1_panic() {
        let _ = Faults::none().with(0.6, Scripted::replying("")).with(0.6, Scripted::replying(""));
    }
}
