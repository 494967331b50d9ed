//! Times of events: the duration of each from sending to its last effect, and the outcome of those
//! that the case itself checks.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use sandbox::ledger::Call;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::account::{Expected, Sent, has_succeeded, original_id};
use crate::events::Event;
use crate::failed::{Failed, ensure};
use crate::world::World;

/// Interval between the points in the course that a failure shows.
const POINTS_EVERY: Duration = Duration::from_secs(30);

/// Events and when they were done.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Per event in sending order: when it was sent, and when it had its last effect.
    moments: Vec<(Instant, Option<Instant>)>,
}

impl Progress {
    /// Returns the events that must take effect.
    #[must_use]
    pub fn good(world: &World) -> Self {
        Self::of(world, |sent| sent.expected == Expected::Applied)
    }

    /// Returns the events that `which` selects.
    #[must_use]
    pub fn of(world: &World, which: impl Fn(&Sent) -> bool) -> Self {
        let calls = world.ledger.calls();
        let done = done_at(&calls);
        let moment = |sent: &Sent| {
            let event = sent.event.as_ref()?;
            Some((sent.at, done_at_of(event, &done)))
        };
        let moments = world.sent.iter().filter(|sent| which(sent)).filter_map(moment).collect();
        Self { moments }
    }

    /// Returns the number of events.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.moments.len()
    }

    /// Returns the number of events that are done.
    #[must_use]
    pub fn done(&self) -> usize {
        self.times().len()
    }

    /// Returns the number of events done within `limit`.
    #[must_use]
    pub fn within(&self, limit: Duration) -> usize {
        self.times().into_iter().filter(|time| *time <= limit).count()
    }

    /// Returns the number of events done by the time `at`.
    #[must_use]
    pub fn done_by(&self, at: Instant) -> usize {
        self.moments.iter().filter(|(_, done)| done.is_some_and(|done| done <= at)).count()
    }

    /// Returns when the last done event was done; none if no event is done.
    #[must_use]
    pub fn last_at(&self) -> Option<Instant> {
        self.moments.iter().filter_map(|(_, done)| *done).max()
    }

    /// Returns the duration that this share (0 to 1) of the done events did not exceed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        quantile(self.times(), share)
    }

    /// Checks that each event was done within `limit`.
    ///
    /// # Errors
    /// The number that was done, and the course.
    pub fn all_within(&self, limit: Duration) -> Result<(), Failed> {
        let (within, sent) = (self.within(limit), self.sent());
        ensure(within == sent && sent > 0, || {
            format!(
                "{within} of {sent} good events within {} s: {self}{}",
                limit.as_secs(),
                self.course()
            )
        })
    }

    fn times(&self) -> Vec<Duration> {
        let time =
            |(sent, done): &(Instant, Option<Instant>)| Some(done.as_ref()?.duration_since(*sent));
        self.moments.iter().filter_map(time).collect()
    }

    /// Returns done events of sent events at regular points in time.
    fn course(&self) -> String {
        let Some((began, _)) = self.moments.first() else { return String::new() };
        let sent_last = self.moments.last().map_or(*began, |(sent, _)| *sent);
        let end = self.last_at().unwrap_or(sent_last).max(sent_last);
        let mut text = String::new();
        let mut point = POINTS_EVERY;
        while *began + point < end {
            let at = *began + point;
            let sent = self.moments.iter().filter(|(sent, _)| *sent <= at).count();
            text += &format!("; at {} s {} of {sent}", point.as_secs(), self.done_by(at));
            point += POINTS_EVERY;
        }
        text
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, all] = [0.5, 0.99, 1.0].map(|share| self.quantile(share).as_secs_f64());
        let (done, sent) = (self.done(), self.sent());
        write!(
            out,
            "{done} of {sent} good done, p50 {half:.2} s, p99 {most:.2} s, slowest {all:.2} s"
        )
    }
}

/// Returns the value that this share (0 to 1) does not exceed; zero for an empty list.
#[must_use]
pub fn quantile(mut times: Vec<Duration>, share: f64) -> Duration {
    times.sort_unstable();
    let is_in = |place: usize| percent(place + 1, times.len()) >= share * 100.0;
    let place = (0..times.len()).find(|place| is_in(*place));
    place.and_then(|place| times.get(place).copied()).unwrap_or_default()
}

/// Returns `part` of `whole` in percent; 0 of 0 is 0.
#[must_use]
pub fn percent(part: usize, whole: usize) -> f64 {
    let number = |count: usize| u32::try_from(count).map_or(f64::from(u32::MAX), f64::from);
    if whole == 0 { 0.0 } else { 100.0 * number(part) / number(whole) }
}

/// Returns `count` per second of `time`.
#[must_use]
pub fn per_second(count: u64, time: Duration) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from) / time.as_secs_f64().max(1e-9)
}

/// Returns the time of each effect by its idempotency key.
fn done_at(calls: &[Call]) -> HashMap<&str, Instant> {
    calls.iter().filter_map(|call| Some((call.key.as_deref()?, call.effect?.1))).collect()
}

fn done_at_of(event: &Event, done: &HashMap<&str, Instant>) -> Option<Instant> {
    let [first, last] = event.keys().map(|key| done.get(key.as_str()).copied());
    first.zip(last).map(|(first, last)| first.max(last))
}

/// Outcomes of the events that the case itself checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Events whose last step is done.
    pub done: usize,
    /// Events in the dead-letter queue.
    pub dead_lettered: usize,
    /// Events still in the queue.
    pub queued: usize,
}

impl Fates {
    /// Returns the outcomes of the events that the case checks.
    ///
    /// # Errors
    /// The first lost event.
    pub fn of(world: &World) -> Result<Self, Failed> {
        let (letters, left) = (world.sqs.peek_all(&world.dlq), world.sqs.peek_all(&world.queue));
        let letters: BTreeSet<&str> = letters.iter().map(original_id).collect();
        let left: BTreeSet<&str> = left.iter().map(|message| message.id.as_str()).collect();
        let calls = world.ledger.calls();
        let succeeded = calls.iter().filter(|call| has_succeeded(call));
        let done: BTreeSet<&str> = succeeded.filter_map(|call| call.key.as_deref()).collect();
        let mut fates = Self::default();
        for sent in world.sent.iter().filter(|sent| sent.expected == Expected::Judged) {
            let Some(event) = &sent.event else { continue };
            let id = sent.message_id.as_str();
            // Another event of the reservation may have set the status, so the last step decides.
            if event.keys().last().is_some_and(|key| done.contains(key.as_str())) {
                fates.done += 1;
            } else if letters.contains(id) {
                fates.dead_lettered += 1;
            } else {
                ensure(left.contains(id), || format!("{} is lost", event.id))?;
                fates.queued += 1;
            }
        }
        Ok(fates)
    }
}

impl fmt::Display for Fates {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, dead_lettered, queued } = self;
        write!(
            out,
            "{done} done in the end, {dead_lettered} set aside, {queued} still queued, lost 0"
        )
    }
}

/// Sends events at a constant rate for the given duration. `send` gets the number of each event.
pub async fn feed(
    world: &mut World,
    per_second: u32,
    lasts: Duration,
    mut send: impl FnMut(&mut World, usize),
) {
    let began = Instant::now();
    let mut turns = interval(Duration::from_secs(1) / per_second);
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0.. {
        turns.tick().await;
        if began.elapsed() >= lasts {
            return;
        }
        send(world, number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sandbox::sqs::{NewMessage, QueueSpec};

    use super::*;
    use crate::events::Kind;
    use crate::world::Setting;

    fn progress(times_ms: &[Option<u64>]) -> Progress {
        let sent = Instant::now();
        let moment = |time: &Option<u64>| (sent, time.map(|ms| sent + Duration::from_millis(ms)));
        Progress { moments: times_ms.iter().map(moment).collect() }
    }

    #[test]
    fn an_unfinished_event_is_within_no_limit() {
        let progress = progress(&[Some(100), Some(5_000), Some(5_001), None]);
        let limit = Duration::from_secs(5);
        assert_eq!((progress.sent(), progress.done(), progress.within(limit)), (4, 3, 2));
        let failed = progress.all_within(limit).unwrap_err().0;
        assert!(failed.starts_with("2 of 4 good events within 5 s: 3 of 4 good done"), "{failed}");
        assert!(
            Progress::default().all_within(limit).is_err(),
            "no events do not count as success"
        );
        let (began, _) = progress.moments[0];
        assert_eq!(progress.done_by(began + limit), 2);
        assert_eq!(progress.last_at(), Some(began + Duration::from_millis(5_001)));
    }

    #[test]
    fn quantiles_are_measured_values() {
        let times = |share| quantile((1..=100).map(Duration::from_secs).collect(), share).as_secs();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(times), [1, 50, 99, 100]);
        assert_eq!(quantile(Vec::new(), 0.5), Duration::ZERO);
    }

    #[test]
    fn the_course_shows_done_of_sent_events_over_time() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let moments = vec![
            (began, Some(after(1))),
            (after(20), Some(after(40))),
            (after(50), None),
            (after(70), Some(after(71))),
        ];
        assert_eq!(Progress { moments }.course(), "; at 30 s 1 of 2; at 60 s 2 of 3");
    }

    async fn world() -> World {
        let here = std::path::PathBuf::from(".");
        let setting = Setting { program: here.clone(), folder: here, is_short: true };
        World::start(&setting).await.unwrap()
    }

    #[tokio::test]
    async fn an_event_counts_as_queued_dead_lettered_or_lost() {
        let mut world = world().await;
        world.send_judged(Event::new("a", Kind::Expired));
        world.send_judged(Event::new("b", Kind::Expired));
        let queued = Fates { queued: 2, ..Fates::default() };
        assert_eq!(Fates::of(&world), Ok(queued));
        let copy = |number: usize| {
            NewMessage::new("a copy").attribute("dlq_message_id", &*world.sent[number].message_id)
        };
        // As a worker does it. Then the queue is recreated, which loses its messages.
        world.sqs.send_message(&world.dlq, copy(0)).unwrap();
        world.sqs.create_queue("events", QueueSpec::default());
        assert_eq!(Fates::of(&world), Err(Failed("evt_b is lost".to_owned())));
        world.sqs.send_message(&world.dlq, copy(1)).unwrap();
        assert_eq!(Fates::of(&world), Ok(Fates { dead_lettered: 2, ..Fates::default() }));
    }

    #[tokio::test]
    async fn a_feed_sends_at_a_constant_rate_and_ends() {
        let mut world = world().await;
        let began = Instant::now();
        feed(&mut world, 50, Duration::from_millis(400), |world, number| {
            world.send(Event::new(&number.to_string(), Kind::Expired));
        })
        .await;
        assert!(began.elapsed() >= Duration::from_millis(400));
        let progress = Progress::good(&world);
        assert!((15..=20).contains(&progress.sent()), "{progress}");
        assert_eq!(progress.done(), 0);
    }
}
