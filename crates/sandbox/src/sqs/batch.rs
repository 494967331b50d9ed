//! Common parts of all batches: the rules for entry ids, and the results by entry.

use std::collections::HashSet;

use super::error::{ErrorCode, SqsError};
use super::wire::{BatchOutcome, FailedEntry};

/// Limits of batches. Source: API_SendMessageBatch and the other batch actions.
const ENTRIES_MAX: usize = 10;
const ID_CHARS_MAX: usize = 80;

/// Refuses the whole batch for its number of entries or their ids.
pub(crate) fn check_ids<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> Result<(), SqsError> {
    let entries = ids.len();
    if entries == 0 {
        return Err(SqsError::new(
            ErrorCode::EmptyBatchRequest,
            "There should be at least one entry in the request.",
        ));
    }
    if entries > ENTRIES_MAX {
        return Err(SqsError::new(
            ErrorCode::TooManyEntriesInBatchRequest,
            format!(
                "Maximum number of entries per request are {ENTRIES_MAX}. You have sent {entries}."
            ),
        ));
    }
    let mut seen = HashSet::with_capacity(entries);
    for id in ids {
        let fits = (1..=ID_CHARS_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !fits {
            return Err(SqsError::new(
                ErrorCode::InvalidBatchEntryId,
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.",
            ));
        }
        if !seen.insert(id) {
            return Err(SqsError::new(
                ErrorCode::BatchEntryIdsNotDistinct,
                format!("Id {id} repeated."),
            ));
        }
    }
    Ok(())
}

/// Executes each entry and sorts the results.
pub(crate) fn run<E, T>(
    entries: Vec<(String, E)>,
    mut each: impl FnMut(E) -> Result<T, SqsError>,
) -> BatchOutcome<(String, T)> {
    let mut outcome =
        BatchOutcome { successful: Vec::with_capacity(entries.len()), failed: Vec::new() };
    for (id, entry) in entries {
        match each(entry) {
            Ok(done) => outcome.successful.push((id, done)),
            Err(error) => outcome.failed.push(FailedEntry {
                id,
                sender_fault: error.code.is_sender_fault(),
                code: error.code.query_code(),
                message: error.message,
            }),
        }
    }
    outcome
}

impl<T> BatchOutcome<(String, T)> {
    /// Converts each success into the form of its action.
    pub(crate) fn map<U>(self, each: impl Fn(String, T) -> U) -> BatchOutcome<U> {
        BatchOutcome {
            successful: self.successful.into_iter().map(|(id, done)| each(id, done)).collect(),
            failed: self.failed,
        }
    }
}

/// Checks the range of an integer parameter.
pub(crate) fn bounded(
    name: &str,
    value: Option<i64>,
    min: u32,
    max: u32,
) -> Result<Option<u32>, SqsError> {
    let Some(value) = value else {
        return Ok(None);
    };
    match u32::try_from(value) {
        Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
        Ok(_) | Err(_) => Err(SqsError::parameter(
            name,
            value,
            &format!("Must be between {min} and {max}, if provided."),
        )),
    }
}
