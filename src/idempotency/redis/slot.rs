//! Calculates the cluster slot of a key.
//!
//! The rule is in the Redis cluster specification ("Key distribution model", "Hash tags"): CRC16 of
//! the key, modulo 16,384. If the text between the first `{` and the next `}` is not empty, only
//! that text is hashed.

use crc16::{State, XMODEM};

/// Number of slots in a cluster.
pub(super) const SLOTS: u16 = 16_384;

/// Returns the slot of a key.
pub(super) fn slot(key: &[u8]) -> u16 {
    State::<XMODEM>::calculate(tag(key).unwrap_or(key)) % SLOTS
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|byte| *byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

#[cfg(test)]
mod tests {
    use super::slot;

    #[test]
    fn slots_follow_the_cluster_specification() {
        // Check value of the specification: the CRC16 of "123456789" is 0x31C3.
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
        assert_ne!(slot(b"foo{}{bar}"), slot(b"bar"), "an empty hash tag must be ignored");
        assert_ne!(slot(b"foo{bar"), slot(b"bar"));
    }
}
