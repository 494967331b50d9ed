//! What is wrong with the environment, all of it at once, one line for each variable. Masks what may be secret.

use std::fmt;

use crate::excerpt::Excerpt;

/// One variable that cannot be used as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {given}: must be {allowed}")]
pub struct ConfigError {
    /// The variable.
    pub name: &'static str,
    /// `is not set`, or `is "..."`: escaped, cut, without passwords.
    pub given: String,
    /// What it may be.
    pub allowed: String,
}

impl ConfigError {
    /// `near`: a name that is set and nearly this one.
    pub(super) fn missing(
        name: &'static str,
        near: Option<&str>,
        allowed: impl Into<String>,
    ) -> Self {
        let given = match near {
            Some(near) => format!("is not set ({} is, is that it?)", Excerpt(near)),
            None => "is not set".to_owned(),
        };
        Self { name, given, allowed: allowed.into() }
    }

    /// `value` as it may be shown: already masked.
    pub(super) fn wrong(name: &'static str, value: &str, allowed: impl Into<String>) -> Self {
        Self { name, given: format!("is {}", Excerpt(value)), allowed: allowed.into() }
    }
}

/// Every variable that cannot be used as it is, in the table's order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// One for each fault.
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

/// A URL, well-formed or not, as it may be shown: without a password, and without the values of a query.
///
/// Everything before the last `@` counts as user and password, wherever slashes stand: in a value that is wrong, a password may hold some.
pub(super) fn mask(url: &str) -> String {
    let (scheme, rest) = url.find("://").map_or(("", url), |at| url.split_at(at + "://".len()));
    let (user, rest) = match rest.rsplit_once('@') {
        None => (String::new(), rest),
        Some((user_info, rest)) => match user_info.split_once(':') {
            Some((user, _)) => (format!("{user}:***@"), rest),
            None => ("***@".to_owned(), rest),
        },
    };
    let (rest, query) = match rest.split_once('?') {
        None => (rest, ""),
        Some((rest, _)) => (rest, "?***"),
    };
    format!("{scheme}{user}{rest}{query}")
}
