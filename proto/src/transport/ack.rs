//! Which packets of one path arrived, and when to say so.

use std::time::Instant;

use super::rtt::ACK_DELAY_MAX;
use crate::io::Ecn;
use crate::wire::frame::{ACK_RANGES_MAX, EcnCounts};

/// Ack-eliciting packets after which an ACK leaves at once (RFC 9000 section 13.2.2).
const ELICITING_MAX: u8 = 2;

/// Received packet counts of a path.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    /// Inclusive ranges, newest first, at most [`ACK_RANGES_MAX`].
    ranges: Vec<(u64, u64)>,
    largest_at: Option<Instant>,
    /// When an ACK must leave; before that it rides along with other frames.
    due: Option<Instant>,
    eliciting: u8,
    /// The ACK is also wanted on another path than its own.
    elsewhere: bool,
    /// Congestion marks, once there was one.
    marks: Option<Box<EcnCounts>>,
}

impl Received {
    /// Whether this count arrived before, as far as it is remembered.
    pub(super) fn contains(&self, count: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.0 > count);
        self.ranges.get(at).is_some_and(|range| count <= range.1)
    }

    /// A packet arrived.
    pub(super) fn insert(&mut self, count: u64, eliciting: bool, now: Instant) {
        let largest = self.ranges.first().map(|range| range.1);
        let in_order = largest.map_or(count == 0, |largest| count == largest + 1);
        if largest.is_none_or(|largest| count > largest) {
            self.largest_at = Some(now);
        }
        self.insert_range(count);
        if eliciting {
            self.eliciting = self.eliciting.saturating_add(1);
            // The first packet of a path makes the other end's first RTT sample, from which no
            // delay is taken off (RFC 9002 section 5.3).
            let prompt = !in_order || count == 0 || self.eliciting >= ELICITING_MAX;
            let due = if prompt { now } else { now + ACK_DELAY_MAX };
            self.due = Some(self.due.map_or(due, |old| old.min(due)));
        }
    }

    /// The packet that was inserted last came with a mark.
    pub(super) fn note_mark(&mut self, mark: Ecn, now: Instant) {
        self.marks.get_or_insert_default().note(mark);
        if mark == Ecn::Ce {
            // The sender should know soon (RFC 9000 section 13.2.1); what need not be
            // acknowledged still is not, or two ends would answer each other for ever.
            self.due = self.due.map(|_| now);
        }
    }

    /// The marks so far.
    pub(super) fn marks(&self) -> Option<EcnCounts> {
        self.marks.as_deref().copied()
    }

    /// Acknowledge at once: what arrived had arrived before.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Acknowledge on another path as well.
    pub(super) fn also_elsewhere(&mut self) {
        self.elsewhere = self.due.is_some();
    }

    /// When an ACK must leave.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether another path should carry the ACK.
    pub(super) fn wanted_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// The ranges and how long ago the largest count came, in microseconds.
    pub(super) fn report(&self, now: Instant) -> (&[(u64, u64)], u64) {
        let age = self.largest_at.map_or(0, |at| now.saturating_duration_since(at).as_micros());
        (&self.ranges, age as u64)
    }

    /// An ACK left on the path itself.
    pub(super) fn said(&mut self) {
        self.due = None;
        self.eliciting = 0;
    }

    /// An ACK left on another path.
    pub(super) fn said_elsewhere(&mut self) {
        self.elsewhere = false;
    }

    /// The other end knows of everything up to `largest`: older ranges need no repeating.
    pub(super) fn forget_below(&mut self, largest: u64) {
        if let Some(newest) = self.ranges.first().copied() {
            self.ranges.retain(|range| range.1 >= largest || *range == newest);
            self.ranges.shrink_to_fit();
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap(&self) -> usize {
        self.ranges.capacity() * size_of::<(u64, u64)>()
    }

    fn insert_range(&mut self, count: u64) {
        // `at` is the first range that begins at or below the count.
        let at = self.ranges.partition_point(|range| range.0 > count);
        if self.ranges.get(at).is_some_and(|range| count <= range.1) {
            return;
        }
        let joins_lower = self.ranges.get(at).is_some_and(|range| range.1 + 1 == count);
        let joins_upper = at > 0 && self.ranges[at - 1].0 == count + 1;
        match (joins_lower, joins_upper) {
            (true, true) => {
                self.ranges[at - 1].0 = self.ranges[at].0;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at].1 = count,
            (false, true) => self.ranges[at - 1].0 = count,
            (false, false) => {
                self.ranges.reserve_exact(1);
                self.ranges.insert(at, (count, count));
                self.ranges.truncate(ACK_RANGES_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::origin;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_first_two_packets_or_a_gap_hurry_the_acknowledgement() {
        let now = origin();
        let mut received = Received::default();
        received.insert(0, true, now);
        assert_eq!(received.due(), Some(now));
        received.said();
        received.insert(1, true, now);
        assert_eq!(received.due(), Some(now + ACK_DELAY_MAX));
        received.insert(2, true, now);
        assert_eq!(received.due(), Some(now));
        received.said();
        received.insert(3, false, now);
        assert_eq!(received.due(), None);
        received.insert(5, true, now);
        assert_eq!(received.due(), Some(now));
        assert_eq!(received.report(now).0, [(5, 5), (0, 3)]);
    }

    #[test]
    fn a_packet_that_comes_late_hurries_the_acknowledgement() {
        let now = origin();
        let mut received = Received::default();
        for count in [0, 1, 3] {
            received.insert(count, true, now);
        }
        received.said();
        received.insert(2, true, now);
        assert_eq!(received.due(), Some(now));
        received.said();
        received.insert(4, true, now);
        assert_eq!(received.due(), Some(now + ACK_DELAY_MAX), "all is in order again");
    }

    #[test]
    fn what_need_not_be_acknowledged_calls_for_nothing_even_out_of_order() {
        let now = origin();
        let mut received = Received::default();
        for count in [0, 7, 3, 4] {
            received.insert(count, false, now);
        }
        assert_eq!(received.due(), None);
    }

    #[test]
    fn an_acknowledgement_waits_no_longer_for_a_second_packet_than_for_none() {
        let now = origin();
        let mut received = Received::default();
        received.insert(0, true, now);
        received.said();
        received.insert(1, true, now);
        received.insert(2, false, now + ACK_DELAY_MAX / 2);
        assert_eq!(received.due(), Some(now + ACK_DELAY_MAX));
        let report = now + ACK_DELAY_MAX;
        assert_eq!(received.report(report).1, 12_500, "since the largest came, microseconds");
        received.insert(3, true, report);
        assert_eq!(received.due(), Some(now + ACK_DELAY_MAX));
    }

    #[test]
    fn the_newest_ranges_are_kept_until_the_other_end_knows_them() {
        let now = origin();
        let mut received = Received::default();
        (0..100).for_each(|n| received.insert(2 * n, true, now));
        let ranges = received.report(now).0;
        assert_eq!((ranges.len(), ranges[0], ranges[31]), (ACK_RANGES_MAX, (198, 198), (136, 136)));
        received.forget_below(196);
        assert_eq!(received.report(now).0, [(198, 198), (196, 196)]);
        received.forget_below(1000);
        assert_eq!(received.report(now).0, [(198, 198)], "the newest says where we are");
    }

    proptest! {
        #[test]
        fn ranges_name_what_arrived(counts in prop::collection::vec(0u64..60, 1..80)) {
            let now = origin();
            let mut received = Received::default();
            let mut model = BTreeSet::new();
            for count in counts {
                prop_assert_eq!(received.contains(count), model.contains(&count));
                received.insert(count, true, now);
                model.insert(count);
            }
            let listed: BTreeSet<u64> = received.ranges.iter().flat_map(|r| r.0..=r.1).collect();
            prop_assert_eq!(listed, model);
            prop_assert!(received.ranges.windows(2).all(|w| w[0].0 > w[1].1 + 1));
        }
    }
}
