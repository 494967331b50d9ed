//! Services that request fewer calls, in every valid form and in invalid ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sandbox::inventory::Reply as RpcReply;
use sandbox::ledger::{Answer, Call, Service};
use sandbox::reservation_api::Reply;
use sandbox::script::Scripted;
use tokio::time::Instant;
use tonic::Code;

use crate::account::Account;
use crate::case::{Case, Seen, rounds};
use crate::events::{Event, Kind, crowd};
use crate::failed::{Failed, ensure};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(60);

/// The longest pause that the worker accepts from a service.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The pause in the cases that name seconds.
const PAUSE: Duration = Duration::from_secs(3);

/// Tolerance for the timers of two processes on a busy machine and for rounding to milliseconds.
const SLACK: Duration = Duration::from_millis(20);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "retry-after",
        injected: "429 and 503 with Retry-After, in seconds and as a date, gRPC RetryInfo: 3 to 5 s; MAX_RETRIES=0",
        must_hold: "the event with that answer is not called for before then, and the others are; it costs no retry; each event takes effect once",
        is_short: false,
        run: |setting| Box::pin(sensible(setting)),
    },
    Case {
        name: "retry-after-absurd",
        injected: "Retry-After of 0, -5, 1e9, banana, dates long ago, RetryInfo of nothing; MAX_RETRIES=5",
        must_hold: "the worker goes on at once or after a backoff",
        is_short: false,
        run: |setting| Box::pin(absurd(setting)),
    },
    Case {
        name: "retry-after-far",
        injected: "Retry-After of 999999999, of the year 9999, RetryInfo of ten years",
        must_hold: "5 minutes are waited, no more and no less; events wait, held",
        is_short: false,
        run: |setting| Box::pin(far(setting)),
    },
];

#[derive(Clone)]
enum Answered {
    Rest(Scripted<Reply>),
    Rpc(Scripted<RpcReply>),
}

fn rest(status: u16, retry_after: &str) -> Answered {
    Answered::Rest(Scripted::<Reply>::status(status).header("Retry-After", retry_after))
}

fn rpc(code: Code, pause: Duration) -> Answered {
    Answered::Rpc(Scripted::<RpcReply>::code_with_retry_info(code, pause))
}

/// Returns an HTTP date in `after_s` seconds, cut to a whole second, and its `Instant`.
fn date(after_s: u64) -> (String, Instant) {
    let now = SystemTime::now();
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = UNIX_EPOCH + Duration::from_secs(since_1970.as_secs() + after_s);
    let left = at.duration_since(now).unwrap_or_default();
    (httpdate::fmt_http_date(at), Instant::now() + left)
}

async fn sensible(setting: Setting) -> Result<Seen, Failed> {
    let answers = |number: usize| match number {
        0 => (rest(429, "3"), None),
        1 | 3 => {
            let (text, at) = date(5);
            (rest(if number == 1 { 429 } else { 503 }, &text), Some(at))
        }
        2 => (rest(503, "3"), None),
        4 => (rpc(Code::ResourceExhausted, PAUSE), None),
        _ => (rpc(Code::Unavailable, PAUSE), None),
    };
    let round = |number: usize| {
        let setting = setting.clone();
        async move {
            let (answered, named) = answers(number);
            let (account, paused) = paced(setting, answered, 0).await?;
            let Paused { told_at, until } = paused;
            let named = named.unwrap_or(told_at + PAUSE);
            ensure(until + SLACK >= named, || {
                format!("form {number}: called {:?} too early", named - until)
            })?;
            Ok((account, paused))
        }
    };
    Ok(Seen::Held(summary(&rounds(6, 6, round).await?)))
}

async fn absurd(setting: Setting) -> Result<Seen, Failed> {
    let values =
        ["0", "-5", "1e9", "banana", "", "Thu, 01 Jan 1970 00:00:00 GMT", "18446744073709551616x"];
    let round = |number: usize| {
        let setting = setting.clone();
        async move {
            let answered = match values.get(number) {
                Some(value) => rest(429, value),
                None => rpc(Code::ResourceExhausted, Duration::ZERO),
            };
            paced(setting, answered, 5).await
        }
    };
    let done = rounds(values.len() + 1, 4, round).await?;
    let longest = done.iter().map(|(_, paused)| paused.lasted()).max().unwrap_or_default();
    ensure(longest < Duration::from_secs(30), || format!("it paused for {longest:?}"))?;
    Ok(Seen::Held(summary(&done)))
}

async fn far(setting: Setting) -> Result<Seen, Failed> {
    let ten_years = Duration::from_secs(10 * 365 * 86_400);
    let round = |number: usize| {
        let setting = setting.clone();
        async move {
            let answered = match number {
                0 => rest(429, "999999999"),
                1 => rest(503, "Fri, 31 Dec 9999 23:59:59 GMT"),
                _ => rpc(Code::Unavailable, ten_years),
            };
            let (account, paused) = paced(setting, answered, 0).await?;
            let pause = paused.lasted();
            let fits = pause + SLACK >= PAUSE_MAX && pause < PAUSE_MAX + Duration::from_secs(30);
            ensure(fits, || format!("form {number}: it paused for {pause:?}"))?;
            Ok((account, paused))
        }
    };
    Ok(Seen::Held(summary(&rounds(3, 3, round).await?)))
}

/// The time between the request to pause and the next call for the event.
#[derive(Clone, Copy, Debug)]
struct Paused {
    told_at: Instant,
    until: Instant,
}

impl Paused {
    fn lasted(self) -> Duration {
        self.until.saturating_duration_since(self.told_at)
    }
}

fn summary(done: &[(Account, Paused)]) -> String {
    let mut sum = Account::default();
    done.iter().for_each(|(account, _)| sum += *account);
    let mut pauses: Vec<_> =
        done.iter().map(|(_, paused)| format!("{:.1}", paused.lasted().as_secs_f64())).collect();
    pauses.sort();
    format!("{sum}; paused for {} s", pauses.join(", "))
}

/// Lets one event get this response while others come in. Returns how long the service was not
/// called for it.
async fn paced(
    setting: Setting,
    answered: Answered,
    retries_max: u32,
) -> Result<(Account, Paused), Failed> {
    let mut world = World::start(&setting).await?;
    world.set("MAX_RETRIES", retries_max);
    let mut worker = world.started().await?;
    let first = Event::new("first", Kind::Expired);
    let told = first.reservation.clone();
    let service = match answered {
        Answered::Rest(answer) => {
            world.api.script_for(&first.reservation, [answer]);
            Service::ReservationApi
        }
        Answered::Rpc(answer) => {
            world.inventory.script_for(&first.reservation, [answer]);
            Service::Inventory
        }
    };
    world.send(first);
    let of_it = |call: &&Call| call.service == service && call.reservation_id == told;
    let was_told = |ledger: &sandbox::ledger::Ledger| {
        ledger.calls().iter().filter(of_it).any(|call| call.answer != Answer::Pending)
    };
    ensure(world.ledger.wait_until(was_told, SETTLED_MAX).await, || "no call".to_owned())?;
    // The worker has also received the response.
    worker.counts("worker_retries_total", &[], 1.0).await?;
    world.send_all(crowd("others", 20));
    let account = Account::settled(&world, PAUSE_MAX + SETTLED_MAX).await?;
    let calls: Vec<Call> = world.ledger.calls().iter().filter(of_it).cloned().collect();
    let told_at = calls[0].answered_at.unwrap_or(calls[0].at);
    let next = calls.get(1).ok_or_else(|| Failed("it was not called again".to_owned()))?;
    worker.leave(SETTLED_MAX).await?;
    Ok((account, Paused { told_at, until: next.at }))
}
