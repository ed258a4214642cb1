//! Acknowledgements and losses of a path (RFC 9002).

use std::ops::Range;
use std::time::{Duration, Instant};

use super::{Path, SIZE_SLACK};
use crate::transport::FrameError;
use crate::transport::marking::Verdict;
use crate::transport::packet::{Carried, Sent};
use crate::wire::frame::Ack;

/// Probe timeouts over which everything must be lost for persistent congestion (RFC 9002 section
/// 7.6.1).
const PERSISTENT_TIMEOUTS: u32 = 3;

/// What an acknowledgement or a timeout settled.
#[derive(Debug, Default)]
pub(in crate::transport) struct Settled {
    pub(in crate::transport) lost: Vec<Carried>,
    pub(in crate::transport) recovered: bool,
}

impl Path {
    /// An acknowledgement of packets sent here: `settle` gets what they carried. `measurable` when
    /// it came on this very path.
    pub(in crate::transport) fn on_ack(
        &mut self,
        ack: &Ack<'_>,
        measurable: bool,
        now: Instant,
        mut settle: impl FnMut(&Carried),
    ) -> Result<Settled, FrameError> {
        if ack.largest >= self.next {
            return Err(FrameError(400, "acknowledgement of a packet never sent"));
        }
        let mut settled = Settled::default();
        for event in self.losses.take_spurious(ack, self.largest_acked.unwrap_or(0)) {
            self.congestion.on_spurious_loss(event);
        }
        let losses = &self.losses;
        let passed = self.mtu.on_ack(ack, |later| losses.is_overtaken(later), now);
        let news: usize = ack.ranges().map(|range| self.places(range).len()).sum();
        if news == 0 && !passed {
            return Ok(settled);
        }
        let newest = self.places((ack.largest, ack.largest)).next().filter(|_| measurable);
        let sample = newest.map(|newest| self.measure(self.sent[newest].at, ack.delay_us, now));
        self.congestion.on_progress(ack.largest, self.next - 1, sample);
        if self.largest_acked < Some(ack.largest) {
            self.heed_marks(ack, news as u64);
        }
        self.largest_acked = self.largest_acked.max(Some(ack.largest));
        self.last_ack = Some(now);
        self.probe_count = 0;
        settled.recovered = std::mem::take(&mut self.suspect);
        if settled.recovered {
            self.excuse();
        }
        for range in ack.ranges() {
            self.settle_acked(range, now, &mut settle);
        }
        self.waiting_since = self.oldest_question(now);
        settled.lost = self.detect_lost(now);
        self.congestion.set_packet(self.mtu.proved());
        self.shrink();
        Ok(settled)
    }

    /// Takes out what RFC 9002 section 6.1 counts as lost now.
    pub(in crate::transport) fn detect_lost(&mut self, now: Instant) -> Vec<Carried> {
        self.loss_at = None;
        let Some(largest) = self.largest_acked else { return Vec::new() };
        let delay = self.rtt.loss_delay();
        let (mut lost, mut persistent) = (Vec::new(), false);
        while let Some(oldest) = self.sent.front() {
            if oldest.count > largest {
                break;
            }
            let late = now.saturating_duration_since(oldest.at) >= delay;
            if !late && !self.losses.is_overtaken(largest - oldest.count) {
                self.loss_at = Some(oldest.at + delay);
                break;
            }
            let Some(sent) = self.pop_oldest() else { break };
            persistent |= self.on_lost(&sent);
            lost.extend(sent.carried);
        }
        // After all of them, or the last ones would reduce the smallest window.
        if persistent {
            self.congestion.on_persistent_congestion();
            self.rtt.forget_minimum();
        }
        lost
    }

    /// Answers whether it makes persistent congestion.
    fn on_lost(&mut self, sent: &Sent) -> bool {
        self.lost_total += 1;
        self.mtu.on_lost(sent.count, sent.size);
        let event = self.congestion.on_loss(sent.count, self.next);
        if let Some(forgotten) = self.losses.remember(sent.count, event) {
            self.congestion.on_forgotten_loss(forgotten);
        }
        if sent.count < self.excused {
            return false;
        }
        let duration = PERSISTENT_TIMEOUTS * self.rtt.probe_timeout();
        self.losses.is_persistent(sent.ordinal, sent.at, duration)
    }

    /// A mark is a loss that cost nothing (RFC 9002 section 7.1).
    fn heed_marks(&mut self, ack: &Ack<'_>, acked: u64) {
        let Some(marking) = &mut self.marking else { return };
        if marking.on_ack(ack.marks, acked, self.next) == Verdict::Congested {
            self.congestion.on_mark(ack.largest, self.next);
        }
    }

    fn measure(&mut self, sent: Instant, delay_us: u64, now: Instant) -> Duration {
        let latest = now.saturating_duration_since(sent);
        self.rtt.update(latest, Duration::from_micros(delay_us));
        self.losses.on_sample(self.eliciting);
        latest
    }

    /// Since when the oldest packet in flight waits for an answer. Half a round trip at most: a
    /// whole one would make bad lines look dead, and what comes now may be the first of many.
    fn oldest_question(&self, now: Instant) -> Instant {
        let earliest = now.checked_sub(self.rtt.smoothed() / 2).unwrap_or(now);
        self.sent.front().map_or(now, |oldest| oldest.at.max(earliest))
    }

    /// Takes acknowledged packets out of the table.
    fn settle_acked(&mut self, range: (u64, u64), now: Instant, settle: &mut impl FnMut(&Carried)) {
        for sent in self.sent.drain(self.places(range)) {
            self.in_flight -= u64::from(sent.size);
            if sent.size.saturating_add(SIZE_SLACK) >= self.doubted_size {
                (self.fruitless, self.doubted_size) = (0, 0);
            }
            self.mtu.on_acked(sent.count, sent.size);
            self.congestion.on_ack(sent.size.into(), sent.count, self.rtt.smoothed(), now);
            sent.carried.iter().for_each(&mut *settle);
        }
    }

    /// Where packets of these counts are in the table.
    fn places(&self, (low, high): (u64, u64)) -> Range<usize> {
        let from = self.sent.partition_point(|sent| sent.count < low);
        from..self.sent.partition_point(|sent| sent.count <= high).max(from)
    }
}
