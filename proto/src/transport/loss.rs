//! Which packets in flight count as lost (RFC 9002 section 6.1), what was taken for lost in
//! error, and when losses say that a path is congested for long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::congestion::LossEvent;
use crate::wire::frame::Ack;

/// Packets acknowledged after one until it counts as lost (RFC 9002 section 6.1.1), while a path
/// is not known to reorder.
const PACKET_THRESHOLD: u16 = 3;
/// The same on a path that reorders more than any sane one.
const PACKET_THRESHOLD_MAX: u16 = 64;
/// Lost packets remembered, to notice that they arrived; what is beyond is taken for lost.
const LOST_MAX: usize = 256;

/// Losses of one path.
#[derive(Clone, Debug)]
pub(super) struct Losses {
    threshold: u16,
    /// The last ack-eliciting packet before the first round-trip time was measured.
    unmeasured: Option<u32>,
    /// There while something is in flight.
    recent: Option<Box<Recent>>,
}

#[derive(Clone, Debug, Default)]
struct Recent {
    /// In order of their counts.
    lost: VecDeque<LostPacket>,
    run: Option<Run>,
}

#[derive(Clone, Copy, Debug)]
struct LostPacket {
    count: u64,
    event: LossEvent,
}

/// Lost packets without an acknowledged one between them.
#[derive(Clone, Copy, Debug)]
struct Run {
    begun: Instant,
    newest: u32,
}

impl Losses {
    pub(super) fn new() -> Self {
        Self { threshold: PACKET_THRESHOLD, unmeasured: None, recent: None }
    }

    /// Whether a packet is lost of which `later` ones were acknowledged.
    pub(super) fn is_overtaken(&self, later: u64) -> bool {
        later >= u64::from(self.threshold)
    }

    /// A round-trip time was measured; `newest` is the last ack-eliciting packet sent.
    pub(super) fn on_sample(&mut self, newest: u32) {
        self.unmeasured.get_or_insert(newest);
    }

    /// A packet that counts as lost. Answers a packet that is remembered no longer.
    pub(super) fn remember(&mut self, count: u64, event: LossEvent) -> Option<LossEvent> {
        let lost = &mut self.recent.get_or_insert_default().lost;
        let forgotten = if lost.len() < LOST_MAX { None } else { lost.pop_front() };
        lost.push_back(LostPacket { count, event });
        forgotten.map(|lost| lost.event)
    }

    /// Takes out what an acknowledgement says was not lost. `largest`: what was acknowledged
    /// before; so much later than its successors came the packet.
    pub(super) fn take_spurious(&mut self, ack: &Ack<'_>, largest: u64) -> Vec<LossEvent> {
        let mut spurious = Vec::new();
        let Some(recent) = &mut self.recent else { return spurious };
        for (low, high) in ack.ranges() {
            let from = recent.lost.partition_point(|lost| lost.count < low);
            let to = recent.lost.partition_point(|lost| lost.count <= high);
            if let Some(first) = recent.lost.get(from).filter(|_| from < to) {
                let distance = u16::try_from(largest.saturating_sub(first.count));
                let wanted = distance.unwrap_or(u16::MAX).saturating_add(1);
                self.threshold = self.threshold.max(wanted.min(PACKET_THRESHOLD_MAX));
                spurious.extend(recent.lost.drain(from..to).map(|lost| lost.event));
            }
        }
        spurious
    }

    /// Whether this loss makes a run of losses that lasts `duration` (RFC 9002 section 7.6.2).
    /// `ordinal` is its place among the ack-eliciting packets, in order of which losses come.
    pub(super) fn is_persistent(
        &mut self,
        ordinal: u32,
        sent: Instant,
        duration: Duration,
    ) -> bool {
        // Before the first measurement the probe timeout is a guess.
        let measured = |first: u32| ordinal.wrapping_sub(first).cast_signed() > 0;
        if !self.unmeasured.is_some_and(measured) {
            return false;
        }
        let fresh = Run { begun: sent, newest: ordinal };
        let recent = self.recent.get_or_insert_default();
        let run = recent.run.get_or_insert(fresh);
        if ordinal.wrapping_sub(run.newest) > 1 {
            *run = fresh;
        }
        run.newest = ordinal;
        let persistent = sent.saturating_duration_since(run.begun) > duration;
        if persistent {
            recent.run = None;
        }
        persistent
    }

    /// Nothing is in flight.
    pub(super) fn rest(&mut self) {
        self.recent = None;
    }

    /// Whether nothing is on the heap.
    #[cfg(test)]
    pub(super) fn is_small(&self) -> bool {
        self.recent.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PathId;
    use crate::transport::congestion::Congestion;
    use crate::transport::tests::origin;

    const MS: Duration = Duration::from_millis(1);

    fn event() -> LossEvent {
        Congestion::new(1000).on_loss(0, 1)
    }

    fn spurious(losses: &mut Losses, range: (u64, u64), largest: u64) -> usize {
        losses.take_spurious(&Ack::new(PathId(0), &[range], 0).unwrap(), largest).len()
    }

    #[test]
    fn the_packet_threshold_follows_the_reordering_seen_up_to_a_bound() {
        let mut losses = Losses::new();
        assert!(losses.is_overtaken(3) && !losses.is_overtaken(2));
        for count in [5, 6, 7, 100] {
            losses.remember(count, event());
        }
        assert_eq!(spurious(&mut losses, (6, 7), 16), 2);
        assert!(losses.is_overtaken(11) && !losses.is_overtaken(10));
        assert_eq!(spurious(&mut losses, (5, 7), 7), 1, "each once; a smaller distance");
        assert!(losses.is_overtaken(11) && !losses.is_overtaken(10));
        assert_eq!(spurious(&mut losses, (90, 100), 90_000), 1);
        assert!(losses.is_overtaken(64) && !losses.is_overtaken(63));
    }

    #[test]
    fn as_many_lost_packets_are_remembered_as_the_bound_says() {
        let mut losses = Losses::new();
        let forgotten = (0..300).filter(|count| losses.remember(*count, event()).is_some());
        assert_eq!(forgotten.count(), 300 - LOST_MAX);
        assert_eq!(spurious(&mut losses, (0, 299), 299), LOST_MAX);
    }

    /// Losses of these packets, sent 100 ms apart; whether they last more than a second.
    fn is_persistent(losses: &mut Losses, ordinals: impl IntoIterator<Item = u32>) -> bool {
        let start = origin();
        ordinals.into_iter().any(|n| losses.is_persistent(n, start + n * 100 * MS, 1000 * MS))
    }

    #[test]
    fn only_losses_without_anything_between_them_are_persistent_congestion() {
        let measured = || {
            let mut losses = Losses::new();
            losses.on_sample(0);
            losses
        };
        assert!(is_persistent(&mut measured(), 1..=12));
        assert!(!is_persistent(&mut measured(), 1..=11), "a second, and no more");
        assert!(!is_persistent(&mut measured(), (1..=6).chain(8..=18)), "one got through");
        assert!(is_persistent(&mut measured(), (1..=6).chain(8..=19)), "then no more did");
        let mut losses = measured();
        assert!(!is_persistent(&mut losses, 1..=6));
        assert!(is_persistent(&mut losses, 7..=12), "found in two steps");
    }

    #[test]
    fn packets_sent_before_a_round_trip_was_measured_do_not_count() {
        assert!(!is_persistent(&mut Losses::new(), 1..=100));
        let mut losses = Losses::new();
        losses.on_sample(5);
        losses.on_sample(9);
        assert!(!is_persistent(&mut losses, 1..=16), "5 to 16 would do");
        assert!(is_persistent(&mut losses, 17..=17), "6 to 17 does");
    }
}
