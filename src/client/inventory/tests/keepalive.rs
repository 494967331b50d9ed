//! Connections on which the server stops sending, on paused time.

use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::network::{INTERVAL, Manner, Network, call};
use super::*;

const PATIENCE: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3_600);
const MARGIN: Duration = Duration::from_millis(100);

/// Returns how long a connection to such a host is kept; at most one hour.
///
/// Meanwhile calls are made that time out after `each`, with a pause after each of them.
async fn kept_for(manner: Manner, each: Duration, pause: Duration) -> Duration {
    let network = Network::of(1);
    network.host(1, manner);
    let channel = network.channel();
    let began = Instant::now();
    let calls = tokio::spawn(async move {
        loop {
            let _ = timeout(each, call(&channel)).await;
            sleep(pause).await;
        }
    });
    let is_given_up = async {
        while network.attempts(1) < 2 {
            sleep(MARGIN / 2).await;
        }
    };
    let _ = timeout(HOUR, is_given_up).await;
    calls.abort();
    yield_now().await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_replaced_when_calls_are_made() {
    let took = kept_for(Manner::FallsSilent, HOUR, Duration::ZERO).await;
    assert!((INTERVAL..=INTERVAL + PATIENCE + MARGIN).contains(&took), "{took:?}");
    let each = Duration::from_secs(2);
    for pause in [0, 1, 3, 8, 30].map(Duration::from_secs) {
        let took = kept_for(Manner::FallsSilent, each, pause).await;
        let in_time = INTERVAL..=INTERVAL + pause + PATIENCE + MARGIN;
        assert!(in_time.contains(&took), "{took:?}, calls {pause:?} apart");
    }
}

#[tokio::test(start_paused = true)]
async fn a_working_connection_is_kept() {
    let (each, pause) = (Duration::from_secs(2), Duration::from_secs(3));
    assert_eq!(kept_for(Manner::Serves, each, pause).await, HOUR);
    assert_eq!(
        kept_for(Manner::Stalls, HOUR, pause).await,
        HOUR,
        "a connection that answers pings was replaced"
    );
    assert_eq!(kept_for(Manner::Stalls, each, pause).await, HOUR);
    // One call that opens the connection, and no other.
    let took = kept_for(Manner::FallsSilent, Duration::ZERO, 2 * HOUR).await;
    assert_eq!(took, HOUR, "an idle connection was pinged");
}
