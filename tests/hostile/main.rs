//! Hostile input: the corpus of bodies with their expected results; the requests of the accepted
//! events; and 100,000 bodies made from the corpus, on which the decoder and a plain one must
//! agree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod corpus;
mod judge;
mod mutate;
mod reference;
mod requests;
mod values;

use std::collections::BTreeSet;
use std::path::Path;

use reservation_worker::event::{Event, NoEvent, Payload, PoisonReason};
use serde_json::{Map, Value, json};

use corpus::{Case, Expected};

/// The largest SQS message (AWS: "Amazon SQS message quotas").
const BODY_BYTES_MAX: usize = 1024 * 1024;

fn cases() -> Vec<Case> {
    corpus::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus")))
}

/// Returns the facts of an event that a case can name.
fn facts(event: &Event) -> Map<String, Value> {
    let mut facts = json!({
        "type": event.event_type().as_str(),
        "id": event.id.as_str(),
        "reservation_id": event.reservation_id.as_str(),
        "without_id": event.is_id_of_message,
        "event_id": event.show_id.as_ref().map(|show_id| show_id.as_str()),
        "qty": event.seats().map(|seats| seats.quantity),
        "seat_ids": event.seats().map(|seats| seats.seat_ids.iter().collect::<Vec<_>>()),
        "baggage": event.baggage,
        "traceparent": event.trace.as_ref().map(|trace| trace.parent.to_string()),
    });
    if let Payload::PaymentApproved(payment) | Payload::PaymentFailed(payment) = &event.payload {
        for (key, value) in [
            ("payment_intent_id", json!(payment.payment_intent_id)),
            ("amount", json!(payment.amount)),
            ("currency", json!(payment.currency)),
            ("user_id", json!(payment.user_id)),
            ("error_code", json!(payment.error_code)),
            ("error_message", json!(payment.error_message)),
        ] {
            facts[key] = value;
        }
    }
    facts.as_object().unwrap().clone()
}

/// Facts that only the request shows; `requests` checks them.
const OF_THE_REQUEST: [&str; 3] = ["path", "trace_id", "tracestate"];

/// Returns the difference between the expected result and the result.
fn mistake(case: &Case, found: &Result<Event, NoEvent>) -> Option<String> {
    match (&case.expected, found) {
        (Expected::Event(expected), Ok(event)) => {
            let facts = facts(event);
            expected
                .iter()
                .filter(|(key, _)| !OF_THE_REQUEST.contains(&key.as_str()))
                .find(|(key, value)| facts.get(*key) != Some(*value))
                .map(|(key, value)| format!("{key} must be {value}: {}", Value::Object(facts)))
        }
        (Expected::NoChange(status), Err(NoEvent::NoChange(found))) => {
            (found.status != *status).then(|| format!("must be {status}: {}", found.status))
        }
        (Expected::NoChange(_), found) => Some(format!("must change nothing: {found:?}")),
        (Expected::Poison { reason, says }, Err(NoEvent::Poison(poison))) => {
            let as_expected = poison.reason.as_str() == reason && poison.detail.contains(says);
            (!as_expected).then(|| format!("must be {reason}, {says}: {poison}"))
        }
        (Expected::Event(_) | Expected::Poison { .. }, Err(found)) => {
            Some(format!("must be an event, or another reason: {found:?}"))
        }
        (Expected::Poison { reason, .. }, Ok(event)) => {
            Some(format!("must be {reason}: {}", Value::Object(facts(event))))
        }
    }
}

#[test]
fn every_corpus_body_has_its_expected_result() {
    let cases = cases();
    let mut mistakes = Vec::new();
    for case in &cases {
        assert!(case.body.len() <= BODY_BYTES_MAX, "{}: larger than an SQS message", case.name);
        let found = std::panic::catch_unwind(|| judge::judge(&case.body));
        let mistake = match found {
            Ok(found) => mistake(case, &found),
            Err(_) => Some("a check failed, see above".to_owned()),
        };
        mistakes.extend(mistake.map(|mistake| format!("{}: {mistake}", case.name)));
    }
    assert!(mistakes.is_empty(), "{} of {}:\n{}", mistakes.len(), cases.len(), mistakes.join("\n"));
}

#[test]
fn the_corpus_has_a_body_for_every_poison_reason() {
    let cases = cases();
    assert!(cases.len() >= 450, "only {} bodies", cases.len());
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "a name is used twice");
    for reason in PoisonReason::ALL {
        let of_it = |case: &Case| matches!(&case.expected, Expected::Poison { reason: r, .. } if r == reason.as_str());
        assert!(cases.iter().any(of_it), "no body for {reason}");
    }
}

/// `make fuzz` starts with these bodies.
#[test]
fn both_decoders_agree_on_bodies_made_from_the_corpus() {
    const ROUNDS: usize = 100_000;
    let mut breeder = mutate::Breeder::new(cases().into_iter().map(|case| case.body), 2025);
    let (mut events, mut changeless) = (0_usize, 0_usize);
    let mut poison = [0_usize; PoisonReason::ALL.len()];
    for _ in 0..ROUNDS {
        let body = breeder.next_body();
        match judge::judge(&body) {
            Ok(_) => events += 1,
            Err(NoEvent::NoChange(_)) => changeless += 1,
            Err(NoEvent::Poison(found)) => {
                poison[PoisonReason::ALL.iter().position(|r| *r == found.reason).unwrap()] += 1;
            }
        }
    }
    // Each kind of result must occur often enough for a meaningful comparison.
    assert!(
        events >= ROUNDS / 20
            && changeless >= ROUNDS / 2000
            && poison.iter().all(|n| *n >= ROUNDS / 500),
        "{events} {changeless} {poison:?}"
    );
}
