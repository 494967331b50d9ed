//! Seats' names, in one piece of text. Held as strings of their own, ten thousand short names would
//! take twelve times the bytes that they have in the message, and no limit on bodies would bound them.

use std::fmt;

/// The names of seats, in the order given.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SeatIds {
    /// One after the other.
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
}

impl SeatIds {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether none is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let end = usize::try_from(*end).expect("a body is far below 4 GiB");
            &self.text[std::mem::replace(&mut begin, end)..end]
        })
    }

    /// The memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.text.capacity() + size_of::<u32>() * self.ends.capacity()
    }

    pub(super) fn push(&mut self, seat: &str) {
        self.text.push_str(seat);
        self.ends.push(u32::try_from(self.text.len()).expect("a body is far below 4 GiB"));
    }

    /// Gives back what was reserved for more; for a few seats, that is not worth the work.
    pub(super) fn shrink(&mut self) {
        const FEW: usize = 16;
        if self.len() > FEW {
            self.text.shrink_to_fit();
            self.ends.shrink_to_fit();
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
    fn names_come_back_as_they_went_in() {
        for names in [&[][..], &["A-1"], &["A", "B-22", "ö", "A"]] {
            let seats: SeatIds = names.iter().copied().collect();
            assert_eq!(seats.iter().collect::<Vec<_>>(), names);
            assert_eq!((seats.len(), seats.is_empty()), (names.len(), names.is_empty()));
        }
    }

    #[test]
    fn ten_thousand_short_names_take_little_more_than_their_text() {
        let seats: SeatIds = (0..10_000).map(|_| "A1").collect();
        assert!((60_000..=61_000).contains(&seats.bytes()), "{}", seats.bytes());
    }
}
