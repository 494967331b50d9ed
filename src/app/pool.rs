//! The pool of workers, whose number can change while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::worker::Worker;

/// The workers. Dropping it stops all of them at once.
pub(super) struct WorkerPool {
    worker: Worker,
    size: Arc<AtomicUsize>,
    stop: CancellationToken,
    /// One for each worker that is to go on.
    running: Vec<CancellationToken>,
    /// Workers that end after the event that they have.
    ending: usize,
    pub(super) tasks: JoinSet<()>,
}

impl WorkerPool {
    /// Starts `size` workers, which all end at `stop`.
    pub(super) fn start(worker: Worker, size: Arc<AtomicUsize>, stop: CancellationToken) -> Self {
        let workers = size.load(Ordering::Relaxed);
        let (running, tasks) = (Vec::with_capacity(workers), JoinSet::new());
        let mut pool = Self { worker, size, stop, running, ending: 0, tasks };
        pool.resize(workers);
        pool
    }

    /// Adds workers at once, or lets some end, each after the event that it has.
    pub(super) fn resize(&mut self, workers: usize) {
        self.size.store(workers, Ordering::Relaxed);
        while self.running.len() < workers {
            let stop = self.stop.child_token();
            self.tasks.spawn(self.worker.clone().run(stop.clone()));
            self.running.push(stop);
        }
        for stop in self.running.drain(workers..) {
            stop.cancel();
            self.ending += 1;
        }
    }

    /// Waits until a worker ends that was to go on. Cancel-safe.
    pub(super) async fn broken(&mut self) -> Option<Result<(), JoinError>> {
        loop {
            match self.tasks.join_next().await? {
                Ok(()) if self.ending > 0 => self.ending -= 1,
                ended => return Some(ended),
            }
        }
    }
}
