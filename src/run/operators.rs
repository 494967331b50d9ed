//! Serves what operators see and change: the admin port, the status, the control socket.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::control::{self, ControlParts};
use crate::admin::{AdminServer, Routes};
use crate::app::{App, WORKERS_MAX};
use crate::config::{Config, LogLevel};
use crate::controls::Controls;
use crate::health::Health;
use crate::idempotency::{ProcessId, Store};
use crate::metrics::Metrics;
use crate::outage::Outages;
use crate::status::{Status, StatusSources};
use crate::telemetry;

/// What operators reach.
pub(super) struct OperatorAccess<'a> {
    pub(super) config: &'a Config,
    pub(super) app: &'a App,
    pub(super) health: &'a Arc<Health>,
    pub(super) outages: Arc<Outages>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) controls: Arc<Controls>,
    pub(super) store: Arc<dyn Store>,
}

impl OperatorAccess<'_> {
    /// Starts the tasks that show it, on `tasks`. Returns the task of the admin port, which ends at
    /// `stop`.
    pub(super) fn serve(
        self,
        tasks: &mut JoinSet<()>,
        admin_port: AdminServer,
        stop: CancellationToken,
    ) -> JoinSet<()> {
        let Self { config, app, health, outages, metrics, controls, store } = self;
        let (inflight, failures) = app.shown();
        let status = Arc::new(Status::new(StatusSources {
            health: Arc::clone(health),
            outages,
            inflight,
            failures,
            metrics: Arc::clone(&metrics),
            controls: Arc::clone(&controls),
            configuration: config.effective().collect(),
            process: ProcessId::own().to_string(),
        }));
        tasks.spawn(Arc::clone(&status).watch());
        tasks.spawn(Arc::clone(&controls).watch());
        tasks.spawn(follow_log_level(Arc::clone(&controls), config.log.level));
        let workers_max = WORKERS_MAX.min(config.worker.max_in_flight.get());
        let parts = ControlParts {
            status: Arc::clone(&status),
            controls: Arc::clone(&controls),
            store,
            workers_max,
        };
        tasks.spawn(control::serve(config.server.port.get(), Arc::new(parts)));
        let health = Arc::clone(health);
        let status_page = config.server.status_page;
        let routes = Routes { metrics, health, controls, status, status_page };
        let mut admin = JoinSet::new();
        admin.spawn(admin_port.serve(routes, stop));
        admin
    }
}

/// Applies the log level that an operator chose, else the configured one. Never returns.
async fn follow_log_level(controls: Arc<Controls>, configured: LogLevel) {
    let mut chosen = None;
    loop {
        chosen = controls.log_level_other_than(chosen).await;
        telemetry::set_log_level(chosen.unwrap_or(configured));
    }
}
