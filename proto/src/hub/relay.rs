//! Which relay channels are open. Workers use them through the slot table; here is who holds
//! them, and when they are freed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::slots::{ChannelEnd, PAGE_LEN, PAGES_MAX, PAGES_PER_SLOT, Slots};
use crate::id::{PeerKey, RelayChannel, Token};

/// A channel that neither end used for this long is freed.
const IDLE: Duration = Duration::from_secs(60);
/// Channels looked at in one go; the rest follows in the next.
const SWEEP_MAX: usize = 256;

/// Why a pair gets no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoChannel {
    /// This peer holds as many as it may.
    Full(PeerKey),
    /// The slab is used up.
    Exhausted,
}

/// The time as the slot table counts it, and as deadlines do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) now_s: u64,
}

/// One peer's end of its channels.
struct Table {
    token: Token,
    peers: BTreeMap<PeerKey, RelayChannel>,
    /// Bit set of places in use.
    taken: [u64; 4],
    /// High byte of the next channel number.
    generation: u8,
    /// Pages attached, as the slab numbers them.
    pages: [Option<u32>; PAGES_PER_SLOT],
}

/// All channels.
#[derive(Default)]
pub(super) struct Relay {
    tables: BTreeMap<PeerKey, Table>,
    deadlines: BTreeSet<(Instant, PeerKey, PeerKey)>,
    pages_used: u32,
    pages_free: Vec<u32>,
}

impl Relay {
    /// The channels of a pair, each side's own number for the other, opened if need be.
    pub(super) fn connect(
        &mut self,
        slots: &Slots,
        [a, b]: [(PeerKey, Token); 2],
        channels_max: u16,
        generation: u8,
        at: Moment,
    ) -> Result<(RelayChannel, RelayChannel), NoChannel> {
        let known = |from: &PeerKey, to: &PeerKey| {
            self.tables.get(from).and_then(|table| table.peers.get(to)).copied()
        };
        if let (Some(of_a), Some(of_b)) = (known(&a.0, &b.0), known(&b.0, &a.0)) {
            // Pointing the ends anew also marks them as used.
            self.point(slots, a.0, b.0, at.now_s);
            self.point(slots, b.0, a.0, at.now_s);
            return Ok((of_a, of_b));
        }
        let of_a = self.take(slots, a, b.0, channels_max, generation)?;
        let of_b = match self.take(slots, b, a.0, channels_max, generation) {
            Ok(of_b) => of_b,
            Err(reason) => {
                self.release(slots, a.0, b.0);
                return Err(reason);
            }
        };
        self.point(slots, a.0, b.0, at.now_s);
        self.point(slots, b.0, a.0, at.now_s);
        let (low, high) = if a.0 < b.0 { (a.0, b.0) } else { (b.0, a.0) };
        self.deadlines.insert((at.now + IDLE, low, high));
        Ok((of_a, of_b))
    }

    /// A peer's channels go on under another session.
    pub(super) fn rebind(&mut self, slots: &Slots, key: PeerKey, to: Token, now_s: u64) {
        let Some(table) = self.tables.get_mut(&key) else { return };
        table.token = to;
        for (index, page) in table.pages.iter().enumerate() {
            if let Some(page) = page {
                slots.attach_page(to, index, *page);
            }
        }
        let peers: Vec<_> = table.peers.keys().copied().collect();
        for peer in peers {
            self.point(slots, peer, key, now_s);
        }
    }

    /// A peer is gone: all its channels close.
    pub(super) fn forget(&mut self, slots: &Slots, key: PeerKey) {
        let peers: Vec<_> = self
            .tables
            .get(&key)
            .into_iter()
            .flat_map(|table| table.peers.keys())
            .copied()
            .collect();
        for peer in peers {
            self.release(slots, key, peer);
            self.release(slots, peer, key);
        }
    }

    /// Frees what nobody used for a minute.
    pub(super) fn expire(&mut self, slots: &Slots, at: Moment) {
        for _ in 0..SWEEP_MAX {
            let Some(&(due, a, b)) = self.deadlines.first().filter(|(due, ..)| *due <= at.now)
            else {
                return;
            };
            self.deadlines.remove(&(due, a, b));
            let Some(used) = self.last_use(slots, a, b) else { continue };
            let idle = Duration::from_secs(at.now_s.saturating_sub(used));
            if idle < IDLE {
                self.deadlines.insert((at.now + (IDLE - idle), a, b));
            } else {
                self.release(slots, a, b);
                self.release(slots, b, a);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, ..)| *due)
    }

    fn last_use(&self, slots: &Slots, a: PeerKey, b: PeerKey) -> Option<u64> {
        let used = |from, to| {
            let table = self.tables.get(&from)?;
            Some(slots.channel_used(table.token, *table.peers.get(&to)?))
        };
        Some(used(a, b)?.max(used(b, a)?))
    }

    fn take(
        &mut self,
        slots: &Slots,
        (key, token): (PeerKey, Token),
        peer: PeerKey,
        channels_max: u16,
        generation: u8,
    ) -> Result<RelayChannel, NoChannel> {
        let table = self.tables.entry(key).or_insert_with(|| Table {
            token,
            peers: BTreeMap::new(),
            taken: [0; 4],
            generation,
            pages: [None; PAGES_PER_SLOT],
        });
        let place = (0..channels_max.min(256)).find(|p| !is_set(&table.taken, *p));
        let place = place.ok_or(NoChannel::Full(key))?;
        let page = place as usize / PAGE_LEN;
        if table.pages[page].is_none() {
            let number = self.pages_free.pop().or_else(|| {
                let next = self.pages_used;
                self.pages_used += 1;
                ((next as usize) < PAGES_MAX).then_some(next)
            });
            let Some(number) = number else {
                self.pages_used = PAGES_MAX as u32;
                if table.peers.is_empty() {
                    self.tables.remove(&key);
                }
                return Err(NoChannel::Exhausted);
            };
            table.pages[page] = Some(number);
            slots.attach_page(token, page, number);
        }
        table.taken[place as usize / 64] |= 1 << (place % 64);
        table.generation = table.generation.wrapping_add(1);
        let channel = RelayChannel(u16::from(table.generation) << 8 | place);
        table.peers.insert(peer, channel);
        Ok(channel)
    }

    /// Writes the end of `from` that leads to `to`.
    fn point(&self, slots: &Slots, from: PeerKey, to: PeerKey, now_s: u64) {
        let (Some(near), Some(far)) = (self.tables.get(&from), self.tables.get(&to)) else {
            return;
        };
        if let (Some(own), Some(theirs)) = (near.peers.get(&to), far.peers.get(&from)) {
            let end = ChannelEnd { target: far.token, theirs: *theirs, own: *own };
            slots.open_channel(near.token, end, now_s);
        }
    }

    /// Closes the end of `from` that leads to `to`; pages return when the last one closes.
    fn release(&mut self, slots: &Slots, from: PeerKey, to: PeerKey) {
        let Some(table) = self.tables.get_mut(&from) else { return };
        let Some(channel) = table.peers.remove(&to) else { return };
        slots.close_channel(table.token, channel);
        let place = channel.0 & 0xFF;
        table.taken[place as usize / 64] &= !(1 << (place % 64));
        if table.peers.is_empty() {
            slots.detach_pages(table.token);
            self.pages_free.extend(table.pages.iter().flatten());
            self.tables.remove(&from);
        }
    }
}

fn is_set(bits: &[u64; 4], place: u16) -> bool {
    bits[place as usize / 64] & (1 << (place % 64)) != 0
}

#[cfg(test)]
mod tests {
    use super::super::tests::beginning;
    use super::*;

    fn key(n: u16) -> PeerKey {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        PeerKey::from_bytes(bytes)
    }

    fn peer(slots: &Slots, n: u16) -> (PeerKey, Token) {
        let token = Token::new(n.into(), 7);
        if slots.find(token).is_none() {
            slots.open(token);
        }
        (key(n), token)
    }

    fn at(start: Instant, seconds: u64) -> Moment {
        Moment { now: start + Duration::from_secs(seconds), now_s: seconds }
    }

    #[test]
    fn a_pair_keeps_its_channels_while_they_live() {
        let (slots, mut relay, start) = (Slots::new(9), Relay::default(), beginning());
        let pair = [peer(&slots, 1), peer(&slots, 2)];
        let first = relay.connect(&slots, pair, 4, 9, at(start, 0)).unwrap();
        assert_eq!(relay.connect(&slots, pair, 4, 0, at(start, 1)), Ok(first));
        assert_eq!(slots.channel(pair[0].1, first.0, 5), Some((pair[1].1, first.1)));
        relay.expire(&slots, at(start, 64));
        assert!(slots.channel(pair[0].1, first.0, 64).is_some(), "used at 5 s");
        relay.expire(&slots, at(start, 123));
        assert!(slots.channel(pair[1].1, first.1, 123).is_some(), "used at 64 s");
        relay.expire(&slots, at(start, 190));
        assert_eq!(slots.channel(pair[0].1, first.0, 190), None);
        assert!(relay.tables.is_empty() && relay.deadlines.is_empty());
        let second = relay.connect(&slots, pair, 4, 33, at(start, 191)).unwrap();
        assert_ne!(first, second);
        assert_eq!(slots.channel(pair[0].1, first.0, 191), None, "an old number leads nowhere");
    }

    #[test]
    fn channels_are_bounded_and_pages_come_back() {
        let (slots, mut relay, start) = (Slots::new(300), Relay::default(), beginning());
        let hub = peer(&slots, 299);
        for n in 0..256 {
            let pair = [hub, peer(&slots, n)];
            assert!(relay.connect(&slots, pair, 256, 0, at(start, 0)).is_ok(), "{n}");
        }
        let full = relay.connect(&slots, [peer(&slots, 256), hub], 256, 0, at(start, 0));
        assert_eq!(full, Err(NoChannel::Full(hub.0)));
        assert!(!relay.tables.contains_key(&key(256)), "the half that succeeded is undone");
        relay.forget(&slots, hub.0);
        assert!(relay.tables.is_empty());
        assert_eq!(relay.pages_free.len(), relay.pages_used as usize);
    }

    #[test]
    fn channels_survive_a_new_session() {
        let (slots, mut relay, start) = (Slots::new(9), Relay::default(), beginning());
        let (a, b) = (peer(&slots, 1), peer(&slots, 2));
        let (of_a, of_b) = relay.connect(&slots, [a, b], 4, 9, at(start, 0)).unwrap();
        let newer = Token::new(3, 8);
        slots.open(newer);
        relay.rebind(&slots, a.0, newer, 1);
        slots.close(a.1);
        assert_eq!(slots.channel(newer, of_a, 1), Some((b.1, of_b)));
        assert_eq!(slots.channel(b.1, of_b, 1), Some((newer, of_a)));
    }
}
