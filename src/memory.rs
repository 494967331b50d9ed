//! What held data takes in memory: more than its length.

/// Returns the bytes that an allocation of `bytes` takes.
///
/// The allocator, mimalloc, has four sizes of block for each doubling, and a page seldom holds a
/// whole number of blocks: a sixteenth is left over.
#[must_use]
pub(crate) fn allocated(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 8).max(8);
    let block = bytes.next_multiple_of(step);
    block + block / 16
}

#[cfg(test)]
mod tests {
    use super::allocated;

    #[test]
    fn an_allocation_takes_a_block_of_one_of_four_sizes_for_each_doubling() {
        for (bytes, block) in [
            (0, 0),
            (1, 8),
            (8, 8),
            (65, 80),
            (1_024, 1_024),
            (1_025, 1_280),
            (65_536, 65_536),
            (65_537, 81_920),
            (69_426, 81_920),
            (114_689, 131_072),
        ] {
            assert_eq!(allocated(bytes), block + block / 16, "{bytes}");
        }
    }
}
