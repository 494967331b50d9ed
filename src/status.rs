//! What the worker shows to operators: one report, made from the parts at one moment.
//!
//! [`crate::admin`] serves it as a page and as JSON. It has no bodies, no payload fields, no
//! receipt handles, no tokens, and no text of a service. A report looks at the in-flight table,
//! which locks it for a moment: [`Status::report`] makes at most one a second.

mod activity;
mod report;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, interval};

pub use self::activity::{Activity, BUCKET, BUCKETS};
pub use self::report::{
    ActivityReport, BreakerReport, ControlReport, FailureReport, HeldEventReport, HeldReport,
    PartReport, StatusReport,
};
use crate::controls::Controls;
use crate::health::Health;
use crate::inflight::InFlight;
use crate::metrics::Metrics;
use crate::outage::Outages;
use crate::settle::failures::Failures;

/// A report is shown again until it is this old.
const REPORT_AGE_MAX: Duration = Duration::from_secs(1);

/// The parts that a report is made from.
#[derive(Debug)]
pub struct StatusSources {
    /// Liveness and readiness.
    pub health: Arc<Health>,
    /// The breakers and limits.
    pub outages: Arc<Outages>,
    /// The held events.
    pub inflight: Arc<InFlight>,
    /// The last failures.
    pub failures: Arc<Failures>,
    /// The counters of settled events.
    pub metrics: Arc<Metrics>,
    /// The levers.
    pub controls: Arc<Controls>,
    /// The effective value of each variable, secrets masked.
    pub configuration: Vec<(&'static str, String)>,
    /// The name of this process.
    pub process: String,
}

/// The status of the worker. Share it in an `Arc`.
#[derive(Debug)]
pub struct Status {
    sources: StatusSources,
    started_at: SystemTime,
    started: Instant,
    activity: Mutex<Activity>,
    last: Mutex<Option<(Instant, Arc<StatusReport>)>>,
    has_control_socket: AtomicBool,
}

impl Status {
    /// Creates the status of a worker that starts now.
    #[must_use]
    pub fn new(sources: StatusSources) -> Self {
        let activity = Activity::new(sources.metrics.events_total());
        Self {
            sources,
            started_at: SystemTime::now(),
            started: Instant::now(),
            activity: Mutex::new(activity),
            last: Mutex::default(),
            has_control_socket: AtomicBool::new(false),
        }
    }

    /// Notes the counters every [`BUCKET`], for the drawing of the last minutes. Never returns.
    pub async fn watch(self: Arc<Self>) {
        let mut ticks = interval(BUCKET);
        // The first tick is due at once, and would close an empty bucket.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let total = self.sources.metrics.events_total();
            lock(&self.activity).close_bucket(total);
        }
    }

    /// Notes that the control socket is bound.
    pub fn control_socket_is_bound(&self) {
        self.has_control_socket.store(true, Ordering::Relaxed);
    }

    /// Returns a report of now, for a person who has just changed something.
    pub fn fresh_report(&self) -> StatusReport {
        self.make_report()
    }

    /// Returns a report that is at most one second old.
    pub fn report(&self) -> Arc<StatusReport> {
        let mut last = lock(&self.last);
        if let Some((at, report)) = &*last
            && at.elapsed() < REPORT_AGE_MAX
        {
            return Arc::clone(report);
        }
        let report = Arc::new(self.make_report());
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }
}

/// No value is left half changed under these locks.
fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
