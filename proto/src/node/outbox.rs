//! Messages the application handed over, until their receipts come, and streams that it wants,
//! until they are open.
//!
//! An entry waits for its recipient to be found, then for room in the conversation, then, in the
//! lane of its channel, for the receipt. Bounded by [`ENTRIES_MAX`]; the conversation bounds the
//! bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::{Audience, Handle, Recipient};
use crate::id::{Channel, PeerKey, Sequence};

/// Most messages without a receipt: a person never gets there, a program is told to slow down.
pub(super) const ENTRIES_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct Outbox {
    /// What is in no conversation yet, by the order in which it was accepted.
    waiting: BTreeMap<u64, Entry>,
    next: u64,
    /// Entries that wait for room; mirror of `Stage::Backlog`.
    backlog: BTreeSet<(PeerKey, u64)>,
    /// Entries without a recipient yet; mirror of `Stage::Unresolved`.
    unresolved: BTreeSet<u64>,
    lanes: BTreeMap<(PeerKey, Channel), Lane>,
    /// Messages in all lanes.
    sent: usize,
}

/// What waits for a place in a conversation.
pub(super) struct Entry {
    pub(super) ticket: Ticket,
    pub(super) content: Content,
    pub(super) stage: Stage,
}

/// Whom to tell of what, until when.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) handle: Handle,
    pub(super) to: Recipient,
    deadline: Option<Instant>,
}

/// What goes to a recipient.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Message {
        audience: Audience,
        payload: Bytes,
    },
    /// A stream is to be opened.
    Stream,
}

/// How far an entry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its recipient is not known yet.
    Unresolved,
    /// The recipient is known but its conversation has no room.
    Backlog(PeerKey),
}

/// Where something is that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Waiting(u64),
    /// In the conversation.
    Sent(PeerKey, Channel, Sequence),
}

impl From<u64> for Place {
    fn from(id: u64) -> Self {
        Self::Waiting(id)
    }
}

/// The messages of one channel that are in the conversation.
struct Lane {
    /// Sequence of the first one.
    first: u64,
    /// In order; `None` was withdrawn.
    tickets: VecDeque<Option<Ticket>>,
}

/// The outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Outbox {
    /// Accepts something.
    pub(super) fn push(&mut self, ticket: Ticket, content: Content) -> Result<u64, Full> {
        if !self.has_room() {
            return Err(Full);
        }
        let id = self.next;
        self.next += 1;
        let stage = Stage::Unresolved;
        self.waiting.insert(id, Entry { ticket, content, stage });
        self.unresolved.insert(id);
        Ok(id)
    }

    /// Whether anything more is accepted.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() + self.sent < ENTRIES_MAX
    }

    /// What waits for a place in a conversation.
    pub(super) fn get(&self, id: u64) -> Option<&Entry> {
        self.waiting.get(&id)
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<Ticket> {
        match place {
            Place::Waiting(id) => self.take(id).map(|entry| entry.ticket),
            Place::Sent(key, channel, sequence) => {
                let lane = self.lanes.get_mut(&(key, channel))?;
                let ticket = lane.withdraw(sequence.0);
                self.sent -= usize::from(ticket.is_some());
                if lane.tickets.is_empty() {
                    self.lanes.remove(&(key, channel));
                }
                ticket
            }
        }
    }

    fn take(&mut self, id: u64) -> Option<Entry> {
        let entry = self.waiting.remove(&id)?;
        self.unindex(id, entry.stage);
        Some(entry)
    }

    /// Notes the place a message got; its bytes now live in the conversation.
    pub(super) fn mark_sent(&mut self, id: u64, key: PeerKey, channel: Channel, at: Sequence) {
        if let Some(entry) = self.take(id) {
            self.note_sent(entry.ticket, key, channel, at);
        }
    }

    /// A message got a place at once.
    pub(super) fn note_sent(
        &mut self,
        ticket: Ticket,
        key: PeerKey,
        channel: Channel,
        at: Sequence,
    ) {
        let new = || Lane { first: at.0, tickets: VecDeque::new() };
        self.lanes.entry((key, channel)).or_insert_with(new).tickets.push_back(Some(ticket));
        self.sent += 1;
    }

    pub(super) fn mark_backlog(&mut self, id: u64, key: PeerKey) {
        let Some(entry) = self.waiting.get_mut(&id) else { return };
        let old = std::mem::replace(&mut entry.stage, Stage::Backlog(key));
        self.unindex(id, old);
        self.backlog.insert((key, id));
    }

    fn unindex(&mut self, id: u64, stage: Stage) {
        match stage {
            Stage::Unresolved => {
                self.unresolved.remove(&id);
            }
            Stage::Backlog(key) => {
                self.backlog.remove(&(key, id));
            }
        }
    }

    /// Takes out the messages of a channel below `below`: they are delivered.
    pub(super) fn settle(
        &mut self,
        key: PeerKey,
        channel: Channel,
        below: Sequence,
        mut tell: impl FnMut(Ticket),
    ) {
        let Some(lane) = self.lanes.get_mut(&(key, channel)) else { return };
        while lane.first < below.0
            && let Some(ticket) = lane.tickets.pop_front()
        {
            lane.first += 1;
            self.sent -= usize::from(ticket.is_some());
            ticket.into_iter().for_each(&mut tell);
        }
        lane.trim();
        if lane.tickets.is_empty() {
            self.lanes.remove(&(key, channel));
        }
    }

    /// What waits for a recipient that nobody has found yet, in order.
    pub(super) fn unresolved(&self) -> Vec<(u64, Recipient)> {
        let waiting = self.unresolved.iter().filter_map(|id| Some((*id, self.waiting.get(id)?)));
        waiting.map(|(id, entry)| (id, entry.ticket.to.clone())).collect()
    }

    /// What waits for room in one conversation, in order.
    pub(super) fn backlog(&self, key: PeerKey) -> impl Iterator<Item = u64> + '_ {
        self.backlog.range((key, 0)..=(key, u64::MAX)).map(|(_, id)| *id)
    }

    /// All that belongs to one handle: several for a message to everybody.
    pub(super) fn of_handle(&self, handle: Handle) -> Vec<Place> {
        self.places(|ticket| ticket.handle == handle)
    }

    /// What waited for too long.
    pub(super) fn expired(&self, now: Instant) -> Vec<Place> {
        self.places(|ticket| ticket.deadline.is_some_and(|deadline| deadline <= now))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        // Each began to wait before those behind it, and for as long as they may.
        let firsts = self.lanes.values().filter_map(|lane| lane.tickets.front()?.as_ref());
        let waiting = self.waiting.values().map(|entry| &entry.ticket);
        firsts.chain(waiting.take(1)).filter_map(|ticket| ticket.deadline).min()
    }

    /// Messages for this peer without a receipt.
    pub(super) fn waiting_for(&self, key: PeerKey) -> Vec<Place> {
        let lanes = self.lanes.range((key, Channel(0))..=(key, Channel(u8::MAX)));
        let sent = lanes.flat_map(|((_, channel), lane)| lane.places(key, *channel));
        sent.map(|(place, _)| place).chain(self.backlog(key).map(Place::Waiting)).collect()
    }

    /// Whom something is for.
    pub(super) fn recipient(&self, place: Place) -> Option<&Recipient> {
        match place {
            Place::Waiting(id) => self.get(id).map(|entry| &entry.ticket.to),
            Place::Sent(key, channel, sequence) => {
                let lane = self.lanes.get(&(key, channel))?;
                let index = usize::try_from(sequence.0.checked_sub(lane.first)?).ok()?;
                lane.tickets.get(index)?.as_ref().map(|ticket| &ticket.to)
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent == 0
    }

    fn places(&self, wanted: impl Fn(&Ticket) -> bool) -> Vec<Place> {
        let waiting = self.waiting.iter().map(|(id, entry)| (Place::Waiting(*id), &entry.ticket));
        let lanes = self.lanes.iter();
        let sent = lanes.flat_map(|((key, channel), lane)| lane.places(*key, *channel));
        waiting.chain(sent).filter(|(_, ticket)| wanted(ticket)).map(|(place, _)| place).collect()
    }
}

impl Ticket {
    pub(super) fn new(
        handle: Handle,
        to: Recipient,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Self {
        Self { handle, to, deadline: timeout.map(|timeout| now + timeout) }
    }
}

impl Lane {
    fn withdraw(&mut self, sequence: u64) -> Option<Ticket> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let ticket = self.tickets.get_mut(index)?.take();
        self.trim();
        ticket
    }

    /// What was withdrawn leaves no trace in front.
    fn trim(&mut self) {
        while let Some(None) = self.tickets.front() {
            self.tickets.pop_front();
            self.first += 1;
        }
    }

    fn places(&self, key: PeerKey, channel: Channel) -> impl Iterator<Item = (Place, &Ticket)> {
        let place = move |sequence| Place::Sent(key, channel, Sequence(sequence));
        let numbered = (self.first..).zip(&self.tickets);
        numbered.filter_map(move |(sequence, ticket)| Some((place(sequence), ticket.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerName;
    use crate::time::origin;

    const KEY: PeerKey = PeerKey::from_bytes([1; 32]);
    const CHANNEL: Channel = Channel(0);
    const PATIENCE: Duration = Duration::from_secs(5);

    fn bob() -> Recipient {
        Recipient::Name(PeerName::new("bob").unwrap())
    }

    fn ticket(handle: u64, now: Instant) -> Ticket {
        Ticket::new(Handle(handle), bob(), Some(PATIENCE), now)
    }

    fn message() -> Content {
        Content::Message { audience: Audience::Private, payload: Bytes::new() }
    }

    fn delivered(outbox: &mut Outbox, below: u64) -> Vec<u64> {
        let mut told = Vec::new();
        outbox.settle(KEY, CHANNEL, Sequence(below), |ticket| told.push(ticket.handle.0));
        told
    }

    #[test]
    fn receipts_settle_in_order_what_was_not_withdrawn() {
        let (now, mut outbox) = (origin(), Outbox::default());
        for handle in 0..4 {
            let id = outbox.push(ticket(handle, now), message()).unwrap();
            outbox.mark_sent(id, KEY, CHANNEL, Sequence(7 + handle));
        }
        outbox.note_sent(ticket(4, now), KEY, CHANNEL, Sequence(11));
        for handle in [0, 2] {
            let place = Place::Sent(KEY, CHANNEL, Sequence(7 + handle));
            assert_eq!(outbox.of_handle(Handle(handle)), [place]);
            assert_eq!(outbox.recipient(place), Some(&bob()));
            assert_eq!(outbox.remove(place).map(|ticket| ticket.handle), Some(Handle(handle)));
            assert!(outbox.remove(place).is_none(), "once");
        }
        assert_eq!(outbox.waiting_for(KEY).len(), 3);
        assert!(delivered(&mut outbox, 8).is_empty());
        assert_eq!(delivered(&mut outbox, 11), [1, 3]);
        assert!(!outbox.is_empty());
        assert_eq!(delivered(&mut outbox, 12), [4]);
        assert!(outbox.is_empty() && outbox.lanes.is_empty());
    }

    #[test]
    fn the_first_that_waits_for_too_long_is_known_wherever_it_waits() {
        let (now, mut outbox) = (origin(), Outbox::default());
        let step = Duration::from_secs(1);
        let first = outbox.push(ticket(0, now), message()).unwrap();
        outbox.note_sent(ticket(1, now + step), KEY, CHANNEL, Sequence(0));
        assert_eq!(outbox.next_deadline(), Some(now + PATIENCE));
        assert_eq!(outbox.expired(now + PATIENCE), [Place::Waiting(first)]);
        outbox.remove(first.into());
        assert_eq!(outbox.next_deadline(), Some(now + PATIENCE + step));
        assert_eq!(outbox.expired(now + PATIENCE), []);
    }

    #[test]
    fn all_that_is_accepted_counts_wherever_it_waits() {
        let (now, mut outbox) = (origin(), Outbox::default());
        for handle in 0..ENTRIES_MAX as u64 {
            let id = outbox.push(ticket(handle, now), message()).unwrap();
            if handle % 2 == 0 {
                outbox.mark_sent(id, KEY, CHANNEL, Sequence(handle / 2));
            }
        }
        assert!(outbox.push(ticket(0, now), message()).is_err());
        assert_eq!(delivered(&mut outbox, 1), [0]);
        assert!(outbox.has_room());
    }
}
