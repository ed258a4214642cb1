//! Messages on their way in: reassembly, order, what was delivered, receipts and credit.

mod assembly;
mod channel;

use std::time::{Duration, Instant};

use self::channel::InChannel;
use super::packet::{Carried, Packet};
use super::window::Pool;
use super::{Config, FrameError, Received};
use crate::id::{Channel, Epoch, Sequence};
use crate::wire::codec::VARINT_MAX;
use crate::wire::frame::Message;

/// Epochs of one sender whose marks are kept (SPEC section 7), the current one included.
const EPOCHS_MAX: usize = 8;
/// Longest time a RECEIPT waits for another frame to share its packet.
const RECEIPT_DELAY: Duration = Duration::from_millis(1);

/// Whether a part was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Stored,
    /// Every byte of it had arrived before.
    Repeated,
    /// There is no room: it must not be acknowledged.
    Refused,
}

/// Everything received and not yet taken, and the marks.
#[derive(Debug)]
pub(super) struct Inbox {
    epoch: Option<Epoch>,
    /// In order of channel.
    channels: Vec<InChannel>,
    /// Marks of other epochs, the newest last.
    older: Vec<(Epoch, Vec<(Channel, u64)>)>,
    pool: Pool,
    cursor: usize,
    /// About how long a round trip takes.
    rtt: Duration,
    receipt_due: Option<Instant>,
    window_due: bool,
    session: Stage,
}

/// Whether packets of the session speak of the current epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Early data named another epoch than the running session's.
    Ahead,
}

impl Inbox {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            epoch: None,
            channels: Vec::new(),
            older: Vec::new(),
            pool: Pool::new(config),
            cursor: 0,
            rtt: Duration::ZERO,
            receipt_due: None,
            window_due: false,
            session: Stage::Running,
        }
    }

    /// The epoch messages are numbered in.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// A new session with this epoch of the other end: windows start anew, partial messages are
    /// dropped, whole ones stay, and every mark is stated.
    pub(super) fn restart(&mut self, epoch: Epoch, config: &Config, now: Instant) {
        self.select(epoch);
        self.session = Stage::Running;
        self.pool = Pool::new(config);
        let held = self.held();
        // What stays is not under the new windows, so it must not pile up session by session.
        let keep_all = held <= config.receive_memory_max / 2;
        for channel in &mut self.channels {
            channel.restart(&self.pool, keep_all);
        }
        // A receipt may have been lost with the old session, or early data taken before this one.
        let stated = self.channels.iter().any(|channel| channel.receipt_due);
        (self.receipt_due, self.window_due) = (stated.then_some(now), false);
    }

    /// Early data of this epoch comes.
    pub(super) fn begin_early(&mut self, epoch: Epoch) {
        if self.epoch != Some(epoch) {
            self.session = if self.epoch.is_some() { Stage::Ahead } else { Stage::Running };
            self.select(epoch);
        }
    }

    /// Whether messages of the running session are to be ignored: their sender is gone.
    pub(super) fn is_ahead(&self) -> bool {
        self.session == Stage::Ahead
    }

    pub(super) fn on_message(
        &mut self,
        message: &Message<'_>,
        origin: Origin,
        config: &Config,
        now: Instant,
    ) -> Result<Part, FrameError> {
        if message.total > config.message_len_max as u64 {
            return Err(FrameError(413, "message too long"));
        }
        if origin == Origin::Early && self.held() > config.receive_memory_max {
            return Err(FrameError(429, "too much early data"));
        }
        let at = self.open(message.channel);
        let channel = &mut self.channels[at];
        if message.sequence.0 < channel.mark {
            channel.receipt_due = true;
            self.receipt_due = Some(now);
            return Ok(Part::Repeated);
        }
        let part = channel.store(message, origin)?;
        self.grant_head(at);
        Ok(part)
    }

    pub(super) fn on_skip(&mut self, channel: Channel, below: Sequence, now: Instant) {
        let at = self.open(channel);
        let channel = &mut self.channels[at];
        if below.0 < channel.mark {
            channel.receipt_due = true;
            self.receipt_due = Some(now);
            return;
        }
        channel.skip(below.0, &mut self.pool);
        self.after_settling(at, now);
    }

    /// The other end would go on; everything before `settled` is settled there.
    pub(super) fn on_blocked(
        &mut self,
        channel: Channel,
        settled: u64,
        now: Instant,
    ) -> Result<(), FrameError> {
        if settled > VARINT_MAX / 2 {
            return Err(FrameError(400, "position out of range"));
        }
        let at = self.open(channel);
        let channel = &mut self.channels[at];
        let head = channel.head_cost();
        channel.credit.settle(settled, head, &mut self.pool);
        if !channel.is_readable() {
            // The reader took all there was: it is the window that holds the sender back.
            channel.credit.grow(&mut self.pool);
        }
        if channel.credit.unblock(&mut self.pool, self.rtt, now) {
            self.tell_window(at);
        }
        self.after_settling(at, now);
        Ok(())
    }

    /// The next message in order, in turn over the channels.
    pub(super) fn take(&mut self, now: Instant) -> Option<Received> {
        let count = self.channels.len();
        let index = (0..count)
            .map(|step| (self.cursor + step) % count)
            .find(|index| self.channels[*index].is_readable())?;
        self.cursor = (index + 1) % count;
        let received = self.channels[index].take(&mut self.pool)?;
        self.channels[index].receipt_due = true;
        self.receipt_due = self.receipt_due.or(Some(now + RECEIPT_DELAY));
        self.after_settling(index, now);
        Some(received)
    }

    /// About how long a round trip takes.
    pub(super) fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    pub(super) fn is_readable(&self) -> bool {
        self.channels.iter().any(InChannel::is_readable)
    }

    /// Bytes of messages that were not taken, and what each costs besides.
    pub(super) fn held(&self) -> usize {
        self.channels.iter().map(InChannel::bytes).sum()
    }

    /// When a RECEIPT or WINDOW must leave, if nothing else does before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.receipt_due
    }

    /// Whether this is a receipt that no later one of its channel replaces.
    pub(super) fn is_newest_receipt(&self, carried: &Carried) -> bool {
        let Carried::Receipt(channel, mark) = carried else { return false };
        self.channels.iter().any(|of| of.channel == *channel && of.mark == *mark)
    }

    /// Whether there is a WINDOW to state.
    pub(super) fn has_window(&self) -> bool {
        self.window_due
    }

    /// Adds RECEIPT and WINDOW frames.
    pub(super) fn write(&mut self, packet: &mut Packet<'_>) {
        if self.receipt_due.is_none() && !self.window_due {
            return;
        }
        if self.channels.iter_mut().all(|channel| channel.write(packet)) {
            (self.receipt_due, self.window_due) = (None, false);
        }
    }

    /// States the newest values again where the lost ones were the newest.
    pub(super) fn on_lost(&mut self, carried: &Carried, now: Instant) {
        match carried {
            Carried::Receipt(channel, mark) => {
                let found = self.find(*channel).filter(|channel| channel.mark == *mark);
                if let Some(channel) = found {
                    channel.receipt_due = true;
                    self.receipt_due = Some(now);
                }
            }
            Carried::Window(channel, limit) => {
                let found = self.find(*channel).filter(|ch| ch.credit.limit() == *limit);
                if let Some(channel) = found {
                    channel.window_due = true;
                    self.window_due = true;
                }
            }
            Carried::Data { .. }
            | Carried::Whole { .. }
            | Carried::Skip(..)
            | Carried::Blocked(_)
            | Carried::Control(_)
            | Carried::Stream(_)
            | Carried::Ack { .. } => {}
        }
    }

    /// Nothing is said for a while: keeps no more than it must.
    pub(super) fn rest(&mut self) {
        for channel in &mut self.channels {
            channel.active.take_if(|active| active.is_empty());
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap(&self) -> usize {
        let active = self.channels.iter().filter(|channel| channel.active.is_some()).count();
        assert_eq!(active, 0, "a channel holds parts");
        self.channels.capacity() * size_of::<InChannel>()
    }

    /// Gives credit for the rest of the head message of a channel, if it needs more.
    fn grant_head(&mut self, at: usize) {
        let channel = &mut self.channels[at];
        if let Some(cost) = channel.head_cost()
            && channel.credit.admit(channel.channel, cost, &mut self.pool)
        {
            self.tell_window(at);
        }
    }

    fn after_settling(&mut self, at: usize, now: Instant) {
        if self.channels[at].credit.refresh(&mut self.pool, self.rtt, now) {
            self.tell_window(at);
        }
        let channel = &self.channels[at];
        if channel.head_cost().is_none() {
            let id = channel.channel;
            self.pool.leave_queue(id);
        }
        self.grant_head(at);
        self.serve_waiting();
    }

    /// Lets channels that wait for the reserve have it, in their order.
    fn serve_waiting(&mut self) {
        while let Some(channel) = self.pool.next_waiting() {
            let at = self.open(channel);
            if self.channels[at].head_cost().is_none() {
                self.pool.leave_queue(channel);
                continue;
            }
            self.grant_head(at);
            if self.pool.next_waiting() == Some(channel) {
                return;
            }
        }
    }

    fn tell_window(&mut self, at: usize) {
        self.channels[at].window_due = true;
        self.window_due = true;
    }

    fn select(&mut self, epoch: Epoch) {
        if self.epoch == Some(epoch) {
            return;
        }
        if let Some(old) = self.epoch {
            let marks = self.channels.iter().map(|ch| (ch.channel, ch.mark)).collect();
            self.older.push((old, marks));
        }
        self.channels = Vec::new();
        self.epoch = Some(epoch);
        if let Some(at) = self.older.iter().position(|(other, _)| *other == epoch) {
            let (_, marks) = self.older.remove(at);
            for (channel, mark) in marks {
                let at = self.open(channel);
                self.channels[at].mark = mark;
            }
        }
        if self.older.len() >= EPOCHS_MAX {
            self.older.remove(0);
        }
    }

    fn find(&mut self, channel: Channel) -> Option<&mut InChannel> {
        let at = self.channels.binary_search_by_key(&channel, |ch| ch.channel).ok()?;
        self.channels.get_mut(at)
    }

    fn open(&mut self, channel: Channel) -> usize {
        match self.channels.binary_search_by_key(&channel, |ch| ch.channel) {
            Ok(at) => at,
            Err(at) => {
                self.channels.reserve_exact(1);
                self.channels.insert(at, InChannel::new(channel, &self.pool));
                at
            }
        }
    }
}

/// How a part came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In message 1 of a handshake: outside the windows.
    Early,
    Session,
}
