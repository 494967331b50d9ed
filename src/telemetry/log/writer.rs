//! Takes lines from whoever logs, and hands them to standard output from the thread of `tracing-appender`: a reader that is slow,
//! stuck or gone (`| head`, a full pipe, a full disk) never makes anybody wait. What it does not take is dropped and counted.
//! What a line looks like is left to [`super::format`].
//!
//! Lines keep their order. A write is followed by a pause of [`PAUSE`], in which lines gather: a burst costs one write in that time,
//! not one a line, and no line waits longer. [`Writer::flush`] ends the pause.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::metrics::Metrics;

/// Lines that wait at most: a second of a burst of 4,000 events, about 2 MiB. Beyond it lines are dropped.
const LINES_MAX: usize = 4_096;
/// Bytes that are gathered for one write.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// From one write to the next: a person sees no delay, and a burst of a thousand lines a second makes fifty writes.
const PAUSE: Duration = Duration::from_millis(20);
/// Between the tries of a write that would have to wait: standard output may have been made non-blocking by another
/// process that shares it.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);

/// Where lines are handed in. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    queue: NonBlocking,
    /// Counts the lines that found the queue full.
    refused: ErrorCounter,
    shared: Arc<Shared>,
    /// Ends the thread with the last clone. That waits for the reader, for a time that cannot be set, and may print to standard
    /// output itself: so the process keeps a clone to its end, and calls [`Writer::flush`] instead.
    _thread: Arc<WorkerGuard>,
}

#[derive(Debug)]
struct Shared {
    /// Lines handed in.
    put: AtomicU64,
    /// Of these, lines that found the queue full, as far as the metric knows them.
    refused: AtomicU64,
    progress: Mutex<Progress>,
    changed: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Lines that went through the queue, and are written or lost.
    finished: u64,
    /// Somebody waits for the next write.
    is_hurried: bool,
}

impl Writer {
    /// Starts the thread that writes to `out`.
    ///
    /// # Panics
    /// When no thread can be had.
    pub(super) fn start(out: impl Write + Send + 'static, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared {
            put: AtomicU64::default(),
            refused: AtomicU64::default(),
            progress: Mutex::default(),
            changed: Condvar::new(),
            metrics,
        });
        let lines = Lines {
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

    /// Hands in one whole line; drops it where too many wait. Never waits for the reader.
    pub(super) fn put(&self, line: &str) {
        self.shared.put.fetch_add(1, Ordering::Relaxed);
        // It never fails: a line that is not taken is counted.
        let _ = self.queue.clone().write_all(line.as_bytes());
        let refused = u64::try_from(self.refused.dropped_lines()).unwrap_or(u64::MAX);
        let known = self.shared.refused.fetch_max(refused, Ordering::Relaxed);
        if refused > known {
            self.shared.metrics.log_lines_dropped(refused - known);
        }
    }

    /// Waits until all that was handed in is written or dropped, for `patience` at most. Whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let shared = &*self.shared;
        let put = shared.put.load(Ordering::Relaxed);
        let mut progress = shared.lock();
        progress.is_hurried = true;
        shared.changed.notify_all();
        let is_behind = |progress: &mut Progress| {
            progress.finished + shared.refused.load(Ordering::Relaxed) < put
        };
        let waited = shared.changed.wait_timeout_while(progress, patience, is_behind);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Shared {
    /// Every change is whole before anything can panic.
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self) {
        let is_calm = |progress: &mut Progress| !progress.is_hurried;
        let waited = self.changed.wait_timeout_while(self.lock(), PAUSE, is_calm);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_hurried = false;
    }
}

/// Gathers lines for one write, and counts those that are lost in it. The thread calls it, and flushes it when no line waits.
struct Lines<W> {
    out: W,
    text: Vec<u8>,
    /// Lines in `text`.
    count: u64,
    /// Lines dropped when the last write went well.
    dropped_before: u64,
    shared: Arc<Shared>,
}

impl<W: Write> Lines<W> {
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

impl<W: Write> Write for Lines<W> {
    /// Takes one whole line.
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

/// Writes what it can, and counts the lines that were not written whole.
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

    /// Takes each write when it is allowed to, and says what came.
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
    fn lines_come_in_order_and_a_burst_is_few_writes() {
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

    /// Nobody flushes, and no other line comes: the pause is all that a line waits for.
    #[test]
    fn no_line_waits_for_another() {
        const { assert!(PAUSE.as_millis() < 50, "a line at warn must be out within 50 ms") };
        let Stage { writer, allow, came, .. } = stage();
        for line in ["one\n", "two\n", "three\n"] {
            allow.send(Ok(())).unwrap();
            writer.put(line);
            assert_eq!(came.recv_timeout(PATIENCE).unwrap(), line);
        }
    }

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_no_time() {
        let Stage { writer, allow, came, metrics } = stage();
        let line = "x".repeat(1023) + "\n";
        // The thread takes it, and hangs in the write.
        writer.put(&line);
        assert!(!writer.flush(Duration::from_millis(1)));
        for _ in 0..LINES_MAX + 3000 {
            writer.put(&line);
        }
        let dropped = metrics.log_lines_dropped_total();
        // Until the thread hangs, it takes what one write may hold.
        let taken_max = u64::try_from(WRITE_BYTES_MAX / line.len()).unwrap();
        assert!((3001 - taken_max..=3001).contains(&dropped), "{dropped}");
        // It goes on: what waited comes, whole lines only.
        (0..1000).for_each(|_| allow.send(Ok(())).unwrap());
        assert!(writer.flush(PATIENCE));
        let text: String = came.try_iter().collect();
        assert_eq!(text.len() % 1024, 0);
        let put = u64::try_from(LINES_MAX).unwrap() + 3001;
        assert_eq!(u64::try_from(text.len() / 1024).unwrap(), put - dropped);
        assert_eq!(metrics.log_lines_dropped_total(), dropped);
    }

    #[test]
    fn a_reader_that_has_gone_costs_lines_and_one_that_comes_back_gets_the_next() {
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

    /// Writes three bytes at a time, is not ready every other time, and breaks after so many bytes.
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
    fn only_lines_that_did_not_end_count_as_lost() {
        let awkward = |breaks_at| Awkward { taken: 0, breaks_at, is_ready: false };
        let text = b"one two\nthree\nfour\n";
        assert_eq!(write_lines(&mut awkward(usize::MAX), text), 0);
        assert_eq!(write_lines(&mut awkward(9), text), 2);
        assert_eq!(write_lines(&mut awkward(0), text), 3);
    }
}
