//! Resolves the addresses of a host. The two clients decide which of them they use.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

type LookupFuture = BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Resolver of a host and port.
#[derive(Clone)]
pub(super) struct Lookup(Arc<dyn Fn(String, u16) -> LookupFuture + Send + Sync>);

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

impl Lookup {
    /// Returns a resolver that uses the operating system: `/etc/hosts`, DNS.
    pub(super) fn system() -> Self {
        Self::new(|host, port| async move {
            Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect())
        })
    }

    /// Returns a resolver that calls `find` for every name.
    pub(super) fn new<F>(find: impl Fn(String, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |host, port| Box::pin(find(host, port))))
    }

    /// Returns the addresses, at least one. An IP address is returned without a lookup.
    ///
    /// # Errors
    /// Where the name cannot be resolved, or has no address.
    pub(super) async fn find(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let found = (self.0)(host.to_owned(), port).await?;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }
}

/// Returns the addresses in random order: `reqwest` tries them in the order given.
impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.clone();
        Box::pin(async move {
            // `reqwest` replaces port 0 by the port of the URL.
            let mut found = lookup.find(name.as_str(), 0).await?;
            fastrand::shuffle(&mut found);
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::client::test_server::fixed_lookup;

    #[tokio::test]
    async fn a_name_without_addresses_is_an_error() {
        let found = Lookup::system().find("localhost", 80).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
        let error = fixed_lookup(Vec::new()).find("localhost", 80).await.unwrap_err();
        assert!(error.to_string().contains("no address"), "{error}");
    }

    #[tokio::test]
    async fn an_ip_address_needs_no_lookup() {
        let lookup = Lookup::new(|_, _| async { panic!("an address was looked up") });
        for ip in ["10.0.0.1", "::1", "fe80::1"] {
            let found = lookup.find(ip, 80).await.unwrap();
            assert_eq!(found, [SocketAddr::new(ip.parse().unwrap(), 80)]);
        }
    }
}
