//! How calls to the simulated queue travel: long polls that wake up on arrival, latency, and
//! actions that are denied, fail, are slow, or fail for some entries.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::metrics::QueueAction;
use reservation_worker::queue::{
    BatchAnswer, DeadLetter, EntryError, Message, MessageGroup, MessageId, Permission, Queue,
    QueueError, QueueErrorKind, QueueLimits, ReceiptHandle,
};
use tokio::time::{sleep, sleep_until};

use super::plan::{Action, SqsTrouble, millis};
use super::world::{Sim, World, event_id, thaw};

/// The queue as one process reaches it.
pub(crate) struct SimQueue {
    pub(crate) sim: Arc<Sim>,
    pub(crate) process: usize,
}

/// Wakes a receive whenever a message becomes visible. Never returns.
pub(crate) async fn wake_receives(sim: Arc<Sim>) {
    loop {
        let next = {
            let mut world = sim.lock();
            let now = world.now();
            world.queue.advance(now);
            if world.queue.has_visible() {
                sim.arrivals.notify_one();
            }
            world.queue.looks_at = world.queue.next_at();
            world.instant(world.queue.looks_at)
        };
        tokio::select! {
            biased;
            () = sim.sooner.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

impl SimQueue {
    /// Applies the planned fault to a call: fails, or returns the percentage of entries that fail.
    async fn travel(&self, action: Action) -> Result<u8, QueueError> {
        thaw(&self.sim, self.process).await;
        let (trouble, latency) = {
            let mut world = self.sim.lock();
            world.called();
            (world.sqs_trouble(action), world.between((millis(4), millis(16))))
        };
        let (slower, answer) = match trouble {
            None => (Duration::ZERO, Ok(0)),
            Some(SqsTrouble::Partly(percent)) => (Duration::ZERO, Ok(percent)),
            Some(SqsTrouble::Slow(time)) => (time, Ok(0)),
            Some(SqsTrouble::Denied) => (Duration::ZERO, Err(QueueErrorKind::Denied)),
            Some(SqsTrouble::Throttled) => (Duration::ZERO, Err(QueueErrorKind::Throttled)),
            Some(SqsTrouble::Failing) => (Duration::ZERO, Err(QueueErrorKind::Other)),
        };
        sleep(latency + slower).await;
        answer.map_err(|kind| {
            let process = self.process;
            self.sim.lock().log(|| format!("p{process} {action:?}: {kind}"));
            QueueError { kind, detail: "simulated".to_owned() }
        })
    }

    async fn batch(
        &self,
        action: Action,
        handles: impl Iterator<Item = (&ReceiptHandle, Duration)> + Send,
    ) -> BatchAnswer {
        let changes: Vec<_> = handles.map(|(handle, after)| (receipt(handle), after)).collect();
        let failing = self.travel(action).await?;
        let answers = self.change_all(action, changes, failing);
        thaw(&self.sim, self.process).await;
        Ok(answers)
    }

    fn change_all(
        &self,
        action: Action,
        changes: Vec<((usize, u32), Duration)>,
        failing: u8,
    ) -> Vec<Result<(), EntryError>> {
        let mut world = self.sim.lock();
        let now = world.now();
        let mut answers = Vec::with_capacity(changes.len());
        for (receipt, after) in changes {
            if failing > 0 && world.chance(failing) {
                answers.push(Err(EntryError::Retry("simulated".to_owned())));
                continue;
            }
            let stands = match action {
                Action::Delete => world.queue.delete(receipt),
                Action::Extend => {
                    let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                    world.queue.change(receipt, now + Duration::from_secs(whole))
                }
                Action::Receive | Action::DeadLetter => unreachable!("no batches of these"),
            };
            let process = self.process;
            world.log(|| {
                let lost = if stands { "" } else { ", and the receipt is stale" };
                format!("p{process} {action:?} m-{} for {after:?}{lost}", receipt.0)
            });
            answers.push(if stands { Ok(()) } else { Err(EntryError::Lost("stale".to_owned())) });
        }
        self.look_again(&mut world);
        answers
    }

    /// Wakes a receive if a message is visible, and the timer if the next one is visible earlier
    /// than expected.
    fn look_again(&self, world: &mut World) {
        let now = world.now();
        world.queue.advance(now);
        if world.queue.has_visible() {
            self.sim.arrivals.notify_one();
        }
        if world.queue.next_at() < world.queue.looks_at {
            self.sim.sooner.notify_one();
        }
    }

    fn hand_out(&self, world: &mut World, max: usize, visibility: Duration) -> Vec<Message> {
        let now = world.now();
        world.queue.advance(now);
        let plan = Arc::clone(&world.plan);
        let taken = world.queue.take(max, now, visibility);
        let process = self.process;
        if !taken.is_empty() {
            world.log(|| format!("p{process} receives {taken:?}"));
        }
        for n in &taken {
            world.events[*n].received_at.get_or_insert(now);
            world.order.received(*n, process, now);
        }
        for (n, at) in std::mem::take(&mut world.queue.returned) {
            world.order.interrupted(n, at);
        }
        for n in std::mem::take(&mut world.queue.redriven) {
            world.log(|| format!("m-{n} redriven"));
            world.close(n);
        }
        // Visible messages that were not handed out are left for another receive. Those of a locked
        // group stay locked.
        if !taken.is_empty() {
            self.look_again(world);
        }
        let message = |n: &usize| {
            let spec = &plan.events[*n];
            let receives = world.queue.msgs[*n].receives;
            Message {
                id: MessageId(format!("m-{n}").into()),
                handle: ReceiptHandle(format!("{n}/{receives}").into()),
                body: body(*n, &plan.events[*n]),
                receive_count: receives,
                sent_at: Some(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + spec.at),
                group: spec.group.map(|group| MessageGroup::Ordered(format!("g-{group}").into())),
                trace_header: None,
                source_arn: None,
                attributes: Vec::new(),
            }
        };
        taken.iter().map(message).collect()
    }
}

fn body(n: usize, spec: &super::plan::EventSpec) -> String {
    if spec.poison {
        return "{".to_owned();
    }
    let (id, reservation) = (event_id(n), spec.reservation);
    if spec.is_payment {
        format!(
            r#"{{"id":"{id}","type":"payment.failed","reservation_id":"rsv_{reservation}","event_id":"show","payload":{{"payment_intent_id":"pay","qty":2}}}}"#
        )
    } else if spec.seats {
        format!(
            r#"{{"id":"{id}","type":"reservation.expired","reservation_id":"rsv_{reservation}","event_id":"show","payload":{{"qty":2}}}}"#
        )
    } else {
        format!(
            r#"{{"id":"{id}","type":"payment.approved","reservation_id":"rsv_{reservation}","event_id":"show","payload":{{"payment_intent_id":"pay"}}}}"#
        )
    }
}

fn receipt(handle: &ReceiptHandle) -> (usize, u32) {
    let parts = handle.0.split_once('/').expect("the handle is from this queue");
    (
        parts.0.parse().expect("the handle has two numbers"),
        parts.1.parse().expect("the handle has two numbers"),
    )
}

impl World {
    fn sqs_trouble(&self, action: Action) -> Option<SqsTrouble> {
        let now = self.now();
        let hits = |fault: &&super::plan::SqsFault| {
            fault.action == action && fault.from <= now && now < fault.to
        };
        self.plan.sqs.iter().find(hits).map(|fault| fault.trouble)
    }
}

#[async_trait]
impl Queue for SimQueue {
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        self.travel(Action::Receive).await?;
        let until = {
            let world = self.sim.lock();
            world.instant(world.now() + world.plan.settings.wait)
        };
        loop {
            let (messages, is_over) = {
                let mut world = self.sim.lock();
                let messages = self.hand_out(&mut world, max, visibility);
                (messages, world.instant(world.now()) >= until)
            };
            if !messages.is_empty() || is_over {
                thaw(&self.sim, self.process).await;
                return Ok(messages);
            }
            tokio::select! {
                biased;
                () = self.sim.arrivals.notified() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        self.batch(Action::Delete, handles.iter().map(|handle| (handle, Duration::ZERO))).await
    }

    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.batch(Action::Extend, leases.iter().map(|(handle, after)| (handle, *after))).await
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.batch(Action::Extend, messages.iter().map(|(handle, after)| (handle, *after))).await
    }

    async fn probe(&self, action: QueueAction) -> Result<Permission, QueueError> {
        let asked = match action {
            QueueAction::Receive | QueueAction::Attributes => return Ok(Permission::Allowed),
            QueueAction::Extend => Action::Extend,
            QueueAction::Delete => Action::Delete,
            QueueAction::DeadLetter => Action::DeadLetter,
        };
        self.travel(asked).await?;
        Ok(match action {
            QueueAction::DeadLetter => Permission::CannotBeAsked,
            QueueAction::Receive
            | QueueAction::Attributes
            | QueueAction::Extend
            | QueueAction::Delete => Permission::Allowed,
        })
    }

    async fn limits(&self) -> Result<QueueLimits, QueueError> {
        let receives_max = Some(self.sim.lock().plan.max_receives);
        Ok(QueueLimits { receives_max, retention: None })
    }

    async fn dead_letter(&self, dead_letter: &DeadLetter) -> Result<(), QueueError> {
        self.travel(Action::DeadLetter).await?;
        let number =
            dead_letter.message_id.0.strip_prefix("m-").and_then(|n| n.parse::<usize>().ok());
        let n = number.expect("the message is in this queue");
        let mut world = self.sim.lock();
        world.queue.msgs[n].copies += 1;
        world.close(n);
        let process = self.process;
        world.log(|| {
            format!("p{process} dead-letters m-{n}: {} {}", dead_letter.reason, dead_letter.error)
        });
        Ok(())
    }
}
