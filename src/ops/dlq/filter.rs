//! Which dead letters a command is about. All conditions must hold.

use std::time::SystemTime;

use super::letter::Letter;
use crate::cli::Filter;

/// Whether all conditions hold for a letter.
pub(super) fn matches(filter: &Filter, letter: &Letter, now: SystemTime) -> bool {
    let ids = [&*letter.message.id.0, letter.message.original_id()];
    let age = letter.since().map(|at| now.duration_since(at).unwrap_or_default());
    allows(&filter.reasons, letter.reason().as_slice())
        && allows(&filter.event_types, &[letter.event_type.as_str()])
        && allows(&filter.reservations, letter.reservation_id.as_deref().as_slice())
        && allows(&filter.events, &[letter.identity()])
        && allows(&filter.message_ids, &ids)
        && filter.older_than.is_none_or(|least| age.is_some_and(|age| age >= least))
        && filter.newer_than.is_none_or(|most| age.is_some_and(|age| age < most))
        && filter.origin.is_none_or(|origin| origin == letter.origin())
}

fn allows(allowed: &[String], found: &[&str]) -> bool {
    allowed.is_empty() || found.iter().any(|found| allowed.iter().any(|one| one == found))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::Origin;
    use crate::ops::dlq::tests::{body, message, text, the_time};

    fn letter() -> Letter {
        let hour_ago =
            (the_time() - Duration::from_secs(3_600)).duration_since(SystemTime::UNIX_EPOCH);
        let attributes = vec![
            text("dlq_reason", "rejected"),
            text("dlq_message_id", "original-1"),
            text("dlq_at_ms", &hour_ago.expect("after 1970").as_millis().to_string()),
        ];
        Letter::new(message("m-1", &body("evt-1", "rsv-1"), attributes))
    }

    fn filters() -> Vec<(&'static str, Filter, Filter)> {
        let of = |value: &str| vec!["other".to_owned(), value.to_owned()];
        let none = Filter::default;
        let (short, long) = (Some(Duration::from_secs(3_600)), Some(Duration::from_secs(3_601)));
        vec![
            (
                "reason",
                Filter { reasons: of("rejected"), ..none() },
                Filter { reasons: of("forbidden"), ..none() },
            ),
            (
                "type",
                Filter { event_types: of("reservation.expired"), ..none() },
                Filter { event_types: of("unknown"), ..none() },
            ),
            (
                "reservation",
                Filter { reservations: of("rsv-1"), ..none() },
                Filter { reservations: of("rsv-10"), ..none() },
            ),
            (
                "event",
                Filter { events: of("evt-1"), ..none() },
                Filter { events: of("original-1"), ..none() },
            ),
            (
                "message",
                Filter { message_ids: of("m-1"), ..none() },
                Filter { message_ids: of("evt-1"), ..none() },
            ),
            (
                "original",
                Filter { message_ids: of("original-1"), ..none() },
                Filter { message_ids: of("original"), ..none() },
            ),
            (
                "older",
                Filter { older_than: short, ..none() },
                Filter { older_than: long, ..none() },
            ),
            (
                "newer",
                Filter { newer_than: long, ..none() },
                Filter { newer_than: short, ..none() },
            ),
            (
                "origin",
                Filter { origin: Some(Origin::Worker), ..none() },
                Filter { origin: Some(Origin::Sqs), ..none() },
            ),
        ]
    }

    #[test]
    fn each_condition_allows_what_it_names_and_nothing_else() {
        let letter = letter();
        assert!(Filter::default().is_empty() && matches(&Filter::default(), &letter, the_time()));
        for (name, right, wrong) in filters() {
            assert!(!right.is_empty(), "{name}");
            assert!(matches(&right, &letter, the_time()), "{name}");
            assert!(!matches(&wrong, &letter, the_time()), "{name}");
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let of = |value: &str| vec![value.to_owned()];
        let both = |event: &str| Filter {
            reasons: of("rejected"),
            events: of(event),
            ..Filter::default()
        };
        assert!(matches(&both("evt-1"), &letter(), the_time()));
        assert!(!matches(&both("evt-2"), &letter(), the_time()));
    }
}
