//! Connects to the Inventory service: resolves its name, takes the address that is used least, speaks TLS where that is asked for. When
//! to connect is the `subchannel`'s decision.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Stream};
use crate::client::addresses::{Addresses, Lookup};

/// One address is given no less than this, however many there are.
const ADDRESS_TIME_MIN: Duration = Duration::from_millis(200);

/// Where the service is, and how to reach it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) lookup: Lookup,
    /// With TLS: how, and the name that the certificate must have.
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// For the whole of it.
    pub(super) timeout: Duration,
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) target: Arc<Target>,
    pub(super) addresses: Arc<Addresses>,
    /// How many addresses the name had when it was last resolved.
    pub(super) count: Arc<AtomicUsize>,
}

impl Connector {
    /// One connection, or why there is none. Safe to drop: what was begun is closed.
    pub(super) async fn connect(&self) -> io::Result<Connection> {
        let deadline = Instant::now() + self.target.timeout;
        match timeout_at(deadline, self.connect_by(deadline)).await {
            Ok(result) => result,
            Err(_elapsed) => {
                let ms = self.target.timeout.as_millis();
                let text = format!("no connection within {ms} ms");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }

    async fn connect_by(&self, deadline: Instant) -> io::Result<Connection> {
        let Target { host, port, lookup, .. } = &*self.target;
        let found = lookup.find(host, *port).await?;
        self.count.store(found.len(), Ordering::Relaxed);
        let found = self.addresses.in_order(found);
        let mut last = None;
        for (at, address) in found.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = u32::try_from(found.len() - at).map_or(left, |addresses| left / addresses);
            match timeout(share.max(ADDRESS_TIME_MIN), self.connect_to(*address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = Some(error),
                Err(_elapsed) => {
                    last = Some(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
                }
            }
            self.addresses.failed(*address);
        }
        Err(last.expect("a look-up that succeeds finds an address"))
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<Connection> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let io: Box<dyn Stream> = match &self.target.tls {
            Some((tls, name)) => Box::new(tls.connect(name.clone(), tcp).await?),
            None => Box::new(tcp),
        };
        Ok(Connection::new(io, self.addresses.take(address)))
    }
}
