//! The addresses behind a service's name: asked for at each new connection, and shared out among the connections. Connecting is
//! left to the clients.
//!
//! A name may have many (a headless Service: one for each pod). A gRPC connection goes to the address that has the fewest of this
//! process's; an HTTP connection to one at random, as there are many and they come and go.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::Instant;

/// An address that could not be connected to comes last for this long: a pod that is gone may stay in DNS for as long (CoreDNS
/// answers from a cache of 5 to 30 s).
const SHUN_TIME: Duration = Duration::from_secs(30);

type LookupFuture = BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Finds the addresses of a host and port.
#[derive(Clone)]
pub(super) struct Lookup(Arc<dyn Fn(String, u16) -> LookupFuture + Send + Sync>);

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

impl Lookup {
    /// As the operating system does it: `/etc/hosts`, DNS.
    pub(super) fn system() -> Self {
        Self(Arc::new(|host, port| {
            Box::pin(
                async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) },
            )
        }))
    }

    /// Always these.
    #[cfg(test)]
    pub(super) fn fixed(addresses: Vec<SocketAddr>) -> Self {
        Self::of(move || std::future::ready(addresses.clone()))
    }

    /// What `find` comes to.
    #[cfg(test)]
    pub(super) fn of<F>(find: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<SocketAddr>> + Send + 'static,
    {
        Self(Arc::new(move |_, _| {
            let found = find();
            Box::pin(async move { Ok(found.await) })
        }))
    }

    /// At least one.
    ///
    /// # Errors
    /// Where the name cannot be resolved, or has no address.
    pub(super) async fn find(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = (self.0)(host.to_owned(), port).await?;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }
}

/// Any address first: `reqwest` tries them in the order given.
impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.clone();
        Box::pin(async move {
            // The URL's port takes the place of 0.
            let mut found = lookup.find(name.as_str(), 0).await?;
            fastrand::shuffle(&mut found);
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What is known of an address.
#[derive(Debug, Default)]
struct Known {
    connections: usize,
    failed_at: Option<Instant>,
}

/// How many connections each address has, and which would not have one.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<HashMap<SocketAddr, Known>>);

impl Addresses {
    /// Best first: those that took a connection lately, then those with the fewest, else by chance.
    pub(super) fn in_order(&self, mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let mut known = self.lock();
        known.retain(|address, known| known.connections > 0 || found.contains(address));
        fastrand::shuffle(&mut found);
        found.sort_by_key(|address| match known.get(address) {
            Some(Known { connections, failed_at }) => {
                (failed_at.is_some_and(|at| at.elapsed() < SHUN_TIME), *connections)
            }
            None => (false, 0),
        });
        found
    }

    /// Counts a connection to `address` until the place is dropped.
    pub(super) fn take(self: &Arc<Self>, address: SocketAddr) -> Place {
        let mut known = self.lock();
        let of_it = known.entry(address).or_default();
        of_it.connections += 1;
        of_it.failed_at = None;
        Place { addresses: Arc::clone(self), address }
    }

    /// It could not be connected to.
    pub(super) fn failed(&self, address: SocketAddr) {
        self.lock().entry(address).or_default().failed_at = Some(Instant::now());
    }

    /// What is behind the lock is whole at every moment.
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that counts.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Arc<Addresses>,
    address: SocketAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(known) = self.addresses.lock().get_mut(&self.address) {
            known.connections = known.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 50051))
    }

    #[tokio::test(start_paused = true)]
    async fn the_address_with_the_fewest_connections_comes_first_and_one_that_failed_last() {
        let addresses = Arc::new(Addresses::default());
        let all = [1, 2, 3].map(address);
        let first = |addresses: &Addresses| addresses.in_order(all.to_vec())[0];
        let places: Vec<_> = (0..3).map(|_| addresses.take(first(&addresses))).collect();
        let mut taken: Vec<_> = places.iter().map(|place| place.address).collect();
        taken.sort();
        assert_eq!(taken, all, "one each");
        let mut places = places.into_iter();
        let left = places.next().unwrap().address;
        assert_eq!(first(&addresses), left);
        drop(places);
        addresses.failed(address(1));
        addresses.failed(address(2));
        assert_eq!(first(&addresses), address(3));
        tokio::time::advance(SHUN_TIME).await;
        let firsts: Vec<_> = (0..100).map(|_| first(&addresses)).collect();
        assert!(firsts.contains(&address(1)), "forgiven by now");
    }

    #[tokio::test]
    async fn what_is_gone_from_the_name_is_forgotten() {
        let addresses = Arc::new(Addresses::default());
        let place = addresses.take(address(1));
        addresses.failed(address(2));
        addresses.in_order(vec![address(3)]);
        assert_eq!(addresses.lock().len(), 1, "the one that still has a connection");
        drop(place);
        addresses.in_order(vec![address(3)]);
        assert!(addresses.lock().is_empty());
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_one_without_an_address_is_an_error() {
        let found = Lookup::system().find("localhost", 80).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
        let error = Lookup::fixed(Vec::new()).find("localhost", 80).await.unwrap_err();
        assert!(error.to_string().contains("no address"), "{error}");
    }
}
