//! Commands on queues in memory, in paused time.
#![allow(clippy::unwrap_used)]

mod fake;
mod shared;
mod slow;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::time::{sleep, timeout};

use self::fake::{FakeQueue, Returning};
use super::scan::lock;
use super::*;
use crate::cli::{Consent, Copies, Filter};
use crate::queue::{
    Attribute, AttributeValue, Message, MessageGroup, MessageId, OperatorQueue, QueueErrorKind,
    ReceiptHandle,
};

/// The time that the tests of pure functions use. It is before every run.
pub(super) fn the_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub(super) fn text(name: &str, value: &str) -> Attribute {
    Attribute {
        name: name.to_owned(),
        data_type: "String".to_owned(),
        value: AttributeValue::Text(value.to_owned()),
    }
}

pub(super) fn message(id: &str, body: &str, attributes: Vec<Attribute>) -> Message {
    Message {
        id: MessageId(id.into()),
        handle: ReceiptHandle("none".into()),
        body: body.to_owned(),
        receive_count: 3,
        sent_at: Some(the_time() - Duration::from_secs(60)),
        group: None,
        trace_header: None,
        source_arn: None,
        attributes,
    }
}

pub(super) fn body(id: &str, reservation: &str) -> String {
    format!(
        r#"{{"id":"{id}","type":"reservation.expired","reservation_id":"{reservation}","event_id":"show","payload":{{"qty":1}}}}"#
    )
}

fn letter(n: usize, reason: &str) -> Message {
    let attributes = vec![text("dlq_reason", reason), text("own", "v")];
    message(&format!("m-{n}"), &body(&format!("evt-{n}"), &format!("rsv-{n}")), attributes)
}

fn letters(count: usize, reason: &str) -> Vec<Message> {
    (0..count).map(|n| letter(n, reason)).collect()
}

fn in_group(n: usize, group: &str) -> Message {
    Message { group: Some(MessageGroup::Ordered(group.into())), ..letter(n, "rejected") }
}

/// What was written to a console.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(lock(&self.0).clone()).unwrap()
    }

    fn objects(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

struct Ran {
    code: u8,
    out: Written,
    err: Written,
}

impl Ran {
    fn summary(&self) -> Value {
        self.out.objects().pop().unwrap()["summary"].clone()
    }
}

fn redrive(rate: u32) -> DlqCommand {
    DlqCommand::Redrive { rate, consent: Consent { dry_run: false, yes: true } }
}

fn all() -> Selection {
    Selection { all: true, ..Selection::default() }
}

fn of_reason(reason: &str) -> Selection {
    let filter = Filter { reasons: vec![reason.to_owned()], ..Filter::default() };
    Selection { filter, ..Selection::default() }
}

async fn run_until(
    command: &DlqCommand,
    selection: &Selection,
    source: &dyn OperatorQueue,
    dlq: &dyn OperatorQueue,
    stop: &CancellationToken,
) -> Ran {
    let (out, err) = (Written::default(), Written::default());
    let console = Console::new(Box::new(out.clone()), Box::new(err.clone()), true, stop.clone());
    let code = match usage_fault(command, selection, &console) {
        Some(fault) => {
            console.tell(&fault).await;
            USAGE
        }
        None => {
            let (console, queue_name) = (&console, "events");
            let is_denial_told = AtomicBool::new(false);
            Session { command, selection, console, source, queue_name, dlq, stop, is_denial_told }
                .run()
                .await
        }
    };
    Ran { code, out, err }
}

async fn ran(
    command: &DlqCommand,
    selection: &Selection,
    source: &FakeQueue,
    dlq: &FakeQueue,
) -> Ran {
    run_until(command, selection, source, dlq, &CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn what_matches_is_sent_whole_and_deleted_and_the_rest_is_shown_again() {
    let mut messages = letters(25, "rejected");
    messages.extend((25..40).map(|n| letter(n, "forbidden")));
    let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, messages));
    let ran = ran(&redrive(500), &of_reason("rejected"), &source, &dlq).await;
    assert_eq!(ran.code, SUCCESS, "{}", ran.err.text());
    let sent = source.sent();
    assert_eq!(sent.len(), 25);
    assert_eq!(sent[0].body, body("evt-0", "rsv-0"));
    assert!(sent.iter().all(|copy| copy.attributes.iter().any(|one| one.name == "own")));
    assert_eq!((dlq.len(), dlq.visible().len()), (15, 15), "the others are visible");
    assert_eq!(dlq.receives_max(), 1, "each was looked at once");
    let summary = ran.summary();
    assert_eq!((&summary["redriven"], &summary["seen"]), (&Value::from(25), &Value::from(40)));
}

#[tokio::test(start_paused = true)]
async fn an_unclear_send_is_repeated_before_anything_is_deleted() {
    let unclear = [QueueErrorKind::Timeout, QueueErrorKind::Network, QueueErrorKind::Throttled];
    for is_fifo in [false, true] {
        let source = FakeQueue::new(is_fifo, vec![]);
        let dlq = FakeQueue::new(is_fifo, vec![letter(0, "rejected")]);
        source.fail_sends(&unclear);
        let ran = ran(&redrive(20), &all(), &source, &dlq).await;
        assert_eq!((ran.code, dlq.len()), (SUCCESS, 0));
        let stored = if is_fifo { 1 } else { 2 };
        assert_eq!(source.sent().len(), stored, "the repeated copy has the same id");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_stays_and_is_reported() {
    let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, letters(1, "rejected")));
    // Whole, then without `redrive_count`, then without `redrive_of`.
    source.fail_sends(&[QueueErrorKind::Refused; 3]);
    let ran = ran(&redrive(20), &all(), &source, &dlq).await;
    assert_eq!((ran.code, source.sent().len(), dlq.visible().len()), (FAILED, 0, 1));
    assert_eq!(ran.summary()["failed"], 1);
    assert!(ran.err.text().contains("m-0: refused: as the test says"), "{}", ran.err.text());
}

#[tokio::test(start_paused = true)]
async fn a_denied_send_ends_the_run_and_nothing_is_deleted() {
    let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, letters(30, "rejected")));
    source.fail_sends(&[QueueErrorKind::Denied; 30]);
    let ran = ran(&redrive(500), &all(), &source, &dlq).await;
    assert_eq!((ran.code, source.sent().len(), dlq.visible().len()), (FAILED, 0, 30));
    assert!(ran.err.text().contains("the queue cannot be sent to: access denied"));
}

#[tokio::test(start_paused = true)]
async fn messages_sent_after_the_run_began_are_not_touched() {
    let later = Some(SystemTime::now() + Duration::from_secs(3_600));
    let newer = Message { sent_at: later, ..letter(1, "rejected") };
    let (source, dlq) =
        (FakeQueue::default(), FakeQueue::new(false, vec![letter(0, "rejected"), newer]));
    let ran = ran(&redrive(20), &all(), &source, &dlq).await;
    assert_eq!((ran.code, source.sent().len()), (SUCCESS, 1));
    assert_eq!(dlq.visible(), ["m-1"]);
    assert_eq!(ran.summary()["left_newer_than_run"], 1);
}

/// In an incident letters come faster than the queue is ever found empty.
#[tokio::test(start_paused = true)]
async fn a_run_ends_although_letters_go_on_coming() {
    let dlq = Arc::new(FakeQueue::new(false, letters(3, "rejected")));
    let coming = tokio::spawn({
        let dlq = Arc::clone(&dlq);
        async move {
            for n in 100.. {
                sleep(Duration::from_millis(300)).await;
                let later = Some(SystemTime::now() + Duration::from_secs(3_600));
                dlq.put(Message { sent_at: later, ..letter(n, "rejected") });
            }
        }
    });
    let (source, stop) = (FakeQueue::default(), CancellationToken::new());
    let (command, selection) = (redrive(20), all());
    let running = run_until(&command, &selection, &source, &*dlq, &stop);
    let ran = timeout(Duration::from_secs(600), running).await.expect("the run ends");
    coming.abort();
    assert_eq!((ran.code, source.sent().len()), (SUCCESS, 3));
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_is_not_redriven_twice_whatever_the_clocks_say() {
    let now = SystemTime::now();
    for sent_at in [now + Duration::from_secs(60), now - Duration::from_secs(60)] {
        let dlq = Arc::new(FakeQueue::new(false, letters(10, "rejected")));
        let source = Returning { dlq: Arc::clone(&dlq), sent_at };
        let stop = CancellationToken::new();
        let (command, selection) = (redrive(500), all());
        let running = run_until(&command, &selection, &source, &*dlq, &stop);
        let ran = timeout(Duration::from_secs(600), running).await.expect("the run ends");
        assert_eq!(ran.code, SUCCESS);
        let mut left = dlq.visible();
        left.sort_unstable();
        assert_eq!(left.len(), 10, "{left:?}");
        assert!(left.iter().all(|id| id.starts_with("again-m-")), "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_run_holds_what_it_has_and_what_does_not_match() {
    let mut messages = letters(100, "forbidden");
    messages.extend((100..400).map(|n| letter(n, "rejected")));
    let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, messages));
    let began = tokio::time::Instant::now();
    let ran = ran(&redrive(1), &of_reason("rejected"), &source, &dlq).await;
    assert_eq!((ran.code, source.sent().len(), dlq.visible().len()), (SUCCESS, 300, 100));
    assert!(began.elapsed() >= Duration::from_secs(299), "one a second: {:?}", began.elapsed());
    assert_eq!(dlq.receives_max(), 1, "none was shown to others meanwhile");
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_finishes_what_is_in_flight_and_shows_the_rest_again() {
    let mut source = FakeQueue::default();
    source.send_takes = Duration::from_secs(3);
    let dlq = FakeQueue::new(false, letters(100, "rejected"));
    let stop = CancellationToken::new();
    let (command, selection) = (redrive(10), all());
    let running = run_until(&command, &selection, &source, &dlq, &stop);
    let interrupting = async {
        sleep(Duration::from_millis(1_550)).await;
        assert!(source.sent().is_empty(), "the first sends are in flight");
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(running, interrupting);
    let sent = source.sent().len();
    assert_eq!(ran.code, INTERRUPTED);
    assert!((14..=17).contains(&sent), "{sent} were in flight");
    assert_eq!((dlq.len(), dlq.visible().len()), (100 - sent, 100 - sent));
    assert_eq!(ran.summary()["redriven"], u64::try_from(sent).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_fifo_group_is_sent_in_order_and_through_to_its_end() {
    let messages = (0..35).map(|n| in_group(n, if n % 2 == 0 { "even" } else { "odd" })).collect();
    let (source, dlq) = (FakeQueue::new(true, vec![]), FakeQueue::new(true, messages));
    let ran = ran(&redrive(500), &all(), &source, &dlq).await;
    assert_eq!((ran.code, dlq.len()), (SUCCESS, 0));
    for (group, first) in [("even", 0), ("odd", 1)] {
        let of_group = |copy: &&crate::queue::RedriveCopy| copy.group_for(true) == Some(group);
        let sent: Vec<_> =
            source.sent().iter().filter(of_group).map(|copy| copy.source_id.to_string()).collect();
        let expected: Vec<_> = (first..35).step_by(2).map(|n| format!("m-{n}")).collect();
        assert_eq!(sent, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_fifo_group_overtakes_one_that_failed() {
    let messages = (0..5).map(|n| in_group(n, "g")).collect();
    let (source, dlq) = (FakeQueue::new(true, vec![]), FakeQueue::new(true, messages));
    source.fail_sends(&[QueueErrorKind::Refused; 3]);
    let ran = ran(&redrive(20), &all(), &source, &dlq).await;
    assert_eq!((ran.code, source.sent().len(), dlq.visible().len()), (FAILED, 0, 5));
    assert_eq!(ran.summary()["failed"], 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_others_of_its_group_is_told() {
    let messages = (0..25).map(|n| in_group(n, "g")).collect();
    let dlq = FakeQueue::new(true, messages);
    let ran = ran(&DlqCommand::List, &Selection::default(), &dlq, &dlq).await;
    assert_eq!((ran.code, dlq.visible().len()), (SUCCESS, 25));
    assert!(ran.err.text().contains("about 15 more are behind others"), "{}", ran.err.text());
}

#[tokio::test(start_paused = true)]
async fn a_failed_delete_is_repeated_and_a_forgotten_one_is_not_sent_again() {
    let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, letters(10, "rejected")));
    dlq.fail_deletes(15);
    dlq.forget_deletes(4);
    let ran = ran(&redrive(500), &all(), &source, &dlq).await;
    assert_eq!((ran.code, source.sent().len(), dlq.len()), (SUCCESS, 10, 0), "{}", ran.err.text());
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_cannot_be_deleted_counts_as_failed() {
    let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, letters(1, "rejected")));
    dlq.fail_deletes(u32::MAX);
    let ran = ran(&redrive(500), &all(), &source, &dlq).await;
    assert_eq!((ran.code, source.sent().len(), dlq.len()), (FAILED, 1, 1));
    assert_eq!(ran.summary()["sent_but_not_deleted"], 1);
    assert!(ran.err.text().contains("it is in the queue"), "{}", ran.err.text());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_and_a_list_change_nothing() {
    let consent = Consent { dry_run: true, yes: false };
    for command in [DlqCommand::Redrive { rate: 20, consent }, DlqCommand::List, DlqCommand::Show] {
        let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, letters(12, "rejected")));
        let ran = ran(&command, &of_reason("rejected"), &source, &dlq).await;
        assert_eq!((ran.code, source.sent().len(), dlq.visible().len()), (SUCCESS, 0, 12));
        let shown = if matches!(command, DlqCommand::Show) { 10 } else { 12 };
        assert_eq!(ran.out.objects().len(), shown + 1, "{command:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_kept() {
    let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, letters(25, "rejected")));
    let selection = Selection { limit: Some(13), ..all() };
    let ran = ran(&redrive(500), &selection, &source, &dlq).await;
    assert_eq!((ran.code, source.sent().len(), dlq.visible().len()), (SUCCESS, 13, 12));
}

#[tokio::test(start_paused = true)]
async fn receives_that_fail_are_repeated_unless_they_are_denied() {
    for (kinds, code, left) in [
        (&[QueueErrorKind::Throttled, QueueErrorKind::Timeout][..], SUCCESS, 0),
        (&[QueueErrorKind::Denied][..], FAILED, 5),
        (&[QueueErrorKind::Network; 400][..], FAILED, 5),
    ] {
        let (source, dlq) = (FakeQueue::default(), FakeQueue::new(false, letters(5, "rejected")));
        dlq.fail_receives(kinds);
        let ran = ran(&redrive(500), &all(), &source, &dlq).await;
        assert_eq!((ran.code, dlq.visible().len()), (code, left), "{kinds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_needs_a_condition_and_consent() {
    let asks = DlqCommand::Redrive { rate: 20, consent: Consent::default() };
    let both = Selection { all: true, ..of_reason("rejected") };
    let discard = DlqCommand::Discard { copies: Copies::None, consent: Consent::default() };
    for (command, selection, words) in [
        (redrive(20), Selection::default(), "needs a condition"),
        (redrive(20), both, "--all cannot be given with a condition"),
        (asks, all(), "there is no terminal"),
        (discard, all(), "there is no terminal"),
    ] {
        let dlq = FakeQueue::new(false, letters(1, "rejected"));
        let ran = ran(&command, &selection, &dlq, &dlq).await;
        assert_eq!((ran.code, dlq.receives_max()), (USAGE, 0));
        assert!(ran.err.text().contains(words), "{}", ran.err.text());
    }
}
