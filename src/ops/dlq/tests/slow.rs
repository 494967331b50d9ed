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
