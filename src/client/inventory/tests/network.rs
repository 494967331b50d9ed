//! A network in memory, on paused time: hosts that serve, refuse or stay silent.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::StdError;

use super::super::channel::BalancedChannel;
use super::super::connect::{ByteStream, ChannelConnector};
use super::super::resolver::ServiceName;
use super::*;

pub(super) const INTERVAL: Duration = Duration::from_secs(10);
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// First frame of an HTTP/2 server: empty SETTINGS.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Behaviour of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Answers each call at once.
    Serves,
    /// Answers pings, but no call.
    Stalls,
    /// Sends its SETTINGS, and nothing more.
    FallsSilent,
    /// Accepts connections and sends nothing.
    Silent,
    /// Refuses connections.
    Refuses,
}

#[derive(Debug)]
struct Host {
    manner: Manner,
    attempts: usize,
    calls: Arc<Mutex<usize>>,
    connections: JoinSet<()>,
}

/// The hosts by address, and the addresses of the service's name.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    hosts: Arc<Mutex<HashMap<SocketAddr, Host>>>,
    /// `None`: the name cannot be resolved.
    name: Arc<Mutex<Option<Vec<SocketAddr>>>>,
}

pub(super) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 1))
}

impl Network {
    /// Creates hosts 1 to `count`, all serving, as the addresses of the name.
    pub(super) fn of(count: u8) -> Self {
        let network = Self::default();
        (1..=count).for_each(|last| network.host(last, Manner::Serves));
        network.name_leads_to(&(1..=count).collect::<Vec<_>>());
        network
    }

    /// Adds or replaces a host. The connections of a replaced host are lost.
    pub(super) fn host(&self, last: u8, manner: Manner) {
        let mut hosts = self.hosts.lock().unwrap();
        let attempts = hosts.get(&address(last)).map_or(0, |host| host.attempts);
        let connections = JoinSet::new();
        let host = Host { manner, attempts, calls: Arc::default(), connections };
        hosts.insert(address(last), host);
    }

    pub(super) fn name_leads_to(&self, hosts: &[u8]) {
        *self.name.lock().unwrap() = Some(hosts.iter().copied().map(address).collect());
    }

    pub(super) fn nobody_resolves(&self) {
        *self.name.lock().unwrap() = None;
    }

    /// Returns the number of calls that the host received.
    pub(super) fn calls(&self, last: u8) -> usize {
        *self.hosts.lock().unwrap()[&address(last)].calls.lock().unwrap()
    }

    /// Returns the number of attempts to connect to the host.
    pub(super) fn attempts(&self, last: u8) -> usize {
        self.hosts.lock().unwrap()[&address(last)].attempts
    }

    pub(super) fn channel(&self) -> BalancedChannel {
        let (names, hosts) = (self.clone(), self.clone());
        let lookup = Lookup::new(move |_, _| {
            let found = names.name.lock().unwrap().clone();
            std::future::ready(found.ok_or_else(|| io::Error::other("nobody resolves it")))
        });
        let open = move |address| std::future::ready(hosts.open(address)).boxed();
        let origin = Uri::from_static("http://inventory.test:1");
        let connector = ChannelConnector::with_open(origin, INTERVAL, CONNECT_TIMEOUT, open);
        let (host, timeout) = ("inventory.test".to_owned(), CONNECT_TIMEOUT);
        BalancedChannel::new(ServiceName { host, port: 1, lookup, timeout, connector })
    }

    fn open(&self, address: SocketAddr) -> io::Result<Box<dyn ByteStream>> {
        let mut hosts = self.hosts.lock().unwrap();
        let host = hosts.get_mut(&address).unwrap();
        host.attempts += 1;
        let (near, far) = duplex(64 << 10);
        let calls = Arc::clone(&host.calls);
        match host.manner {
            Manner::Refuses => return Err(io::ErrorKind::ConnectionRefused.into()),
            Manner::Serves => host.connections.spawn(serve(far, calls, true)),
            Manner::Stalls => host.connections.spawn(serve(far, calls, false)),
            Manner::FallsSilent => host.connections.spawn(hear(far, SETTINGS)),
            Manner::Silent => host.connections.spawn(hear(far, &[])),
        };
        Ok(Box::new(near))
    }
}

async fn serve(far: DuplexStream, calls: Arc<Mutex<usize>>, answers: bool) {
    let Ok(mut connection) = h2::server::handshake(far).await else { return };
    let mut open = Vec::new();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        *calls.lock().unwrap() += 1;
        if answers {
            // The client may have abandoned the call.
            drop(respond.send_response(Response::new(()), true));
        } else {
            open.push(respond);
        }
    }
}

/// Sends `greeting`, then reads until the client closes the connection.
async fn hear(mut far: DuplexStream, greeting: &[u8]) {
    far.write_all(greeting).await.unwrap();
    while far.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
}

pub(super) async fn call(channel: &BalancedChannel) -> Result<Bytes, StdError> {
    let request = Request::post("/service/Method").body(Body::new(Full::<Bytes>::default()));
    let answer = channel.send(request.unwrap()).await?;
    Ok(answer.into_body().collect().await?.to_bytes())
}

/// As [`call`], and repeats a call that the service did not process, as the client does.
pub(super) async fn call_until_begun(channel: &BalancedChannel) -> Result<Bytes, StdError> {
    for _ in 1..TRIES_MAX {
        match call(channel).await {
            Err(error) if unbegun::is_unbegun(&*error) => {}
            begun => return begun,
        }
    }
    call(channel).await
}
