//! The errors of the configuration: all at once, one line per variable, with secrets masked.

use std::fmt;

use crate::escaped::Escaped;

/// A variable with a missing or wrong value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {given}: must be {allowed}")]
pub struct ConfigError {
    /// The variable.
    pub name: &'static str,
    /// `is not set`, or `is "..."`: escaped, truncated, without passwords.
    pub given: String,
    /// The allowed values.
    pub allowed: String,
}

impl ConfigError {
    /// Describes a missing variable; `near` is a similar name that is set.
    pub(super) fn missing(
        name: &'static str,
        near: Option<&str>,
        allowed: impl Into<String>,
    ) -> Self {
        let given = match near {
            Some(near) => format!("is not set ({} is, is that it?)", Escaped(near)),
            None => "is not set".to_owned(),
        };
        Self { name, given, allowed: allowed.into() }
    }

    /// Describes a wrong value; `value` must already be masked.
    pub(super) fn wrong(name: &'static str, value: &str, allowed: impl Into<String>) -> Self {
        Self { name, given: format!("is {}", Escaped(value)), allowed: allowed.into() }
    }
}

/// All variables with a missing or wrong value, in the table's order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// Returns one error per fault.
    #[must_use]
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Masks user, password and the query values of a URL, well-formed or not.
///
/// Some services take a key for a user. All text before the last `@` counts as user and password,
/// even if it contains slashes: a wrong value may have slashes in its password.
pub(super) fn mask(url: &str) -> String {
    let (scheme, rest) = url.find("://").map_or(("", url), |at| url.split_at(at + "://".len()));
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("***@", rest));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    format!("{scheme}{user}{rest}{query}")
}
