//! Tests of the proxy's faults.
#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(50);

/// Starts a server that sends a greeting and then echoes all bytes.
async fn echo(greeting: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                if to.write_all(greeting.as_bytes()).await.is_ok() {
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                }
            });
        }
    });
    addr
}

async fn proxied() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo("").await).await.unwrap();
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    (proxy, client)
}

async fn hear(client: &mut TcpStream, count: usize) -> String {
    let mut heard = vec![0; count];
    timeout(LIMIT, client.read_exact(&mut heard)).await.unwrap().unwrap();
    String::from_utf8(heard).unwrap()
}

async fn hears_nothing(client: &mut TcpStream) {
    assert!(timeout(MOMENT, client.read_u8()).await.is_err());
}

#[tokio::test]
async fn bytes_and_the_end_are_forwarded_by_default() {
    let (proxy, client) = proxied().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (mut from, mut to) = client.into_split();
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        // The drop closes this way, and the proxy forwards the end.
    });
    let mut heard = Vec::new();
    timeout(LIMIT, from.read_to_end(&mut heard)).await.unwrap().unwrap();
    sending.await.unwrap();
    assert!(heard == expected);
    let traffic = proxy.traffic();
    assert_eq!(
        (traffic.passed(Way::ToServer), traffic.taken(Way::ToClient)),
        (3_000_000, 3_000_000)
    );
    assert!(proxy.wait_until(|proxy| proxy.traffic().open == 0, LIMIT).await);
    assert_eq!(proxy.traffic().opened, 1);
}

#[tokio::test]
async fn held_bytes_are_visible_and_forwarded_in_order_later() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Way::ToServer, Course::Hold);
    for part in ["one", "two"] {
        client.write_all(part.as_bytes()).await.unwrap();
        assert!(proxy.wait_until(|proxy| proxy.holds(Way::ToServer, part.as_bytes()), LIMIT).await);
    }
    assert_eq!(proxy.held(Way::ToServer), b"onetwo");
    hears_nothing(&mut client).await;
    proxy.set(Way::ToServer, Course::Pass);
    assert_eq!(hear(&mut client, 6).await, "onetwo");
    proxy.set(Way::ToClient, Course::Hold);
    client.write_all(b"three").await.unwrap();
    assert!(proxy.wait_until(|proxy| proxy.holds(Way::ToClient, b"three"), LIMIT).await);
    proxy.forget();
    assert!(client.read_u8().await.is_err(), "reset");
}

#[tokio::test]
async fn delays_and_throttles_take_the_configured_time() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Way::ToServer, Course::Delay(Duration::from_millis(200)));
    let began = Instant::now();
    for _ in 0..4 {
        client.write_all(b"x").await.unwrap();
        sleep_a_little().await;
    }
    assert_eq!(hear(&mut client, 4).await, "xxxx");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert!(took < Duration::from_millis(700), "delays of pieces run in parallel: {took:?}");

    proxy.set(Way::ToServer, Course::Throttle(1_000));
    let began = Instant::now();
    client.write_all(&[b'y'; 400]).await.unwrap();
    hear(&mut client, 400).await;
    let took = began.elapsed();
    assert!((300..2_000).contains(&took.as_millis()), "400 bytes at 1000 a second: {took:?}");
}

async fn sleep_a_little() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test]
async fn a_connection_that_lost_bytes_stays_a_black_hole() {
    let (proxy, mut client) = proxied().await;
    client.write_all(b"a").await.unwrap();
    assert_eq!(hear(&mut client, 1).await, "a");
    proxy.set(Way::ToClient, Course::Drop);
    client.write_all(b"b").await.unwrap();
    assert!(proxy.wait_until(|proxy| proxy.traffic().taken(Way::ToClient) == 2, LIMIT).await);
    hears_nothing(&mut client).await;
    proxy.set(Way::ToClient, Course::Pass);
    client.write_all(b"c").await.unwrap();
    hears_nothing(&mut client).await;
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    second.write_all(b"d").await.unwrap();
    assert_eq!(hear(&mut second, 1).await, "d");
}

#[tokio::test]
async fn a_half_closed_connection_still_forwards_the_other_way() {
    let (proxy, mut client) = proxied().await;
    client.write_all(b"a").await.unwrap();
    assert_eq!(hear(&mut client, 1).await, "a");
    proxy.half_close(Way::ToClient);
    assert_eq!(
        timeout(LIMIT, client.read(&mut [0; 1])).await.unwrap().unwrap(),
        0,
        "the end of the connection"
    );
    client.write_all(b"b").await.unwrap();
    assert!(proxy.wait_until(|proxy| proxy.traffic().passed(Way::ToServer) == 2, LIMIT).await);
}

#[tokio::test]
async fn the_proxy_resets_refuses_and_redirects_connections() {
    let (proxy, mut client) = proxied().await;
    client.write_all(b"a").await.unwrap();
    assert_eq!(hear(&mut client, 1).await, "a");
    proxy.reset();
    let error = timeout(LIMIT, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    proxy.refuse().await.unwrap();
    let error = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    proxy.accept().await.unwrap();
    proxy.lead_to(echo("hello").await);
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(hear(&mut client, 5).await, "hello");

    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    proxy.lead_to(nobody);
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(timeout(LIMIT, client.read_u8()).await.unwrap().is_err());
}
