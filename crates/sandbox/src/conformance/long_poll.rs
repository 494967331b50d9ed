//! `ReceiveMessage` with a wait time: when it ends, what wakes it, and closed connections.

use std::time::{Duration, Instant};

use aws_sdk_sqs::types::QueueAttributeName;

use super::{Kind, Target, assert_took, bodies, code, handle};

/// Maximum time until a waiting receive returns a new message.
const WAKE_MAX: Duration = Duration::from_millis(500);

/// Without a wait time, an empty queue answers at once.
pub async fn short_poll_answers_at_once(target: &Target) {
    let queue = target.queue().await;
    let since = Instant::now();
    queue.assert_nothing("the queue is empty").await;
    assert_took(since, Duration::ZERO, WAKE_MAX);
}

/// With a wait time, an empty queue answers at its end.
pub async fn long_poll_waits(target: &Target) {
    let queue = target.queue().await;
    let since = Instant::now();
    assert!(queue.receive(10, 1).await.is_empty());
    let wait = Duration::from_secs(1);
    assert_took(since, wait - Duration::from_millis(50), wait + WAKE_MAX);
}

/// The queue's wait time is the default.
pub async fn long_poll_by_queue_attribute(target: &Target) {
    let wait = [(QueueAttributeName::ReceiveMessageWaitTimeSeconds, "1")];
    let queue = target.queue_with(wait).await;
    let since = Instant::now();
    let receive = target.client.receive_message().queue_url(&queue.url);
    let received = receive.send().await.expect("answered");
    assert!(received.messages().is_empty());
    let wait = Duration::from_secs(1);
    assert_took(since, wait - Duration::from_millis(50), wait + WAKE_MAX);
}

/// A new message wakes the receive at once, without a wait for more.
pub async fn long_poll_wakes_at_once(target: &Target) {
    let queue = target.queue().await;
    // The receive is polled first, so that it waits when the message is sent.
    let (received, sent_at) = tokio::join!(biased; queue.receive(10, 10), async {
        queue.assert_nothing("two exchanges let the receive arrive").await;
        queue.assert_nothing("before the message does").await;
        let since = Instant::now();
        queue.send("x").await;
        since
    });
    assert_eq!(bodies(&received), ["x"]);
    assert_took(sent_at, Duration::ZERO, WAKE_MAX);
}

/// A message that is made visible again wakes the receive.
pub async fn long_poll_wakes_for_a_returned_message(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    let (received, since) = tokio::join!(biased; queue.receive(10, 10), async {
        queue.assert_nothing("two exchanges let the receive arrive").await;
        queue.assert_nothing("before the message does").await;
        let since = Instant::now();
        let changed = queue.change_visibility(handle(&message), 0).await;
        changed.expect("the message is in flight");
        since
    });
    assert_eq!(bodies(&received), ["x"]);
    assert_took(since, Duration::ZERO, WAKE_MAX);
}

/// The end of a visibility timeout wakes the receive.
pub async fn long_poll_wakes_for_a_timeout(target: &Target) {
    let visibility = [(QueueAttributeName::VisibilityTimeout, "1")];
    let queue = target.queue_with(visibility).await;
    queue.send("x").await;
    queue.receive_one().await;
    let since = Instant::now();
    assert_eq!(bodies(&queue.receive(10, 10).await), ["x"]);
    let timeout = Duration::from_secs(1);
    assert_took(since, timeout - Duration::from_millis(200), timeout + target.lateness());
}

/// One message wakes one of several waiting receives.
pub async fn one_message_goes_to_one_of_many(target: &Target) {
    let queue = target.queue().await;
    let wait = || queue.receive(1, 2);
    let (a, b, c, ()) = tokio::join!(biased; wait(), wait(), wait(), async {
        queue.assert_nothing("an exchange lets the receives arrive").await;
        queue.send("x").await;
    });
    let received = [a, b, c].concat();
    assert_eq!(bodies(&received), ["x"]);
}

/// Wait times are 0 to 20 s.
pub async fn wait_out_of_range_is_refused(target: &Target) {
    let queue = target.queue().await;
    let receive = target.client.receive_message().queue_url(&queue.url);
    let error = receive.wait_time_seconds(21).send().await.expect_err("refused");
    assert!(code(&error).starts_with("InvalidParameterValue"), "{}", code(&error));
}

/// A closed connection takes no message: the next receive gets it at once.
///
/// The documentation covers only answered receives (API_ReceiveMessage). LocalStack 4.12 does not
/// notice the closed connection and hides the next message until its visibility timeout ends.
pub async fn closed_connection_takes_no_message(target: &Target) {
    let visibility = [(QueueAttributeName::VisibilityTimeout, "2")];
    let queue = target.queue_with(visibility).await;
    tokio::select! {
        biased;
        _ = queue.receive(10, 20) => panic!("there is nothing to receive"),
        () = async {
            queue.assert_nothing("two exchanges let the receive arrive").await;
            queue.assert_nothing("before it is dropped").await;
        } => {}
    }
    if target.kind == Kind::Embedded {
        // The server has noticed the closed connection when it answers on another one; two requests
        // make sure.
        queue.counts().await;
        queue.counts().await;
    }
    queue.send("x").await;
    let since = Instant::now();
    assert_eq!(bodies(&queue.receive(10, 10).await), ["x"]);
    match target.kind {
        Kind::Embedded => assert_took(since, Duration::ZERO, WAKE_MAX),
        // At once if the dropped receive had not arrived yet.
        Kind::LocalStack => assert_took(since, Duration::ZERO, Duration::from_secs(5)),
    }
}
