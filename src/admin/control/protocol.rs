//! What goes over the control socket: one line of JSON each way.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// Returns the status.
    Status,
    /// Stops receives.
    Pause {
        /// For how long, seconds.
        for_s: NonZeroU64,
        /// Why.
        #[serde(default)]
        reason: String,
        /// Whether all processes that share the store are meant.
        #[serde(default)]
        all: bool,
    },
    /// Ends a pause.
    Resume {
        /// Whether all processes that share the store are meant.
        #[serde(default)]
        all: bool,
    },
    /// Sets the number of workers.
    Concurrency {
        /// The number.
        workers: usize,
        /// For how long, seconds.
        for_s: NonZeroU64,
        /// Whether all processes that share the store are meant.
        #[serde(default)]
        all: bool,
    },
    /// Sets the log level.
    LogLevel {
        /// The level, as `LOG_LEVEL` has it.
        level: String,
        /// For how long, seconds.
        for_s: NonZeroU64,
    },
    /// Returns what a held event does.
    Event {
        /// The event's id.
        id: String,
    },
}

impl ControlRequest {
    /// Reads a request from its line.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        if !line.ends_with(b"\n") {
            return Err("the request is no line, or too long".to_owned());
        }
        serde_json::from_slice(line).map_err(|error| format!("the request cannot be read: {error}"))
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlResponse {
    /// Whether it was done.
    pub ok: bool,
    /// What was done, or why it was refused, in words.
    pub text: String,
    /// What was asked for, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl ControlResponse {
    pub(super) fn done(text: impl Into<String>) -> Self {
        Self { ok: true, text: text.into(), data: None }
    }

    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self { ok: false, text: text.into(), data: None }
    }

    pub(super) fn with(mut self, data: &impl Serialize) -> Self {
        match serde_json::to_value(data) {
            Ok(data) => Self { data: Some(data), ..self },
            Err(error) => {
                self.text = format!("the answer cannot be written: {error}");
                Self { ok: false, ..self }
            }
        }
    }
}
