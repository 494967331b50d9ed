//! The three identities in an event, each a type of its own so that they cannot be mixed up, and the rule they share.
//! Where they come from in a body is left to `read`.

use std::fmt;

/// Bytes that an id may have at most.
pub const ID_BYTES_MAX: usize = 256;

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It has no characters.
    #[error("must not be empty")]
    Empty,
    /// It has more than the bytes allowed.
    #[error("must not be longer than {bytes_max} bytes")]
    TooLong {
        /// How many would do.
        bytes_max: usize,
    },
    /// It has a control character (Unicode `Cc`).
    #[error("must not contain control characters")]
    ControlCharacter,
    /// It is `.` or `..`, which no URL path can hold as a segment.
    #[error("must not be `.` or `..`")]
    DotSegment,
}

/// Checks the rule that all ids share.
///
/// # Errors
/// The first thing about `text` that breaks it.
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

/// Nearly no text has a byte that a control character has or begins with, and bytes are looked through faster than characters.
fn has_control_character(text: &str) -> bool {
    // U+0080 to U+009F begin with 0xc2, as some others do.
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
            /// Takes `text` as it stands.
            ///
            /// # Errors
            /// When it is empty, longer than [`ID_BYTES_MAX`], or holds what such an id must not.
            pub fn new(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The id as the producer wrote it.
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
    /// An event's identity, the same in every delivery and every re-publication of it. Not the SQS message id.
    EventId, check_id
}
id! {
    /// A reservation. Fit to be one percent-encoded segment of a URL path.
    ReservationId, check_segment
}
id! {
    /// The *show* that seats are sold for. The JSON and both services call it `event_id`; it has nothing to do with the
    /// event that a message carries, whose identity is [`EventId`].
    ShowId, check_id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_found_wherever_they_stand() {
        for character in '\0'..=char::MAX {
            for text in [format!("{character}"), format!("A-12 é{character}°")] {
                let expected = character.is_control().then_some(IdError::ControlCharacter);
                assert_eq!(check(&text, ID_BYTES_MAX).err(), expected, "{text:?}");
            }
        }
    }
}
