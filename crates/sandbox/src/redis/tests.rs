//! Tests of the handle on a real Redis.
#![allow(clippy::unwrap_used)]

use super::*;

#[tokio::test]
async fn data_survives_a_restart_only_with_persistence() {
    if !is_installed("starting and stopping a real Redis") {
        return;
    }
    for (options, kept) in [
        (RedisOptions::default(), Reply::Nothing),
        (RedisOptions::default().append_only(), Reply::Bytes(b"v".to_vec())),
    ] {
        let mut redis = options.start().await.unwrap();
        let set = redis.command(&["SET", "k", "v"]).await.unwrap();
        assert_eq!(set, Reply::Text("OK".to_owned()));
        redis.kill().await.unwrap();
        assert!(redis.command(&["PING"]).await.is_err(), "the server has ended");
        redis.start().await.unwrap();
        assert_eq!(redis.command(&["GET", "k"]).await.unwrap(), kept);
    }
}

#[tokio::test]
async fn a_password_is_required() {
    if !is_installed("a real Redis with a password") {
        return;
    }
    let redis = RedisOptions::default().password("open-sesame").start().await.unwrap();
    assert!(redis.url().contains("open-sesame"));
    assert_eq!(redis.command(&["PING"]).await.unwrap(), Reply::Text("PONG".to_owned()));
    let stranger = command::send(redis.port(), None, &["PING"]).await.unwrap();
    assert!(stranger.text().starts_with("NOAUTH"), "{stranger:?}");
}

#[tokio::test]
async fn a_paused_server_answers_after_it_resumes() {
    if !is_installed("pausing a real Redis") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    redis.pause();
    let ping = ["PING"];
    let ping = redis.command(&ping);
    tokio::pin!(ping);
    let soon = tokio::time::timeout(Duration::from_millis(50), &mut ping).await;
    assert!(soon.is_err(), "{soon:?}");
    redis.resume();
    assert_eq!(ping.await.unwrap(), Reply::Text("PONG".to_owned()));
}

#[tokio::test]
async fn a_start_error_has_the_output_of_the_server() {
    if !is_installed("a real Redis that does not start") {
        return;
    }
    let error = RedisOptions::default().setting("no-such-setting", "1").start().await.unwrap_err();
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}
