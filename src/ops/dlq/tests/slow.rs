//! A slow line, a reader that does not read, and an operator who may not change visibility.

use std::sync::Condvar;
use std::sync::atomic::Ordering;

use tokio::task::yield_now;
use tokio::time::advance;

use super::*;

const MIB: usize = 1024 * 1024;

/// How long a thread may take to begin, on a busy machine.
const TRUE_TIME_MAX: Duration = Duration::from_secs(30);

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
    let mut messages = letters(20, "forbidden");
    messages.extend((20..120).map(|n| letter(n, "rejected")));
    let mut dlq = FakeQueue::new(false, messages);
    dlq.is_visibility_denied = true;
    let stop = CancellationToken::new();
    let (out, err) = (Written::default(), Written::default());
    let console = Console::new(Box::new(out.clone()), Box::new(err.clone()), true, stop.clone());
    let (command, selection) = (redrive(1), of_reason("rejected"));
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

/// A reader that does not read before it is told to, or before some seconds of true time are over.
#[derive(Clone, Default)]
struct Pager {
    is_waited_for: Arc<AtomicBool>,
    may_read: Arc<(Mutex<bool>, Condvar)>,
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_waited_for.store(true, Ordering::Relaxed);
        let (may_read, told) = &*self.may_read;
        let wait = told.wait_timeout_while(lock(may_read), Duration::from_secs(5), |may| !*may);
        drop(wait.unwrap());
        self.is_waited_for.store(false, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lists letters whose output nobody reads, for longer than a lease; then calls `meanwhile`, and
/// reads it. Returns the exit code.
async fn list_unread(
    dlq: &FakeQueue,
    pager: &Pager,
    err: impl Write + Send + 'static,
    meanwhile: impl FnOnce(),
) -> u8 {
    let stop = CancellationToken::new();
    let console = Console::new(Box::new(pager.clone()), Box::new(err), true, stop.clone());
    let selection = Selection::default();
    let listing = Session {
        command: &DlqCommand::List,
        selection: &selection,
        console: &console,
        source: dlq,
        queue_name: "events",
        dlq,
        stop: &stop,
        is_denial_told: AtomicBool::new(false),
    };
    let watching = async {
        // The thread that writes begins in true time.
        let began = std::time::Instant::now();
        while !pager.is_waited_for.load(Ordering::Relaxed) && began.elapsed() < TRUE_TIME_MAX {
            advance(Duration::from_millis(1)).await;
        }
        // Longer than a lease.
        for _ in 0..200 {
            advance(Duration::from_secs(1)).await;
            yield_now().await;
        }
        assert!(pager.is_waited_for.load(Ordering::Relaxed), "it is not read meanwhile");
        meanwhile();
        *lock(&pager.may_read.0) = true;
        pager.may_read.1.notify_all();
    };
    let (code, ()) = tokio::join!(listing.run(), watching);
    code
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_extended_while_nobody_reads_the_output() {
    let dlq = FakeQueue::new(false, letters(3, "rejected"));
    let is_hidden = || assert_eq!(dlq.visible().len(), 0, "what is held is not shown to others");
    let code = list_unread(&dlq, &Pager::default(), Written::default(), is_hidden).await;
    assert_eq!((code, dlq.visible().len()), (SUCCESS, 3));
}

#[test]
fn a_denial_that_nobody_reads_does_not_stop_the_run() {
    let (done, is_done) = std::sync::mpsc::channel();
    // A thread of its own: a run that waits for its own lock never ends.
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut dlq = FakeQueue::new(false, letters(3, "rejected"));
            dlq.is_visibility_denied = true;
            let pager = Pager::default();
            list_unread(&dlq, &pager, pager.clone(), || {}).await;
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(TRUE_TIME_MAX).expect("the second denial waits for the first to be read");
}
