//! Messages the application handed over, until their receipts come, and streams that it wants,
//! until they are open.
//!
//! An entry waits for its recipient to be found, then for room in the conversation, then for the
//! receipt. Bounded by [`ENTRIES_MAX`]; the conversation bounds the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::{Audience, Handle, Recipient};
use crate::id::{Channel, PeerKey, Sequence};

/// Most messages without a receipt: a person never gets there, a program is told to slow down.
pub(super) const ENTRIES_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct Outbox {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// Entries by the place they got; mirror of `Stage::Sent`.
    sent: BTreeMap<(PeerKey, Channel, Sequence), u64>,
    /// Entries that wait for room; mirror of `Stage::Backlog`.
    backlog: BTreeSet<(PeerKey, u64)>,
    /// Entries without a recipient yet; mirror of `Stage::Unresolved`.
    unresolved: BTreeSet<u64>,
}

pub(super) struct Entry {
    pub(super) handle: Handle,
    pub(super) to: Recipient,
    pub(super) content: Content,
    pub(super) deadline: Option<Instant>,
    pub(super) stage: Stage,
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

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its recipient is not known yet.
    Unresolved,
    /// The recipient is known but its conversation has no room.
    Backlog(PeerKey),
    /// In the conversation.
    Sent(PeerKey, Channel, Sequence),
}

/// The outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Outbox {
    /// Accepts a message.
    pub(super) fn push(
        &mut self,
        (handle, to): (Handle, Recipient),
        content: Content,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Result<u64, Full> {
        if self.entries.len() >= ENTRIES_MAX {
            return Err(Full);
        }
        let id = self.next;
        self.next += 1;
        let deadline = timeout.map(|timeout| now + timeout);
        let stage = Stage::Unresolved;
        self.entries.insert(id, Entry { handle, to, content, deadline, stage });
        self.unresolved.insert(id);
        Ok(id)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.unindex(id, entry.stage);
        Some(entry)
    }

    /// Notes the place a message got; its bytes now live in the conversation.
    pub(super) fn mark_sent(&mut self, id: u64, key: PeerKey, channel: Channel, at: Sequence) {
        self.set_stage(id, Stage::Sent(key, channel, at));
        self.sent.insert((key, channel, at), id);
        if let Some(Entry { content: Content::Message { payload, .. }, .. }) =
            self.entries.get_mut(&id)
        {
            *payload = Bytes::new();
        }
    }

    pub(super) fn mark_backlog(&mut self, id: u64, key: PeerKey) {
        self.set_stage(id, Stage::Backlog(key));
        self.backlog.insert((key, id));
    }

    fn set_stage(&mut self, id: u64, stage: Stage) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let old = std::mem::replace(&mut entry.stage, stage);
        self.unindex(id, old);
    }

    fn unindex(&mut self, id: u64, stage: Stage) {
        match stage {
            Stage::Unresolved => {
                self.unresolved.remove(&id);
            }
            Stage::Backlog(key) => {
                self.backlog.remove(&(key, id));
            }
            Stage::Sent(key, channel, sequence) => {
                self.sent.remove(&(key, channel, sequence));
            }
        }
    }

    /// Takes out all messages of a channel below `below`: they are delivered.
    pub(super) fn take_delivered(
        &mut self,
        key: PeerKey,
        channel: Channel,
        below: Sequence,
    ) -> Vec<Entry> {
        let range = (key, channel, Sequence(0))..(key, channel, below);
        let ids: Vec<u64> = self.sent.range(range).map(|(_, id)| *id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Messages for a recipient that nobody has found yet, in order.
    pub(super) fn unresolved(&self) -> Vec<(u64, Recipient)> {
        let waiting = self.unresolved.iter().filter_map(|id| Some((*id, self.entries.get(id)?)));
        waiting.map(|(id, entry)| (id, entry.to.clone())).collect()
    }

    /// Messages that wait for room in one conversation, in order.
    pub(super) fn backlog(&self, key: PeerKey) -> impl Iterator<Item = u64> + '_ {
        self.backlog.range((key, 0)..=(key, u64::MAX)).map(|(_, id)| *id)
    }

    /// Entries of one handle: several for a message to everybody.
    pub(super) fn of_handle(&self, handle: Handle) -> Vec<u64> {
        let ids = self.entries.iter().filter(|(_, entry)| entry.handle == handle);
        ids.map(|(id, _)| *id).collect()
    }

    /// Entries whose time is up.
    pub(super) fn expired(&self, now: Instant) -> Vec<u64> {
        let due = |entry: &Entry| entry.deadline.is_some_and(|deadline| deadline <= now);
        self.entries.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| *id).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        // Deadlines grow with ids as long as the timeout is one setting, so the first is the
        // earliest.
        self.entries.values().find_map(|entry| entry.deadline)
    }

    /// Messages for this peer without a receipt.
    pub(super) fn waiting_for(&self, key: PeerKey) -> Vec<u64> {
        let from = (key, Channel(0), Sequence(0));
        let to = (key, Channel(u8::MAX), Sequence(u64::MAX));
        let sent = self.sent.range(from..=to).map(|(_, id)| *id);
        sent.chain(self.backlog(key)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
