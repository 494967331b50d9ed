//! Settles messages without an event: poison, or a payment status that changes nothing here.

use std::time::SystemTime;

use tracing::{info, warn};

use super::Settler;
use super::account::Disposition;
use super::batch::{Grounds, Settlement};
use super::decide::DeadLetterReason;
use super::failures::RecentFailure;
use crate::event::{NoChange, Poison};
use crate::inflight::RemovedJob;
use crate::metrics::Outcome;
use crate::telemetry::{EventSpan, SpanFailure};

/// The label for event types that the worker does not handle.
const UNKNOWN_TYPE: &str = "unknown";

impl Settler {
    /// Dead-letters a body that is not a valid event.
    pub async fn reject_poison(&self, removed: RemovedJob, poison: Poison, mut span: EventSpan) {
        let Poison { reason, event_type, id, reservation_id, detail } = poison;
        let reason = DeadLetterReason::Poison(reason);
        self.failures.add(RecentFailure {
            at: SystemTime::now(),
            event_type,
            reservation_id: reservation_id.clone(),
            reason: reason.as_str(),
            class: "poison",
            code: String::new(),
            trace_id: span.trace_id().to_owned(),
        });
        let id = id.as_ref().map(|id| id.as_str());
        let reservation_id = reservation_id.as_ref().map(|id| id.as_str());
        self.metrics.event_settled(event_type, Outcome::Failed);
        let event_type = event_type.map_or(UNKNOWN_TYPE, |known| known.as_str());
        warn!(
            event_type,
            reservation_id,
            trace_id = span.trace_id(),
            outcome = Outcome::Failed.as_str(),
            error = detail,
            event_id = id,
            message_id = %removed.original.message_id,
            reason = reason.as_str(),
            "Message is no event: it goes to the dead-letter queue"
        );
        span.set_event(event_type, reservation_id, id);
        let failure = SpanFailure { error_type: reason.as_str(), message: &detail };
        span.end(Outcome::Failed.as_str(), 1, Some(failure));
        self.send_dead_letter(removed, Grounds { reason, error: detail, event_type }).await;
    }

    /// Deletes the message of a payment status that changes nothing here.
    pub async fn drop_unchanging(
        &self,
        removed: RemovedJob,
        no_change: NoChange,
        mut span: EventSpan,
    ) {
        let NoChange { id, reservation_id, status } = no_change;
        let id = id.as_ref().map(|id| id.as_str());
        let reservation_id = reservation_id.as_ref().map(|id| id.as_str());
        self.metrics.event_settled(None, Outcome::Dropped);
        info!(
            event_type = UNKNOWN_TYPE,
            reservation_id,
            trace_id = span.trace_id(),
            outcome = Outcome::Dropped.as_str(),
            event_id = id,
            message_id = %removed.original.message_id,
            status,
            "The payment's status changes nothing here"
        );
        span.set_event(UNKNOWN_TYPE, reservation_id, id);
        span.end(Outcome::Dropped.as_str(), 1, None);
        for receipt in removed.receipts {
            self.batches.send(Settlement::Delete(receipt, Disposition::Deleted)).await;
        }
    }
}
