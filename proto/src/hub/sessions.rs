//! The sessions the hub holds, by slot, and when each wants to be looked at again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::limits::{Limits, prefix_of};
use crate::conversation::Conversation;
use crate::id::{Boot, PeerKey, ReceiverId, Token};
use crate::io::Route;
use crate::session::PendingFinish;

/// A session without a registration, silent for this long, is forgotten.
pub(super) const UNREGISTERED_IDLE: Duration = Duration::from_secs(30);
/// Data packets that overtook the third handshake message and wait for it: a first flight.
const HELD_MAX: usize = 4;

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Our reply is out; nothing under the new keys has arrived.
    Tentative,
    /// The other end holds the keys and received our reply at its address.
    Live,
    /// CLOSE was said.
    Closing,
}

/// The end of a session, repeated to a peer that goes on.
pub(super) struct Farewell {
    pub(super) code: u16,
    pub(super) reason: String,
    /// How often it is still repeated.
    pub(super) repeats: u8,
    /// When the session is forgotten.
    pub(super) until: Instant,
}

/// A new address on probation, and the old one beside it (SPEC section 5.4).
pub(super) struct Migration {
    pub(super) from: Route,
    pub(super) to: Route,
    /// What the new address, and what the old one, must return.
    pub(super) to_challenge: [u8; 8],
    pub(super) from_challenge: [u8; 8],
    /// Bytes that may still be sent to the new address.
    pub(super) allowance: u64,
    pub(super) state: Probation,
    pub(super) until: Instant,
}

/// What became of a new address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probation {
    /// Neither answered.
    Asked,
    /// The new one answered first; the session moved, and moves back should the old one answer.
    Moved,
    /// The old one answered: the new one is ignored for a while.
    Stayed,
}

/// The handshake hash and, when early data was offered, what its proof is made over.
pub(super) struct ProofContext {
    pub(super) hash: [u8; 32],
    pub(super) early: Option<(Boot, u64)>,
}

/// Whether an unconfirmed session has used its one introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlyOpen {
    Unspent,
    Spent,
}

/// One session with a peer.
pub(super) struct Peer {
    pub(super) early_open: EarlyOpen,
    pub(super) key: PeerKey,
    pub(super) boot: Boot,
    pub(super) proof: ProofContext,
    pub(super) conversation: Conversation,
    /// The validated address; before confirmation the one our reply went to.
    pub(super) route: Route,
    pub(super) stage: Stage,
    /// Index of the network it is registered in.
    pub(super) network: Option<usize>,
    /// Silence after which it is gone.
    pub(super) patience: Duration,
    pub(super) last_heard: Instant,
    pub(super) migration: Option<Box<Migration>>,
    /// What a closing session says.
    pub(super) farewell: Option<Box<Farewell>>,
    /// Buckets: requests, introductions, notices.
    pub(super) spent: [u64; 3],
    /// Something may be waiting in the conversation.
    pub(super) dirty: bool,
}

/// An XX handshake whose third message is awaited.
pub(super) struct Finishing {
    pub(super) route: Route,
    pub(super) receiver: ReceiverId,
    /// Absent while another thread works on it.
    pub(super) pending: Option<Box<PendingFinish>>,
    pub(super) held: VecDeque<(Route, Vec<u8>)>,
}

impl Finishing {
    /// Keeps a packet that came too early.
    pub(super) fn hold(&mut self, route: Route, data: &[u8]) {
        if self.held.len() < HELD_MAX {
            self.held.push_back((route, data.to_vec()));
        }
    }
}

/// What a slot holds.
pub(super) enum Holder {
    /// The reply is being written elsewhere.
    Reserved,
    Finishing(Finishing),
    Peer(Box<Peer>),
}

pub(super) struct Entry {
    token: Token,
    holder: Holder,
    /// Prefix whose unregistered sessions it counts among.
    counted: Option<u64>,
    /// When it was last arranged to be looked at.
    wake: Option<Instant>,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    entries: Vec<Option<Box<Entry>>>,
    /// Oldest first, so that a slot rests before it is used again.
    free: VecDeque<u32>,
    wakes: BTreeSet<(Instant, u32)>,
    /// The newest confirmed session of a key.
    by_key: BTreeMap<PeerKey, Token>,
    unregistered: u32,
    per_prefix: BTreeMap<u64, u32>,
    live: u32,
}

impl Sessions {
    /// Takes a slot for a handshake from `route`, unless a bound is reached.
    pub(super) fn reserve(&mut self, route: Route, random: u64, limits: &Limits) -> Option<Token> {
        let prefix = prefix_of(route.remote.ip());
        let of_prefix = self.per_prefix.get(&prefix).copied().unwrap_or(0);
        if self.unregistered >= limits.unregistered_max
            || of_prefix >= limits.unregistered_per_prefix
        {
            return None;
        }
        let slot = self.take_slot(limits)?;
        // A random part of zero could make the token zero, which marks an empty slot.
        let token = Token::new(slot, random | 1);
        self.entries[slot as usize] =
            Some(Box::new(Entry { token, holder: Holder::Reserved, counted: None, wake: None }));
        self.live += 1;
        self.count_unregistered(token, Some(prefix));
        Some(token)
    }

    fn take_slot(&mut self, limits: &Limits) -> Option<u32> {
        let bound = limits.sessions_max.min(1 << Token::SLOT_BITS);
        if (self.entries.len() as u32) < bound {
            self.entries.push(None);
            return Some(self.entries.len() as u32 - 1);
        }
        self.free.pop_front()
    }

    /// Counts the session among the unregistered ones of a prefix, or no more.
    pub(super) fn count_unregistered(&mut self, token: Token, prefix: Option<u64>) {
        let Some(entry) = self.entry(token) else { return };
        let before = std::mem::replace(&mut entry.counted, prefix);
        if let Some(before) = before {
            self.unregistered -= 1;
            if let Some(count) = self.per_prefix.get_mut(&before) {
                *count -= 1;
                if *count == 0 {
                    self.per_prefix.remove(&before);
                }
            }
        }
        if let Some(prefix) = prefix {
            self.unregistered += 1;
            *self.per_prefix.entry(prefix).or_default() += 1;
        }
    }

    pub(super) fn put(&mut self, token: Token, holder: Holder) {
        if let Some(entry) = self.entry(token) {
            entry.holder = holder;
        }
    }

    pub(super) fn holder(&mut self, token: Token) -> Option<&mut Holder> {
        self.entry(token).map(|entry| &mut entry.holder)
    }

    pub(super) fn peer(&mut self, token: Token) -> Option<&mut Peer> {
        match self.holder(token)? {
            Holder::Peer(peer) => Some(peer),
            Holder::Reserved | Holder::Finishing(_) => None,
        }
    }

    pub(super) fn finishing(&mut self, token: Token) -> Option<&mut Finishing> {
        match self.holder(token)? {
            Holder::Finishing(finishing) => Some(finishing),
            Holder::Reserved | Holder::Peer(_) => None,
        }
    }

    /// Frees the slot.
    pub(super) fn remove(&mut self, token: Token) -> Option<Holder> {
        self.entry(token)?;
        self.count_unregistered(token, None);
        let entry = self.entries[token.slot()].take()?;
        if let Some(wake) = entry.wake {
            self.wakes.remove(&(wake, token.slot() as u32));
        }
        if let Holder::Peer(peer) = &entry.holder
            && self.by_key.get(&peer.key) == Some(&token)
        {
            self.by_key.remove(&peer.key);
        }
        self.free.push_back(token.slot() as u32);
        self.live -= 1;
        Some(entry.holder)
    }

    /// `token` is the newest confirmed session of `key`; the one before is returned.
    pub(super) fn make_current(&mut self, key: PeerKey, token: Token) -> Option<Token> {
        self.by_key.insert(key, token).filter(|before| *before != token)
    }

    /// Whether the key has a confirmed session.
    pub(super) fn has_current(&self, key: &PeerKey) -> bool {
        self.by_key.contains_key(key)
    }

    pub(super) fn len(&self) -> u32 {
        self.live
    }

    /// All tokens in order of slot.
    pub(super) fn tokens(&self) -> Vec<Token> {
        self.entries.iter().flatten().map(|entry| entry.token).collect()
    }

    /// Looks at the session no later than `at`.
    pub(super) fn wake(&mut self, token: Token, at: Instant) {
        let slot = token.slot() as u32;
        let Some(entry) = self.entry(token) else { return };
        let before = entry.wake;
        if before.is_some_and(|before| before <= at) {
            return;
        }
        entry.wake = Some(at);
        if let Some(before) = before {
            self.wakes.remove(&(before, slot));
        }
        self.wakes.insert((at, slot));
    }

    /// The next session that is due at `now`; its arrangement is used up.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Token> {
        let &(at, slot) = self.wakes.first().filter(|(at, _)| *at <= now)?;
        self.wakes.remove(&(at, slot));
        let entry = self.entries[slot as usize].as_mut()?;
        entry.wake = None;
        Some(entry.token)
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    fn entry(&mut self, token: Token) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(token.slot())?.as_deref_mut()?;
        (entry.token == token).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::beginning;
    use super::*;

    fn route(port: u16) -> Route {
        Route::udp(([192, 0, 2, 1], 3478).into(), ([198, 51, 100, 7], port).into())
    }

    #[test]
    fn slots_are_bounded_per_prefix_and_in_all() {
        let mut sessions = Sessions::default();
        let limits = Limits { unregistered_per_prefix: 2, sessions_max: 3, ..Limits::open() };
        let first = sessions.reserve(route(1), 7, &limits).unwrap();
        assert!(sessions.reserve(route(2), 7, &limits).is_some());
        assert!(sessions.reserve(route(3), 7, &limits).is_none(), "two from one prefix");
        sessions.count_unregistered(first, None);
        assert!(sessions.reserve(route(3), 7, &limits).is_some());
        sessions.remove(first);
        assert_eq!(sessions.len(), 2);
    }

    #[test]
    fn a_slot_is_used_again_under_another_token() {
        let mut sessions = Sessions::default();
        let limits = Limits { sessions_max: 1, ..Limits::open() };
        let first = sessions.reserve(route(1), 2, &limits).unwrap();
        assert!(sessions.reserve(route(1), 4, &limits).is_none());
        sessions.remove(first);
        let second = sessions.reserve(route(1), 4, &limits).unwrap();
        assert_eq!(first.slot(), second.slot());
        assert!(sessions.holder(first).is_none());
        assert!(sessions.holder(second).is_some());
    }

    #[test]
    fn the_earliest_wish_counts() {
        let mut sessions = Sessions::default();
        let token = sessions.reserve(route(1), 2, &Limits::open()).unwrap();
        let start = beginning();
        let at = |seconds| start + Duration::from_secs(seconds);
        sessions.wake(token, at(5));
        sessions.wake(token, at(9));
        assert_eq!(sessions.next_wake(), Some(at(5)));
        sessions.wake(token, at(3));
        assert_eq!(sessions.take_due(at(2)), None);
        assert_eq!(sessions.take_due(at(3)), Some(token));
        assert_eq!(sessions.take_due(at(30)), None);
    }
}
