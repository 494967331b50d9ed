//! Scripted responses of the Inventory service.

use std::time::Duration;

use tonic::Code;

use crate::script::{Lose, Refuse, Scripted};

/// A response instead of the true one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(pub(crate) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Code {
        code: Code,
        retry_delay: Option<Duration>,
    },
    Status(i32),
    /// The connection is closed with all its other calls.
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
    /// Responds with this gRPC code without processing the call.
    #[must_use]
    pub fn code(code: Code) -> Self {
        Self::replying(Reply(Kind::Code { code, retry_delay: None }))
    }

    /// Responds with this gRPC code and a `google.rpc.RetryInfo`, without processing the call.
    #[must_use]
    pub fn code_with_retry_info(code: Code, retry_delay: Duration) -> Self {
        Self::replying(Reply(Kind::Code { code, retry_delay: Some(retry_delay) }))
    }

    /// Responds with this value in the status field, known or not, without processing the call.
    #[must_use]
    pub fn status_value(value: impl Into<i32>) -> Self {
        Self::replying(Reply(Kind::Status(value.into())))
    }
}
