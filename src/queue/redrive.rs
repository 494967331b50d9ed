//! What operators' commands do with a dead letter: the copy that goes back to the source queue, and
//! the operations that they need beyond [`Queue`].

use async_trait::async_trait;

use super::dead_letter::{ATTRIBUTES_MAX, by_worth};
use super::{Attribute, AttributeValue, Message, MessageGroup, MessageId, Queue, QueueError};

/// The prefix of the attributes that the worker adds to a dead letter.
const OWN_PREFIX: &str = "dlq_";

/// The attribute with the SQS id of the original message.
const REDRIVE_OF: &str = "redrive_of";

/// The attribute with the number of redrives of the original message.
const REDRIVE_COUNT: &str = "redrive_count";

/// The group that the worker gives a dead letter without one, on a FIFO dead-letter queue.
pub(super) const GROUP_OF_DEAD_LETTERS: &str = "dead-letters";

/// The approximate numbers of a queue's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that can be received, or that wait behind others of their FIFO group.
    pub visible: u64,
    /// Messages that a consumer holds.
    pub in_flight: u64,
}

/// A queue that operators' commands work on.
#[async_trait]
pub trait OperatorQueue: Queue {
    /// Returns the approximate numbers of messages.
    async fn counts(&self) -> Result<QueueCounts, QueueError>;

    /// Sends a copy of a dead letter to this queue, and returns the new message id.
    ///
    /// The copy is stored when this returns `Ok`. A FIFO queue stores repeated copies of one dead
    /// letter once, for five minutes.
    async fn redrive(&self, copy: &RedriveCopy) -> Result<MessageId, QueueError>;
}

/// A copy of a dead letter for the source queue.
#[derive(Clone, Debug)]
pub struct RedriveCopy {
    /// The unmodified body.
    pub body: String,
    /// The attributes without those of the worker, and with `redrive_of` and `redrive_count` if
    /// there is room for them.
    pub attributes: Vec<Attribute>,
    /// The message group of the dead letter.
    pub group: Option<MessageGroup>,
    /// The X-Ray header.
    pub trace_header: Option<Box<str>>,
    /// The SQS id of the dead letter; it identifies repeated copies of it.
    pub source_id: MessageId,
    /// The attribute that was left out so that `redrive_of` fits.
    pub left_out: Option<String>,
    /// Whether the event's identity is the id in `redrive_of`.
    needs_identity: bool,
    /// What [`RedriveCopy::shorten`] dropped.
    dropped: Vec<Attribute>,
}

impl RedriveCopy {
    /// Builds the copy of `letter`.
    ///
    /// `has_own_id` is whether the body names the event's id. Otherwise `redrive_of` keeps the
    /// identity, and replaces the least important attribute if there are ten.
    #[must_use]
    pub fn new(letter: Message, has_own_id: bool) -> Self {
        let original_id = letter.original_id().to_owned();
        let count = letter.text_attribute(REDRIVE_COUNT).and_then(|text| text.parse::<u32>().ok());
        let count = count.unwrap_or(0).saturating_add(1);
        let is_carried = |attribute: &Attribute| {
            let name = attribute.name.as_str();
            !name.starts_with(OWN_PREFIX) && name != REDRIVE_OF && name != REDRIVE_COUNT
        };
        let mut attributes = letter.attributes;
        attributes.retain(is_carried);
        let mut left_out = None;
        if attributes.len() >= ATTRIBUTES_MAX && !has_own_id {
            left_out = by_worth(&attributes).last().map(|least| least.name.clone());
            attributes.retain(|attribute| left_out.as_ref() != Some(&attribute.name));
        }
        let ours =
            [("String", REDRIVE_OF, original_id), ("Number", REDRIVE_COUNT, count.to_string())];
        for (data_type, name, value) in ours {
            if attributes.len() < ATTRIBUTES_MAX {
                attributes.push(Attribute {
                    name: name.to_owned(),
                    data_type: data_type.to_owned(),
                    value: AttributeValue::Text(value),
                });
            }
        }
        Self {
            body: letter.body,
            attributes,
            group: letter.group,
            trace_header: letter.trace_header,
            source_id: letter.id,
            left_out,
            needs_identity: !has_own_id,
            dropped: Vec::new(),
        }
    }

    /// Drops `redrive_count`, then `redrive_of` if the event has an id of its own. A copy that is
    /// too long for the queue may fit then.
    ///
    /// The X-Ray header is the last resort: it does not count towards the size, so the queue may
    /// refuse the header itself. Without it both are tried again.
    ///
    /// Returns false if nothing is left that may be dropped.
    pub fn shorten(&mut self) -> bool {
        let droppable = [(REDRIVE_COUNT, true), (REDRIVE_OF, !self.needs_identity)];
        for (name, may_be_dropped) in droppable {
            let known = self.attributes.iter().position(|attribute| attribute.name == name);
            if let (Some(at), true) = (known, may_be_dropped) {
                self.dropped.push(self.attributes.remove(at));
                return true;
            }
        }
        if self.trace_header.take().is_none() {
            return false;
        }
        self.attributes.append(&mut self.dropped);
        true
    }

    /// Returns the group for a queue of this kind.
    ///
    /// On a FIFO queue a copy without a group gets one of its own, so that it waits for no other.
    /// On a standard queue the group that the worker made up for its FIFO copy is left out.
    #[must_use]
    pub fn group_for(&self, is_fifo: bool) -> Option<&str> {
        let named = self.group.as_ref().map(MessageGroup::name);
        if is_fifo {
            return Some(named.unwrap_or(&self.source_id.0));
        }
        named.filter(|name| *name != GROUP_OF_DEAD_LETTERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::ReceiptHandle;

    fn text(name: &str, value: &str) -> Attribute {
        Attribute {
            name: name.to_owned(),
            data_type: "String".to_owned(),
            value: AttributeValue::Text(value.to_owned()),
        }
    }

    fn message(attributes: Vec<Attribute>) -> Message {
        Message {
            id: MessageId("m-2".into()),
            handle: ReceiptHandle("h".into()),
            body: "{}".to_owned(),
            receive_count: 1,
            sent_at: None,
            group: None,
            trace_header: Some("Root=1".into()),
            source_arn: None,
            attributes,
        }
    }

    fn own(count: usize) -> Vec<Attribute> {
        (0..count).map(|n| text(&format!("own{n}"), "v")).collect()
    }

    fn names(copy: &RedriveCopy) -> Vec<&str> {
        copy.attributes.iter().map(|attribute| attribute.name.as_str()).collect()
    }

    fn value<'a>(copy: &'a RedriveCopy, name: &str) -> &'a AttributeValue {
        &copy.attributes.iter().find(|attribute| attribute.name == name).expect("it is there").value
    }

    #[test]
    fn a_copy_has_all_attributes_but_the_workers_and_names_the_original() {
        let letter = vec![
            text("dlq_reason", "rejected"),
            text("dlq_message_id", "m-1"),
            text("traceparent", "00-1"),
        ];
        let copy = RedriveCopy::new(message(letter), true);
        assert_eq!(names(&copy), ["traceparent", "redrive_of", "redrive_count"]);
        assert_eq!(*value(&copy, "redrive_of"), AttributeValue::Text("m-1".to_owned()));
        assert_eq!(*value(&copy, "redrive_count"), AttributeValue::Text("1".to_owned()));
        assert_eq!((copy.body.as_str(), copy.trace_header.as_deref()), ("{}", Some("Root=1")));
    }

    #[test]
    fn a_second_redrive_counts_and_keeps_the_first_original() {
        let letter = vec![text("redrive_of", "m-0"), text("redrive_count", "4")];
        let copy = RedriveCopy::new(message(letter), true);
        assert_eq!(*value(&copy, "redrive_of"), AttributeValue::Text("m-0".to_owned()));
        assert_eq!(*value(&copy, "redrive_count"), AttributeValue::Text("5".to_owned()));
        let letter = vec![text("redrive_count", "4294967295")];
        let copy = RedriveCopy::new(message(letter), true);
        assert_eq!(*value(&copy, "redrive_count"), AttributeValue::Text("4294967295".to_owned()));
    }

    #[test]
    fn ten_attributes_leave_no_room_unless_the_identity_needs_it() {
        let ours = |copy: &RedriveCopy| {
            names(copy).iter().filter(|name| name.starts_with("redrive_")).count()
        };
        for (count, has_own_id, added, left_out) in [
            (8, true, 2, None),
            (9, true, 1, None),
            (10, true, 0, None),
            (9, false, 1, None),
            (10, false, 1, Some("own9")),
        ] {
            let copy = RedriveCopy::new(message(own(count)), has_own_id);
            assert_eq!((ours(&copy), copy.left_out.as_deref()), (added, left_out), "{count}");
            assert!(copy.attributes.len() <= ATTRIBUTES_MAX);
        }
    }

    #[test]
    fn a_copy_that_is_too_long_loses_our_attributes_but_no_identity() {
        for (has_own_id, left) in [(true, vec!["own0"]), (false, vec!["own0", "redrive_of"])] {
            let mut copy = RedriveCopy::new(message(own(1)), has_own_id);
            while copy.shorten() {}
            assert_eq!(names(&copy), left);
        }
    }

    #[test]
    fn a_header_that_is_refused_is_dropped_last_and_our_attributes_are_tried_again() {
        let mut copy = RedriveCopy::new(message(own(1)), true);
        while copy.trace_header.is_some() {
            assert!(copy.shorten());
        }
        let mut left = names(&copy);
        left.sort_unstable();
        assert_eq!(left, ["own0", "redrive_count", "redrive_of"]);
        while copy.shorten() {}
        assert_eq!(names(&copy), ["own0"]);
    }

    #[test]
    fn the_group_fits_the_kind_of_the_queue() {
        let with = |group| RedriveCopy::new(Message { group, ..message(vec![]) }, true);
        let ordered = |name: &str| Some(MessageGroup::Ordered(name.into()));
        assert_eq!(with(ordered("g")).group_for(true), Some("g"));
        assert_eq!(with(None).group_for(true), Some("m-2"));
        assert_eq!(with(None).group_for(false), None);
        assert_eq!(with(ordered(GROUP_OF_DEAD_LETTERS)).group_for(false), None);
        assert_eq!(with(Some(MessageGroup::Tenant("t".into()))).group_for(false), Some("t"));
    }
}
