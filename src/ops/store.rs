//! Opens the shared store for a command that looks into it.

use std::process::ExitCode;

use serde::Serialize;

use crate::config::{IdempotencyStore, StorePart};
use crate::idempotency::redis::RedisStore;
use crate::run::{EXIT_USAGE, SharedStore, shared_store, sqs_queue};

/// The shared store.
pub(super) struct OpenStore {
    /// The store.
    pub(super) store: RedisStore,
    /// Where it is, without credentials, and what its keys begin with.
    pub(super) place: StorePlace,
}

/// Where records are looked for.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StorePlace {
    /// The URL, without credentials.
    pub(super) store: String,
    /// What every key begins with.
    pub(super) key_prefix: String,
}

/// Opens the store of the configuration; says why it cannot, and returns the exit code.
pub(super) async fn open(config: &StorePart) -> Result<OpenStore, ExitCode> {
    let wrong = |why: &dyn std::fmt::Display| {
        super::fail(EXIT_USAGE, &format_args!("the configuration is wrong\n{why}"))
    };
    let IdempotencyStore::Redis(url) = &config.idempotency.store else {
        // A misspelt name of the variable would look like this too.
        let also: String = config.warnings.iter().map(|line| format!("\n{line}")).collect();
        let why = "IDEMPOTENCY_STORE is \"memory\": must be the URL of the shared store; what a process has in its memory no other process can see";
        return Err(wrong(&format_args!("{why}{also}")));
    };
    let queue = match &config.queue {
        None => None,
        Some(part) => Some(sqs_queue(&part.sqs, &part.aws).await.map_err(|why| wrong(&why))?),
    };
    let SharedStore { store, tokens, .. } = shared_store(&config.idempotency, url, queue.as_ref())
        .map_err(|why| wrong(&format_args!("IDEMPOTENCY_STORE: {why}")))?;
    if let Some(tokens) = tokens {
        // A first lookup of credentials may take longer than the store's own timeout.
        tokens.prepare().await;
    }
    let key_prefix = config.idempotency.key_prefix.clone();
    Ok(OpenStore { store, place: StorePlace { store: url.without_user(), key_prefix } })
}
