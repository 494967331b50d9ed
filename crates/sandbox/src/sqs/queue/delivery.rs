//! Operations of receivers on a queue: receiving messages and settling them by their handles.

use std::sync::Arc;

use tokio::time::Duration;

use super::super::action::Action;
use super::super::error::{ErrorCode, SqsError};
use super::super::handle;
use super::super::ledger::{FaultKind, Outcome};
use super::super::message::Content;
use super::{Message, MessageState, Now, Queue};

/// Maximum number of in-flight messages. Source: SQS "Message quotas".
pub(crate) const IN_FLIGHT_MAX: usize = 120_000;
/// Maximum visibility timeout from the receive. Source: API_ChangeMessageVisibility.
const VISIBILITY_MAX: Duration = Duration::from_secs(43_200);

/// A message as returned by one receive.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) content: Arc<Content>,
    pub(crate) receipt_handle: Arc<str>,
    pub(crate) receive_count: u32,
    pub(crate) first_receive_ms: u64,
    pub(crate) source_arn: Option<String>,
}

impl Queue {
    /// Delivers up to `max` messages, and removes those that were received `receives_max` times.
    pub(crate) fn take(
        &mut self,
        max: usize,
        visibility: Duration,
        receives_max: Option<u32>,
        now: Now,
    ) -> (Vec<Delivery>, Vec<Message>) {
        let (mut deliveries, mut dead) = (Vec::new(), Vec::new());
        let mut left_visible = Vec::new();
        if let Some(groups) = &mut self.groups {
            groups.begin_receive();
        }
        while deliveries.len() < max && self.in_flight < IN_FLIGHT_MAX {
            let Some(key) = self.next_ready() else { break };
            let receives = self.messages.get(&key).map_or(0, |m| m.receives_here);
            if receives_max.is_some_and(|most| receives >= most) {
                if let Some(message) = self.remove(key) {
                    self.book(
                        now,
                        Action::ReceiveMessage,
                        Some(Arc::clone(&message.id)),
                        None,
                        Outcome::MovedToDlq,
                    );
                    dead.push(message);
                }
                continue;
            }
            deliveries.extend(self.deliver(key, now));
            self.place(key, MessageState::InFlight, now.instant + visibility);
            if self.faults.duplicates() {
                left_visible.push(key);
            }
        }
        for key in left_visible {
            let id = self.messages.get(&key).map(|m| Arc::clone(&m.id));
            self.book(now, Action::ReceiveMessage, id, None, Outcome::Fault(FaultKind::Duplicate));
            self.place(key, MessageState::Visible, now.instant);
        }
        if let Some(groups) = &mut self.groups {
            groups.end_receive();
        }
        (deliveries, dead)
    }

    fn deliver(&mut self, key: u64, now: Now) -> Option<Delivery> {
        let message = self.messages.get_mut(&key)?;
        message.receive_count += 1;
        message.receives_here += 1;
        message.received_at = Some(now.instant);
        let first_receive_ms = *message.first_receive_ms.get_or_insert(now.epoch_ms);
        let receipt_handle: Arc<str> = handle::encode(self.uid, key, message.receives_here).into();
        let delivery = Delivery {
            content: Arc::clone(&message.content),
            receipt_handle: Arc::clone(&receipt_handle),
            receive_count: message.receive_count,
            first_receive_ms,
            source_arn: message.source_arn.clone(),
        };
        let outcome = Outcome::Delivered { receive_count: message.receive_count };
        let id = Arc::clone(&message.id);
        self.book(now, Action::ReceiveMessage, Some(id), Some(receipt_handle), outcome);
        Some(delivery)
    }

    /// Deletes by a handle. On a standard queue an old handle succeeds without effect.
    pub(crate) fn delete(
        &mut self,
        action: Action,
        receipt: &str,
        now: Now,
    ) -> Result<(), SqsError> {
        let (key, nonce) = handle::decode(self.uid, receipt)?;
        let receipt_handle = Some(Arc::from(receipt));
        let Some(message) = self.messages.get(&key) else {
            self.book(now, action, None, receipt_handle, Outcome::DeleteStale);
            return Ok(());
        };
        let id = Some(Arc::clone(&message.id));
        let is_newest = nonce == message.receives_here;
        let is_held = is_newest && message.placed.state == MessageState::InFlight;
        if self.groups.is_some() && !is_held {
            self.book(
                now,
                action,
                id,
                receipt_handle,
                Outcome::Refused(ErrorCode::InvalidParameterValue),
            );
            return Err(SqsError::parameter(
                "ReceiptHandle",
                receipt,
                "The receipt handle has expired.",
            ));
        }
        if !is_newest {
            self.book(now, action, id, receipt_handle, Outcome::DeleteStale);
        } else if self.faults.deletes_silently() {
            self.book(now, action, id, receipt_handle, Outcome::Fault(FaultKind::SilentDelete));
        } else {
            self.remove(key);
            self.book(now, action, id, receipt_handle, Outcome::Deleted);
        }
        Ok(())
    }

    /// Hides an in-flight message for `timeout_s` from now, or makes it visible with 0.
    pub(crate) fn change_visibility(
        &mut self,
        action: Action,
        receipt: &str,
        timeout_s: u32,
        now: Now,
    ) -> Result<(), SqsError> {
        let (key, nonce) = handle::decode(self.uid, receipt)?;
        let id = self.messages.get(&key).map(|m| Arc::clone(&m.id));
        let outcome = self.check_change(key, nonce, timeout_s, receipt, now);
        let booked = match &outcome {
            Ok(()) => Outcome::VisibilitySet { timeout_s },
            Err(error) => Outcome::Refused(error.code),
        };
        self.book(now, action, id, Some(Arc::from(receipt)), booked);
        outcome?;
        let at = now.instant + Duration::from_secs(u64::from(timeout_s));
        let state = if timeout_s == 0 { MessageState::Visible } else { MessageState::InFlight };
        self.place(key, state, at);
        Ok(())
    }

    fn check_change(
        &self,
        key: u64,
        nonce: u32,
        timeout_s: u32,
        receipt: &str,
        now: Now,
    ) -> Result<(), SqsError> {
        let Some(message) = self.messages.get(&key) else {
            let reason =
                "Message does not exist or is not available for visibility timeout change.";
            return Err(SqsError::parameter("ReceiptHandle", receipt, reason));
        };
        let held_since = message.received_at.filter(|_| {
            nonce == message.receives_here && message.placed.state == MessageState::InFlight
        });
        let Some(held_since) = held_since else {
            return Err(SqsError::new(
                ErrorCode::MessageNotInflight,
                "The specified message isn't in flight.",
            ));
        };
        let total =
            now.instant.duration_since(held_since) + Duration::from_secs(u64::from(timeout_s));
        if total > VISIBILITY_MAX {
            let reason =
                "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]";
            return Err(SqsError::parameter("VisibilityTimeout", timeout_s, reason));
        }
        Ok(())
    }
}
