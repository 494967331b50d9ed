//! Sends the demo's messages at their times and records these.

use tokio::time::Instant;

use super::workload::{Expected, POISON_BODY, Planned, When, Workload};
use super::world::World;
use crate::sqs::NewMessage;

/// Sent and remaining messages.
pub(super) struct Mail<'a> {
    pub(super) workload: &'a Workload,
    burst: Vec<Option<usize>>,
    later: Vec<(usize, When)>,
    pub(super) sent_at: Vec<Option<Instant>>,
    pub(super) sent: usize,
}

impl<'a> Mail<'a> {
    pub(super) fn new(workload: &'a Workload) -> Self {
        Self {
            workload,
            burst: workload.burst.clone(),
            later: workload.later.clone(),
            sent_at: vec![None; workload.events.len()],
            sent: 0,
        }
    }

    pub(super) fn all_sent(&self) -> bool {
        self.burst.is_empty() && self.later.is_empty()
    }

    pub(super) fn send_first(&mut self, world: &World) {
        let first = self
            .burst
            .iter()
            .position(Option::is_some)
            .expect("a workload has an event in its burst");
        let index = self.burst.remove(first);
        self.send(world, index);
    }

    pub(super) fn send_burst(&mut self, world: &World) {
        for index in std::mem::take(&mut self.burst) {
            self.send(world, index);
        }
    }

    /// Sends the messages that are due.
    pub(super) fn send_due(&mut self, world: &World) {
        let (due, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|(index, when)| is_due(&self.workload.events[*index], *when, world));
        self.later = later;
        for (index, _) in due {
            self.send(world, Some(index));
        }
    }

    fn send(&mut self, world: &World, index: Option<usize>) {
        let body = index.map_or(POISON_BODY, |index| self.workload.events[index].body.as_str());
        if let Some(index) = index {
            self.sent_at[index].get_or_insert_with(Instant::now);
        }
        let sent = world.servers.sqs.send_message(&world.servers.queue_url, NewMessage::new(body));
        sent.expect("the queue exists and the body is within its limits");
        self.sent += 1;
    }
}

fn is_due(event: &Planned, when: When, world: &World) -> bool {
    match when {
        When::AtOnce => true,
        When::OnceStatusIs(status) => {
            world.servers.api.status(&event.reservation_id) == Some(status)
        }
        When::OnceDone => match &event.expected {
            Expected::Superseded => true,
            Expected::Effects(effects) => {
                let calls = world.servers.ledger.calls_for(&event.reservation_id);
                effects.iter().all(|(step, _)| {
                    let key = step.key(&event.id);
                    calls.iter().any(|call| call.applied() && call.key.as_ref() == Some(&key))
                })
            }
        },
    }
}
