//! A dead-letter queue that others use too: other queues, and other consumers.

use super::*;

fn of_queue(n: usize, queue: &str) -> Message {
    let arn = format!("arn:aws:sqs:eu-1:42:{queue}");
    let body = body(&format!("evt-{n}"), &format!("rsv-{n}"));
    Message { source_arn: Some(arn.into()), ..message(&format!("m-{n}"), &body, vec![]) }
}

fn copy_of_queue(n: usize, queue: &str) -> Message {
    let attributes = vec![text("dlq_reason", "rejected"), text("dlq_queue", queue)];
    let body = body(&format!("evt-{n}"), &format!("rsv-{n}"));
    message(&format!("m-{n}"), &body, attributes)
}

/// Two of our queue, one of which does not say so, and two of another.
fn mixed() -> Vec<Message> {
    vec![
        of_queue(0, "events"),
        of_queue(1, "orders"),
        copy_of_queue(2, "events"),
        copy_of_queue(3, "orders"),
        letter(4, "rejected"),
    ]
}

#[tokio::test(start_paused = true)]
async fn letters_of_other_queues_are_not_redriven_and_not_discarded() {
    let consent = Consent { dry_run: false, yes: true };
    for command in [redrive(500), DlqCommand::Discard { copies: Copies::None, consent }] {
        let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, mixed()));
        let ran = ran(&command, &all(), &source, &dlq).await;
        assert_eq!((ran.code, dlq.visible()), (SUCCESS, vec!["m-1".to_owned(), "m-3".to_owned()]));
        assert_eq!(ran.summary()["left_of_other_queues"], 2);
        let said = ran.err.text();
        assert!(said.contains("2 of other queues left alone"), "{said}");
        assert!(!said.contains("--from-any-source"), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn letters_of_other_queues_are_listed_if_that_is_wanted() {
    for (from_any_source, count) in [(false, 3), (true, 5)] {
        let dlq = FakeQueue::new(false, mixed());
        let selection = Selection { from_any_source, ..Selection::default() };
        let ran = ran(&DlqCommand::List, &selection, &dlq, &dlq).await;
        assert_eq!((ran.code, ran.out.objects().len()), (SUCCESS, count + 1));
        assert_eq!(ran.err.text().contains("--from-any-source takes them along"), count == 3);
        let is_other = |one: &Value| one["source_queue"] == "orders";
        assert_eq!(ran.out.objects().iter().filter(|one| is_other(one)).count(), count - 3);
    }
}

#[tokio::test(start_paused = true)]
async fn money_without_seat_is_left_alone_unless_it_is_named() {
    for (selection, left) in [(all(), 1), (of_reason("money_without_seat"), 1)] {
        let messages = vec![letter(0, "money_without_seat"), letter(1, "rejected")];
        let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, messages));
        let is_named = !selection.all;
        let ran = ran(&redrive(20), &selection, &source, &dlq).await;
        assert_eq!((ran.code, dlq.len()), (SUCCESS, left));
        assert_eq!(dlq.visible(), [if is_named { "m-1" } else { "m-0" }]);
        assert_eq!(ran.summary()["left_money_without_seat"], u64::from(!is_named));
    }
}
