//! What was asked of two ends, and whether what they do agrees with it.
//!
//! It knows nothing of packets, windows or sessions: a plain list of messages for each sender,
//! epoch and channel.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use p2sp_proto::id::{Channel, Epoch, Sequence};
use p2sp_proto::transport::{Config, Received, SendError};

use super::Side;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose messages: sender, its epoch, channel.
type Line = (Side, Epoch, Channel);

/// All messages ever accepted.
#[derive(Debug)]
pub struct Ledger {
    lists: BTreeMap<Line, Vec<Entry>>,
    /// What the process at the receiving side takes next, of each list.
    next: BTreeMap<Line, usize>,
    messages_max: usize,
    bytes_max: usize,
    channels: u16,
    message_len_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    len: usize,
    cancelled: bool,
    delivered: bool,
    receipted: bool,
}

impl Entry {
    const fn is_settled(self) -> bool {
        self.cancelled || self.receipted
    }
}

impl Ledger {
    /// Nothing sent.
    pub fn new(config: &Config) -> Self {
        Self {
            lists: BTreeMap::new(),
            next: BTreeMap::new(),
            messages_max: config.send_queue_messages_max,
            bytes_max: config.send_queue_bytes_max,
            channels: config.channels,
            message_len_max: config.message_len_max,
        }
    }

    /// What the next message of a channel says: bytes that no other message has.
    pub fn next_payload(&self, side: Side, epoch: Epoch, channel: Channel, len: usize) -> Bytes {
        let line = (side, epoch, channel);
        payload(line, self.lists.get(&line).map_or(0, Vec::len), len)
    }

    /// A message was offered, and this was the answer.
    ///
    /// # Errors
    /// [`Violation`] when the answer is wrong.
    pub fn note_sent(
        &mut self,
        side: Side,
        epoch: Epoch,
        channel: Channel,
        len: usize,
        answer: Result<Sequence, SendError>,
    ) -> Result<(), Violation> {
        let (messages, bytes) = self.unsettled(side, epoch);
        let list = self.lists.entry((side, epoch, channel)).or_default();
        let expected = if u16::from(channel.0) >= self.channels {
            Err(SendError::NoChannel)
        } else if len > self.message_len_max {
            Err(SendError::TooLong)
        } else if messages >= self.messages_max || bytes + len > self.bytes_max {
            Err(SendError::Full)
        } else {
            Ok(Sequence(list.len() as u64))
        };
        if answer != expected {
            return Err(Violation(format!(
                "{side:?} {channel:?}: {len} bytes beside {messages} messages of {bytes} bytes: \
                 {answer:?} instead of {expected:?}"
            )));
        }
        if answer.is_ok() {
            list.push(Entry { len, cancelled: false, delivered: false, receipted: false });
        }
        Ok(())
    }

    /// One of the unsettled messages of a sender.
    pub fn pick(&self, side: Side, epoch: Epoch, nth: u64) -> Option<(Channel, Sequence)> {
        let open: Vec<_> = self.of(side, epoch).filter(|(.., entry)| !entry.is_settled()).collect();
        let (channel, at, _) = open.get(nth as usize % open.len().max(1))?;
        Some((*channel, Sequence(*at as u64)))
    }

    /// The oldest unsettled message of a channel.
    pub fn oldest(&self, side: Side, epoch: Epoch, channel: Channel) -> Option<Sequence> {
        let list = self.lists.get(&(side, epoch, channel))?;
        let at = list.iter().position(|entry| !entry.is_settled())?;
        Some(Sequence(at as u64))
    }

    /// A message that the ledger takes for unsettled was given up.
    ///
    /// # Errors
    /// [`Violation`] when the end says that it is settled.
    pub fn note_cancelled(
        &mut self,
        side: Side,
        epoch: Epoch,
        channel: Channel,
        sequence: Sequence,
        cancelled: bool,
    ) -> Result<(), Violation> {
        let list = self.lists.get_mut(&(side, epoch, channel));
        match list.and_then(|list| list.get_mut(sequence.0 as usize)) {
            Some(entry) if cancelled => {
                entry.cancelled = true;
                Ok(())
            }
            _ => Err(Violation(format!("{side:?} {channel:?} {sequence:?}: cannot be cancelled"))),
        }
    }

    /// A message came out at the other end of `from`.
    ///
    /// # Errors
    /// [`Violation`] when it was never sent, comes again, or not in its turn.
    pub fn note_delivered(
        &mut self,
        from: Side,
        epoch: Epoch,
        received: &Received,
    ) -> Result<(), Violation> {
        let line = (from, epoch, received.channel);
        let at = received.sequence.0 as usize;
        let wrong = |what: &str| {
            let (len, sequence) = (received.payload.len(), at);
            Violation(format!("{line:?}, message {sequence} ({len} bytes): {what}"))
        };
        let list = self.lists.get_mut(&line).ok_or_else(|| wrong("nothing was sent there"))?;
        let entry = *list.get(at).ok_or_else(|| wrong("was never sent"))?;
        if payload(line, at, entry.len) != received.payload {
            return Err(wrong("is not what was sent"));
        }
        if entry.receipted {
            return Err(wrong("comes after its receipt"));
        }
        let next = self.next.entry(line).or_default();
        if at < *next {
            return Err(wrong("comes again, or late"));
        }
        if let Some(missed) = list[*next..at].iter().position(|e| !e.cancelled && !e.delivered) {
            return Err(wrong(&format!("overtakes message {}", *next + missed)));
        }
        *next = at + 1;
        list[at].delivered = true;
        Ok(())
    }

    /// The sender was told that everything below is settled.
    ///
    /// # Errors
    /// [`Violation`] when something below never came out.
    pub fn note_receipt(
        &mut self,
        side: Side,
        epoch: Epoch,
        channel: Channel,
        below: Sequence,
    ) -> Result<(), Violation> {
        let line = (side, epoch, channel);
        let list = self.lists.get_mut(&line);
        let settled = list.and_then(|list| list.get_mut(..below.0 as usize));
        let Some(settled) = settled else {
            return Err(Violation(format!("{line:?}: receipt below {} of less", below.0)));
        };
        if let Some(at) = settled.iter().position(|entry| !entry.delivered && !entry.cancelled) {
            return Err(Violation(format!(
                "{line:?}: a receipt below {} for message {at}, which never came out",
                below.0
            )));
        }
        settled.iter_mut().for_each(|entry| entry.receipted = true);
        Ok(())
    }

    /// A process ended: what it had taken is not known to the next one.
    pub fn note_restart(&mut self, side: Side) {
        self.next.retain(|(from, _, _), _| *from == side);
    }

    /// Messages and bytes that a sender must still keep.
    pub fn unsettled(&self, side: Side, epoch: Epoch) -> (usize, usize) {
        let entries = self.of(side, epoch).filter(|(_, _, entry)| !entry.is_settled());
        entries.fold((0, 0), |(count, bytes), (_, _, entry)| (count + 1, bytes + entry.len))
    }

    /// Everything that a process sent must be settled.
    ///
    /// # Errors
    /// [`Violation`] names the first message that is not.
    pub fn check_settled(&self, side: Side, epoch: Epoch) -> Result<(), Violation> {
        match self.of(side, epoch).find(|(_, _, entry)| !entry.is_settled()) {
            None => Ok(()),
            Some((channel, at, entry)) => Err(Violation(format!(
                "{side:?} {channel:?}: message {at} of {} bytes was {}",
                entry.len,
                if entry.delivered { "delivered without a receipt" } else { "not delivered" }
            ))),
        }
    }

    /// Accepted, delivered and cancelled messages, for the account of a run.
    pub fn tally(&self) -> String {
        let entries = || self.lists.values().flatten();
        let delivered = entries().filter(|entry| entry.delivered).count();
        let cancelled = entries().filter(|entry| entry.cancelled).count();
        format!("{} sent, {delivered} delivered, {cancelled} cancelled", entries().count())
    }

    fn of(&self, side: Side, epoch: Epoch) -> impl Iterator<Item = (Channel, usize, Entry)> {
        let range = (side, epoch, Channel(0))..=(side, epoch, Channel(u8::MAX));
        self.lists.range(range).flat_map(|((_, _, channel), list)| {
            list.iter().enumerate().map(|(at, entry)| (*channel, at, *entry))
        })
    }
}

/// Bytes that tell the message, and every place in it.
fn payload((side, epoch, channel): Line, at: usize, len: usize) -> Bytes {
    let names = [side as u64, epoch.0, channel.0.into(), at as u64];
    let mut state = pattern(&names);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        bytes.extend_from_slice(&(state ^ (state >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// A number that tells all of these.
pub(super) fn pattern(names: &[u64]) -> u64 {
    names.iter().fold(0x9E37_79B9_7F4A_7C15_u64, |mixed, name| {
        (mixed ^ name).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29)
    })
}
