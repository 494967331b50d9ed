//! A slow line, a reader that does not read, and an operator who may not change visibility.

use super::*;

const MIB: usize = 1024 * 1024;

#[tokio::test(start_paused = true)]
async fn large_bodies_are_not_all_sent_at_once() {
    let large = |n: usize| message(&format!("m-{n}"), &"x".repeat(MIB), vec![]);
    let mut source = FakeQueue::default();
    source.send_takes = Duration::from_secs(4);
    let dlq = FakeQueue::new(false, (0..12).map(large).collect());
    let ran = ran(&redrive(500), &all(), &source, &dlq).await;
    assert_eq!((ran.code, source.sent().len(), dlq.len()), (SUCCESS, 12, 0), "{}", ran.err.text());
    assert_eq!(source.sending_max(), 2 * MIB);
}

#[tokio::test(start_paused = true)]
async fn it_is_told_once_that_visibility_may_not_be_changed() {
    let consent = Consent { dry_run: true, yes: false };
    for (command, code) in [
        (DlqCommand::List, SUCCESS),
        (DlqCommand::Redrive { rate: 20, consent }, SUCCESS),
        (redrive(20), FAILED),
    ] {
        let mut dlq = FakeQueue::new(false, letters(30, "rejected"));
        dlq.is_visibility_denied = true;
        let began = tokio::time::Instant::now();
        let ran = ran(&command, &of_reason("forbidden"), &dlq, &dlq).await;
        assert_eq!((ran.code, &ran.summary()["still_hidden"]), (code, &Value::from(30)));
        let said = ran.err.text();
        let told = said.matches("stays hidden from others").count();
        assert_eq!(told, 1, "{said}");
        assert!(said.contains("access denied: as the test says"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(10), "a denied call is not repeated");
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_told_while_the_run_goes_on() {
    let mut source = FakeQueue::default();
    source.send_takes = Duration::from_secs(1);
    let mut dlq = FakeQueue::new(false, letters(100, "rejected"));
    dlq.is_visibility_denied = true;
    let stop = CancellationToken::new();
    let (out, err) = (Written::default(), Written::default());
    let console = Console::new(Box::new(out.clone()), Box::new(err.clone()), true);
    let (command, selection) = (redrive(1), all());
    let is_denial_told = AtomicBool::new(false);
    let session = Session {
        command: &command,
        selection: &selection,
        console: &console,
        source: &source,
        queue_name: "events",
        dlq: &dlq,
        stop: &stop,
        is_denial_told,
    };
    let watching = async {
        // The first leases are half over.
        sleep(Duration::from_secs(40)).await;
        assert!(err.text().contains("stays hidden from others"), "{}", err.text());
        assert!(source.sent().len() < 100, "it goes on");
        stop.cancel();
    };
    tokio::join!(session.run(), watching);
}
