//! Takes lines from whoever logs, and hands them to standard output from a thread of its own: a reader that is slow,
//! stuck or gone (`| head`, a full pipe, a full disk) never makes anybody wait. What it does not take is dropped and
//! counted. What a line looks like is left to [`super::format`].
//!
//! Lines keep their order. They wait for company for [`LINGER`], so that a burst costs one write, not one a line;
//! a line at warn or above goes at once. What is left at the end is written by [`Writer::flush`].

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::metrics::Metrics;

/// Bytes of lines that wait at most: a second of a burst of 4,000 events. Beyond it lines are dropped.
const PENDING_BYTES_MAX: usize = 1 << 20;
/// From here on nothing waits for company any more.
const PENDING_BYTES_MANY: usize = 64 << 10;
/// How long a line waits for others: a person sees no delay, and a burst of a thousand lines a second makes fifty writes.
const LINGER: Duration = Duration::from_millis(20);
/// Between the tries of a write that would have to wait: standard output may have been made non-blocking by another
/// process that shares it.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);

/// Where lines are handed in. Cheap to clone; the thread ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Writer(Arc<Handle>);

/// Lets the thread end.
#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    /// There is something to write.
    arrived: Condvar,
    /// Everything is written, or dropped.
    idle: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Pending {
    text: Vec<u8>,
    is_urgent: bool,
    is_writing: bool,
    is_closed: bool,
}

impl Writer {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            arrived: Condvar::new(),
            idle: Condvar::new(),
            metrics,
        });
        let writing = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || writing.run(out))?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Hands in one whole line; drops it where too many wait. Never waits for the reader.
    pub(super) fn put(&self, line: &str, is_urgent: bool) {
        let shared = &self.0.0;
        let mut pending = shared.lock();
        if pending.text.len() + line.len() > PENDING_BYTES_MAX {
            drop(pending);
            return shared.metrics.log_lines_dropped(1);
        }
        let was_empty = pending.text.is_empty();
        let was_many = pending.text.len() >= PENDING_BYTES_MANY;
        pending.text.extend_from_slice(line.as_bytes());
        let is_many = pending.text.len() >= PENDING_BYTES_MANY;
        let wakes = was_empty || (is_urgent && !pending.is_urgent) || (is_many && !was_many);
        pending.is_urgent |= is_urgent;
        drop(pending);
        if wakes {
            shared.arrived.notify_one();
        }
    }

    /// Waits until all that was handed in is written or dropped, for `patience` at most. Whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let shared = &self.0.0;
        let mut pending = shared.lock();
        pending.is_urgent = true;
        shared.arrived.notify_one();
        let busy = |pending: &mut Pending| pending.is_writing || !pending.text.is_empty();
        let waited = shared.idle.wait_timeout_while(pending, patience, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.arrived.notify_one();
    }
}

impl Shared {
    /// Every change of the text is whole before anything can panic.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut out: impl Write) {
        let mut text = Vec::new();
        // Lines dropped when the last write went well.
        let mut dropped_before = 0;
        while self.take(&mut text) {
            let lost = write_lines(&mut out, &text);
            if lost > 0 {
                self.metrics.log_lines_dropped(lost);
            } else {
                let dropped = self.metrics.log_lines_dropped_total();
                if dropped > dropped_before {
                    let lines = dropped - dropped_before;
                    tracing::warn!(
                        lines,
                        "Log lines were dropped: standard output did not take them"
                    );
                }
                dropped_before = dropped;
            }
            text.clear();
            let mut pending = self.lock();
            pending.is_writing = false;
            if pending.text.is_empty() {
                self.idle.notify_all();
            }
        }
    }

    /// Waits for lines and takes them all; `false` when no more can come.
    fn take(&self, text: &mut Vec<u8>) -> bool {
        let empty = |pending: &mut Pending| pending.text.is_empty() && !pending.is_closed;
        let pending = self.arrived.wait_while(self.lock(), empty);
        let few = |pending: &mut Pending| {
            !pending.is_urgent && !pending.is_closed && pending.text.len() < PENDING_BYTES_MANY
        };
        let pending = pending.unwrap_or_else(PoisonError::into_inner);
        let waited = self.arrived.wait_timeout_while(pending, LINGER, few);
        let (mut pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut pending.text, text);
        pending.is_urgent = false;
        pending.is_writing = !text.is_empty();
        pending.is_writing
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
        let writer = Writer::start(Gated { allowed, came: sender }, Arc::clone(&metrics)).unwrap();
        Stage { writer, metrics, allow, came }
    }

    #[test]
    fn lines_come_in_order_and_a_burst_is_few_writes() {
        let Stage { writer, allow, came, metrics } = stage();
        (0..1000).for_each(|_| allow.send(Ok(())).unwrap());
        let lines: Vec<String> = (0..500).map(|n| format!("line {n}\n")).collect();
        lines.iter().for_each(|line| writer.put(line, false));
        assert!(writer.flush(PATIENCE));
        let writes: Vec<String> = came.try_iter().collect();
        assert_eq!(writes.concat(), lines.concat());
        assert!(writes.len() < 250, "{} writes", writes.len());
        assert_eq!(metrics.log_lines_dropped_total(), 0);
    }

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_no_time() {
        let Stage { writer, allow, came, metrics } = stage();
        let line = "x".repeat(1023) + "\n";
        // Urgent: the thread takes it, and hangs in the write.
        writer.put(&line, true);
        assert!(!writer.flush(Duration::from_millis(1)));
        for _ in 0..3000 {
            writer.put(&line, false);
        }
        let kept = u64::try_from(PENDING_BYTES_MAX / 1024).unwrap();
        let dropped = metrics.log_lines_dropped_total();
        // The thread may not have come to the first line yet.
        assert!((3000 - kept - 1..=3001 - kept).contains(&dropped), "{dropped}");
        // It goes on: what waited comes, whole lines only.
        (0..100).for_each(|_| allow.send(Ok(())).unwrap());
        assert!(writer.flush(PATIENCE));
        let text: String = came.try_iter().collect();
        assert_eq!(text.len() % 1024, 0);
        assert_eq!(u64::try_from(text.len() / 1024).unwrap(), 3001 - dropped);
    }

    #[test]
    fn a_reader_that_has_gone_costs_lines_and_one_that_comes_back_gets_the_next() {
        let Stage { writer, allow, came, metrics } = stage();
        allow.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        writer.put("lost\n", true);
        assert!(writer.flush(PATIENCE));
        assert_eq!(metrics.log_lines_dropped_total(), 1);
        allow.send(Ok(())).unwrap();
        writer.put("kept\n", true);
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
