//! Services that refuse every event permanently, or a proxy that answers in their place: the events
//! are not at fault.

use std::time::Duration;

use sandbox::reservation_api::Reply;
use sandbox::script::{Rule, Scripted};
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::case::{Case, Seen, rounds};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::progress::{Fates, Progress};
use crate::world::{Setting, World};

const EVENTS: usize = 200;

/// Maximum number of dead letters under a service that refuses every event.
const LETTERS_MAX: usize = 5;

const SETTLED_MAX: Duration = Duration::from_secs(60);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "refusing-all",
        injected: "for 20 s every call is answered 422 with the API's error body; 200 good events are sent",
        must_hold: "at most five dead letters; all others are done after the cure",
        is_short: true,
        run: |setting| Box::pin(refusing(setting)),
    },
    Case {
        name: "proxy-html",
        injected: "200 good events are answered 400, 404, 421 without the API's error body, or 200 text/html, for 20 s each",
        must_hold: "none is dead-lettered, none deleted; all are done after the cure, each once",
        is_short: false,
        run: |setting| Box::pin(proxied(setting)),
    },
];

fn lasts(setting: &Setting) -> Duration {
    Duration::from_secs(if setting.is_short { 4 } else { 20 })
}

/// Starts a worker and lets it handle some events without faults.
async fn well(setting: &Setting) -> Result<(World, crate::world::Started), Failed> {
    let mut world = World::start(setting).await?;
    world.use_defaults();
    let worker = world.started().await?;
    world.send_all(crowd("before", 50));
    Account::settled(&world, SETTLED_MAX).await?;
    Ok((world, worker))
}

async fn refusing(setting: Setting) -> Result<Seen, Failed> {
    let (mut world, mut worker) = well(&setting).await?;
    world.api.set_rules([Rule::all(Scripted::<Reply>::status(422))]);
    crowd("good", EVENTS).into_iter().for_each(|event| world.send_judged(event));
    // The duration is part of the fault; there is no condition to wait for.
    sleep(lasts(&setting)).await;
    let letters = world.sqs.counts(&world.dlq).total();
    ensure(letters <= LETTERS_MAX, || format!("{letters} of {EVENTS} good events dead-lettered"))?;
    world.api.set_rules([]);
    let cured_at = Instant::now();
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let (took, fates) = (cured_at.elapsed().as_secs_f64(), Fates::of(&world)?);
    ensure(
        fates.done + fates.dead_lettered == EVENTS && fates.dead_lettered <= LETTERS_MAX,
        || format!("of {EVENTS} good events: {fates}"),
    )?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!(
        "{EVENTS} good events: {fates}; all {took:.1} s after the cure; {} calls",
        account.calls
    )))
}

fn answers() -> [(&'static str, Scripted<Reply>); 4] {
    let html = |status| {
        let answer = Scripted::<Reply>::status(status).without_error_body();
        answer.header("Content-Type", "text/html")
    };
    [("400", html(400)), ("404", html(404)), ("421", html(421)), ("200 text/html", html(200))]
}

async fn proxied(setting: Setting) -> Result<Seen, Failed> {
    let round = |number: usize| {
        let (name, answer) = answers()[number].clone();
        let setting = setting.clone();
        // All rounds run to their end, also if one fails.
        async move { Ok((name, in_between(&setting, answer).await)) }
    };
    let mut seen = rounds(answers().len(), 4, round).await?;
    seen.sort_by_key(|(name, _)| *name);
    let text = |(name, seen): &(&str, Result<String, Failed>)| match seen {
        Ok(figures) => format!("{name}: {figures}"),
        Err(failed) => format!("{name}: NOT HELD: {failed}"),
    };
    let figures = seen.iter().map(text).collect::<Vec<_>>().join("; ");
    ensure(seen.iter().all(|(_, seen)| seen.is_ok()), || figures.clone())?;
    Ok(Seen::Held(figures))
}

async fn in_between(setting: &Setting, answer: Scripted<Reply>) -> Result<String, Failed> {
    let (mut world, mut worker) = well(setting).await?;
    world.api.set_rules([Rule::all(answer)]);
    world.send_all(crowd("good", EVENTS));
    // The duration is part of the fault; there is no condition to wait for.
    sleep(lasts(setting)).await;
    let (letters, left) =
        (world.sqs.counts(&world.dlq).total(), world.sqs.counts(&world.queue).total());
    ensure(letters == 0 && left == EVENTS, || {
        let deleted = EVENTS.saturating_sub(letters + left);
        format!("{letters} dead-lettered, {deleted} deleted undone")
    })?;
    world.api.set_rules([]);
    let cured_at = Instant::now();
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let last = Progress::good(&world).last_at().unwrap_or(cured_at);
    worker.leave(SETTLED_MAX).await?;
    let took = last.saturating_duration_since(cured_at).as_secs_f64();
    Ok(format!("all done {took:.1} s after the cure, {} calls", account.calls))
}
