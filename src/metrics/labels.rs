//! The fixed sets that label values come from, as enums: a label can never be made from what a message says.
//! Event types live in [`crate::event`]; the metrics themselves in [`crate::metrics`].

/// Declares a label's set of values: the enum, `ALL`, and the text of each.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$value),+];

            /// The label's text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }
    };
}

label! {
    /// How an event was settled. A retry is not a settlement and is counted by a method of its own.
    Outcome {
        /// All its effects are applied.
        Success => "success",
        /// Given up: dead-lettered, or released for the queue's redrive policy to decide.
        Failed => "failed",
        /// Nothing was to be done: a duplicate, or superseded by a later status.
        Dropped => "dropped",
    }
}

label! {
    /// Who is called.
    Service {
        /// Amazon SQS.
        Sqs => "sqs",
        /// The Reservation API.
        Reservation => "reservation",
        /// The Inventory service.
        Inventory => "inventory",
        /// The idempotency store.
        Store => "store",
    }
}

label! {
    /// A call out: the operation's own name. It belongs to one [`Service`].
    Call {
        /// SQS `ReceiveMessage`; its time includes the long poll's wait.
        ReceiveMessage => "ReceiveMessage",
        /// SQS `DeleteMessageBatch`.
        DeleteMessageBatch => "DeleteMessageBatch",
        /// SQS `ChangeMessageVisibilityBatch`.
        ChangeMessageVisibilityBatch => "ChangeMessageVisibilityBatch",
        /// SQS `SendMessage`, to the dead-letter queue.
        SendMessage => "SendMessage",
        /// SQS `GetQueueAttributes`.
        GetQueueAttributes => "GetQueueAttributes",
        /// `PATCH` of a reservation's status.
        PatchReservation => "PATCH",
        /// `GET` of a reservation.
        GetReservation => "GET",
        /// Inventory `ReleaseHold`.
        ReleaseHold => "ReleaseHold",
        /// Inventory `CommitReservation`.
        CommitReservation => "CommitReservation",
        /// An event is claimed in the idempotency store.
        Claim => "claim",
        /// A claim is renewed.
        Renew => "renew",
        /// Steps are recorded.
        Record => "record",
        /// An event is recorded as handled.
        Complete => "complete",
        /// A claim is given up.
        Release => "release",
    }
}

impl Call {
    /// The service that this call goes to.
    #[must_use]
    pub const fn service(self) -> Service {
        match self {
            Self::ReceiveMessage
            | Self::DeleteMessageBatch
            | Self::ChangeMessageVisibilityBatch
            | Self::SendMessage
            | Self::GetQueueAttributes => Service::Sqs,
            Self::PatchReservation | Self::GetReservation => Service::Reservation,
            Self::ReleaseHold | Self::CommitReservation => Service::Inventory,
            Self::Claim | Self::Renew | Self::Record | Self::Complete | Self::Release => {
                Service::Store
            }
        }
    }
}

label! {
    /// How a call out ended, in the classes that decide what happens next.
    CallResult {
        /// It did what was asked.
        Ok => "ok",
        /// Worth another try.
        Transient => "transient",
        /// The service wants this event later, or fewer calls.
        Paced => "paced",
        /// The service, or the way to it, is at fault.
        Outage => "outage",
        /// The state did not fit (409, 412): what stands there is asked for next.
        Conflict => "conflict",
        /// No further try can help.
        Permanent => "permanent",
    }
}

label! {
    /// How much a service is called.
    BreakerState {
        /// Calls are made.
        Closed => "closed",
        /// Few calls are made: a probe is open, or the service is just back.
        HalfOpen => "half_open",
        /// No call is made but probes, or none, as the service asked to be left alone.
        Open => "open",
    }
}

label! {
    /// Which way the calls at once that a service is given were changed.
    LimitChange {
        /// More are given.
        Up => "up",
        /// Fewer are given.
        Down => "down",
    }
}

label! {
    /// What is counted where a service asks for fewer calls.
    PaceScope {
        /// An answer that says so: its event waits.
        Event => "event",
        /// A pause: every event that needs the service waits.
        Service => "service",
    }
}

label! {
    /// Why a receive, or another action of the queue, failed: the kinds of trouble that call for different answers.
    QueueErrorKind {
        /// SQS asks for fewer calls, or for fewer messages in flight (`OverLimit`).
        Throttled => "throttled",
        /// Credentials are missing, expired or lack the permission.
        Denied => "denied",
        /// There is no such queue, or the URL's region or account is wrong.
        NoSuchQueue => "no_such_queue",
        /// No connection, or a broken one.
        Network => "network",
        /// No answer within the deadline.
        Timeout => "timeout",
        /// SQS refuses the request itself: the same request will not succeed.
        Refused => "refused",
        /// A copy was to be sent to a dead-letter queue, and none is known.
        NoDeadLetterQueue => "no_dead_letter_queue",
        /// SQS failed (5xx), or said what is not known here.
        Other => "other",
    }
}

label! {
    /// What the worker does with its queue, by what a policy allows or denies apart.
    QueueAction {
        /// `ReceiveMessage`.
        Receive => "receive",
        /// `ChangeMessageVisibility`: leases are extended, and messages handed back, with it.
        Extend => "extend",
        /// `DeleteMessage`.
        Delete => "delete",
        /// `SendMessage` to the dead-letter queue.
        DeadLetter => "dead_letter",
        /// `GetQueueAttributes` and `GetQueueUrl`, which find the dead-letter queue.
        Attributes => "attributes",
    }
}

impl QueueAction {
    /// The name that SQS and its policies have for it.
    #[must_use]
    pub const fn api_name(self) -> &'static str {
        match self {
            Self::Receive => "ReceiveMessage",
            Self::Extend => "ChangeMessageVisibility",
            Self::Delete => "DeleteMessage",
            Self::DeadLetter => "SendMessage",
            Self::Attributes => "GetQueueAttributes",
        }
    }
}

label! {
    /// Where a held message stands.
    HeldState {
        /// Received, not begun; or it waits for its place among the calls that a service is given at once.
        Buffered => "buffered",
        /// A worker is busy with it.
        Running => "running",
        /// It waits for its next attempt, or for an earlier event of its reservation.
        Waiting => "waiting",
        /// It waits for a service that is away.
        Parked => "parked",
        /// Its delete, release or dead-lettering is under way.
        Settling => "settling",
    }
}

label! {
    /// What settles a message on the queue's side.
    SettlementKind {
        /// It is deleted.
        Delete => "delete",
        /// It is handed back, visible at once or later.
        Release => "release",
        /// A copy goes to the dead-letter queue.
        DeadLetter => "dead_letter",
    }
}

label! {
    /// What made a retry necessary.
    RetryReason {
        /// A call failed in a way that may pass.
        Transient => "transient",
        /// The service, or the way to it, was at fault.
        Outage => "outage",
        /// The service named a time, or asked for fewer calls.
        Paced => "paced",
        /// The service refused the worker, which may pass.
        Forbidden => "forbidden",
        /// The reservation was in a status from which nothing could be decided.
        Unclear => "unclear",
        /// The idempotency store gave no answer.
        Store => "store",
        /// The handler panicked.
        Panic => "panic",
        /// Anything else.
        Other => "other",
    }
}

label! {
    /// Why a span was lost.
    SpanLoss {
        /// The queue to the collector was full: it is too slow, or hangs.
        QueueFull => "queue_full",
        /// A batch could not be sent, or was refused.
        ExportFailed => "export_failed",
    }
}

label! {
    /// How a duplicate was noticed.
    DuplicateReason {
        /// The event had been handled before.
        Handled => "handled",
        /// The event was in flight: this copy shares its settlement.
        Joined => "joined",
    }
}

/// Gives the enums that index arrays of series their place.
macro_rules! indexed {
    ($($name:ident)+) => { $(
        impl $name {
            /// The place of this value in [`Self::ALL`].
            pub(crate) const fn index(self) -> usize {
                self as usize
            }
        }
    )+ };
}

indexed!(Outcome Call CallResult QueueErrorKind QueueAction HeldState RetryReason SettlementKind SpanLoss DuplicateReason BreakerState LimitChange PaceScope Service);
