//! Writes lines to standard output on the thread of `tracing-appender`. A reader that is slow,
//! blocked or closed (`| head`, a full pipe, a full disk) never blocks the caller. Lines that
//! cannot be written are dropped and counted. [`super::format`] formats the lines.
//!
//! Lines keep their order. After each write there is a pause of [`PAUSE`], during which lines are
//! batched: a burst causes one write per pause and not one per line, and no line waits longer.
//! [`Writer::flush`] ends the pause.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::metrics::Metrics;

/// Capacity of the queue in lines: one second at 4,000 events per second, about 2 MiB. Further
/// lines are dropped.
const LINES_MAX: usize = 4_096;
/// Buffered bytes that trigger a write.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// Pause between writes: the delay is not visible to a person, and a burst of a thousand lines per
/// second causes fifty writes.
const PAUSE: Duration = Duration::from_millis(20);
/// Retry delay after `WouldBlock`: another process that shares standard output may have set it to
/// non-blocking mode.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);

/// Handle that queues lines for writing. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: NonBlocking,
    /// Counts the lines dropped because the queue was full.
    refused: ErrorCounter,
    shared: Arc<Shared>,
    /// Stops the thread when the last clone is dropped. That drop waits for the reader with a fixed
    /// timeout and may itself print to standard output. For this reason the process keeps a clone
    /// until it exits, and calls [`Writer::flush`] instead.
    _thread: Arc<WorkerGuard>,
}

#[derive(Debug)]
struct Shared {
    /// Lines passed to [`Writer::put`].
    put: AtomicU64,
    /// Lines dropped because the queue was full, as already counted in the metric.
    refused: AtomicU64,
    progress: Mutex<Progress>,
    changed: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Lines taken from the queue and then written or dropped.
    finished: u64,
    /// Set by [`Writer::flush`] to end the pause.
    is_hurried: bool,
}

impl Writer {
    /// Starts the thread that writes to `out`.
    ///
    /// # Panics
    /// If the thread cannot be started.
    pub(super) fn start(out: impl Write + Send + 'static, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared {
            put: AtomicU64::default(),
            refused: AtomicU64::default(),
            progress: Mutex::default(),
            changed: Condvar::new(),
            metrics,
        });
        let lines = LineBatch {
            out,
            text: Vec::new(),
            count: 0,
            dropped_before: 0,
            shared: Arc::clone(&shared),
        };
        let builder = NonBlockingBuilder::default().thread_name("log");
        let (queue, thread) = builder.buffered_lines_limit(LINES_MAX).finish(lines);
        let refused = queue.error_counter();
        Self { queue, refused, shared, _thread: Arc::new(thread) }
    }

    /// Queues one whole line, or drops it if the queue is full. Never waits for the reader.
    pub(super) fn put(&self, line: &str) {
        self.shared.put.fetch_add(1, Ordering::Relaxed);
        // It never fails: a dropped line is counted by `refused`.
        let _ = self.queue.clone().write_all(line.as_bytes());
        let refused = u64::try_from(self.refused.dropped_lines()).unwrap_or(u64::MAX);
        let known = self.shared.refused.fetch_max(refused, Ordering::Relaxed);
        if refused > known {
            self.shared.metrics.log_lines_dropped(refused - known);
        }
    }

    /// Waits until all queued lines are written or dropped, for at most `limit`. Returns whether
    /// they are.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let shared = &*self.shared;
        let put = shared.put.load(Ordering::Relaxed);
        let mut progress = shared.lock();
        progress.is_hurried = true;
        shared.changed.notify_all();
        let is_behind = |progress: &mut Progress| {
            progress.finished + shared.refused.load(Ordering::Relaxed) < put
        };
        let waited = shared.changed.wait_timeout_while(progress, limit, is_behind);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Shared {
    /// Ignores poisoning: no panic can leave a partial update.
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self) {
        let is_calm = |progress: &mut Progress| !progress.is_hurried;
        let waited = self.changed.wait_timeout_while(self.lock(), PAUSE, is_calm);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_hurried = false;
    }
}

/// Batches lines for one write, and counts the lines that a write loses. The writer thread calls
/// `flush` when the queue is empty.
struct LineBatch<W> {
    out: W,
    text: Vec<u8>,
    /// Lines in `text`.
    count: u64,
    /// The total of dropped lines at the last successful write.
    dropped_before: u64,
    shared: Arc<Shared>,
}

impl<W: Write> LineBatch<W> {
    fn write_out(&mut self) {
        let metrics = &self.shared.metrics;
        let lost = write_lines(&mut self.out, &self.text);
        if lost > 0 {
            metrics.log_lines_dropped(lost);
        } else {
            let dropped = metrics.log_lines_dropped_total();
            if dropped > self.dropped_before {
                let lines = dropped - self.dropped_before;
                tracing::warn!(lines, "Log lines were dropped: standard output did not take them");
            }
            self.dropped_before = dropped;
        }
        self.text.clear();
        self.shared.lock().finished += std::mem::take(&mut self.count);
        self.shared.changed.notify_all();
    }
}

impl<W: Write> Write for LineBatch<W> {
    /// Buffers one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(line);
        self.count += 1;
        if self.text.len() >= WRITE_BYTES_MAX {
            self.write_out();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out();
        self.shared.pause();
        Ok(())
    }
}

/// Writes as much as possible, and returns the number of lines that were not written completely.
fn write_lines(out: &mut impl Write, mut text: &[u8]) -> u64 {
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => break,
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(WOULD_BLOCK_PAUSE);
            }
            Err(_) => break,
        }
    }
    let lost = text.iter().filter(|byte| **byte == b'\n').count();
    u64::try_from(lost).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Output that blocks each write until the test allows it, and sends the text to the test.
    struct Gated {
        allowed: mpsc::Receiver<io::Result<()>>,
        came: mpsc::Sender<String>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.allowed.recv().unwrap()?;
            self.came.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Stage {
        writer: Writer,
        metrics: Arc<Metrics>,
        allow: mpsc::Sender<io::Result<()>>,
        came: mpsc::Receiver<String>,
    }

    fn stage() -> Stage {
        let (allow, allowed) = mpsc::channel();
        let (sender, came) = mpsc::channel();
        let metrics = Arc::new(Metrics::new(&[]));
        let writer = Writer::start(Gated { allowed, came: sender }, Arc::clone(&metrics));
        Stage { writer, metrics, allow, came }
    }

    #[test]
    fn lines_keep_their_order_and_a_burst_needs_few_writes() {
        let Stage { writer, allow, came, metrics } = stage();
        (0..1000).for_each(|_| allow.send(Ok(())).unwrap());
        let lines: Vec<String> = (0..500).map(|n| format!("line {n}\n")).collect();
        lines.iter().for_each(|line| writer.put(line));
        assert!(writer.flush(PATIENCE));
        let writes: Vec<String> = came.try_iter().collect();
        assert_eq!(writes.concat(), lines.concat());
        assert!(writes.len() < 250, "{} writes", writes.len());
        assert_eq!(metrics.log_lines_dropped_total(), 0);
    }

    /// Without a flush or a further line, a line waits only for the pause.
    #[test]
    fn a_line_is_written_without_waiting_for_another() {
        const { assert!(PAUSE.as_millis() < 50, "a line at warn must be out within 50 ms") };
        let Stage { writer, allow, came, .. } = stage();
        for line in ["one\n", "two\n", "three\n"] {
            allow.send(Ok(())).unwrap();
            writer.put(line);
            assert_eq!(came.recv_timeout(PATIENCE).unwrap(), line);
        }
    }

    #[test]
    fn a_blocked_reader_causes_dropped_lines_and_no_delay() {
        let Stage { writer, allow, came, metrics } = stage();
        let line = "x".repeat(1023) + "\n";
        // The thread takes this line and blocks in the write.
        writer.put(&line);
        assert!(!writer.flush(Duration::from_millis(1)));
        for _ in 0..LINES_MAX + 3000 {
            writer.put(&line);
        }
        let dropped = metrics.log_lines_dropped_total();
        // Before the thread blocks, it takes at most the lines of one write.
        let taken_max = u64::try_from(WRITE_BYTES_MAX / line.len()).unwrap();
        assert!((3001 - taken_max..=3001).contains(&dropped), "{dropped}");
        // After the writes are allowed, the queued lines arrive, and only whole lines.
        (0..1000).for_each(|_| allow.send(Ok(())).unwrap());
        assert!(writer.flush(PATIENCE));
        let text: String = came.try_iter().collect();
        assert_eq!(text.len() % 1024, 0);
        let put = u64::try_from(LINES_MAX).unwrap() + 3001;
        assert_eq!(u64::try_from(text.len() / 1024).unwrap(), put - dropped);
        assert_eq!(metrics.log_lines_dropped_total(), dropped);
    }

    #[test]
    fn a_closed_output_drops_lines_and_a_reopened_one_gets_the_next() {
        let Stage { writer, allow, came, metrics } = stage();
        allow.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        writer.put("lost\n");
        assert!(writer.flush(PATIENCE));
        assert_eq!(metrics.log_lines_dropped_total(), 1);
        allow.send(Ok(())).unwrap();
        writer.put("kept\n");
        assert!(writer.flush(PATIENCE));
        assert_eq!(came.try_iter().collect::<String>(), "kept\n");
        assert_eq!(metrics.log_lines_dropped_total(), 1);
    }

    /// Output that accepts three bytes per write, and fails after `breaks_at` bytes. Every other
    /// call returns `WouldBlock`.
    struct Awkward {
        taken: usize,
        breaks_at: usize,
        is_ready: bool,
    }

    impl Write for Awkward {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.is_ready = !self.is_ready;
            if !self.is_ready {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if self.taken >= self.breaks_at {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let n = bytes.len().min(3);
            self.taken += n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_incomplete_lines_count_as_dropped() {
        let awkward = |breaks_at| Awkward { taken: 0, breaks_at, is_ready: false };
        let text = b"one two\nthree\nfour\n";
        assert_eq!(write_lines(&mut awkward(usize::MAX), text), 0);
        assert_eq!(write_lines(&mut awkward(9), text), 2);
        assert_eq!(write_lines(&mut awkward(0), text), 3);
    }
}
