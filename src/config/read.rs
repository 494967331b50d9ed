//! Checks one variable after the other against the table.
//!
//! Collects errors, warnings and effective values until all variables are read.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::error::{ConfigError, ConfigErrors, mask};
use super::misnamed::SECRET_MANAGER;
use super::table::{Allowed, Fallback, Secret, VARIABLES, Variable};
use crate::escaped::Escaped;

/// The character that replaces bytes that were not UTF-8.
const NOT_UTF_8: char = char::REPLACEMENT_CHARACTER;

/// The errors, warnings and effective values found so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
    pub(super) effective: Vec<(&'static str, String)>,
    /// Names that are set and similar to one of the table's, with that one.
    near: Vec<(String, &'static str)>,
    /// Missing values may be in AWS Secrets Manager, which this worker does not read.
    expects_secret_manager: bool,
}

fn shown(variable: &Variable, value: &str) -> String {
    match variable.secret {
        Secret::None => value.to_owned(),
        Secret::Login => mask(value),
        Secret::UnlessPath if is_path(value) => value.to_owned(),
        Secret::UnlessPath => "***".to_owned(),
        Secret::Whole => "***".to_owned(),
    }
}

/// Returns whether a value is meant as a path: it begins as one, and is one line.
fn is_path(value: &str) -> bool {
    ["/", "./", "../"].iter().any(|begin| value.starts_with(begin))
        && !value.contains(char::is_control)
}

impl Reader {
    /// Creates an empty reader.
    ///
    /// `near` are names that are set, each with the similar name of the table. `replaced` are
    /// variables of the Go worker that are set, each with its warning.
    pub(super) fn new(
        near: Vec<(String, &'static str)>,
        replaced: Vec<(&'static str, String)>,
    ) -> Self {
        let warning = |(name, meant): &(String, &'static str)| {
            format!("{} is set, which nobody reads: {meant} may be meant", Escaped(name))
        };
        let expects_secret_manager = replaced.iter().any(|(name, _)| *name == SECRET_MANAGER);
        let replaced = replaced.into_iter().map(|(_, warning)| warning);
        let warnings = near.iter().map(warning).chain(replaced).collect();
        Self { warnings, near, expects_secret_manager, ..Self::default() }
    }

    /// Returns the given value, else the table's default.
    ///
    /// `None` if there is neither; for a required variable, this is an error.
    pub(super) fn text<'v>(
        &mut self,
        variable: &Variable,
        given: &'v Option<String>,
    ) -> Option<&'v str> {
        let given = given.as_deref().filter(|value| !value.is_empty());
        let (value, effective) = match (given, variable.fallback) {
            (Some(value), _) => (Some(value), shown(variable, value)),
            (None, Fallback::Value(value)) => (Some(value), value.to_owned()),
            (None, Fallback::Told(told)) => (None, format!("(not set: {told})")),
            (None, Fallback::Required) => {
                let allowed = variable.allowed.to_string();
                let near = self.near.iter().find(|(_, meant)| *meant == variable.name);
                let near = near.map(|(name, _)| name.as_str());
                let mut error = ConfigError::missing(variable.name, near, allowed);
                if near.is_none() && self.expects_secret_manager {
                    error.given = format!("is not set ({SECRET_MANAGER} is, which nobody reads)");
                }
                self.errors.push(error);
                (None, "(not set)".to_owned())
            }
        };
        self.effective.push((variable.name, effective));
        match value {
            Some(value) if value.contains(NOT_UTF_8) => {
                self.wrong(variable, value, "UTF-8 text");
                None
            }
            Some(_) | None => value,
        }
    }

    /// Records the value of a variable that is not used, without checking it.
    pub(super) fn unread(&mut self, variable: &Variable, given: &Option<String>) {
        let given = given.as_deref().filter(|value| !value.is_empty());
        let effective = match (given, variable.fallback) {
            (Some(value), _) | (None, Fallback::Value(value)) => shown(variable, value),
            (None, Fallback::Told(told)) => format!("(not set: {told})"),
            (None, Fallback::Required) => "(not set)".to_owned(),
        };
        self.effective.push((variable.name, effective));
    }

    /// Records an error for a variable that is set but has no effect.
    pub(super) fn unsupported(&mut self, name: &'static str) {
        let given = "is set".to_owned();
        let allowed = "left out: it is not supported".to_owned();
        self.errors.push(ConfigError { name, given, allowed });
    }

    /// Returns the value parsed by `parse`, or records an error.
    pub(super) fn parsed<T>(
        &mut self,
        variable: &Variable,
        given: &Option<String>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.text(variable, given)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.wrong(variable, value, variable.allowed.to_string());
        }
        parsed
    }

    /// Returns a whole number in the table's range.
    pub(super) fn whole(&mut self, variable: &Variable, given: &Option<String>) -> Option<u64> {
        let Allowed::Whole { min, max, .. } = variable.allowed else {
            unreachable!("{} has a range in the table", variable.name);
        };
        self.parsed(variable, given, |value| {
            let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_plain.then(|| value.parse().ok()).flatten()?;
            (min..=max).contains(&number).then_some(number)
        })
    }

    /// Returns a whole number that is a count: its range begins above 0.
    pub(super) fn count(
        &mut self,
        variable: &Variable,
        given: &Option<String>,
    ) -> Option<NonZeroUsize> {
        let number = self.whole(variable, given)?;
        let number = usize::try_from(number).expect("the table's counts fit 32 bits");
        Some(NonZeroUsize::new(number).expect("the table's counts begin at 1"))
    }

    pub(super) fn seconds(
        &mut self,
        variable: &Variable,
        given: &Option<String>,
    ) -> Option<Duration> {
        self.whole(variable, given).map(Duration::from_secs)
    }

    pub(super) fn millis(
        &mut self,
        variable: &Variable,
        given: &Option<String>,
    ) -> Option<Duration> {
        self.whole(variable, given).map(Duration::from_millis)
    }

    /// Records an error for a wrong value, with its own text for the allowed values.
    pub(super) fn wrong(&mut self, variable: &Variable, value: &str, allowed: impl Into<String>) {
        let value = shown(variable, value);
        self.errors.push(ConfigError::wrong(variable.name, &value, allowed));
    }

    /// Records an error for a wrong value that must not be shown.
    pub(super) fn wrong_secret(&mut self, variable: &Variable) {
        let given = "is set (its value is not shown)".to_owned();
        let allowed = variable.allowed.to_string();
        self.errors.push(ConfigError { name: variable.name, given, allowed });
    }

    /// Records an error for a missing variable that another variable requires.
    pub(super) fn missing(&mut self, name: &'static str, allowed: String) {
        self.errors.push(ConfigError::missing(name, None, allowed));
    }

    /// Records a warning for a value that is ignored.
    pub(super) fn ignored(&mut self, variable: &Variable, value: &str, instead: &str) {
        self.warnings.push(format!(
            "{} is {}, which is ignored: must be {}; {instead}",
            variable.name,
            Escaped(value),
            variable.allowed
        ));
    }

    /// Records a warning for a value that is replaced by a similar one.
    pub(super) fn taken_as(&mut self, variable: &Variable, value: &str, nearest: &str) {
        self.warnings.push(format!(
            "{} is {}, which is taken as {nearest}: allowed is {}",
            variable.name,
            Escaped(value),
            variable.allowed
        ));
    }

    /// Returns all errors in the table's order, or `Ok`.
    pub(super) fn finish(&mut self) -> Result<(), ConfigErrors> {
        let position = |name: &str| VARIABLES.iter().position(|variable| variable.name == name);
        // The SDK's own variables come after those of the table.
        let place = |name: &str| position(name).unwrap_or(usize::MAX);
        self.effective.sort_by_cached_key(|(name, _)| place(name));
        if self.errors.is_empty() {
            return Ok(());
        }
        let mut errors = std::mem::take(&mut self.errors);
        errors.sort_by_cached_key(|error| place(error.name));
        Err(ConfigErrors(errors))
    }
}
