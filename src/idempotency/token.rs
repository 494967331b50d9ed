//! Who owns a claim: a process, and one delivery of one event in it.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// This process among all that share a store, as its log and `event` show it. It is drawn at the
/// process's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId(NonZeroU32);

impl ProcessId {
    /// Returns the id of this process.
    #[must_use]
    pub fn own() -> Self {
        own().0
    }
}

/// Shows the id as eight hexadecimal digits.
impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The owner of a claim: one delivery of one event in one process.
/// Tokens are unique across processes: the process's id, and a counter that begins anywhere. So two
/// processes which drew the same id still have different tokens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimToken(u64);

impl ClaimToken {
    /// Creates a token.
    #[must_use]
    pub fn unique() -> Self {
        let (process, count) = own();
        let count = count.fetch_add(1, Ordering::Relaxed);
        Self(u64::from(process.0.get()) << 32 | u64::from(count))
    }

    /// Returns the token as bytes, for storage.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// Hides the value, which differs from run to run.
impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// A token as it was read from the store; of an old version, it may hold no process's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredToken([u8; 8]);

impl StoredToken {
    /// Takes the stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Returns the process that made the token; `None` for the token of nobody.
    #[must_use]
    pub fn process(self) -> Option<ProcessId> {
        let [a, b, c, d, ..] = self.0;
        NonZeroU32::new(u32::from_be_bytes([a, b, c, d])).map(ProcessId)
    }

    /// Returns the stored bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

/// The id of this process, and the count of its tokens. The operating system's random source
/// provides both.
fn own() -> (ProcessId, &'static AtomicU32) {
    static OWN: OnceLock<(ProcessId, AtomicU32)> = OnceLock::new();
    let (process, count) = OWN.get_or_init(|| {
        let [a, b, c, d, rest @ ..] = RandomState::new().hash_one(0_u8).to_be_bytes();
        let process = NonZeroU32::new(u32::from_be_bytes([a, b, c, d])).unwrap_or(NonZeroU32::MIN);
        (ProcessId(process), AtomicU32::new(u32::from_be_bytes(rest)))
    });
    (*process, count)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tokens_differ_and_show_their_process() {
        let tokens: Vec<_> = (0..10_000).map(|_| ClaimToken::unique().to_bytes()).collect();
        assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), tokens.len());
        for token in &tokens {
            assert_eq!(StoredToken::from_bytes(*token).process(), Some(ProcessId::own()));
        }
        let shown = ProcessId::own().to_string();
        assert!(shown.len() == 8 && shown.bytes().all(|byte| byte.is_ascii_hexdigit()), "{shown}");
    }

    #[test]
    fn the_token_of_nobody_has_no_process() {
        assert_eq!(StoredToken::from_bytes([0; 8]).process(), None);
        let token = StoredToken::from_bytes([0, 0, 0, 0x2a, 1, 2, 3, 4]);
        assert_eq!(token.process().unwrap().to_string(), "0000002a");
    }
}
