//! The three identities in an event, and their common rule.
//!
//! Each has its own type, so that they cannot be confused. `validate` finds them in a body.

use std::fmt;

/// The maximum length of an id, in bytes.
pub const ID_BYTES_MAX: usize = 256;

/// The reason why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It is empty.
    #[error("must not be empty")]
    Empty,
    /// It is longer than the maximum.
    #[error("must not be longer than {bytes_max} bytes")]
    TooLong {
        /// The maximum length, in bytes.
        bytes_max: usize,
    },
    /// It contains a control character (Unicode `Cc`).
    #[error("must not contain control characters")]
    ControlCharacter,
    /// It is `.` or `..`, which cannot be a segment of a URL path.
    #[error("must not be `.` or `..`")]
    DotSegment,
}

/// Checks the rule that all ids share.
///
/// # Errors
/// Returns the first violation in `text`.
pub(super) fn check(text: &str, bytes_max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        Err(IdError::Empty)
    } else if text.len() > bytes_max {
        Err(IdError::TooLong { bytes_max })
    } else if has_control_character(text) {
        Err(IdError::ControlCharacter)
    } else {
        Ok(())
    }
}

/// Returns whether `text` has a control character.
///
/// Bytes are searched first, which is faster: few texts have a byte that starts a control
/// character.
fn has_control_character(text: &str) -> bool {
    // U+0080 to U+009F start with 0xc2, and so do some other characters.
    let may_be = |byte: u8| byte.is_ascii_control() || byte == 0xc2;
    text.bytes().fold(false, |found, byte| found | may_be(byte)) && text.contains(char::is_control)
}

fn check_id(text: &str) -> Result<(), IdError> {
    check(text, ID_BYTES_MAX)
}

fn check_segment(text: &str) -> Result<(), IdError> {
    if matches!(text, "." | "..") { Err(IdError::DotSegment) } else { check_id(text) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Creates an id from `text`, unchanged.
            ///
            /// # Errors
            /// Returns an error if it is empty, longer than [`ID_BYTES_MAX`], or contains forbidden
            /// characters.
            pub fn new(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// Returns the id as the producer wrote it.
            #[must_use]
            pub const fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// The identity of an event, equal in all deliveries and publications of it.
    ///
    /// It is not the SQS message id.
    EventId, check_id
}
id! {
    /// The id of a reservation; it is valid as one percent-encoded segment of a URL path.
    ReservationId, check_segment
}
id! {
    /// The id of the *show* that seats are sold for.
    ///
    /// The JSON and both services call it `event_id`. It is not the identity of the event in a
    /// message, which is [`EventId`].
    ShowId, check_id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_rejected_at_every_position() {
        for character in '\0'..=char::MAX {
            for text in [format!("{character}"), format!("A-12 é{character}°")] {
                let expected = character.is_control().then_some(IdError::ControlCharacter);
                assert_eq!(check(&text, ID_BYTES_MAX).err(), expected, "{text:?}");
            }
        }
    }
}
