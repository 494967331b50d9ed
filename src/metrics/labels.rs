//! Label values as enums: message content can never become a label value.
//! Event types are in [`crate::event`], the metrics in [`crate::metrics`].

/// Declares the values of a label: the enum, `ALL`, and the text of each value.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl $name {
            /// All values, in the order of declaration.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$value),+];

            /// Returns the label value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }
    };
}

label! {
    /// Outcome of a settled event. A retry is not a settlement: [`crate::metrics::Metrics`] counts
    /// it separately.
    Outcome {
        /// All effects are applied.
        Success => "success",
        /// Failed permanently: dead-lettered, or released for the queue's redrive policy.
        Failed => "failed",
        /// No effect was needed: a duplicate, or superseded by a later status.
        Dropped => "dropped",
    }
}

label! {
    /// Called service.
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
    /// Outgoing call, by operation name. Each belongs to one [`Service`].
    Call {
        /// SQS `ReceiveMessage`; its duration includes the long-polling wait.
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
        /// Acquires the claim of an event in the idempotency store.
        Claim => "claim",
        /// Renews a claim.
        Renew => "renew",
        /// Records completed steps.
        Record => "record",
        /// Records an event as handled.
        Complete => "complete",
        /// Releases a claim.
        Release => "release",
    }
}

impl Call {
    /// Returns the called service.
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
    /// Result class of an outgoing call. It decides the next step.
    CallResult {
        /// The call succeeded.
        Ok => "ok",
        /// A transient failure: retryable.
        Transient => "transient",
        /// The service asked for a later retry or for fewer calls.
        Paced => "paced",
        /// The service or the connection to it failed.
        Outage => "outage",
        /// A conflict with the current state (409, 412): the worker reads the state next.
        Conflict => "conflict",
        /// A permanent failure: not retryable.
        Permanent => "permanent",
    }
}

label! {
    /// State of a circuit breaker.
    BreakerState {
        /// Calls are allowed.
        Closed => "closed",
        /// Few calls are allowed: a probe is in flight, or the service has just recovered.
        HalfOpen => "half_open",
        /// Only probes are allowed, or no calls at all if the service asked for a pause.
        Open => "open",
    }
}

label! {
    /// Direction of a change of the concurrency limit.
    LimitChange {
        /// The limit was raised.
        Up => "up",
        /// The limit was lowered.
        Down => "down",
    }
}

label! {
    /// Scope of a request of a service for fewer calls.
    PaceScope {
        /// A response that asks for it: its event waits.
        Event => "event",
        /// A pause: all events that need the service wait.
        Service => "service",
    }
}

label! {
    /// Failure kind of a receive or another queue action. The reaction depends on the kind.
    QueueErrorKind {
        /// SQS throttles calls, or limits the messages in flight (`OverLimit`).
        Throttled => "throttled",
        /// Credentials are missing, expired, or lack the permission.
        Denied => "denied",
        /// The queue does not exist, or the URL has the wrong region or account.
        NoSuchQueue => "no_such_queue",
        /// The connection failed or broke.
        Network => "network",
        /// No response within the deadline.
        Timeout => "timeout",
        /// SQS rejected the request as invalid: the same request will not succeed.
        Refused => "refused",
        /// The dead-letter queue is unknown, so a copy cannot be sent.
        NoDeadLetterQueue => "no_dead_letter_queue",
        /// SQS failed (5xx), or returned an unknown error.
        Other => "other",
    }
}

label! {
    /// Queue action that an IAM policy can allow or deny separately.
    QueueAction {
        /// `ReceiveMessage`.
        Receive => "receive",
        /// `ChangeMessageVisibility`: extends leases and releases messages.
        Extend => "extend",
        /// `DeleteMessage`.
        Delete => "delete",
        /// `SendMessage` to the dead-letter queue.
        DeadLetter => "dead_letter",
        /// `GetQueueAttributes` and `GetQueueUrl`, to find the dead-letter queue.
        Attributes => "attributes",
    }
}

impl QueueAction {
    /// Returns the action name in the SQS API and in IAM policies.
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
    /// What an operator can change while the worker runs.
    ControlLever {
        /// No message is received.
        Pause => "pause",
        /// The number of workers.
        Concurrency => "concurrency",
        /// The least severe log lines that are written.
        LogLevel => "log_level",
    }
}

label! {
    /// State of a held message.
    HeldState {
        /// Received and not started, also while an earlier event of its reservation or message
        /// group comes first; or waiting for a permit of a service's concurrency limit.
        Buffered => "buffered",
        /// A worker processes it.
        Running => "running",
        /// Waits for its next attempt, or for another process that works on its reservation.
        Waiting => "waiting",
        /// Waits for a service that is unavailable.
        Parked => "parked",
        /// Its delete, or its copy to the dead-letter queue, failed and is retried.
        Settling => "settling",
    }
}

label! {
    /// Settlement of a message in the queue.
    SettlementKind {
        /// The message is deleted.
        Delete => "delete",
        /// The message is released, visible immediately or after a delay.
        Release => "release",
        /// A copy is sent to the dead-letter queue.
        DeadLetter => "dead_letter",
    }
}

label! {
    /// Reason of a retry.
    RetryReason {
        /// A call failed with a transient error.
        Transient => "transient",
        /// The service or the connection to it failed.
        Outage => "outage",
        /// The service set a retry time or asked for fewer calls.
        Paced => "paced",
        /// The service denied access, which may be temporary.
        Forbidden => "forbidden",
        /// The status of the reservation did not allow a decision.
        Unclear => "unclear",
        /// The idempotency store did not respond.
        Store => "store",
        /// The handler panicked.
        Panic => "panic",
        /// Anything else.
        Other => "other",
    }
}

label! {
    /// Reason of a lost span.
    SpanLoss {
        /// The export queue was full: the collector is too slow or does not respond.
        QueueFull => "queue_full",
        /// A batch could not be sent or was rejected.
        ExportFailed => "export_failed",
    }
}

label! {
    /// How a duplicate was detected.
    DuplicateReason {
        /// The event was handled before.
        Handled => "handled",
        /// The event is in flight: this copy gets the same settlement.
        Joined => "joined",
    }
}

/// Implements `index` for the enums that index arrays of series.
macro_rules! indexed {
    ($($name:ident)+) => { $(
        impl $name {
            /// Returns the index of this value in [`Self::ALL`].
            pub(crate) const fn index(self) -> usize {
                self as usize
            }
        }
    )+ };
}

indexed!(Outcome Call CallResult QueueErrorKind QueueAction HeldState RetryReason SettlementKind SpanLoss DuplicateReason BreakerState LimitChange PaceScope Service ControlLever);
