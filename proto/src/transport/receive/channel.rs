//! One channel on its way in: order, marks and credit.

use std::collections::{BTreeMap, VecDeque};

use super::assembly::{Assembly, Body, Room};
use super::{Origin, Part};
use crate::id::{Channel, Sequence};
use crate::transport::packet::{Carried, Packet};
use crate::transport::window::{Credit, MESSAGE_COST, Pool, cost};
use crate::transport::{FrameError, Received};
use crate::wire::frame::{Frame, Message};

/// Room for messages that stays in a channel while they come and go.
const MESSAGES_KEPT: usize = 32;

#[derive(Debug)]
pub(super) struct InChannel {
    pub(super) channel: Channel,
    pub(super) receipt_due: bool,
    pub(super) window_due: bool,
    /// Everything below was delivered or skipped.
    pub(super) mark: u64,
    pub(super) credit: Credit,
    pub(super) active: Option<Box<Active>>,
}

/// What a channel keeps while it holds parts of messages.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// Whole messages in a row from the mark on: most arrive in order, and are taken in order.
    ready: VecDeque<Assembly>,
    /// Messages beyond these.
    rest: BTreeMap<u64, Assembly>,
    /// What the parts that came in this session take of the window.
    charged: u64,
}

impl InChannel {
    pub(super) fn new(channel: Channel, pool: &Pool) -> Self {
        let credit = Credit::new(pool);
        Self { channel, receipt_due: false, window_due: false, mark: 0, credit, active: None }
    }

    pub(super) fn restart(&mut self, pool: &Pool, keep_all: bool) {
        self.credit = Credit::new(pool);
        (self.receipt_due, self.window_due) = (self.mark > 0, false);
        if let Some(active) = &mut self.active {
            active.restart(self.mark, keep_all);
        }
        self.shrink();
    }

    pub(super) fn bytes(&self) -> usize {
        let messages = self.active.iter().flat_map(|active| active.messages());
        messages.map(|message| message.len() + MESSAGE_COST as usize).sum()
    }

    pub(super) fn store(
        &mut self,
        message: &Message<'_>,
        origin: Origin,
    ) -> Result<Part, FrameError> {
        let committed = match origin {
            Origin::Early => u64::MAX,
            Origin::Session => self.credit.committed(),
        };
        if cost(message.offset + message.bytes.len() as u64) > committed {
            return Err(FrameError(400, "beyond the window"));
        }
        let active = self.active.get_or_insert_default();
        let first = self.mark + active.ready.len() as u64;
        let held = active.charged;
        let assembly = active.assembly(self.mark, message, origin);
        if u64::from(assembly.total) != message.total {
            return Err(FrameError(400, "two lengths for one message"));
        }
        // Only one message of a channel is the first that is not whole: the window promises to
        // hold it beside what is held.
        let promised = held - assembly.charged + cost(message.total) <= committed;
        let room = match origin {
            Origin::Session if message.sequence.0 == first && promised => Room::Whole,
            Origin::Session | Origin::Early => Room::Parts,
        };
        let Some(fresh) = assembly.insert(message, room) else { return Ok(Part::Refused) };
        let part = if fresh == 0 { Part::Repeated } else { Part::Stored };
        if origin == Origin::Session && fresh > 0 {
            let begun = assembly.charged > 0;
            let bytes = if message.total == 0 { 0 } else { u64::from(fresh) };
            let charge = bytes + if begun { 0 } else { MESSAGE_COST };
            assembly.charged += charge;
            active.charged += charge;
        }
        if active.charged > committed {
            return Err(FrameError(400, "beyond the window"));
        }
        active.line_up(self.mark);
        Ok(part)
    }

    pub(super) fn is_readable(&self) -> bool {
        self.active.as_ref().is_some_and(|active| !active.ready.is_empty())
    }

    /// What the incomplete message at the head takes of the window.
    pub(super) fn head_cost(&self) -> Option<u64> {
        let active = self.active.as_ref().filter(|active| active.ready.is_empty())?;
        active.rest.get(&self.mark).map(|head| cost(head.total.into()))
    }

    pub(super) fn take(&mut self, pool: &mut Pool) -> Option<Received> {
        let assembly = self.active.as_mut()?.ready.pop_front()?;
        self.settle(&assembly, pool);
        let sequence = Sequence(self.mark);
        self.mark += 1;
        self.shrink();
        match assembly.body {
            Body::Whole(payload) => Some(Received { channel: self.channel, sequence, payload }),
            Body::Partial { .. } => None,
        }
    }

    pub(super) fn skip(&mut self, below: u64, pool: &mut Pool) {
        while let Some(assembly) =
            self.active.as_mut().and_then(|active| active.pop_below(self.mark, below))
        {
            self.settle(&assembly, pool);
            self.mark += 1;
        }
        self.mark = below;
        if let Some(active) = &mut self.active {
            active.line_up(below);
        }
        self.shrink();
    }

    /// A message that was taken out gives its credit back.
    pub(super) fn settle(&mut self, assembly: &Assembly, pool: &mut Pool) {
        if let Some(active) = &mut self.active {
            active.charged -= assembly.charged;
        }
        if assembly.charged > 0 {
            self.credit.consume(cost(assembly.total.into()), pool);
        }
    }

    /// What a burst took goes with it.
    pub(super) fn shrink(&mut self) {
        if let Some(active) = self.active.as_mut().filter(|active| active.ready.is_empty()) {
            active.ready.shrink_to(MESSAGES_KEPT);
        }
    }

    /// False when the packet is full.
    pub(super) fn write(&mut self, packet: &mut Packet<'_>) -> bool {
        if self.receipt_due {
            let frame = Frame::Receipt(self.channel, Sequence(self.mark));
            let carried = Carried::Receipt(self.channel, self.mark);
            self.receipt_due = !packet.push_carried(&frame, carried);
        }
        if self.window_due {
            let limit = self.credit.limit();
            let carried = Carried::Window(self.channel, limit);
            self.window_due = !packet.push_carried(&Frame::Window(self.channel, limit), carried);
        }
        !self.receipt_due && !self.window_due
    }
}

impl Active {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.rest.is_empty()
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Assembly> {
        self.ready.iter().chain(self.rest.values())
    }

    /// The message that a part belongs to; `mark` is where `ready` begins.
    fn assembly(&mut self, mark: u64, message: &Message<'_>, origin: Origin) -> &mut Assembly {
        let (sequence, end) = (message.sequence.0, mark + self.ready.len() as u64);
        if sequence < end {
            return &mut self.ready[(sequence - mark) as usize];
        }
        if sequence == end && message.is_whole() && !self.rest.contains_key(&sequence) {
            // It needs no place among those that wait for others.
            let place = self.ready.len();
            self.ready.push_back(Assembly::new(message, origin));
            return &mut self.ready[place];
        }
        let entry = self.rest.entry(sequence);
        entry.or_insert_with(|| Assembly::new(message, origin))
    }

    /// Whole messages that follow those in a row join them.
    fn line_up(&mut self, mark: u64) {
        let mut next = mark + self.ready.len() as u64;
        while let Some(first) = self.rest.first_entry()
            && *first.key() == next
            && first.get().is_whole()
        {
            self.ready.push_back(first.remove());
            next += 1;
        }
    }

    /// Takes out a message below `below`, the lowest first.
    fn pop_below(&mut self, mark: u64, below: u64) -> Option<Assembly> {
        if mark < below && !self.ready.is_empty() {
            return self.ready.pop_front();
        }
        let first = self.rest.first_entry().filter(|first| *first.key() < below)?;
        Some(first.remove())
    }

    /// Windows start anew: parts of messages go, and whole ones too if they shall.
    pub(super) fn restart(&mut self, mark: u64, keep_all: bool) {
        self.charged = 0;
        let ready = std::mem::take(&mut self.ready).into_iter();
        self.rest.extend((mark..).zip(ready));
        self.rest.retain(|_, m| m.is_whole() && (keep_all || m.origin == Origin::Early));
        self.rest.values_mut().for_each(|message| message.charged = 0);
        self.line_up(mark);
    }
}
