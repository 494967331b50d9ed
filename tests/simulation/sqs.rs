//! How calls to the simulated queue travel: long polls, latency, throttling, errors, lost
//! responses, batches that fail in part, calls that hang.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::metrics::QueueAction;
use reservation_worker::queue::{
    BATCH_MAX, BatchAnswer, DeadLetter, EntryError, Message, MessageGroup, MessageId, Permission,
    Queue, QueueError, QueueErrorKind, QueueLimits, ReceiptHandle,
};
use tokio::time::{sleep, sleep_until};

use super::half_well::Fault;
use super::queue::{Change, HOLD_MAX, Receipt, State};
use super::world::{Sim, World};

/// The queue as one process reaches it.
pub(crate) struct SimQueue {
    pub(crate) sim: Arc<Sim>,
    pub(crate) life: u32,
}

fn error(kind: QueueErrorKind) -> QueueError {
    QueueError { kind, detail: "simulated".to_owned() }
}

/// An open receive. Only a crash or the end of the shutdown time may cut it off.
struct OpenReceive<'a> {
    queue: &'a SimQueue,
    max: usize,
    hangs: bool,
    done: bool,
}

impl Drop for OpenReceive<'_> {
    fn drop(&mut self) {
        let mut world = self.queue.sim.lock();
        if world.life == self.queue.life {
            world.queue.asked -= self.max;
            let fine = self.done || self.hangs || !world.alive || world.out_of_time();
            world.check(fine, || "an open receive was cut off".to_owned());
        }
    }
}

/// An open batch. If it is cut off, its result is unknown.
struct OpenBatch<'a> {
    queue: &'a SimQueue,
    receipts: Vec<usize>,
    done: bool,
}

impl Drop for OpenBatch<'_> {
    fn drop(&mut self) {
        let mut world = self.queue.sim.lock();
        for receipt in &self.receipts {
            world.queue.receipts[*receipt].deleting = false;
        }
        if !self.done {
            world.soil(&self.receipts);
        }
    }
}

impl SimQueue {
    /// Waits until a message is visible, at most for the time of a long poll.
    async fn long_poll(&self) {
        let (until, fifo) = {
            let world = self.sim.lock();
            (world.now() + world.plan.settings.wait, world.plan.fifo)
        };
        loop {
            let arrived = self.sim.arrivals.notified();
            let next = {
                let world = self.sim.lock();
                let now = world.now();
                if now >= until || !world.queue.visible(now, fifo).is_empty() {
                    return;
                }
                world.instant(world.queue.next_visible(now).map_or(until, |at| at.min(until)))
            };
            tokio::select! {
                biased;
                () = arrived => {}
                () = sleep_until(next) => {}
            }
        }
    }

    async fn batch(
        &self,
        changes: Vec<(usize, Change)>,
        action: QueueAction,
        points: (&'static str, &'static str),
    ) -> BatchAnswer {
        self.sim.gate(self.life, points.0).await;
        let (fault, there, back) = {
            let mut world = self.sim.lock();
            world.check_batch(&changes);
            (world.queue_fault(action), world.draw_ms(1, 60), world.draw_ms(1, 60))
        };
        let receipts = changes.iter().map(|(receipt, _)| *receipt).collect();
        let mut open = OpenBatch { queue: self, receipts, done: false };
        sleep(there).await;
        match fault {
            Some(Fault::Error(kind)) => return Err(error(kind)),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::AnswerLost | Fault::Partly | Fault::Entries) | None => {}
        }
        let answers = self.sim.lock().change_all(&changes, fault);
        self.sim.arrivals.notify_waiters();
        self.sim.gate(self.life, points.1).await;
        sleep(back).await;
        if fault == Some(Fault::AnswerLost) {
            return Err(error(QueueErrorKind::Network));
        }
        open.done = true;
        let mut world = self.sim.lock();
        for ((receipt, change), answer) in changes.iter().zip(&answers) {
            world.acknowledged(*receipt, *change, answer);
        }
        Ok(answers)
    }
}

impl World {
    /// Whether an extension stays within 12 hours and does not cut a longer lease. The engine
    /// counts from an earlier time than SQS, so for the engine a lease ends a little earlier.
    fn may_extend(&self, receipt: usize, after: Duration) -> bool {
        let until = self.now() + after;
        let Receipt { at, until: held_until, .. } = self.queue.receipts[receipt];
        until <= at + HOLD_MAX && until + self.plan.visibility() >= held_until
    }

    /// Whether the process is stopping and its time is almost over.
    pub(crate) fn out_of_time(&self) -> bool {
        const FLUSH: Duration = Duration::from_secs(2);
        self.draining && self.drain_until.is_some_and(|until| self.now() + FLUSH >= until)
    }

    /// Notes that calls about these receipts failed: the engine's view of them is unknown from now
    /// on.
    fn soil(&mut self, receipts: &[usize]) {
        for receipt in receipts {
            self.queue.receipts[*receipt].clean = false;
        }
    }

    /// Selects the messages of a receive and returns their receipts.
    fn take(&mut self, max: usize, visibility: Duration) -> Vec<usize> {
        let (now, fifo) = (self.now(), self.plan.fifo);
        let mut visible = self.queue.visible(now, fifo);
        if !fifo {
            self.rng.shuffle(&mut visible);
            let again = self.plan.queue.duplicates_pct;
            if !self.calm() && self.chance(again) {
                visible.extend(self.duplicate());
            }
        }
        // SQS may return fewer messages than it has.
        let most = if self.chance(70) { max } else { self.rng.usize(1..=max) };
        visible.truncate(most);
        visible.into_iter().filter_map(|n| self.hand_out(n, visibility)).collect()
    }

    /// Selects a held message to be delivered once more.
    fn duplicate(&mut self) -> Option<usize> {
        let now = self.now();
        let most = self.plan.max_receives;
        let held = |n: &usize| {
            let msg = &self.queue.msgs[*n];
            let in_flight = msg.latest.is_some() && msg.visible_at > now;
            msg.state == State::Live && in_flight && msg.receives < most
        };
        let held: Vec<usize> = (0..self.queue.msgs.len()).filter(held).collect();
        let n = *held.get(self.rng.usize(0..held.len().max(1)))?;
        self.queue.msgs[n].excuses += 1;
        self.cover.met("a held message is delivered again");
        Some(n)
    }

    fn message(&self, receipt: usize) -> Message {
        let n = self.queue.receipts[receipt].msg;
        let spec = &self.plan.messages[n];
        Message {
            id: MessageId(format!("m-{n}").into()),
            handle: ReceiptHandle(format!("r{receipt}").into()),
            body: spec.body.clone(),
            receive_count: self.queue.msgs[n].receives,
            sent_at: None,
            group: spec.group.map(|group| MessageGroup::Ordered(format!("g{group}").into())),
            trace_header: None,
            source_arn: None,
            attributes: Vec::new(),
        }
    }

    fn check_batch(&mut self, changes: &[(usize, Change)]) {
        let len = changes.len();
        self.check((1..=BATCH_MAX).contains(&len), || format!("a batch of {len}"));
        for (at, (receipt, change)) in changes.iter().enumerate() {
            let twice = changes[..at].iter().any(|(other, _)| other == receipt);
            self.check(!twice, || format!("r{receipt} twice in a batch"));
            let Receipt { released, deleting, .. } = self.queue.receipts[*receipt];
            if let Change::Extend(after) = *change {
                // A message that could not be deleted is held, and its lease extended, until the
                // next delete.
                self.check(!released && !deleting, || {
                    format!("r{receipt} extended after it was settled")
                });
                let fine = self.may_extend(*receipt, after);
                self.check(fine, || {
                    format!("r{receipt} extended by {after:?}: cut, or longer than SQS allows")
                });
            } else {
                let in_backlog = released || self.is_in_backlog(self.queue.receipts[*receipt].msg);
                let receipt = &mut self.queue.receipts[*receipt];
                receipt.settling = true;
                receipt.deleting = *change == Change::Delete;
                receipt.in_backlog |= in_backlog && !released;
                receipt.released |= *change != Change::Delete;
                // A new delivery starts again, even if SQS does not apply this change.
                if receipt.released {
                    let n = receipt.msg;
                    self.forget_pace(n);
                }
            }
        }
        self.log(|| format!("batch {changes:?}"));
    }

    fn change_all(
        &mut self,
        changes: &[(usize, Change)],
        fault: Option<Fault>,
    ) -> Vec<Result<(), EntryError>> {
        let one = |world: &mut Self, receipt, change| {
            if fault == Some(Fault::Entries) {
                return Err(EntryError::Retry("simulated, each".to_owned()));
            }
            if fault == Some(Fault::Partly) && world.chance(40) {
                return match world.rng.u8(0..3) {
                    0 => Err(EntryError::Lost("simulated".to_owned())),
                    1 => Err(EntryError::Retry("simulated".to_owned())),
                    _ => {
                        world.change(receipt, change);
                        Err(EntryError::Retry("simulated, and done".to_owned()))
                    }
                };
            }
            let stands = world.change(receipt, change);
            if stands { Ok(()) } else { Err(EntryError::Lost("it does not stand".to_owned())) }
        };
        changes.iter().map(|(receipt, change)| one(self, *receipt, *change)).collect()
    }

    /// Takes note of an answer that the engine has received.
    fn acknowledged(&mut self, receipt: usize, change: Change, answer: &Result<(), EntryError>) {
        let totals = &mut self.queue.totals;
        match (answer, change) {
            (Ok(()), Change::Delete) => totals.deleted += 1,
            (Ok(()), Change::Extend(_)) => {}
            (Ok(()), Change::HandBack(_)) => totals.released += 1,
            (Err(EntryError::Lost(_)), _) => totals.lost += 1,
            (Err(EntryError::Retry(_)), _) => {}
        }
        if answer.is_err() {
            self.queue.receipts[receipt].clean = false;
        }
    }
}

pub(crate) fn receipt(handle: &ReceiptHandle) -> usize {
    let number = handle.0.strip_prefix('r').and_then(|n| n.parse().ok());
    number.expect("the handle is from this queue")
}

#[async_trait]
impl Queue for SimQueue {
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        self.sim.gate(self.life, "before receive").await;
        let (fault, back) = {
            let mut world = self.sim.lock();
            world.check_room(max);
            world.queue.asked += max;
            (world.queue_fault(QueueAction::Receive), world.draw_ms(1, 300))
        };
        let hangs = fault == Some(Fault::Hangs);
        let mut open = OpenReceive { queue: self, max, hangs, done: false };
        match fault {
            Some(Fault::Error(kind)) => {
                sleep(back).await;
                open.done = true;
                return Err(error(kind));
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::AnswerLost | Fault::Partly | Fault::Entries) | None => {}
        }
        self.long_poll().await;
        let receipts = self.sim.lock().take(max, visibility);
        self.sim.gate(self.life, "after receive").await;
        sleep(back).await;
        open.done = true;
        let mut world = self.sim.lock();
        if fault == Some(Fault::AnswerLost) {
            world.lost_on_the_way(&receipts);
            return Err(error(QueueErrorKind::Network));
        }
        world.delivered(&receipts);
        Ok(receipts.into_iter().map(|receipt| world.message(receipt)).collect())
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        let changes = handles.iter().map(|handle| (receipt(handle), Change::Delete)).collect();
        self.batch(changes, QueueAction::Delete, ("before delete", "after delete")).await
    }

    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        let changes = leases.iter().map(|(h, after)| (receipt(h), Change::Extend(*after)));
        self.batch(changes.collect(), QueueAction::Extend, ("before change", "after change")).await
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        let changes = messages.iter().map(|(h, after)| (receipt(h), Change::HandBack(*after)));
        self.batch(changes.collect(), QueueAction::Extend, ("before change", "after change")).await
    }

    async fn dead_letter(&self, dead_letter: &DeadLetter) -> Result<(), QueueError> {
        self.sim.gate(self.life, "before copy").await;
        let id = dead_letter.message_id.0.strip_prefix("m-").and_then(|n| n.parse().ok());
        let n: usize = id.expect("the message is in the plan");
        let (fault, there) = {
            let mut world = self.sim.lock();
            world.check_dead_letter(n, dead_letter);
            (world.queue_fault(QueueAction::DeadLetter), world.draw_ms(1, 60))
        };
        sleep(there).await;
        if !self.sim.lock().plan.has_dlq {
            return Err(error(QueueErrorKind::NoDeadLetterQueue));
        }
        match fault {
            Some(Fault::Error(kind)) => return Err(error(kind)),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::AnswerLost | Fault::Partly | Fault::Entries) | None => {}
        }
        {
            let mut world = self.sim.lock();
            let msg = &mut world.queue.msgs[n];
            msg.copies += 1;
            let explained = msg.copies == 1 || msg.excuses > 0;
            world.check(explained, || format!("m-{n} dead-lettered twice"));
            world.log(|| format!("m-{n} copied to the dead-letter queue: {}", dead_letter.reason));
        }
        self.sim.gate(self.life, "after copy").await;
        if fault == Some(Fault::AnswerLost) {
            self.sim.lock().queue.msgs[n].excuses += 1;
            return Err(error(QueueErrorKind::Network));
        }
        Ok(())
    }

    fn is_fifo(&self) -> bool {
        self.sim.lock().plan.fifo
    }

    async fn limits(&self) -> Result<QueueLimits, QueueError> {
        let plan = &self.sim.lock().plan;
        let receives_max = plan.has_dlq.then_some(plan.max_receives);
        Ok(QueueLimits { receives_max, retention: None })
    }

    async fn probe(&self, action: QueueAction) -> Result<Permission, QueueError> {
        let (fault, there) = {
            let mut world = self.sim.lock();
            (world.queue_fault(action), world.draw_ms(1, 60))
        };
        sleep(there).await;
        match fault {
            Some(Fault::Error(kind)) => return Err(error(kind)),
            Some(Fault::AnswerLost) => return Err(error(QueueErrorKind::Network)),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Partly | Fault::Entries) | None => {}
        }
        Ok(match action {
            QueueAction::Receive | QueueAction::DeadLetter => Permission::CannotBeAsked,
            QueueAction::Extend | QueueAction::Delete | QueueAction::Attributes => {
                Permission::Allowed
            }
        })
    }
}
