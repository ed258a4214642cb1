//! One path: its packet numbers, what is in flight on it and how it fares.

mod recovery;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ack::Received;
use super::congestion::Congestion;
use super::loss::Losses;
use super::marking::Marking;
use super::mtu::Mtu;
use super::pacing::{Pacer, Rate};
use super::packet::{Carried, Load, Sent};
use super::rtt::{ACK_DELAY_MAX, Rtt};
use super::{PathKind, PathStats};
use crate::id::{Channel, PathId, Sequence};

/// Unanswered probe timeouts after which traffic also goes elsewhere.
const SUSPECT_AFTER: u8 = 2;
/// Probe intervals up to [`PROBE_MAX`] before they grow to [`PROBE_MAX_LATE`].
const PROBES_EARLY: u8 = 8;
/// Times in a row that a path may become suspect without payload getting through, although
/// small packets or checks do, until it is given up.
const FRUITLESS_MAX: u8 = 3;
/// A packet that is smaller by no more proves what a larger one did not.
const SIZE_SLACK: u16 = 64;
/// Packets that a probe timeout lets leave where more than one waits for its acknowledgement: one
/// more loss does not cost another timeout (RFC 9002 section 6.2.4).
const PROBE_PACKETS: u8 = 2;
/// A silent path is probed at least this often at first...
const PROBE_MAX: Duration = Duration::from_secs(2);
/// ...and this often when it stays silent.
const PROBE_MAX_LATE: Duration = Duration::from_secs(10);
/// Bounds the table of sent packets: above the largest congestion window in full packets.
const SENT_MAX: usize = 16 << 10;
/// Room in that table that stays while packets come and go.
const SENT_KEPT: usize = 16;
/// Second copies that wait for this path; beyond it a message goes without.
const COPIES_MAX: usize = 64;
/// Bytes of frames in a packet on a path that is not open: challenges and their answers.
const PAYLOAD_CLOSED: u16 = 256;

/// State of one path within one session.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) id: PathId,
    /// `None` until the owner opens it.
    pub(super) kind: Option<PathKind>,
    pub(super) mtu: Mtu,
    pub(super) received: Received,
    pub(super) suspect: bool,
    pub(super) confirm_due: bool,
    /// Packets that may leave in spite of the congestion window.
    pub(super) probes: u8,
    probe_count: u8,
    next: u64,
    pub(super) rtt: Rtt,
    congestion: Congestion,
    losses: Losses,
    pacer: Pacer,
    /// Of a direct path; `None`: nothing is marked.
    marking: Option<Box<Marking>>,
    sent: VecDeque<Sent>,
    /// Ack-eliciting packets so far, modulo 2^32.
    eliciting: u32,
    in_flight: u64,
    largest_acked: Option<u64>,
    loss_at: Option<Instant>,
    /// Since when what is in flight waits for an acknowledgement, or when the last probe left.
    waiting_since: Instant,
    /// How often it became suspect since a packet as large as the lost ones got through.
    fruitless: u8,
    /// Size of the largest packet in flight when it did.
    doubted_size: u16,
    /// When the pacer lets the next packet go, if it holds one back.
    pub(super) paced_until: Option<Instant>,
    last_ack: Option<Instant>,
    lost_total: u64,
    /// Losses below this packet are no persistent congestion.
    excused: u64,
    /// Whether its data went elsewhere when it became suspect.
    relieved: bool,
    /// Small messages that are to go here as well.
    pub(super) copies: Option<Box<Copies>>,
}

/// What is known of the route of a path that was closed.
#[derive(Debug)]
pub(super) struct Memory {
    rtt: Rtt,
    congestion: Congestion,
}

/// Messages that shall go on a path as well, oldest first; at most [`COPIES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Copies {
    pub(super) queue: VecDeque<(Channel, Sequence)>,
}

/// What a probe timeout says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It may be a loss; or the path is suspect already.
    Short,
    /// It became suspect.
    Suspect,
    /// The same, over and over: it does not carry payload, whatever else it carries.
    Fruitless,
}

impl Path {
    pub(super) fn new(id: PathId, now: Instant) -> Self {
        Self {
            id,
            kind: None,
            mtu: Mtu::new(PAYLOAD_CLOSED),
            received: Received::default(),
            suspect: false,
            confirm_due: false,
            probes: 0,
            probe_count: 0,
            next: 0,
            rtt: Rtt::new(),
            congestion: Congestion::new(PAYLOAD_CLOSED),
            losses: Losses::new(),
            pacer: Pacer::new(now),
            marking: None,
            sent: VecDeque::new(),
            eliciting: 0,
            in_flight: 0,
            largest_acked: None,
            loss_at: None,
            waiting_since: now,
            fruitless: 0,
            doubted_size: 0,
            paced_until: None,
            last_ack: None,
            lost_total: 0,
            excused: 0,
            relieved: false,
            copies: None,
        }
    }

    pub(super) fn open(&mut self, kind: PathKind, payload_max: usize) {
        let base = u16::try_from(payload_max).unwrap_or(u16::MAX).max(PAYLOAD_CLOSED);
        if base != self.mtu.base() {
            self.mtu = Mtu::new(base);
        }
        if self.kind.replace(kind).is_none() {
            self.congestion = Congestion::new(base);
            self.marking = (kind == PathKind::Direct).then(|| Box::new(Marking::new()));
        }
    }

    /// Whether what leaves here is marked as ECT(0).
    pub(super) fn is_marked(&self) -> bool {
        self.marking.as_ref().is_some_and(|marking| marking.is_on())
    }

    /// The route changed: what was measured is void, what is in flight may be lost.
    pub(super) fn reset(&mut self, now: Instant) -> Vec<Carried> {
        self.rtt = Rtt::new();
        self.mtu = Mtu::new(self.mtu.base());
        self.congestion = Congestion::new(self.mtu.base());
        self.losses = Losses::new();
        self.pacer = Pacer::new(now);
        if let Some(marking) = &mut self.marking {
            marking.restart();
        }
        (self.probe_count, self.suspect, self.loss_at) = (0, false, None);
        (self.fruitless, self.doubted_size) = (0, 0);
        self.take_all()
    }

    pub(super) fn is_open(&self) -> bool {
        self.kind.is_some()
    }

    /// Whether anything sent here was ever acknowledged.
    pub(super) fn is_proven(&self) -> bool {
        self.largest_acked.is_some()
    }

    /// Whether it may be dead: it is suspect, or left a probe timeout unanswered that was longer
    /// than two round trips. Where round trips are long a timeout is a loss more often than not.
    pub(super) fn is_in_question(&self) -> bool {
        let is_short = self.rtt.measured().is_some_and(|rtt| rtt <= ACK_DELAY_MAX);
        self.suspect || (is_short && self.probe_count > 0)
    }

    /// Whether its packet numbers never left: it may be forgotten.
    pub(super) fn is_unused(&self) -> bool {
        self.kind.is_none() && self.next == 0
    }

    pub(super) fn has_in_flight(&self) -> bool {
        !self.sent.is_empty()
    }

    pub(super) fn queue_copy(&mut self, channel: Channel, sequence: Sequence) {
        let copies = self.copies.get_or_insert_default();
        if copies.queue.len() < COPIES_MAX {
            copies.queue.push_back((channel, sequence));
        }
    }

    /// Bytes of frames in the next packet. What shall tell whether the path is alive is small.
    pub(super) fn payload_max(&self) -> u16 {
        let doubtful = self.probe_count > 0 || self.suspect;
        if doubtful { self.mtu.base() } else { self.mtu.proved() }
    }

    /// The size of a packet without data that may leave now to see whether it passes.
    pub(super) fn mtu_probe(&mut self, now: Instant) -> Option<u16> {
        if !self.is_open() || self.probe_count > 0 || self.suspect {
            return None;
        }
        let size = self.mtu.next_probe(self.rtt.probe_timeout(), now)?;
        self.may_send(now).then_some(size)
    }

    /// It leaves: nobody waits for its acknowledgement, and its loss is no congestion.
    pub(super) fn on_mtu_probe_sent(&mut self, size: u16, now: Instant) -> u64 {
        let count = self.on_sent(size.into(), None, now);
        self.mtu.on_probe_sent(count, size, now);
        count
    }

    /// Whether congestion control and pacing let an ack-eliciting packet go.
    pub(super) fn may_send(&mut self, now: Instant) -> bool {
        self.paced_until = None;
        if self.probes > 0 {
            return true;
        }
        if self.in_flight >= self.congestion.window() || self.sent.len() >= SENT_MAX {
            return false;
        }
        if let Some(rtt) = self.rtt.measured() {
            let slow_start = self.congestion.in_slow_start();
            let rate = Rate::new(self.congestion.window(), rtt, slow_start);
            self.paced_until = self.pacer.delay(rate, self.mtu.proved().into(), now);
        }
        self.paced_until.is_none()
    }

    /// Whether nothing of its own calls for a packet.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let ack_due = self.received.due().is_some_and(|at| at <= now);
        let own = self.confirm_due || self.probes > 0 || self.copies.is_some();
        !own && !ack_due && !self.received.wanted_elsewhere()
    }

    /// Whether neither the window nor the pacer held back the last packet.
    pub(super) fn is_free(&self) -> bool {
        self.paced_until.is_none() && self.in_flight < self.congestion.window()
    }

    /// A packet of `size` bytes leaves; answers its count.
    pub(super) fn on_sent(&mut self, size: usize, carried: Option<Load>, now: Instant) -> u64 {
        let count = self.next;
        self.next += 1;
        self.pacer.spend(size as u64);
        // A path that is not open is the owner's to probe.
        if let Some(carried) = carried.filter(|_| self.is_open()) {
            if self.sent.len() >= SENT_MAX && self.suspect {
                // Only probes of a dead path get here, and what it carried went elsewhere.
                self.pop_oldest();
            }
            // More of the same does not put the question off, unless it is all there is to ask.
            if self.sent.is_empty() || self.probes > 0 || self.suspect {
                self.waiting_since = now;
            }
            self.probes = self.probes.saturating_sub(1);
            self.in_flight += size as u64;
            self.congestion.on_sent(self.in_flight);
            self.eliciting = self.eliciting.wrapping_add(1);
            let ordinal = self.eliciting;
            self.sent.push_back(Sent { count, at: now, size: size as u16, ordinal, carried });
        }
        count
    }

    /// Earliest of loss detection and probe timeout.
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        if let Some(at) = self.loss_at {
            return Some((at, "packet loss"));
        }
        (!self.sent.is_empty() && self.probes == 0)
            .then(|| (self.waiting_since + self.probe_interval(), "probe timeout"))
    }

    /// Loss detection is due.
    pub(super) fn is_loss_due(&self, now: Instant) -> bool {
        self.loss_at.is_some_and(|at| at <= now)
    }

    /// A probe is due: some packets may leave in spite of the window.
    pub(super) fn on_probe_timeout(&mut self) -> Silence {
        self.probe_count = self.probe_count.saturating_add(1);
        if let Some(marking) = &mut self.marking {
            marking.on_silence();
        }
        self.probes = if self.suspect || self.sent.len() < 2 { 1 } else { PROBE_PACKETS };
        if self.suspect || self.probe_count < SUSPECT_AFTER {
            return Silence::Short;
        }
        self.suspect = true;
        // What is above the base is no promise of the path.
        let largest = self.sent.iter().map(|sent| sent.size).max().unwrap_or(0);
        let largest = largest.min(self.mtu.base());
        if largest.saturating_add(SIZE_SLACK) >= self.doubted_size {
            self.fruitless = self.fruitless.saturating_add(1);
            self.doubted_size = self.doubted_size.max(largest);
        }
        if self.fruitless < FRUITLESS_MAX { Silence::Suspect } else { Silence::Fruitless }
    }

    /// Something else than a packet proved that the path works: it gets another chance.
    pub(super) fn restore(&mut self, now: Instant) {
        (self.probe_count, self.suspect, self.waiting_since) = (0, false, now);
        self.excuse();
    }

    /// It is suspect, and data goes elsewhere: what is lost from now on says that it was out of
    /// order, and nothing of how much it carries.
    pub(super) fn relieve(&mut self) {
        self.relieved = true;
    }

    /// It works again.
    fn excuse(&mut self) {
        if std::mem::take(&mut self.relieved) {
            self.excused = self.next;
        }
    }

    /// What was measured on it, for another one on the same route. `None` where nothing was.
    pub(super) fn memory(&self) -> Option<Memory> {
        self.rtt.measured()?;
        Some(Memory { rtt: self.rtt, congestion: self.congestion.resumed() })
    }

    /// Begins with what was measured on the route before, if it has not measured itself.
    pub(super) fn resume(&mut self, memory: Memory) {
        if self.rtt.measured().is_none() {
            (self.rtt, self.congestion) = (memory.rtt, memory.congestion);
        }
    }

    /// What the oldest packets in flight carry.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Carried> {
        self.sent.iter().flat_map(|sent| &sent.carried)
    }

    /// Forgets everything in flight.
    pub(super) fn take_all(&mut self) -> Vec<Carried> {
        self.in_flight = 0;
        self.loss_at = None;
        std::mem::take(&mut self.sent).into_iter().flat_map(|sent| sent.carried).collect()
    }

    pub(super) fn probe_timeout(&self) -> Duration {
        self.rtt.probe_timeout()
    }

    pub(super) fn stats(&self) -> Option<PathStats> {
        Some(PathStats {
            kind: self.kind?,
            rtt: self.rtt.measured(),
            probe_timeout: self.rtt.probe_timeout(),
            congestion_window: self.congestion.window(),
            in_flight: self.in_flight,
            lost: self.lost_total,
            sent: self.next,
            last_ack: self.last_ack,
            payload_max: self.mtu.proved(),
        })
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap(&self) -> usize {
        assert_eq!(
            (self.sent.capacity(), self.copies.is_none(), self.losses.is_small()),
            (0, true, true),
            "something is in flight"
        );
        self.received.heap() + self.mtu.heap()
    }

    fn probe_interval(&self) -> Duration {
        let limit = if self.probe_count <= PROBES_EARLY { PROBE_MAX } else { PROBE_MAX_LATE };
        let base = self.rtt.probe_timeout();
        // The second probe follows as fast as the first: it decides whether traffic moves.
        let doubled = base.saturating_mul(1 << self.probe_count.saturating_sub(1).min(16));
        // A path that is slower than the limit still gets its own time.
        doubled.min(limit.max(base + ACK_DELAY_MAX))
    }

    fn pop_oldest(&mut self) -> Option<Sent> {
        let sent = self.sent.pop_front()?;
        self.in_flight -= u64::from(sent.size);
        Some(sent)
    }

    /// What a burst took goes with it.
    fn shrink(&mut self) {
        if self.sent.is_empty() {
            self.sent.shrink_to(SENT_KEPT);
            self.losses.rest();
            self.congestion.rest();
        }
    }

    /// Nothing is said for a while: keeps no more than it must.
    pub(super) fn rest(&mut self) {
        if self.sent.is_empty() {
            self.sent = VecDeque::new();
        }
    }
}
