//! The names of seats, stored in one text.
//!
//! As separate strings, ten thousand short names would use twelve times the bytes that they have in
//! the message, and the limit on bodies would not limit this memory.

use std::fmt;

use crate::memory::allocated;

/// The names of seats, in the order given.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SeatIds {
    /// All names, concatenated.
    text: String,
    /// The end offset of each name.
    ends: Vec<u32>,
}

impl SeatIds {
    /// Returns the number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let end = usize::try_from(*end).expect("a body is far below 4 GiB");
            &self.text[std::mem::replace(&mut begin, end)..end]
        })
    }

    /// Returns the memory that the names take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        allocated(self.text.capacity()) + allocated(size_of::<u32>() * self.ends.capacity())
    }

    pub(super) fn push(&mut self, seat: &str) {
        self.text.push_str(seat);
        self.ends.push(u32::try_from(self.text.len()).expect("a body is far below 4 GiB"));
    }

    /// Moves the names into blocks of their own size; for a few seats, the copy is not worth its
    /// cost. If they were only shrunk, the allocator would keep blocks that are half empty.
    pub(super) fn shrink(&mut self) {
        const FEW: usize = 16;
        if self.len() > FEW {
            self.text = self.text.as_str().to_owned();
            self.ends = self.ends.as_slice().to_vec();
        }
    }
}

impl<'a> FromIterator<&'a str> for SeatIds {
    fn from_iter<I: IntoIterator<Item = &'a str>>(seats: I) -> Self {
        let mut all = Self::default();
        seats.into_iter().for_each(|seat| all.push(seat));
        all.shrink();
        all
    }
}

impl fmt::Debug for SeatIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seat_names_are_kept_unchanged() {
        for names in [&[][..], &["A-1"], &["A", "B-22", "ö", "A"]] {
            let seats: SeatIds = names.iter().copied().collect();
            assert_eq!(seats.iter().collect::<Vec<_>>(), names);
            assert_eq!((seats.len(), seats.is_empty()), (names.len(), names.is_empty()));
        }
    }

    #[test]
    fn ten_thousand_short_seat_names_need_at_most_66_kb() {
        let seats: SeatIds = (0..10_000).map(|_| "A1").collect();
        assert!((60_000..=66_000).contains(&seats.bytes()), "{}", seats.bytes());
    }
}
