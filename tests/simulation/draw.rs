//! Draws a plan from a seed. All probabilities are in this file, except those of `store_plan` and
//! `half_well`.

use std::time::Duration;

use fastrand::Rng;
use reservation_worker::app::AppSettings;
use reservation_worker::event::{EventId, EventType, Step, decode, idempotency_key};
use reservation_worker::retry::Backoff;
use reservation_worker::settle::RetryPolicy;
use uuid::Uuid;

use super::half_well;
use super::plan::{
    Down, EventSpec, Fate, Interrupt, Kind, MessageSpec, POINTS, Plan, QueueWeather, Weather, What,
    When, millis, pick, secs,
};
use super::rows::{API_PERMANENT, INV_MONEY, INV_PERMANENT};
use super::store_plan::StorePlan;

const VISIBILITIES_S: [u64; 8] = [5, 7, 11, 17, 23, 37, 43, 59];

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut plan = Self::drawn(seed);
        plan.show_who_is_well_again();
        if seed < half_well::FIRST { plan } else { plan.half_well() }
    }

    /// Adds one more event after the last fault. After a refusal of all calls, the engine treats
    /// the service as refusing until a call succeeds. The remaining events may all be permanently
    /// refused, so none of them could show the recovery. Without a dead-letter queue those events
    /// stay anyway.
    fn show_who_is_well_again(&mut self) {
        let mut down = self.api.down.iter().chain(&self.inventory.down);
        if !self.has_dlq || !down.any(|(.., how)| *how == Down::Forbidden) {
            return;
        }
        let (n, reservation) = (self.events.len(), self.reservations);
        self.reservations += 1;
        self.locked_until.push(secs(0));
        let rng = &mut Rng::with_seed(self.seed);
        let mut event = event(rng, "evt_last".to_owned(), EventType::ReservationExpired, n, 1);
        event.fate = Fate::Normal;
        event.reservation = reservation;
        event.body = event.body.replace("rsv_0", &format!("rsv_{reservation}"));
        event.hash = decode(&event.body, "m").expect("the body is an event").content_hash();
        self.messages.push(MessageSpec {
            at: self.calm_at + secs(10),
            kind: Kind::Event(n),
            body: event.body.clone(),
            group: self.fifo.then_some(3),
        });
        self.events.push(event);
    }

    fn drawn(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let fifo = rng.u8(0..4) == 0;
        let span = secs(rng.u64(20..=300));
        let reservations = rng.usize(1..=8);
        let events = events(rng, reservations);
        let messages = messages(rng, &events, span, fifo);
        // Rarely, an outage outlasts the longest time for which SQS lets a message be held.
        let endless = rng.u8(..) == 0;
        let outages = rng.u8(0..3) == 0;
        let longest_s = pick(rng, &[20, 60, 180, 600]);
        let mut settings = settings(rng);
        let api_timeout = millis(pick(rng, &[500, 2_000, 5_000]));
        let inventory_timeout = millis(pick(rng, &[500, 2_000]));
        settings.call_timeout_max = api_timeout.max(inventory_timeout);
        let mut api = weather(rng, span, outages, longest_s);
        if endless {
            // A short backoff would lead to about a million attempts for an event that fails alone.
            settings.policy.backoff = Backoff { base: secs(1), cap: secs(30) };
            settings.wait = secs(20);
            api.down = vec![(secs(10), secs(rng.u64(45_000..50_000)), Down::Answers)];
        }
        let both = outages && rng.bool();
        let inventory = weather(rng, span, both, longest_s);
        let queue = queue_weather(rng, span);
        let interrupts = interrupts(rng, span);
        let store = StorePlan::draw(seed, span, &messages);
        let ends = api.down.iter().chain(&inventory.down).map(|(_, to, _)| *to);
        let ends = ends.chain(queue.bad.iter().map(|(_, to)| *to)).chain([span]);
        let ends = ends.chain(store.iter().map(StorePlan::ends));
        let ends = ends.chain(messages.iter().map(|message| message.at));
        let calm_at = ends.max().unwrap_or(span) + secs(60);
        let locked =
            |rng: &mut Rng| if rng.u8(0..10) == 0 { secs(rng.u64(1..120)) } else { secs(0) };
        Self {
            seed,
            fifo,
            max_receives: pick(rng, &[3, 10, 100]),
            has_dlq: rng.u8(0..10) != 0,
            reservations,
            locked_until: (0..reservations).map(|_| locked(rng)).collect(),
            events,
            messages,
            api,
            inventory,
            queue,
            half_well: None,
            store,
            interrupts,
            grace: settings.wait + secs(rng.u64(4..30)),
            api_timeout,
            inventory_timeout,
            calm_at,
            settings,
        }
    }
}

fn events(rng: &mut Rng, reservations: usize) -> Vec<EventSpec> {
    let count = rng.usize(5..=32);
    let mut events: Vec<EventSpec> = Vec::with_capacity(count);
    for n in 0..count {
        let reused = n > 0 && rng.u8(0..30) == 0;
        let is_first = !reused;
        let (id, event_type) = if reused {
            let first = &events[rng.usize(0..n)];
            (first.id.clone(), first.event_type)
        } else {
            (format!("evt_{n}"), pick(rng, &EventType::ALL))
        };
        let mut spec = event(rng, id, event_type, n, reservations);
        if is_first && event_type == EventType::ReservationExpired && n % 3 == 0 {
            spec.leave_hold_to_the_api();
        }
        events.push(spec);
    }
    events
}

fn event(
    rng: &mut Rng,
    id: String,
    event_type: EventType,
    n: usize,
    reservations: usize,
) -> EventSpec {
    let reservation = rng.usize(0..reservations);
    // A payment may name no seats. The number of seats also distinguishes two contents with the
    // same id.
    let named = event_type == EventType::ReservationExpired || rng.u8(0..4) != 0;
    let seats = if named { 1 + u32::try_from(n).expect("the number is small") } else { 0 };
    let key_id = EventId::new(&id).expect("the id is valid");
    let mut steps = vec![Step::ReservationStatus];
    match event_type {
        EventType::PaymentApproved if named => steps.push(Step::InventoryCommit),
        EventType::ReservationExpired | EventType::PaymentFailed if named => {
            steps.push(Step::InventoryRelease);
        }
        EventType::PaymentApproved | EventType::ReservationExpired | EventType::PaymentFailed => {}
    }
    let steps: Vec<_> = steps.into_iter().map(|s| (s, idempotency_key(&key_id, s))).collect();
    let fate = fate(rng, &steps);
    let qty = if named { format!(r#""qty":{seats},"#) } else { String::new() };
    let body = format!(
        r#"{{"id":"{id}","type":"{event_type}","reservation_id":"rsv_{reservation}","event_id":"show","payload":{{{qty}"payment_intent_id":"pay_{n}"}}}}"#
    );
    let hash = decode(&body, "m").expect("the body is an event").content_hash();
    let asks = false;
    EventSpec { number: n, id, event_type, reservation, seats, steps, fate, asks, body, hash }
}

impl EventSpec {
    /// Removes the seats from the body, and for half of the events the show: the worker must ask
    /// the Reservation API for them.
    fn leave_hold_to_the_api(&mut self) {
        let (id, reservation) = (&self.id, self.reservation);
        let show = if self.number.is_multiple_of(2) { r#""event_id":"show","# } else { "" };
        self.body = format!(
            r#"{{"id":"{id}","type":"reservation.expired",{show}"reservation_id":"rsv_{reservation}"}}"#
        );
        self.hash = decode(&self.body, "m").expect("the body is an event").content_hash();
        self.seats = hold_of(reservation);
        self.asks = true;
    }
}

/// The number of seats that the Reservation API returns. No event names as many.
pub(crate) fn hold_of(reservation: usize) -> u32 {
    1_000 + u32::try_from(reservation).expect("the number is small")
}

fn fate(rng: &mut Rng, steps: &[(Step, Uuid)]) -> Fate {
    match (rng.u8(0..24), steps.get(1)) {
        (0, _) => Fate::Refused(0, pick(rng, &API_PERMANENT)),
        (1, Some(_)) => Fate::Refused(1, pick(rng, &INV_PERMANENT)),
        (2 | 3, Some((Step::InventoryCommit, _))) => Fate::Refused(1, pick(rng, &INV_MONEY)),
        _ => Fate::Normal,
    }
}

fn messages(rng: &mut Rng, events: &[EventSpec], span: Duration, fifo: bool) -> Vec<MessageSpec> {
    let at = |rng: &mut Rng| span.mul_f64(rng.f64());
    let mut messages = Vec::new();
    for (n, event) in events.iter().enumerate() {
        let group =
            fifo.then(|| u32::try_from(event.reservation % 3).expect("the number is small"));
        let copies = if rng.u8(0..6) == 0 { 2 } else { 1 };
        let first = at(rng);
        for copy in 0..copies {
            // The copy follows soon or much later.
            let later = if copy == 0 { secs(0) } else { span.mul_f64(rng.f64() * rng.f64()) };
            messages.push(MessageSpec {
                at: first + later,
                kind: Kind::Event(n),
                body: event.body.clone(),
                group,
            });
        }
    }
    const POISON: [(&str, &str); 4] = [
        ("{", "invalid_json"),
        ("[]", "invalid_envelope"),
        (
            r#"{"id":"p","type":"x.y","reservation_id":"r","event_id":"s","payload":{}}"#,
            "unknown_type",
        ),
        (
            r#"{"id":"p","type":"reservation.expired","reservation_id":"r","event_id":"s","payload":{"qty":0}}"#,
            "invalid_event",
        ),
    ];
    for _ in 0..rng.usize(0..3) {
        let (body, reason) = pick(rng, &POISON);
        let group = fifo.then(|| rng.u32(0..3));
        let kind = Kind::Poison(reason);
        messages.push(MessageSpec { at: at(rng), kind, body: body.to_owned(), group });
    }
    messages.sort_by_key(|message| message.at);
    messages
}

fn window(rng: &mut Rng, span: Duration, longest_s: u64) -> (Duration, Duration) {
    let from = span.mul_f64(rng.f64());
    (from, from + secs(rng.u64(1..=longest_s)))
}

fn weather(rng: &mut Rng, span: Duration, outage: bool, longest_s: u64) -> Weather {
    let down = |rng: &mut Rng| {
        let (from, to) = window(rng, span, longest_s);
        let how = match rng.u8(0..8) {
            0 => Down::Silent,
            1 => Down::Shared500,
            2 => Down::Forbidden,
            _ => Down::Answers,
        };
        (from, to, how)
    };
    Weather {
        faults_pct: pick(rng, &[0, 0, 5, 15, 40]),
        down: if outage { (0..rng.usize(1..=2)).map(|_| down(rng)).collect() } else { vec![] },
        slow: if rng.u8(0..4) == 0 { vec![window(rng, span, 60)] } else { vec![] },
    }
}

fn queue_weather(rng: &mut Rng, span: Duration) -> QueueWeather {
    QueueWeather {
        faults_pct: pick(rng, &[0, 0, 3, 10, 25]),
        duplicates_pct: pick(rng, &[0, 5, 20]),
        bad: if rng.u8(0..4) == 0 { vec![window(rng, span, 90)] } else { vec![] },
    }
}

fn interrupts(rng: &mut Rng, span: Duration) -> Vec<Interrupt> {
    let mut all = Vec::new();
    for (what, most) in [(What::Crash, 3), (What::Term, 2)] {
        // Half of the seeds have no interrupt of this kind, so that long lives are covered too.
        let count = if rng.bool() { 0 } else { rng.usize(1..=most) };
        for _ in 0..count {
            let when = match (rng.u8(0..4), what) {
                (0, _) => When::At(span.mul_f64(rng.f64() * 1.5)),
                (1, What::Crash) => When::Leaving(rng.u64(1..12)),
                (2, _) => When::Point(pick(rng, &POINTS), rng.u64(1..6)),
                _ => When::Gate(rng.u64(1..400)),
            };
            all.push(Interrupt { what, when });
        }
    }
    all
}

fn settings(rng: &mut Rng) -> AppSettings {
    let concurrency = rng.usize(1..=20);
    let base = millis(pick(rng, &[10, 200, 1_000, 5_000]));
    AppSettings {
        queue_name: "simulated".to_owned(),
        wait: secs(pick(rng, &[0, 1, 5, 20])),
        visibility: secs(pick(rng, &VISIBILITIES_S)),
        concurrency,
        in_flight_max: concurrency + pick(rng, &[0, 1, 5, 20, 100]),
        in_flight_bytes_max: pick(rng, &[2, 64]) << 20,
        policy: RetryPolicy {
            retries_max: rng.u32(0..=5),
            backoff: Backoff { base, cap: base * pick(rng, &[1, 8, 30]) },
        },
        call_timeout_max: secs(5),
    }
}
