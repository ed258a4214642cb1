//! Filling packets: acknowledgements, frames of others, receipts, messages, second copies.

use std::time::Instant;

use super::packet::{Carried, Packet};
use super::{PathKind, Transport};
use crate::id::{PacketNumber, PathId, Sequence};
use crate::wire::frame::{Ack, Frame};

impl Transport {
    /// The next packet for one path.
    pub(super) fn fill(
        &mut self,
        index: usize,
        data_path: Option<usize>,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Option<PacketNumber> {
        let carries_data = data_path == Some(index);
        if carries_data && let Some(number) = self.fill_mtu_probe(index, out, now) {
            return Some(number);
        }
        let mut packet = Packet::new(out, self.paths[index].payload_max().into());
        let ack_due = self.write_acks(index, carries_data, &mut packet, now);
        let acks = packet.len();
        let id = self.paths[index].id;
        self.control.write(&mut packet, |path| path.map_or(carries_data, |path| path == id));
        let mut crowded = false;
        if self.paths[index].may_send(now) {
            self.write_frames(index, carries_data, ack_due, &mut packet, now);
            // What needs a whole packet gets the next one.
            crowded = carries_data && packet.len() == acks && self.has_data();
        } else if !self.wants_to_send(index, carries_data, now) {
            self.paths[index].paced_until = None;
        }
        if packet.len() == 0 || (packet.len() == acks && !ack_due && !crowded) {
            packet.abandon();
            return None;
        }
        Some(self.commit(index, data_path, packet, now))
    }

    /// A packet without data, ahead of more than it could carry, that shows whether its size
    /// passes (RFC 8899).
    fn fill_mtu_probe(
        &mut self,
        index: usize,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Option<PacketNumber> {
        if !self.has_data() {
            return None;
        }
        let path = &mut self.paths[index];
        let size = path.mtu_probe(now)?;
        let mut packet = Packet::new(out, size.into());
        packet.push(&Frame::Confirm);
        packet.push(&Frame::Padding(packet.room()));
        Some(PacketNumber::new(path.id, path.on_mtu_probe_sent(size, now)))
    }

    /// Adds the ACK of the path itself and, on the data path, those that are wanted elsewhere.
    /// Answers whether one of them must leave now.
    fn write_acks(
        &mut self,
        index: usize,
        carries_data: bool,
        packet: &mut Packet<'_>,
        now: Instant,
    ) -> bool {
        let (here, standby) = (self.paths[index].id, self.standby());
        let mut due = false;
        for (other, path) in self.paths.iter_mut().enumerate() {
            let own = path.id == here;
            let homeless = carries_data && !path.is_open() && path.received.due().is_some();
            let guest = !own
                && path.received.wanted_elsewhere()
                && (carries_data || (standby == Some(index)));
            if !(own && path.is_open() || homeless || guest)
                || (own && path.received.due().is_none())
            {
                continue;
            }
            let (ranges, age) = path.received.report(now);
            let Some(ack) = Ack::new(path.id, ranges, age) else { continue };
            let ack = ack.with_marks(path.received.marks());
            let carried = Carried::Ack { path: path.id, largest: ack.largest };
            if !packet.push_carried(&Frame::Ack(ack), carried) {
                continue;
            }
            debug_assert!(own == (other == index), "path ids are unique");
            due |= guest || path.received.due().is_some_and(|at| at <= now);
        }
        due
    }

    /// Adds what congestion control has let go.
    fn write_frames(
        &mut self,
        index: usize,
        carries_data: bool,
        ack_due: bool,
        packet: &mut Packet<'_>,
        now: Instant,
    ) {
        let path = &mut self.paths[index];
        if path.confirm_due && packet.push(&Frame::Confirm) {
            path.confirm_due = false;
        }
        let company = ack_due || packet.is_ack_eliciting();
        let receipts = self.has_receipts(now) || carries_data && self.has_data();
        if self.receipt_path() == Some(index) && (company || receipts) {
            self.inbox.write(packet);
            if let Some(streams) = &mut self.streams {
                streams.write_credit(packet);
            }
        }
        if carries_data {
            self.write_data(packet);
        }
        self.write_copies(index, packet);
        if self.paths[index].probes > 0 && !packet.is_ack_eliciting() {
            packet.push(&Frame::Confirm);
        }
    }

    fn write_copies(&mut self, index: usize, packet: &mut Packet<'_>) {
        let path = &mut self.paths[index];
        let Some(copies) = &mut path.copies else { return };
        while let Some((channel, sequence)) = copies.queue.front().copied() {
            if !self.outbox.write_copy(channel, sequence, packet) {
                return;
            }
            copies.queue.pop_front();
        }
        path.copies = None;
    }

    /// The packet leaves: numbers, records and second copies.
    fn commit(
        &mut self,
        index: usize,
        data_path: Option<usize>,
        packet: Packet<'_>,
        now: Instant,
    ) -> PacketNumber {
        let size = packet.len();
        let eliciting = packet.is_ack_eliciting();
        let carried = packet.carried;
        let here = self.paths[index].id;
        for carried in &carried {
            if let Carried::Ack { path, .. } = carried {
                self.note_ack_said(*path, here);
            }
        }
        if data_path == Some(index) {
            self.queue_copies(index, &carried);
        }
        let count = self.paths[index].on_sent(size, eliciting.then_some(carried), now);
        PacketNumber::new(here, count)
    }

    fn note_ack_said(&mut self, path: PathId, on: PathId) {
        let Some(index) = self.index(path) else { return };
        let path = &mut self.paths[index];
        if path.id != on {
            path.received.said_elsewhere();
        }
        if path.id == on || !path.is_open() {
            path.received.said();
        }
    }

    /// While it is not certain that the data path works, small messages go twice.
    fn queue_copies(&mut self, data_path: usize, carried: &[Carried]) {
        if self.paths.len() < 2 || !self.is_uncertain(data_path) {
            return;
        }
        let Some(other) = self.best_path(Some(data_path)) else { return };
        for carried in carried {
            let Carried::Whole { channel, first, count } = *carried else { continue };
            for sequence in (first.0..first.0 + u64::from(count)).map(Sequence) {
                if self.outbox.claim_copy(channel, sequence) {
                    self.paths[other].queue_copy(channel, sequence);
                }
            }
        }
    }

    fn is_uncertain(&self, data_path: usize) -> bool {
        let preferred = self.preferred.and_then(|path| self.index(path));
        let path = &self.paths[preferred.unwrap_or(data_path)];
        path.kind == Some(PathKind::Relay) || path.is_in_question() || !path.is_proven()
    }

    /// The data path may be dead: what is in flight there is what the other end waits for next.
    pub(super) fn copy_in_flight(&mut self, data_path: usize) {
        let in_flight: Vec<Carried> = self.paths[data_path].in_flight().cloned().collect();
        self.queue_copies(data_path, &in_flight);
    }

    /// Whether no path has anything to send.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.control.is_empty()
            && !self.has_data()
            && !self.has_receipts(now)
            && self.paths.iter().all(|path| path.is_quiet(now))
    }

    /// Whether the path has anything for which the pacer matters.
    fn wants_to_send(&self, index: usize, carries_data: bool, now: Instant) -> bool {
        let path = &self.paths[index];
        path.confirm_due
            || path.copies.is_some()
            || carries_data && self.has_data()
            || self.receipt_path() == Some(index) && self.has_receipts(now)
    }

    /// Whether a RECEIPT or WINDOW must leave now.
    fn has_receipts(&self, now: Instant) -> bool {
        self.inbox.due().is_some_and(|at| at <= now)
            || self.inbox.has_window()
            || self.streams.as_ref().is_some_and(|streams| streams.has_credit())
    }
}
