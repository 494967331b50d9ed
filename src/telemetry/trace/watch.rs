//! Detects lost spans. Logs once when the first span is lost, because the collector is unavailable
//! or too slow, and once when the export has recovered, with the number of lost spans.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use crate::metrics::{Metrics, SpanLoss};

/// Capacity of the export queue: a few seconds of a burst, about 2 MB. Further spans are dropped;
/// events never wait.
pub(super) const QUEUE_SPANS_MAX: usize = 2048;
/// Maximum queue length after a batch for the export to count as recovered. With a collector that
/// is too slow, the queue stays full.
const CAUGHT_UP_SPANS_MAX: usize = QUEUE_SPANS_MAX / 2;

/// Counts of waiting and lost spans.
#[derive(Debug)]
pub(super) struct Backlog {
    metrics: Arc<Metrics>,
    /// Spans in the queue that are not yet in a batch.
    waiting: AtomicUsize,
    /// Spans lost since the export last worked; 0 while it works.
    lost: AtomicU64,
}

impl Backlog {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, waiting: AtomicUsize::new(0), lost: AtomicU64::new(0) }
    }

    /// Reserves a place in the queue. If the queue is full, counts the span as lost and returns
    /// `false`.
    pub(super) fn admit(&self) -> bool {
        let admitted = self.waiting.fetch_add(1, Ordering::Relaxed) < QUEUE_SPANS_MAX;
        if !admitted {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.note_lost(1, SpanLoss::QueueFull, &"the collector is too slow");
        }
        admitted
    }

    fn note_lost(&self, spans: u64, why: SpanLoss, error: &dyn std::fmt::Display) {
        self.metrics.spans_dropped(why, spans);
        if self.lost.fetch_add(spans, Ordering::Relaxed) == 0 {
            tracing::warn!(error = %error, "Traces are being lost: events are not affected");
        }
    }

    fn note_sent(&self) {
        if self.waiting.load(Ordering::Relaxed) > CAUGHT_UP_SPANS_MAX {
            return;
        }
        let lost_spans = self.lost.swap(0, Ordering::Relaxed);
        if lost_spans > 0 {
            tracing::info!(lost_spans, "Traces are exported again");
        }
    }
}

/// Exporter wrapper that counts exported and lost spans.
#[derive(Debug)]
pub(super) struct WatchedExporter<E> {
    exporter: E,
    backlog: Arc<Backlog>,
}

impl<E> WatchedExporter<E> {
    pub(super) fn new(exporter: E, backlog: Arc<Backlog>) -> Self {
        Self { exporter, backlog }
    }
}

impl<E: SpanExporter> SpanExporter for WatchedExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.backlog.waiting.fetch_sub(spans, Ordering::Relaxed);
        let count = u64::try_from(spans).unwrap_or(u64::MAX);
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => {
                self.backlog.metrics.spans_exported(count);
                self.backlog.note_sent();
            }
            Err(error) => self.backlog.note_lost(count, SpanLoss::ExportFailed, error),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::config::{LogFormat, LogLevel};
    use crate::telemetry::log::{self, LogSettings};

    fn logged(act: impl FnOnce()) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let (level, format) = (LogLevel::Info, LogFormat::Json);
        let settings = LogSettings { level, format, color: false };
        let (subscriber, _) = log::subscriber(settings, move |line| {
            sink.lock().unwrap().push(line.to_owned());
        });
        tracing::subscriber::with_default(subscriber, act);
        lines.lock().unwrap().clone()
    }

    #[test]
    fn an_outage_of_the_collector_is_logged_at_its_start_and_end() {
        let lines = logged(|| {
            let backlog = Backlog::new(Arc::new(Metrics::new(&[])));
            for _ in 0..2 {
                backlog.note_sent();
                backlog.note_lost(7, SpanLoss::ExportFailed, &"connection refused");
                backlog.note_lost(3, SpanLoss::ExportFailed, &"connection refused");
                backlog.note_sent();
                backlog.note_sent();
            }
        });
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("connection refused") && lines[0].contains("\"warn\""));
        assert!(lines[1].contains("\"lost_spans\":10"), "{}", lines[1]);
    }

    #[test]
    fn a_slow_collector_is_logged_at_its_start_and_end() {
        let lines = logged(|| {
            let backlog = Backlog::new(Arc::new(Metrics::new(&[])));
            let admitted = (0..QUEUE_SPANS_MAX + 5).filter(|_| backlog.admit()).count();
            assert_eq!(admitted, QUEUE_SPANS_MAX);
            for _ in 0..10 {
                // One batch is sent, and more spans arrive than the free places.
                backlog.waiting.fetch_sub(512, Ordering::Relaxed);
                backlog.note_sent();
                assert_eq!((0..600).filter(|_| backlog.admit()).count(), 512);
            }
            backlog.waiting.fetch_sub(QUEUE_SPANS_MAX, Ordering::Relaxed);
            backlog.note_sent();
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("too slow"), "{}", lines[0]);
        assert!(lines[1].contains("\"lost_spans\":885"), "{}", lines[1]);
    }
}
