//! The addresses of a name, on paused time: which get calls, and how often failing ones are tried.

use tokio::time::{Instant, sleep, timeout};

use super::super::endpoints::NoConnection;
use super::super::resolver::RESOLVE_INTERVAL;
use super::network::{CONNECT_TIMEOUT, Manner, Network, call, call_until_begun};
use super::*;
use crate::client::inventory::channel::BalancedChannel;

const SECOND: Duration = Duration::from_secs(1);

/// Makes a call every 100 ms for this time. All must succeed.
async fn calls_for(channel: &BalancedChannel, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        call_until_begun(channel).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_address_has_one_connection_and_an_equal_share_of_the_calls() {
    let network = Network::of(4);
    let channel = network.channel();
    calls_for(&channel, 40 * SECOND).await;
    for host in 1..=4 {
        assert_eq!(network.attempts(host), 1);
        assert!((95..=105).contains(&network.calls(host)), "{}", network.calls(host));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_address_gets_calls_within_30_s_and_a_removed_one_gets_none() {
    let network = Network::of(2);
    let channel = network.channel();
    calls_for(&channel, SECOND).await;
    network.host(3, Manner::Serves);
    network.name_leads_to(&[2, 3]);
    calls_for(&channel, RESOLVE_INTERVAL).await;
    assert!(network.calls(3) > 0, "the new address got no calls");
    let gone = network.calls(1);
    calls_for(&channel, 60 * SECOND).await;
    assert_eq!(network.calls(1), gone);
    assert!(network.calls(3) > 250 && network.calls(2) > 250);
    assert_eq!((network.attempts(2), network.attempts(3)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_connection_leads_to_a_new_lookup_at_once() {
    let network = Network::of(2);
    let channel = network.channel();
    calls_for(&channel, 5 * SECOND).await;
    network.host(3, Manner::Serves);
    network.name_leads_to(&[2, 3]);
    network.host(1, Manner::Refuses);
    calls_for(&channel, SECOND).await;
    assert!(network.calls(3) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_address_gets_no_call_and_is_tried_with_backoff() {
    let network = Network::of(3);
    let channel = network.channel();
    calls_for(&channel, 20 * SECOND).await;
    let before = network.attempts(1);
    network.host(1, Manner::Refuses);
    // None of the following calls may use the dead address.
    calls_for(&channel, 600 * SECOND).await;
    let tried = network.attempts(1) - before;
    assert!((60..=200).contains(&tried), "tried {tried} times in 10 minutes");
    network.host(1, Manner::Serves);
    calls_for(&channel, 11 * SECOND).await;
    assert!(network.calls(1) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_gets_no_call() {
    let network = Network::of(2);
    network.host(1, Manner::Silent);
    let channel = network.channel();
    calls_for(&channel, 60 * SECOND).await;
    assert!(network.attempts(1) > 1, "the address was not tried again");
    assert_eq!(network.calls(2), 600);
}

#[tokio::test(start_paused = true)]
async fn a_stalling_address_gets_few_calls() {
    let network = Network::of(2);
    network.host(1, Manner::Stalls);
    let channel = network.channel();
    let mut given_up = 0;
    for _ in 0..100 {
        let calls = (0..4).map(|_| timeout(SECOND, call(&channel)));
        let ended = futures_util::future::join_all(calls).await;
        given_up += ended.iter().filter(|end| end.is_err()).count();
    }
    assert_eq!(given_up, network.calls(1));
    assert!(given_up <= 200, "{given_up} of 400 calls went to the stalling host");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_connection_does_not_wait_for_the_backoff() {
    let network = Network::of(2);
    let channel = network.channel();
    calls_for(&channel, SECOND).await;
    for host in [1, 2] {
        network.host(host, Manner::Refuses);
    }
    sleep(60 * SECOND).await;
    for _ in 0..3 {
        let began = Instant::now();
        let error = call(&channel).await.unwrap_err();
        assert!(unbegun::cause::<NoConnection>(&*error).is_some(), "{error}");
        assert!(chain(&*error).contains("refused"), "{}", chain(&*error));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
    network.host(2, Manner::Serves);
    let began = Instant::now();
    call(&channel).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_fails_only_after_each_address_was_tried() {
    let network = Network::of(3);
    network.host(1, Manner::Refuses);
    network.host(2, Manner::Silent);
    network.host(3, Manner::Refuses);
    let channel = network.channel();
    let began = Instant::now();
    let error = chain(&*call(&channel).await.unwrap_err());
    assert!(began.elapsed() >= CONNECT_TIMEOUT);
    assert!(error.contains("no connection to 10.0.0.2:1 within 2000 ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn known_addresses_are_kept_while_the_name_cannot_be_resolved() {
    let network = Network::of(2);
    let channel = network.channel();
    calls_for(&channel, SECOND).await;
    network.nobody_resolves();
    calls_for(&channel, 90 * SECOND).await;
    network.host(1, Manner::Serves);
    calls_for(&channel, 30 * SECOND).await;
    assert!(network.calls(1) > 0, "no call after the host was back");
    network.host(3, Manner::Serves);
    network.name_leads_to(&[3]);
    calls_for(&channel, 2 * SECOND).await;
    assert!(network.calls(3) > 0, "the name was not resolved again");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_resolved_is_a_connection_error() {
    let network = Network::default();
    let channel = network.channel();
    for _ in 0..2 {
        let error = call(&channel).await.unwrap_err();
        assert!(unbegun::cause::<NoConnection>(&*error).is_some(), "{error}");
        assert!(chain(&*error).contains("nobody resolves it"));
    }
    network.host(1, Manner::Serves);
    network.name_leads_to(&[1]);
    call(&channel).await.unwrap();
}
