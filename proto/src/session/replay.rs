//! Sliding replay window (after RFC 6479: a ring of 64-bit blocks, one more than the window
//! needs, so that advancing clears whole blocks).

use crate::id::{PacketNumber, PathId};

const BLOCK_BITS: u64 = 64;

/// The windows of a session, one for each path that a packet has opened on. At most 256, since a
/// path id is one byte and never reused.
#[derive(Debug)]
pub(super) struct ReplayWindows {
    /// Sorted by path.
    windows: Vec<Window>,
    /// Numbers below the highest that may still arrive, per path.
    size: u16,
}

impl ReplayWindows {
    pub(super) const fn new(size: u16) -> Self {
        Self { windows: Vec::new(), size }
    }

    /// Whether a packet with this number may still be accepted.
    pub(super) fn is_fresh(&self, number: PacketNumber) -> bool {
        match self.find(number.path()) {
            Ok(at) => self.windows[at].is_fresh(number.count(), u64::from(self.size)),
            Err(_) => true,
        }
    }

    /// Marks an authentic, fresh packet as seen. Returns whether its number is the highest yet on
    /// its path.
    pub(super) fn commit(&mut self, number: PacketNumber) -> bool {
        match self.find(number.path()) {
            Ok(at) => self.windows[at].commit(number.count()),
            Err(at) => {
                // Most sessions have one path, or two: room for exactly those that are there.
                self.windows.reserve_exact(1);
                self.windows.insert(at, Window::new(number, self.size));
                true
            }
        }
    }

    pub(super) fn highest(&self, path: PathId) -> Option<PacketNumber> {
        let window = &self.windows[self.find(path).ok()?];
        Some(PacketNumber::new(path, window.highest))
    }

    fn find(&self, path: PathId) -> Result<usize, usize> {
        self.windows.binary_search_by_key(&path, |window| window.path)
    }
}

#[derive(Debug)]
struct Window {
    path: PathId,
    highest: u64,
    blocks: Box<[u64]>,
}

impl Window {
    fn new(first: PacketNumber, size: u16) -> Self {
        let blocks = u64::from(size).div_ceil(BLOCK_BITS) + 1;
        let blocks = vec![0; blocks as usize].into_boxed_slice();
        let mut window = Self { path: first.path(), highest: first.count(), blocks };
        window.mark(first.count());
        window
    }

    fn is_fresh(&self, count: u64, size: u64) -> bool {
        let Some(below) = self.highest.checked_sub(count) else { return true };
        below < size && self.blocks[self.block(count)] & bit(count) == 0
    }

    fn commit(&mut self, count: u64) -> bool {
        let newest = count > self.highest;
        if newest {
            self.advance(count);
        }
        self.mark(count);
        newest
    }

    /// Clears the blocks between the old highest number and the new one.
    fn advance(&mut self, count: u64) {
        let last = count / BLOCK_BITS;
        // Jumping over the whole ring clears each block once.
        let oldest = (last + 1).saturating_sub(self.blocks.len() as u64);
        for block in (self.highest / BLOCK_BITS + 1).max(oldest)..=last {
            let at = (block % self.blocks.len() as u64) as usize;
            self.blocks[at] = 0;
        }
        self.highest = count;
    }

    fn mark(&mut self, count: u64) {
        let block = self.block(count);
        self.blocks[block] |= bit(count);
    }

    fn block(&self, count: u64) -> usize {
        (count / BLOCK_BITS % self.blocks.len() as u64) as usize
    }
}

const fn bit(count: u64) -> u64 {
    1 << (count % BLOCK_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn on(path: u8, count: u64) -> PacketNumber {
        PacketNumber::new(PathId(path), count)
    }

    fn accept(windows: &mut ReplayWindows, number: PacketNumber) -> bool {
        let fresh = windows.is_fresh(number);
        if fresh {
            windows.commit(number);
        }
        fresh
    }

    #[test]
    fn each_number_counts_once_within_the_window() {
        let mut windows = ReplayWindows::new(128);
        assert!(accept(&mut windows, on(0, 200)));
        assert!(!accept(&mut windows, on(0, 200)));
        assert!(accept(&mut windows, on(0, 73)), "127 below the highest");
        assert!(!accept(&mut windows, on(0, 73)));
        assert!(!accept(&mut windows, on(0, 72)), "128 below the highest is too old");
        assert!(accept(&mut windows, on(0, PacketNumber::COUNT_MAX)));
        assert!(!accept(&mut windows, on(0, 201)));
    }

    #[test]
    fn paths_have_their_own_windows() {
        let mut windows = ReplayWindows::new(128);
        assert!(accept(&mut windows, on(7, 5)));
        assert!(accept(&mut windows, on(3, 5)));
        assert!(!accept(&mut windows, on(7, 5)));
        assert_eq!(windows.highest(PathId(3)), Some(on(3, 5)));
        assert_eq!(windows.highest(PathId(0)), None);
    }

    #[test]
    fn only_a_higher_number_is_the_newest() {
        let mut windows = ReplayWindows::new(2048);
        assert!(windows.commit(on(1, 10)));
        assert!(!windows.commit(on(1, 9)));
        assert!(windows.commit(on(1, 11)));
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_numbers_seen(
            size in prop_oneof![Just(128_u16), Just(2048)],
            steps in prop::collection::vec(prop_oneof![0_u64..400, 0_u64..40_000], 1..400),
        ) {
            let mut windows = ReplayWindows::new(size);
            let mut seen = BTreeSet::new();
            for count in steps {
                let old = seen.last().is_some_and(|&highest| count + u64::from(size) <= highest);
                let expected = !old && !seen.contains(&count);
                prop_assert_eq!(accept(&mut windows, on(0, count)), expected, "{}", count);
                if expected {
                    seen.insert(count);
                }
            }
        }
    }
}
