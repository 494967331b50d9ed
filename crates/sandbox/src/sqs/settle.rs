//! `DeleteMessage`, `ChangeMessageVisibility` and their batches.

use super::action::Action;
use super::batch;
use super::error::{ErrorCode, SqsError};
use super::ledger::{FaultKind, Outcome};
use super::queue::{Now, Queue};
use super::wire;
use super::world::Shared;

/// Maximum visibility timeout in seconds. Source: API_ChangeMessageVisibility.
const VISIBILITY_S_MAX: u32 = 43_200;

pub(crate) fn delete(
    shared: &Shared,
    input: wire::DeleteMessage,
) -> Result<wire::Nothing, SqsError> {
    let receipt = input.receipt_handle.ok_or_else(|| SqsError::missing("ReceiptHandle"))?;
    let now = shared.now();
    let mut world = shared.lock();
    let queue = world.queue(input.queue_url.as_deref(), now)?;
    queue.delete(Action::DeleteMessage, &receipt, now)?;
    Ok(wire::Nothing {})
}

pub(crate) fn change_visibility(
    shared: &Shared,
    input: wire::ChangeMessageVisibility,
) -> Result<wire::Nothing, SqsError> {
    let receipt = input.receipt_handle.ok_or_else(|| SqsError::missing("ReceiptHandle"))?;
    let timeout_s = timeout(input.visibility_timeout)?;
    let now = shared.now();
    let mut world = shared.lock();
    let queue = world.queue(input.queue_url.as_deref(), now)?;
    queue.change_visibility(Action::ChangeMessageVisibility, &receipt, timeout_s, now)?;
    Ok(wire::Nothing {})
}

pub(crate) fn delete_batch(
    shared: &Shared,
    input: wire::DeleteMessageBatch,
) -> Result<wire::BatchOutcome<wire::EntryId>, SqsError> {
    let action = Action::DeleteMessageBatch;
    settle_batch(shared, input.queue_url.as_deref(), input.entries, |queue, entry, now| {
        if queue.faults.fails_delete_entry() {
            return Err(fail_entry(queue, action, &entry.receipt, now));
        }
        queue.delete(action, &entry.receipt, now)
    })
}

pub(crate) fn change_visibility_batch(
    shared: &Shared,
    input: wire::ChangeMessageVisibilityBatch,
) -> Result<wire::BatchOutcome<wire::EntryId>, SqsError> {
    let action = Action::ChangeMessageVisibilityBatch;
    settle_batch(shared, input.queue_url.as_deref(), input.entries, |queue, entry, now| {
        if queue.faults.fails_visibility_entry() {
            return Err(fail_entry(queue, action, &entry.receipt, now));
        }
        let timeout_s = timeout(entry.visibility_timeout)?;
        queue.change_visibility(action, &entry.receipt, timeout_s, now)
    })
}

/// A batch entry with a handle.
struct Entry {
    receipt: String,
    visibility_timeout: Option<i64>,
}

fn settle_batch(
    shared: &Shared,
    url: Option<&str>,
    entries: Vec<wire::SettleEntry>,
    mut each: impl FnMut(&mut Queue, &Entry, Now) -> Result<(), SqsError>,
) -> Result<wire::BatchOutcome<wire::EntryId>, SqsError> {
    batch::check_ids(entries.iter().map(|entry| entry.id.as_str()))?;
    let entries = entries
        .into_iter()
        .map(|entry| (entry.id, (entry.receipt_handle, entry.visibility_timeout)))
        .collect();
    let now = shared.now();
    let mut world = shared.lock();
    let queue = world.queue(url, now)?;
    let outcome = batch::run(entries, |(receipt, visibility_timeout)| {
        let receipt = receipt.ok_or_else(|| SqsError::missing("ReceiptHandle"))?;
        each(queue, &Entry { receipt, visibility_timeout }, now)
    });
    Ok(outcome.map(|id, ()| wire::EntryId { id }))
}

fn fail_entry(queue: &mut Queue, action: Action, receipt: &str, now: Now) -> SqsError {
    let outcome = Outcome::Fault(FaultKind::BatchEntry);
    queue.book(now, action, None, Some(receipt.into()), outcome);
    SqsError::new(ErrorCode::InternalError, "We encountered an internal error. Please try again.")
}

fn timeout(value: Option<i64>) -> Result<u32, SqsError> {
    batch::bounded("VisibilityTimeout", value, 0, VISIBILITY_S_MAX)?
        .ok_or_else(|| SqsError::missing("VisibilityTimeout"))
}
