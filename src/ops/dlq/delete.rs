//! Deletes letters whose copies are stored.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::letter::IdHash;
use super::repeat::can_pass;
use super::scan::{RunState, lock};
use crate::queue::{BATCH_MAX, EntryError};
use crate::retry::Backoff;

/// How long a failed delete is repeated, also after Ctrl-C: what is sent and not deleted would be
/// sent again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// Pauses between the attempts.
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(3) };

/// Deletes letters that are held, and returns those that could not be deleted.
pub(super) async fn delete(held: &RunState<'_>, ids: &[IdHash]) -> HashSet<IdHash> {
    let mut kept = HashSet::new();
    for batch in ids.chunks(BATCH_MAX) {
        kept.extend(delete_batch(held, batch).await);
    }
    kept
}

async fn delete_batch(held: &RunState<'_>, ids: &[IdHash]) -> Vec<IdHash> {
    let (began, mut failures) = (Instant::now(), 0);
    let mut kept = Vec::new();
    let mut open: Vec<_> =
        ids.iter().filter_map(|id| Some((*id, held.leases.handle(*id)?))).collect();
    while !open.is_empty() {
        let handles: Vec<_> = open.iter().map(|(_, handle)| handle.clone()).collect();
        let mut again = Vec::new();
        match held.dlq.delete(&handles).await {
            Ok(answers) => {
                for ((id, handle), answer) in open.into_iter().zip(answers) {
                    match answer {
                        Ok(()) => {
                            held.leases.remove(id);
                            lock(&held.deleted).insert(id);
                        }
                        Err(EntryError::Lost(_)) => kept.push(id),
                        Err(EntryError::Retry(_)) => again.push((id, handle)),
                    }
                }
            }
            Err(why) if can_pass(&why) => again = open,
            Err(why) => {
                held.fail(format!("the dead-letter queue cannot be deleted from: {why}"));
                kept.extend(open.into_iter().map(|(id, _)| id));
                break;
            }
        }
        open = again;
        if !open.is_empty() {
            if began.elapsed() >= RETRY_TIMEOUT {
                kept.extend(open.into_iter().map(|(id, _)| id));
                break;
            }
            sleep(RETRY.delay(failures, &mut fastrand::Rng::new())).await;
            failures += 1;
        }
    }
    kept
}
