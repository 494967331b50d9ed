//! Parts of the configuration, for commands that need only the queue or only the store.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use super::raw::Raw;
use super::read::Reader;
use super::{
    AwsConfig, ConfigErrors, IdempotencyConfig, ServerConfig, SqsConfig, StoreAuth, environment,
    reader, table,
};

/// What calls to the queue and its dead-letter queue need. `Debug` shows no passwords.
#[derive(Clone, Debug)]
pub struct QueuePart {
    /// The queue.
    pub sqs: SqsConfig,
    /// The AWS SDK's own variables.
    pub aws: AwsConfig,
    /// Warnings about ignored or replaced values, one line each.
    pub warnings: Vec<String>,
}

/// What calls to the idempotency store need. `Debug` shows no passwords.
#[derive(Clone, Debug)]
pub struct StorePart {
    /// The store.
    pub idempotency: IdempotencyConfig,
    /// The queue's part, where tokens of AWS IAM are the login: their region may be the queue's.
    pub queue: Option<QueuePart>,
    /// Warnings about ignored or replaced values, one line each.
    pub warnings: Vec<String>,
}

/// Variables by name.
type Vars = BTreeMap<String, String>;

/// What reaching the worker of this machine needs.
#[derive(Clone, Copy, Debug)]
pub struct ServerPart {
    /// The admin port.
    pub port: NonZeroU16,
}

impl ServerPart {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// If `SERVER_PORT` is wrong.
    pub fn from_env() -> Result<Self, ConfigErrors> {
        let (server, _) = part(environment(), |reader, raw, _| ServerConfig::read(reader, raw))?;
        Ok(Self { port: server.port })
    }
}

impl QueuePart {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Lists every variable of this part that is missing or wrong.
    pub fn from_env() -> Result<Self, ConfigErrors> {
        Self::from_vars(environment())
    }

    /// Reads `vars` as if they were the environment.
    ///
    /// # Errors
    /// As of [`QueuePart::from_env`].
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let (part, warnings) = part(vars, Self::read)?;
        Ok(Self { warnings, ..part })
    }

    fn read(reader: &mut Reader, raw: &Raw, vars: &Vars) -> Option<Self> {
        let aws = AwsConfig::read(reader, vars);
        let wait_time = reader.seconds(&table::SQS_WAIT_TIME, &raw.sqs_wait_time);
        let sqs = SqsConfig::read(reader, raw, wait_time);
        Some(Self { sqs: sqs?, aws, warnings: Vec::new() })
    }
}

impl StorePart {
    /// Reads the environment of this process, as [`QueuePart::from_env`] does.
    ///
    /// # Errors
    /// Lists every variable of this part that is missing or wrong.
    pub fn from_env() -> Result<Self, ConfigErrors> {
        Self::from_vars(environment())
    }

    /// Reads `vars` as if they were the environment.
    ///
    /// # Errors
    /// As of [`StorePart::from_env`].
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let (part, warnings) = part(vars, Self::read)?;
        Ok(Self { warnings, ..part })
    }

    fn read(reader: &mut Reader, raw: &Raw, vars: &Vars) -> Option<Self> {
        let idempotency = IdempotencyConfig::read(reader, raw)?;
        let queue = match &idempotency.auth {
            StoreAuth::Url | StoreAuth::File(_) => None,
            StoreAuth::AwsIam(_) => Some(QueuePart::read(reader, raw, vars)?),
        };
        Some(Self { idempotency, queue, warnings: Vec::new() })
    }
}

/// Reads a part of `vars`: the part and the warnings, or all faults.
fn part<T>(
    vars: impl IntoIterator<Item = (String, String)>,
    read: impl FnOnce(&mut Reader, &Raw, &Vars) -> Option<T>,
) -> Result<(T, Vec<String>), ConfigErrors> {
    let vars: Vars = vars.into_iter().collect();
    let mut reader = reader(&vars);
    let part = read(&mut reader, &Raw::from_vars(vars.clone()), &vars);
    reader.finish()?;
    Ok((part.expect("a part is missing only where an error was noted"), reader.warnings))
}
