//! Load-balanced channel to the Inventory service.
//!
//! Has one tonic channel for each address of the name. Each call uses the one with the fewest open
//! calls. `resolver` owns the names and the connections; `grpc_only` and `status` read the answers.
//!
//! A call that finds no connection requests one and waits. All waiting calls share one attempt to
//! connect, which continues if they time out. Otherwise each call would start a slow handshake
//! again.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::{Request, Response};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};

use super::endpoints::{Endpoints, InventoryConnection, NoConnection};
use super::resolver::{EndpointFeed, ServiceName, resolve};
use super::unbegun::is_connection_ended;

/// A channel that spreads calls over the addresses of a name. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct BalancedChannel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    feed: Arc<EndpointFeed>,
    turn: AtomicUsize,
    /// Resolver task. Starts with the first call, and ends when the last clone is dropped.
    resolving: OnceLock<JoinSet<()>>,
}

impl BalancedChannel {
    /// Creates the channel. Opens no connection.
    pub(super) fn new(name: ServiceName) -> Self {
        let feed = Arc::new(EndpointFeed::new(name));
        Self(Arc::new(Inner { feed, turn: AtomicUsize::default(), resolving: OnceLock::new() }))
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// Cancel-safe: a call whose future is dropped is reset. Whether it took effect is then
    /// unknown.
    ///
    /// # Errors
    /// [`NoConnection`] where no connection could be opened; else the error of tonic's channel.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, StdError> {
        let mut connection = self.ready().await?;
        connection.was_used.store(true, Ordering::Relaxed);
        let channel = &mut connection.channel;
        poll_fn(|cx| channel.poll_ready(cx)).await?;
        let answer = channel.call(request).await;
        if let Err(error) = &answer
            && is_connection_ended(error)
        {
            connection.ended.cancel();
        }
        Ok(answer?)
    }

    /// Waits for a connection that is believed to accept calls.
    async fn ready(&self) -> Result<InventoryConnection, NoConnection> {
        let EndpointFeed { endpoints, wanted, .. } = &*self.0.feed;
        self.0.resolving.get_or_init(|| {
            let mut tasks = JoinSet::new();
            tasks.spawn(resolve(Arc::clone(&self.0.feed)));
            tasks
        });
        if let Some(connection) = self.least_busy(&endpoints.borrow()) {
            return Ok(connection);
        }
        let mut changes = endpoints.subscribe();
        let failed_rounds = changes.borrow().failed_rounds;
        let mut is_news = false;
        endpoints.send_if_modified(|endpoints| {
            is_news = endpoints.least_busy(0).is_none() && endpoints.want();
            false
        });
        if is_news {
            wanted.send_replace(());
        }
        loop {
            {
                let now = changes.borrow_and_update();
                if let Some(connection) = self.least_busy(&now) {
                    return Ok(connection);
                }
                if now.failed_rounds != failed_rounds
                    && let Some(failure) = &now.failure
                {
                    return Err(failure.clone());
                }
            }
            changes.changed().await.expect("this end can send, too");
        }
    }

    fn least_busy(&self, endpoints: &Endpoints) -> Option<InventoryConnection> {
        endpoints.least_busy(self.0.turn.fetch_add(1, Ordering::Relaxed))
    }
}
