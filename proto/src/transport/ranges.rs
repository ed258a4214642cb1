//! Sets of byte positions inside one message or stream.

use std::iter::Sum;
use std::ops::Sub;

use smallvec::SmallVec;

/// Sorted, disjoint, not adjacent half-open ranges; those of a stream take 64 bits. One range, as
/// most sets are, takes nothing on the heap.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges<P = u32>(SmallVec<[(P, P); 1]>);

impl<P: Copy + Default + Ord + Sub<Output = P> + Sum> Ranges<P> {
    /// Adds a range; says how many positions were not there before.
    pub(super) fn insert(&mut self, start: P, end: P) -> P {
        if start >= end {
            return P::default();
        }
        let from = self.0.partition_point(|range| range.1 < start);
        let to = self.0.partition_point(|range| range.0 <= end);
        let touched = &self.0[from..to];
        let overlap = |range: &(P, P)| {
            let (low, high) = (range.0.max(start), range.1.min(end));
            high.max(low) - low
        };
        let known: P = touched.iter().map(overlap).sum();
        let low = touched.first().map_or(start, |r| r.0.min(start));
        let high = touched.last().map_or(end, |r| r.1.max(end));
        if from == to {
            self.0.insert(from, (low, high));
        } else {
            self.0[from] = (low, high);
            self.0.drain(from + 1..to);
        }
        end - start - known
    }

    /// Takes a range out.
    pub(super) fn remove(&mut self, start: P, end: P) {
        let from = self.0.partition_point(|range| range.1 <= start);
        let to = self.0.partition_point(|range| range.0 < end);
        if from >= to {
            return;
        }
        let left = (self.0[from].0, start);
        let right = (end, self.0[to - 1].1);
        self.0.drain(from..to);
        for kept in [right, left].into_iter().filter(|r| r.0 < r.1) {
            self.0.insert(from, kept);
        }
    }

    /// The lowest range.
    pub(super) fn first(&self) -> Option<(P, P)> {
        self.0.first().copied()
    }

    /// Whether the set is exactly `0..end`.
    pub(super) fn is_whole(&self, end: P) -> bool {
        self.0[..] == [(P::default(), end)]
    }

    /// Whether every position of `start..end` is there.
    pub(super) fn covers(&self, start: P, end: P) -> bool {
        let at = self.0.partition_point(|range| range.1 < end);
        self.0.get(at).is_some_and(|range| range.0 <= start && end <= range.1)
    }

    /// The parts of `start..end` that are not there.
    pub(super) fn missing(&self, start: P, end: P) -> impl Iterator<Item = (P, P)> + use<P> {
        let mut rest = Self(SmallVec::from_buf([(start, end)]));
        let from = self.0.partition_point(|range| range.1 <= start);
        for range in self.0[from..].iter().take_while(|range| range.0 < end) {
            rest.remove(range.0, range.1);
        }
        rest.0.into_iter()
    }

    /// How many ranges the set consists of.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is there.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_a_set_of_numbers(steps in prop::collection::vec((any::<bool>(), 0u32..40, 1u32..12), 0..40)) {
            let (mut ranges, mut model) = (Ranges::<u32>::default(), BTreeSet::new());
            for (add, start, len) in steps {
                let end = start + len;
                if add {
                    let fresh = (start..end).filter(|n| model.insert(*n)).count();
                    prop_assert_eq!(ranges.insert(start, end) as usize, fresh);
                } else {
                    ranges.remove(start, end);
                    model.retain(|n| !(start..end).contains(n));
                }
                let listed: Vec<u32> = ranges.0.iter().flat_map(|r| r.0..r.1).collect();
                prop_assert_eq!(&listed, &model.iter().copied().collect::<Vec<_>>());
                prop_assert!(ranges.0.windows(2).all(|w| w[0].1 < w[1].0), "adjacent: {:?}", ranges.0);
                prop_assert_eq!(ranges.covers(start, end), (start..end).all(|n| model.contains(&n)));
                let missing: Vec<u32> = ranges.missing(start, end).flat_map(|r| r.0..r.1).collect();
                prop_assert_eq!(missing, (start..end).filter(|n| !model.contains(n)).collect::<Vec<_>>());
            }
        }
    }
}
