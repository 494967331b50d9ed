//! A dead-letter queue that others use too: other queues, and other consumers.

use super::*;
use crate::queue::Queue;

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

#[tokio::test(start_paused = true)]
async fn letters_that_others_hold_are_counted_and_are_no_success_of_a_change() {
    let consent = Consent { dry_run: false, yes: true };
    for (command, code) in [
        (DlqCommand::List, SUCCESS),
        (DlqCommand::Redrive { rate: 20, consent: Consent { dry_run: true, yes: false } }, SUCCESS),
        (redrive(500), FAILED),
        (DlqCommand::Discard { copies: Copies::None, consent }, FAILED),
    ] {
        let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, letters(7, "rejected")));
        let held = dlq.receive(4, Duration::from_secs(600)).await.unwrap();
        assert_eq!(held.len(), 4);
        let ran = ran(&command, &all(), &source, &dlq).await;
        assert_eq!(ran.code, code, "{command:?}: {}", ran.err.text());
        assert_eq!(ran.summary()["held_by_others"], 4);
        assert!(ran.err.text().contains("About 4 could not be looked at"), "{}", ran.err.text());
    }
}

#[tokio::test(start_paused = true)]
async fn letters_that_others_give_back_or_keep_beyond_a_limit_are_not_told() {
    let dlq = Arc::new(FakeQueue::new(false, letters(7, "rejected")));
    dlq.receive(4, Duration::from_millis(900)).await.unwrap();
    let source = FakeQueue::default();
    let done = ran(&redrive(500), &all(), &source, &dlq).await;
    assert_eq!((done.code, source.sent().len()), (SUCCESS, 7), "{}", done.err.text());
    let dlq = FakeQueue::new(false, letters(7, "rejected"));
    dlq.receive(4, Duration::from_secs(600)).await.unwrap();
    let selection = Selection { limit: Some(2), ..all() };
    let done = ran(&redrive(500), &selection, &source, &dlq).await;
    assert_eq!((done.code, &done.summary()["held_by_others"]), (SUCCESS, &Value::from(0)));
}

/// This machine's clock may be behind that of SQS: what is there would look as if it came later.
#[tokio::test(start_paused = true)]
async fn what_only_looks_is_not_blind_for_letters_that_look_newer_than_the_run() {
    let later = Some(SystemTime::now() + Duration::from_secs(600));
    let dry = Consent { dry_run: true, yes: false };
    for (command, count) in [
        (DlqCommand::List, 3),
        (DlqCommand::Show, 3),
        (DlqCommand::Redrive { rate: 20, consent: dry }, 0),
    ] {
        let newer = letters(3, "rejected").into_iter();
        let newer = newer.map(|letter| Message { sent_at: later, ..letter }).collect();
        let dlq = FakeQueue::new(false, newer);
        let ran = ran(&command, &all(), &dlq, &dlq).await;
        let summary = ran.summary();
        assert_eq!((ran.code, &summary["matching"]), (SUCCESS, &Value::from(count)), "{command:?}");
        assert_eq!(summary["left_newer_than_run"], 3 - count);
        assert_eq!(ran.err.text().contains("by this machine's clock"), count == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_goes_on_while_it_has_not_seen_as_many_as_were_there() {
    let later = Some(SystemTime::now() + Duration::from_secs(600));
    let newer = letters(300, "rejected").into_iter();
    let newer = newer.map(|letter| Message { sent_at: later, ..letter }).collect();
    let dlq = FakeQueue::new(false, newer);
    let ran = ran(&DlqCommand::List, &Selection::default(), &dlq, &dlq).await;
    assert_eq!((ran.code, &ran.summary()["matching"]), (SUCCESS, &Value::from(300)));
}
