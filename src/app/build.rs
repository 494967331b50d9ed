//! Builds parts of the app from its settings.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::AppSettings;
use crate::handler::Services;
use crate::inflight::{InFlight, JobKey, SuspectBounds};
use crate::intake::Intake;
use crate::scheduler::BUFFERED_PER_CALL;
use crate::settle::Settler;
use crate::settle::account::MessageAccount;
use crate::settle::batch::Batches;
use crate::telemetry::{QueueSpans, Tracing};

/// One suspect is tried at once per this many workers. The other workers stay free for other
/// events.
const WORKERS_PER_SUSPECT: usize = 4;

/// Creates the table and the channel of ready keys. Suspects get half of the room and a part of the
/// workers.
pub(super) fn table(settings: &AppSettings) -> (Arc<InFlight>, mpsc::Receiver<JobKey>) {
    let suspects = SuspectBounds {
        held_max: (settings.in_flight_max / 2).max(1),
        tried_max: settings.concurrency.div_ceil(WORKERS_PER_SUSPECT),
    };
    let (inflight, ready) = InFlight::new(
        settings.in_flight_max,
        settings.concurrency * BUFFERED_PER_CALL,
        suspects,
        settings.visibility,
    );
    (Arc::new(inflight), ready)
}

/// Creates the settler.
pub(super) fn settler(
    settings: &AppSettings,
    services: &Services,
    inflight: &Arc<InFlight>,
    account: &Arc<MessageAccount>,
    batches: Batches,
) -> Settler {
    Settler {
        inflight: Arc::clone(inflight),
        idempotency: services.idempotency.clone(),
        batches,
        policy: settings.policy,
        metrics: Arc::clone(&services.metrics),
        outages: Arc::clone(&services.outages),
        account: Arc::clone(account),
        failures: Arc::default(),
    }
}

/// Creates the intake.
pub(super) fn intake(
    settings: &AppSettings,
    settler: &Settler,
    tracing: Tracing,
    spans: QueueSpans,
) -> Intake {
    Intake {
        inflight: Arc::clone(&settler.inflight),
        settler: settler.clone(),
        tracing,
        spans,
        metrics: Arc::clone(&settler.metrics),
        account: Arc::clone(&settler.account),
        queue_name: settings.queue_name.clone(),
    }
}
