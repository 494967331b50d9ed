//! Checks one variable after the other against the table, and keeps what is wrong, what is odd, and what holds, until all are read.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::error::{ConfigError, ConfigErrors, mask};
use super::table::{Allowed, Fallback, VARIABLES, Variable};
use crate::excerpt::Excerpt;

/// What stands in a value where its bytes were not UTF-8.
const NOT_UTF_8: char = char::REPLACEMENT_CHARACTER;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
    pub(super) effective: Vec<(&'static str, String)>,
}

fn shown(variable: &Variable, value: &str) -> String {
    if variable.has_secret { mask(value) } else { value.to_owned() }
}

impl Reader {
    /// The value given, or else the table's; `None` where there is neither, which is an error where one is required.
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
                self.errors.push(ConfigError::missing(variable.name, allowed));
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

    /// The value as `parse` reads it; an error where it cannot.
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

    /// A whole number in the table's range.
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

    /// A whole number that counts something: its range begins above 0.
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

    /// Notes a value that is no good, for a reason of its own.
    pub(super) fn wrong(&mut self, variable: &Variable, value: &str, allowed: impl Into<String>) {
        let value = shown(variable, value);
        self.errors.push(ConfigError::wrong(variable.name, &value, allowed));
    }

    /// Notes a value that is passed over rather than refused.
    pub(super) fn ignored(&mut self, variable: &Variable, value: &str, instead: &str) {
        self.warnings.push(format!(
            "{} is {}, which is ignored: must be {}; {instead}",
            variable.name,
            Excerpt(value),
            variable.allowed
        ));
    }

    /// Nothing, or all that is wrong, in the table's order.
    pub(super) fn finish(&mut self) -> Result<(), ConfigErrors> {
        let place = |name: &str| VARIABLES.iter().position(|variable| variable.name == name);
        self.effective.sort_by_cached_key(|(name, _)| place(name));
        if self.errors.is_empty() {
            return Ok(());
        }
        let mut errors = std::mem::take(&mut self.errors);
        errors.sort_by_cached_key(|error| place(error.name));
        Err(ConfigErrors(errors))
    }
}
