//! SIGTERM at each moment of a message's life, once and twice. The worker exits in time with code
//! 0, or at once after the second signal, and its messages are finished or handed back.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sandbox::redis::is_installed;

use super::kill::{restore, started, world};
use super::moment::{Moment, calls_fit};
use crate::account::Account;
use crate::case::{Case, Seen, rounds};
use crate::failed::{Failed, ensure};
use crate::worker::Ended;
use crate::world::{Setting, Started};

const AT_ONCE: usize = 8;
const LIMIT: Duration = Duration::from_secs(60);

/// `SHUTDOWN_GRACE` in seconds.
const GRACE_S: u64 = 6;

/// Time for a process to exit and for the exit to be seen, on a busy machine.
const MARGIN: Duration = Duration::from_millis(1_000);

/// The exit code of SIGTERM in a shell.
const TERMINATED: i32 = 143;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "term",
        injected: "SIGTERM at each of those 20 moments; then calls and answers under way arrive",
        must_hold: "exit code 0 within SHUTDOWN_GRACE (6 s); all is finished or handed back, visible at once; nothing is called again",
        is_short: false,
        run: |setting| Box::pin(all(setting, Form::Passing)),
    },
    Case {
        name: "term-held",
        injected: "SIGTERM at each of those moments, while nothing arrives any more",
        must_hold: "exit code 0 within SHUTDOWN_GRACE (6 s) all the same",
        is_short: false,
        run: |setting| Box::pin(all(setting, Form::Held)),
    },
    Case {
        name: "term-twice",
        injected: "SIGTERM at each of those moments, and once more during the drain",
        must_hold: "exit code 143 at once; the next process does what is left",
        is_short: false,
        run: |setting| Box::pin(all(setting, Form::Twice)),
    },
];

/// What happens after the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Bytes in transit arrive.
    Passing,
    /// Bytes in transit stay held.
    Held,
    /// A second signal is sent.
    Twice,
}

async fn all(setting: Setting, form: Form) -> Result<Seen, Failed> {
    let moments = if is_installed("SIGTERM with a shared store") {
        [Moment::PLAIN.as_slice(), Moment::STORE.as_slice()].concat()
    } else {
        Moment::PLAIN.to_vec()
    };
    let times = if setting.is_short { 1 } else { 2 };
    let one = |number: usize| {
        let moment = moments[number % moments.len()];
        let place = format!("{moment:?}, round {number}");
        let round = round(setting.clone(), moment, number, form);
        async move { round.await.map_err(|failed| failed.at(place)) }
    };
    let done = rounds(moments.len() * times, AT_ONCE, one).await?;
    let (mut sum, mut slowest) = (Account::default(), Duration::ZERO);
    for (account, took) in &done {
        sum += *account;
        slowest = slowest.max(*took);
    }
    let slowest = slowest.as_secs_f64();
    Ok(Seen::Held(format!("{} exits, the slowest after {slowest:.1} s; {sum}", done.len())))
}

async fn round(
    setting: Setting,
    moment: Moment,
    number: usize,
    form: Form,
) -> Result<(Account, Duration), Failed> {
    let mut world = world(&setting, moment, moment.needs_store()).await?;
    world.set("SHUTDOWN_GRACE", GRACE_S);
    let mut worker = started(&world).await?;
    if form == Form::Held {
        world.harm.begin();
    }
    let marked = moment.reach(&mut world, &worker, number).await?;
    let told_at = Instant::now();
    worker.signal(Signal::TERM);
    worker.says("Leaving").await?;
    let took = match form {
        Form::Passing => {
            world.let_pass();
            world.to_api.accept().await?;
            left(&mut worker, told_at).await?
        }
        Form::Held => {
            let took = left(&mut worker, told_at).await?;
            // Its bytes in transit have not arrived and never will.
            world.harm.end();
            world.harm.killed();
            took
        }
        Form::Twice => {
            let took = left_at_once(&mut worker, moment).await?;
            world.harm.killed();
            took
        }
    };
    if form == Form::Passing && moment != Moment::Waiting {
        let counts = world.sqs.counts(&world.queue);
        ensure(counts.in_flight == 0, || {
            format!("left hidden: {counts:?}\n{}", worker.last_lines(10))
        })?;
    }
    restore(&world).await?;
    let mut next = started(&world).await?;
    let account = Account::settled(&world, LIMIT).await?;
    let again = match form {
        Form::Passing => moment.again(moment.needs_store()).map(|_| [false, false]),
        Form::Held | Form::Twice => None,
    };
    calls_fit(&world, &marked, again)?;
    next.leave(LIMIT).await?;
    Ok((account, took))
}

async fn left(worker: &mut Started, told_at: Instant) -> Result<Duration, Failed> {
    let grace = Duration::from_secs(GRACE_S) + MARGIN;
    let ended = worker.ended(grace.saturating_sub(told_at.elapsed())).await?;
    let took = told_at.elapsed();
    ensure(ended == Ended::Code(0), || format!("{ended:?}:\n{}", worker.last_lines(10)))?;
    ensure(worker.log().contains("\"balanced\":true"), || {
        format!("its own account does not balance:\n{}", worker.last_lines(1))
    })?;
    Ok(took)
}

async fn left_at_once(worker: &mut Started, moment: Moment) -> Result<Duration, Failed> {
    let told_at = Instant::now();
    worker.signal(Signal::TERM);
    let ended = worker.ended(MARGIN).await?;
    // If all work is already done, the process may exit before the second signal.
    let is_good =
        ended == Ended::Code(TERMINATED) || (moment == Moment::Deleted && ended == Ended::Code(0));
    ensure(is_good, || format!("{ended:?}:\n{}", worker.last_lines(10)))?;
    Ok(told_at.elapsed())
}
