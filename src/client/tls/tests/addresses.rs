//! Two servers behind one name: how calls are spread, and what happens when one stops.

use super::*;

async fn pair(kind: Kind) -> [TestServer; 2] {
    let first = SocketAddr::from(([127, 0, 0, 1], 0));
    let http2 = kind == Kind::Grpc;
    let one = TestServer::start_at(first, http2, move |_| done(kind)).await;
    // All of 127.0.0.0/8 is the loopback interface.
    let second = SocketAddr::from(([127, 0, 0, 2], one.address.port()));
    let two = TestServer::start_at(second, http2, move |_| done(kind)).await;
    [one, two]
}

fn client_of(kind: Kind, servers: &[TestServer; 2]) -> Client {
    let url = format!("http://service.test:{}", servers[0].address.port());
    let addresses = servers.iter().map(|server| server.address).collect();
    Client::new(kind, &url, Credentials::default(), fixed_lookup(addresses))
}

#[tokio::test]
async fn grpc_calls_alternate_between_the_addresses_of_a_name() {
    let servers = pair(Kind::Grpc).await;
    let client = client_of(Kind::Grpc, &servers);
    // The first call waits for one connection only.
    while servers.iter().any(|server| server.asked().is_empty()) {
        client.call().await.unwrap();
    }
    let before = servers.each_ref().map(|server| server.asked().len());
    for _ in 0..20 {
        client.call().await.unwrap();
    }
    for (server, before) in servers.iter().zip(before) {
        assert_eq!((server.asked().len() - before, server.connections()), (10, 1));
    }
    let host = servers[0].asked()[0].head.uri.authority().unwrap().to_string();
    assert_eq!(host, format!("service.test:{}", servers[0].address.port()));
}

#[tokio::test]
async fn a_stopped_address_leaves_all_grpc_calls_to_the_other() {
    let servers = pair(Kind::Grpc).await;
    let client = client_of(Kind::Grpc, &servers);
    while servers.iter().any(|server| server.asked().is_empty()) {
        client.call().await.unwrap();
    }
    let [dying, living] = servers;
    let address = dying.address;
    dying.stop().await;
    let mut lost = 0;
    for _ in 0..10 {
        lost += usize::from(client.call().await.is_err());
    }
    assert!(lost <= 1, "more than one call lost: {lost}");
    let before = living.asked().len();
    for _ in 0..20 {
        client.call().await.unwrap();
    }
    assert_eq!(living.asked().len(), before + 20);
    // The stopped server starts again, and the other one stops.
    let back = TestServer::start_at(address, true, |_| done(Kind::Grpc)).await;
    living.stop().await;
    let mut lost = 0;
    for _ in 0..20 {
        lost += usize::from(client.call().await.is_err());
    }
    assert!(lost <= 2, "more than one call per connection lost: {lost}");
    assert!(back.asked().len() >= 18);
}

#[tokio::test]
async fn http_connections_use_every_address_except_stopped_ones() {
    let servers = pair(Kind::Http).await;
    for _ in 0..40 {
        client_of(Kind::Http, &servers).call().await.unwrap();
    }
    let shares = servers.each_ref().map(|server| server.asked().len());
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    let clients: Vec<_> = (0..10).map(|_| client_of(Kind::Http, &servers)).collect();
    let [dying, living] = servers;
    dying.stop().await;
    for client in &clients {
        client.call().await.unwrap();
    }
    assert_eq!(living.asked().len(), shares[1] + 10);
}
