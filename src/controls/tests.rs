//! Tests of the levers, on paused time.
#![allow(clippy::unwrap_used)]

use tokio::time::{advance, timeout};

use super::*;
use crate::event::StepSet;
use crate::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, Notice, RecordKey, Store, StoreError,
};

const MINUTE: Duration = Duration::from_secs(60);

fn workers(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn controls() -> Arc<Controls> {
    let metrics = Arc::new(Metrics::new(&[]));
    Arc::new(Controls::new(metrics))
}

async fn is_over<F: Future>(future: F) -> bool {
    timeout(Duration::from_millis(1), future).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_until_its_time_is_over() {
    let controls = controls();
    let watch = tokio::spawn(Arc::clone(&controls).watch());
    assert!(is_over(controls.resumed()).await, "nothing is paused at the start");
    controls.pause(10 * MINUTE, "a release of the API".to_owned());
    let (lever, scope) = controls.paused().unwrap();
    assert_eq!((lever.reason.as_str(), scope), ("a release of the API", Scope::Process));
    advance(9 * MINUTE).await;
    assert!(!is_over(controls.resumed()).await);
    let left = timeout(2 * MINUTE, controls.resumed()).await;
    assert!(left.is_ok(), "it goes back by itself");
    assert_eq!(controls.paused(), None);
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_all_is_not_ended_by_one_process() {
    let controls = controls();
    let lever = Lever::new((), MINUTE, String::new());
    controls.set_all(Levers { pause: Some(lever), ..Levers::default() });
    assert!(!controls.resume(), "this process did not pause");
    assert!(!is_over(controls.resumed()).await);
    controls.set_all(Levers::default());
    assert!(is_over(controls.resumed()).await);
}

#[tokio::test(start_paused = true)]
async fn what_this_process_is_told_counts_more_than_what_all_are_told() {
    let controls = controls();
    let all = Lever::new(workers(5), MINUTE, String::new());
    controls.set_all(Levers { concurrency: Some(all), ..Levers::default() });
    assert_eq!(controls.concurrency_other_than(None).await, Some(workers(5)));
    controls.set_concurrency(workers(50), MINUTE);
    assert_eq!(controls.concurrency_other_than(Some(workers(5))).await, Some(workers(50)));
    assert_eq!(controls.in_effect().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_lever_holds_longer_than_twelve_hours() {
    let controls = controls();
    let watch = tokio::spawn(Arc::clone(&controls).watch());
    controls.set_log_level(LogLevel::Debug, 100 * HOLDS_MAX);
    controls.set_concurrency(workers(1), 100 * HOLDS_MAX);
    tokio::task::yield_now().await;
    advance(HOLDS_MAX + MINUTE).await;
    assert_eq!(controls.log_level_other_than(Some(LogLevel::Debug)).await, None);
    assert_eq!(controls.concurrency_other_than(Some(workers(1))).await, None);
    assert_eq!(controls.in_effect(), []);
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn the_metric_shows_which_lever_is_pulled() {
    let metrics = Arc::new(Metrics::new(&[]));
    let controls = Controls::new(Arc::clone(&metrics));
    let shown = || {
        let mut text = Vec::new();
        metrics.render(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    assert!(shown().contains("worker_control_active{lever=\"pause\"} 0"));
    controls.pause(MINUTE, String::new());
    assert!(shown().contains("worker_control_active{lever=\"pause\"} 1"));
    assert!(shown().contains("worker_control_active{lever=\"concurrency\"} 0"));
    assert!(controls.resume());
    assert!(shown().contains("worker_control_active{lever=\"pause\"} 0"));
}

/// A store that keeps a notice, and nothing else.
#[derive(Default)]
struct NoticeBoard {
    text: std::sync::Mutex<Vec<u8>>,
    /// What others post after each look, the last first.
    others: std::sync::Mutex<Vec<Vec<u8>>>,
}

#[async_trait::async_trait]
impl Store for NoticeBoard {
    async fn claim(&self, _: RecordKey<'_>, _: ClaimRequest) -> Result<Claim, StoreError> {
        unreachable!("levers claim nothing")
    }

    async fn renew(&self, _: RecordKey<'_>, _: ClaimToken, _: Duration) -> Result<(), StoreError> {
        unreachable!("levers renew nothing")
    }

    async fn record(&self, _: RecordKey<'_>, _: ClaimToken, _: StepSet) -> Result<(), StoreError> {
        unreachable!("levers record nothing")
    }

    async fn complete(
        &self,
        _: RecordKey<'_>,
        _: ClaimToken,
        _: HandledAs,
    ) -> Result<(), StoreError> {
        unreachable!("levers complete nothing")
    }

    async fn release(&self, _: RecordKey<'_>, _: ClaimToken, _: StepSet) -> Result<(), StoreError> {
        unreachable!("levers release nothing")
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        let seen = self.text.lock().unwrap().clone();
        if let Some(posted) = self.others.lock().unwrap().pop() {
            *self.text.lock().unwrap() = posted;
        }
        Ok(Notice { text: seen, at: SystemTime::now() })
    }

    async fn post_notice(&self, read: &[u8], text: &[u8], _: Duration) -> Result<bool, StoreError> {
        let mut kept = self.text.lock().unwrap();
        let is_unchanged = *kept == read;
        if is_unchanged {
            *kept = text.to_vec();
        }
        Ok(is_unchanged)
    }
}

#[tokio::test(start_paused = true)]
async fn what_all_are_told_reaches_each_at_its_next_look() {
    let board = Arc::new(NoticeBoard::default());
    let store: Arc<dyn Store> = Arc::clone(&board) as _;
    let (told, other) = (controls(), controls());
    let change = SharedChange::Pause(10 * MINUTE, "why".to_owned());
    told.change_all(&store, change).await.unwrap();
    told.change_all(&store, SharedChange::Concurrency(workers(3), MINUTE)).await.unwrap();
    assert_eq!(told.paused().unwrap().1, Scope::All);
    other.apply_notice(&store.ping().await.unwrap());
    assert_eq!(other.paused().unwrap().0.reason, "why");
    assert_eq!(other.concurrency(), Some(workers(3)));
    let before = other.in_effect();
    other.apply_notice(&store.ping().await.unwrap());
    assert_eq!(other.in_effect(), before, "the same notice changes nothing");
    told.change_all(&store, SharedChange::Resume).await.unwrap();
    other.apply_notice(&store.ping().await.unwrap());
    assert_eq!((other.paused(), other.concurrency()), (None, Some(workers(3))));
}

#[tokio::test(start_paused = true)]
async fn a_change_keeps_what_another_process_posts_meanwhile() {
    let board = Arc::new(NoticeBoard::default());
    let store: Arc<dyn Store> = Arc::clone(&board) as _;
    controls().change_all(&store, SharedChange::Concurrency(workers(3), MINUTE)).await.unwrap();
    let of_another = std::mem::take(&mut *board.text.lock().unwrap());
    board.others.lock().unwrap().push(of_another);
    let told = controls();
    told.change_all(&store, SharedChange::Pause(MINUTE, "why".to_owned())).await.unwrap();
    assert_eq!((told.paused().unwrap().1, told.concurrency()), (Scope::All, Some(workers(3))));

    *board.others.lock().unwrap() = (0..1_000).map(|n: u32| n.to_string().into()).collect();
    let changed = told.change_all(&store, SharedChange::Resume).await;
    assert!(changed.unwrap_err().to_string().contains("again and again"));
    assert!(told.paused().is_some(), "what was not stored is not applied");
}

#[tokio::test(start_paused = true)]
async fn a_notice_counts_by_the_clock_of_the_store() {
    let board = Arc::new(NoticeBoard::default());
    let store: Arc<dyn Store> = Arc::clone(&board) as _;
    controls().change_all(&store, SharedChange::Pause(MINUTE, String::new())).await.unwrap();
    let text = board.text.lock().unwrap().clone();
    let at = SystemTime::now();
    let read = |text: &[u8], after: Duration| {
        let controls = controls();
        controls.apply_notice(&Notice { text: text.to_vec(), at: at + after });
        controls.paused().is_some()
    };
    assert!(read(&text, MINUTE / 2) && !read(&text, 2 * MINUTE));
    for unreadable in [&b"garbage"[..], b"{\"version\":2,\"pause\":{}}", b"[]", b""] {
        assert!(!read(unreadable, Duration::ZERO), "{unreadable:?}");
    }
}
