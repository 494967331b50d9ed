//! Answers that the Inventory service can be told to give instead of the truth.

use std::time::Duration;

use tonic::Code;

use crate::script::{Lose, Refuse, Scripted};

/// What is sent instead of the true answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(pub(crate) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Code {
        code: Code,
        retry_delay: Option<Duration>,
    },
    Status(i32),
    /// The connection is closed, and with it every other call on it.
    Lost,
}

impl Lose for Reply {
    fn lost() -> Self {
        Self(Kind::Lost)
    }
}

impl Refuse for Reply {
    fn refused(retry_after: Duration) -> Self {
        Self(Kind::Code { code: Code::ResourceExhausted, retry_delay: Some(retry_after) })
    }
}

impl Scripted<Reply> {
    /// This gRPC code; the call is not processed.
    #[must_use]
    pub fn code(code: Code) -> Self {
        Self::replying(Reply(Kind::Code { code, retry_delay: None }))
    }

    /// This gRPC code with a `RetryInfo` detail (`google.rpc.RetryInfo`); the call is not processed.
    #[must_use]
    pub fn code_with_retry_info(code: Code, retry_delay: Duration) -> Self {
        Self::replying(Reply(Kind::Code { code, retry_delay: Some(retry_delay) }))
    }

    /// A gRPC answer with this value in its status field, known or not; the call is not processed.
    #[must_use]
    pub fn status_value(value: impl Into<i32>) -> Self {
        Self::replying(Reply(Kind::Status(value.into())))
    }
}
