//! The table that workers index by session token: where its holder is, what it may relay and to
//! whom. The hub writes, any number of workers read; all of it is atomics.
//!
//! Memory is taken in segments, so that growth never moves what is there (rehashing a table of a
//! million entries would stall every worker).

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::id::{RelayChannel, Token};
use crate::io::{Carrier, Route};

/// Slots allocated together.
const SEGMENT: usize = 1 << 10;
/// Entries of one page of relay channels; most peers talk to a few others.
pub(super) const PAGE_LEN: usize = 16;
/// Pages of one slot: 256 channels, what the low byte of a channel number can tell apart.
pub(super) const PAGES_PER_SLOT: usize = 16;
/// Pages allocated together.
const PAGE_SEGMENT: usize = 1 << 8;
/// Most pages in all: 4 million channel ends, 100 MiB.
pub(super) const PAGES_MAX: usize = 1 << 18;
/// A reader that meets a writer this often in a row treats the slot as empty.
const READ_TRIES: usize = 16;

/// An address in three words, so that atomics can hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed([u64; 3]);

impl Packed {
    pub(super) fn new(address: SocketAddr) -> Self {
        let port = u64::from(address.port());
        match address {
            SocketAddr::V4(v4) => Self([0, u64::from(u32::from(*v4.ip())), port | 4 << 16]),
            SocketAddr::V6(v6) => {
                let ip = u128::from(*v6.ip());
                let scope = u64::from(v6.scope_id());
                Self([(ip >> 64) as u64, ip as u64, port | 6 << 16 | scope << 32])
            }
        }
    }

    fn unpack(self) -> Option<SocketAddr> {
        let [high, low, rest] = self.0;
        let port = rest as u16;
        match (rest >> 16) & 0xFF {
            4 => Some(SocketAddr::new(IpAddr::V4((low as u32).into()), port)),
            6 => {
                let ip = (u128::from(high) << 64 | u128::from(low)).into();
                Some(SocketAddrV6::new(ip, port, 0, (rest >> 32) as u32).into())
            }
            _ => None,
        }
    }
}

/// What a worker learns about the holder of a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) token: Token,
    local: Packed,
    remote: Packed,
    previous: Packed,
    previous_until: u64,
}

impl View {
    /// Where the holder is, once that is validated.
    pub(super) fn route(&self) -> Option<Route> {
        let (local, remote) = (self.local.unpack()?, self.remote.unpack()?);
        Some(Route { carrier: Carrier::Udp, local, remote })
    }

    /// Whether `remote` is the holder's validated address, or was until lately.
    pub(super) fn is_from(&self, remote: SocketAddr, now_ns: u64) -> bool {
        let remote = Packed::new(remote);
        remote == self.remote || (remote == self.previous && now_ns < self.previous_until)
    }
}

/// One session. The words from `token` to `previous_until` are read as a whole or not at all.
#[derive(Default)]
pub(super) struct Slot {
    /// Odd while the hub writes.
    version: AtomicU64,
    words: [AtomicU64; 11],
    /// Bucket of relayed bytes.
    pub(super) quota: AtomicU64,
    /// Numbers of channel pages plus one; 0: none.
    pages: [AtomicU32; PAGES_PER_SLOT],
}

impl Slot {
    fn read(&self) -> Option<View> {
        for _ in 0..READ_TRIES {
            let before = self.version.load(Ordering::Acquire);
            let words: [u64; 11] = std::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return Some(view(&words));
            }
            std::hint::spin_loop();
        }
        None
    }

    fn write(&self, view: &View) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (cell, word) in self.words.iter().zip(words(view)) {
            cell.store(word, Ordering::Relaxed);
        }
        self.version.store((version | 1) + 1, Ordering::Release);
    }
}

fn view(words: &[u64; 11]) -> View {
    let packed = |at: usize| Packed([words[at], words[at + 1], words[at + 2]]);
    View {
        token: Token(words[0]),
        local: packed(1),
        remote: packed(4),
        previous: packed(7),
        previous_until: words[10],
    }
}

fn words(view: &View) -> [u64; 11] {
    let mut words = [0; 11];
    words[0] = view.token.0;
    words[1..4].copy_from_slice(&view.local.0);
    words[4..7].copy_from_slice(&view.remote.0);
    words[7..10].copy_from_slice(&view.previous.0);
    words[10] = view.previous_until;
    words
}

/// One end of a relay channel as the hub states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChannelEnd {
    /// The counterpart's session.
    pub(super) target: Token,
    /// How the counterpart numbers this side.
    pub(super) theirs: RelayChannel,
    /// How this side numbers the counterpart: the low byte is the place in the table, the high
    /// byte tells its successive uses apart.
    pub(super) own: RelayChannel,
}

#[derive(Default)]
struct ChannelCell {
    /// 0: not open.
    target: AtomicU64,
    /// `own << 16 | theirs`, with bit 32 set while open.
    numbers: AtomicU64,
    /// Seconds since start of the last use.
    used: AtomicU64,
}

const OPEN: u64 = 1 << 32;

type Page = [ChannelCell; PAGE_LEN];

/// The slots, and the slab of channel pages.
pub(super) struct Slots {
    slots: Box<[OnceLock<Box<[Slot]>>]>,
    pages: Box<[OnceLock<Box<[Page]>>]>,
}

impl Slots {
    /// Room for `slots_max` sessions.
    pub(super) fn new(slots_max: usize) -> Self {
        let segments = |count: usize, of: usize| count.div_ceil(of);
        Self {
            slots: (0..segments(slots_max, SEGMENT)).map(|_| OnceLock::new()).collect(),
            pages: (0..segments(PAGES_MAX, PAGE_SEGMENT)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The session whose token this is.
    pub(super) fn find(&self, token: Token) -> Option<View> {
        self.slot(token)?.read().filter(|view| token.0 != 0 && view.token == token)
    }

    /// A new session, nowhere yet.
    pub(super) fn open(&self, token: Token) {
        let Some(segment) = self.slots.get(token.slot() / SEGMENT) else { return };
        let segment = segment.get_or_init(|| (0..SEGMENT).map(|_| Slot::default()).collect());
        let slot = &segment[token.slot() % SEGMENT];
        slot.quota.store(0, Ordering::Relaxed);
        slot.write(&View { token, ..view(&[0; 11]) });
    }

    pub(super) fn close(&self, token: Token) {
        let Some(slot) = self.slot(token) else { return };
        slot.write(&view(&[0; 11]));
        self.detach_pages(token);
    }

    /// The holder of `token` has no channels any more.
    pub(super) fn detach_pages(&self, token: Token) {
        if let Some(slot) = self.slot(token) {
            slot.pages.iter().for_each(|page| page.store(0, Ordering::Relaxed));
        }
    }

    /// The holder of `token` is at `route`; where it was counts until `previous_until`.
    pub(super) fn place(&self, token: Token, route: Route, previous_until: u64) {
        let Some((slot, old)) = self.slot(token).and_then(|slot| Some((slot, slot.read()?))) else {
            return;
        };
        let Carrier::Udp = route.carrier;
        slot.write(&View {
            token,
            local: Packed::new(route.local),
            remote: Packed::new(route.remote),
            previous: old.remote,
            previous_until,
        });
    }

    /// The bucket of relayed bytes.
    pub(super) fn quota(&self, token: Token) -> Option<&AtomicU64> {
        self.slot(token).map(|slot| &slot.quota)
    }

    /// What `channel` of the holder of `token` leads to; marks it as used.
    pub(super) fn channel(
        &self,
        token: Token,
        channel: RelayChannel,
        now_s: u64,
    ) -> Option<(Token, RelayChannel)> {
        let cell = self.cell(token, channel)?;
        let numbers = cell.numbers.load(Ordering::Acquire);
        let target = Token(cell.target.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let steady = cell.numbers.load(Ordering::Relaxed) == numbers;
        if !steady || numbers >> 16 != OPEN >> 16 | u64::from(channel.0) {
            return None;
        }
        if cell.used.load(Ordering::Relaxed) != now_s {
            cell.used.store(now_s, Ordering::Relaxed);
        }
        Some((target, RelayChannel(numbers as u16)))
    }

    /// Opens, or points anew, one end of a channel. Its page must have been attached.
    pub(super) fn open_channel(&self, token: Token, end: ChannelEnd, now_s: u64) {
        let Some(cell) = self.cell(token, end.own) else { return };
        cell.numbers.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        cell.target.store(end.target.0, Ordering::Relaxed);
        cell.used.store(now_s, Ordering::Relaxed);
        let numbers = OPEN | u64::from(end.own.0) << 16 | u64::from(end.theirs.0);
        cell.numbers.store(numbers, Ordering::Release);
    }

    pub(super) fn close_channel(&self, token: Token, channel: RelayChannel) {
        if let Some(cell) = self.cell(token, channel) {
            cell.numbers.store(0, Ordering::Release);
        }
    }

    /// Second of the last use of a channel, 0 when there is no such channel.
    pub(super) fn channel_used(&self, token: Token, channel: RelayChannel) -> u64 {
        self.cell(token, channel).map_or(0, |cell| cell.used.load(Ordering::Relaxed))
    }

    /// Makes page `number` the place of the channels `16 * index ..` of the holder of `token`.
    pub(super) fn attach_page(&self, token: Token, index: usize, number: u32) {
        let Some(segment) = self.pages.get(number as usize / PAGE_SEGMENT) else { return };
        segment.get_or_init(|| (0..PAGE_SEGMENT).map(|_| Page::default()).collect());
        if let Some(slot) = self.slot(token) {
            slot.pages[index % PAGES_PER_SLOT].store(number + 1, Ordering::Release);
        }
    }

    fn slot(&self, token: Token) -> Option<&Slot> {
        self.slots.get(token.slot() / SEGMENT)?.get()?.get(token.slot() % SEGMENT)
    }

    fn cell(&self, token: Token, channel: RelayChannel) -> Option<&ChannelCell> {
        let place = channel.0 as usize & 0xFF;
        let page = self.slot(token)?.pages[place / PAGE_LEN].load(Ordering::Acquire);
        let page = page.checked_sub(1)? as usize;
        let page = self.pages.get(page / PAGE_SEGMENT)?.get()?.get(page % PAGE_SEGMENT)?;
        page.get(place % PAGE_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(port: u16) -> Route {
        Route::udp("192.0.2.1:3478".parse().unwrap(), SocketAddr::from(([198, 51, 100, 7], port)))
    }

    #[test]
    fn addresses_survive_packing() {
        for text in ["1.2.3.4:5", "[2001:db8::1]:65535", "[fe80::1%7]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Packed::new(address).unpack(), Some(address));
        }
        assert_eq!(Packed::default().unpack(), None);
    }

    #[test]
    fn a_token_is_found_whole_or_not_at_all() {
        let slots = Slots::new(3000);
        let token = Token::new(2050, 77);
        assert!(slots.find(token).is_none());
        slots.open(token);
        assert!(slots.find(token).unwrap().route().is_none(), "nowhere yet");
        assert!(slots.find(Token::new(2050, 78)).is_none());
        slots.place(token, route(1), 0);
        assert_eq!(slots.find(token).unwrap().route(), Some(route(1)));
        slots.close(token);
        assert!(slots.find(token).is_none());
        assert!(slots.find(Token(0)).is_none(), "an empty slot is nobody's");
        assert!(slots.find(Token::new(1 << 23, 1)).is_none());
    }

    #[test]
    fn the_address_before_counts_for_a_while() {
        let (slots, token) = (Slots::new(1), Token::new(0, 5));
        slots.open(token);
        slots.place(token, route(1), 0);
        slots.place(token, route(2), 100);
        let view = slots.find(token).unwrap();
        assert!(view.is_from(route(2).remote, 1000));
        assert!(view.is_from(route(1).remote, 99));
        assert!(!view.is_from(route(1).remote, 100));
        assert!(!view.is_from(route(3).remote, 0));
    }

    #[test]
    fn a_channel_number_of_an_earlier_use_leads_nowhere() {
        let (slots, token) = (Slots::new(1), Token::new(0, 5));
        slots.open(token);
        let end = |own| ChannelEnd {
            target: Token(9),
            theirs: RelayChannel(0x0203),
            own: RelayChannel(own),
        };
        slots.open_channel(token, end(0x0011), 1);
        assert_eq!(slots.channel(token, RelayChannel(0x0011), 1), None, "no page attached");
        slots.attach_page(token, 1, 300);
        slots.open_channel(token, end(0x0011), 1);
        let open = Some((Token(9), RelayChannel(0x0203)));
        assert_eq!(slots.channel(token, RelayChannel(0x0011), 8), open);
        assert_eq!(slots.channel_used(token, RelayChannel(0x0011)), 8);
        assert_eq!(slots.channel(token, RelayChannel(0x0111), 1), None);
        slots.close_channel(token, RelayChannel(0x0011));
        assert_eq!(slots.channel(token, RelayChannel(0x0011), 1), None);
        slots.open_channel(token, end(0x0111), 1);
        assert_eq!(slots.channel(token, RelayChannel(0x0111), 1), open);
        assert_eq!(slots.channel(token, RelayChannel(0x0011), 1), None);
    }
}
