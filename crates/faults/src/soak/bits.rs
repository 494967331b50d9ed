//! A set of numbers with one bit each: ten million take little more than a megabyte.

/// Bits that are off until they are set.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

fn place(number: u64) -> (usize, u64) {
    let word = usize::try_from(number / 64).expect("the index fits into memory");
    (word, 1 << (number % 64))
}

impl Bits {
    /// Sets the bit and returns whether it was off.
    pub(super) fn set(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let was_off = self.0[word] & bit == 0;
        self.0[word] |= bit;
        was_off
    }

    pub(super) fn get(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.0.get(word).is_some_and(|it| it & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_a_bit_changes_no_other_bit() {
        let mut bits = Bits::default();
        for number in [0, 63, 64, 1_000_000] {
            assert!(!bits.get(number) && bits.set(number) && bits.get(number) && !bits.set(number));
        }
        assert!(!bits.get(1) && !bits.get(65) && !bits.get(u64::from(u32::MAX)));
    }
}
