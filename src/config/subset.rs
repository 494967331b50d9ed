//! Parts of the configuration, for commands that need only the queue or only the store.

use std::collections::BTreeMap;

use super::raw::Raw;
use super::read::Reader;
use super::{
    AwsConfig, ConfigErrors, IdempotencyConfig, SqsConfig, StoreAuth, environment, reader, table,
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
        let vars: BTreeMap<String, String> = vars.into_iter().collect();
        let mut reader = reader(&vars);
        let part = Self::read(&mut reader, &Raw::from_vars(vars.clone()), &vars);
        reader.finish()?;
        let part = part.expect("a part is missing only where an error was noted");
        Ok(Self { warnings: reader.warnings, ..part })
    }

    fn read(reader: &mut Reader, raw: &Raw, vars: &BTreeMap<String, String>) -> Option<Self> {
        let aws = AwsConfig::read(reader, vars);
        let wait_time = reader.seconds(&table::SQS_WAIT_TIME, &raw.sqs_wait_time);
        let sqs = SqsConfig::read(reader, raw, wait_time);
        Some(Self { sqs: sqs?, aws, warnings: Vec::new() })
    }
}

impl StorePart {
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
    /// As of [`StorePart::from_env`].
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let vars: BTreeMap<String, String> = vars.into_iter().collect();
        let mut reader = reader(&vars);
        let raw = Raw::from_vars(vars.clone());
        let idempotency = IdempotencyConfig::read(&mut reader, &raw);
        let uses_aws =
            matches!(idempotency, Some(IdempotencyConfig { auth: StoreAuth::AwsIam(_), .. }));
        let queue = uses_aws.then(|| QueuePart::read(&mut reader, &raw, &vars)).flatten();
        reader.finish()?;
        let idempotency = idempotency.expect("a part is missing only where an error was noted");
        Ok(Self { idempotency, queue, warnings: reader.warnings })
    }
}
