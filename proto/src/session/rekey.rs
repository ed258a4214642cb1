//! Key generations of a session (SPEC section 5.2).
//!
//! - Either end offers a fresh key exchange; the other answers and holds the next generation
//!   ready, still sealing under the current one.
//! - The offering end seals under the next generation from when the answer arrives.
//! - An end makes the next generation its current one with the first packet of it that opens, and
//!   keeps the key it used to open packets with for three probe timeouts, for those on their way.

use std::time::{Duration, Instant};

use rand::RngCore;
use ring::aead::LessSafeKey;
use zeroize::Zeroizing;

use super::handshake::{Established, Suite};
use super::kdf::{self, Secret};
use super::key;
use super::seal::{PacketKey, RekeyError, Side};
use crate::id::PeerKey;
use crate::wire::frame::{Rekey, RekeyStep};

/// Packets sent under one key before a fresh one is offered.
const REKEY_PACKETS: u64 = 1 << 26;
/// How long one key is in use before a fresh one is offered.
const REKEY_AFTER: Duration = Duration::from_secs(3600);
/// Probe timeout before any was measured (RFC 9002 section 6.2.2: about a second).
const PROBE_TIMEOUT_INITIAL: Duration = Duration::from_secs(1);
/// How many probe timeouts an old key is kept.
const KEPT_PROBE_TIMEOUTS: u32 = 3;

/// A generation's parity, which packets carry in their first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Even,
    Odd,
}

impl Phase {
    const fn of(generation: u32) -> Self {
        if generation & 1 == 0 { Self::Even } else { Self::Odd }
    }

    pub(super) const fn bit(self) -> u8 {
        match self {
            Self::Even => 0,
            Self::Odd => 1,
        }
    }
}

/// Which of the keys at hand a packet is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Current,
    Next,
    Previous,
}

/// Whose offer counts when two cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Glare {
    /// Ours is the smaller static key: our offer counts.
    Ours,
    /// Theirs is.
    Theirs,
}

/// All keys of a session, and the exchange that leads to the next ones.
pub(super) struct Generations {
    suite: Suite,
    side: Side,
    glare: Glare,
    /// A rekey was asked for, or its hour has come.
    is_due: bool,
    /// Number of `current`.
    generation: u32,
    current: Keys,
    next: Option<Box<Next>>,
    previous: Option<Box<Previous>>,
    offer: Option<Box<Secret>>,
    /// Packets sealed under the key in use.
    sent: u64,
    since: Instant,
    probe_timeout: Duration,
}

struct Keys {
    root: Secret,
    seal: PacketKey,
    open: PacketKey,
}

struct Next {
    keys: Keys,
    /// What this end sent. The end that offered seals under these keys at once, the one that
    /// answered when a packet under them has opened.
    role: RekeyStep,
}

struct Previous {
    open: PacketKey,
    until: Instant,
}

impl Generations {
    pub(super) fn new(established: Established, side: Side, own: PeerKey, now: Instant) -> Self {
        let remote = established.remote();
        let suite = established.suite();
        let is_smaller = own < remote || (own == remote && side == Side::Initiator);
        Self {
            suite,
            side,
            glare: if is_smaller { Glare::Ours } else { Glare::Theirs },
            is_due: false,
            generation: 0,
            current: Keys::derive(established.root, suite, side),
            next: None,
            previous: None,
            offer: None,
            sent: 0,
            since: now,
            probe_timeout: PROBE_TIMEOUT_INITIAL,
        }
    }

    /// The key to seal one more packet with.
    pub(super) fn sealing(&mut self) -> (Phase, &LessSafeKey) {
        let phase = Phase::of(self.sending());
        self.sent += 1;
        let keys = match &mut self.next {
            Some(next) if next.role == RekeyStep::Offer => &mut next.keys,
            Some(_) | None => &mut self.current,
        };
        (phase, keys.seal.expanded())
    }

    /// The key to open a packet of this phase with, if there is one.
    pub(super) fn opening(&mut self, phase: Phase, now: Instant) -> Option<(&LessSafeKey, Stage)> {
        self.expire(now);
        if phase == Phase::of(self.generation) {
            return Some((self.current.open.expanded(), Stage::Current));
        }
        // Making the next generation erases the previous one: at most one of the two is there.
        match (&mut self.next, &mut self.previous) {
            (Some(next), _) => Some((next.keys.open.expanded(), Stage::Next)),
            (None, Some(previous)) => Some((previous.open.expanded(), Stage::Previous)),
            (None, None) => None,
        }
    }

    /// A packet opened with the key of this stage.
    pub(super) fn opened(&mut self, stage: Stage, now: Instant) {
        match stage {
            Stage::Current | Stage::Previous => {}
            Stage::Next => self.advance(now),
        }
    }

    pub(super) fn poll_offer(&mut self, rng: &mut impl RngCore, now: Instant) -> Option<Rekey> {
        self.expire(now);
        let is_due = self.is_due || self.sent >= REKEY_PACKETS;
        // An old key that is still kept means the last rekey is not over for all packets.
        if !is_due || self.is_under_way() || self.previous.is_some() {
            return None;
        }
        let generation = self.generation.checked_add(1)?;
        let secret = draw(rng);
        let public = key::public_of(&secret);
        self.offer = Some(Box::new(secret));
        Some(Rekey { generation, step: RekeyStep::Offer, public })
    }

    pub(super) fn handle(
        &mut self,
        rekey: &Rekey,
        rng: &mut impl RngCore,
        now: Instant,
    ) -> Result<Option<Rekey>, RekeyError> {
        self.expire(now);
        let following = self.generation.saturating_add(1);
        if rekey.generation > following {
            return Err(RekeyError::Unexpected);
        }
        // Frames are sent again until acknowledged: this one was handled before.
        if rekey.generation < following || self.next.is_some() {
            return Ok(None);
        }
        match rekey.step {
            RekeyStep::Offer => self.answer(rekey, rng),
            RekeyStep::Answer => self.take_answer(rekey).map(|()| None),
        }
    }

    pub(super) fn request(&mut self) {
        self.is_due = true;
    }

    /// Erases what is old and notes what is due.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.erase_at().is_some_and(|at| at <= now) {
            self.previous = None;
        }
        if self.rekey_at().is_some_and(|at| at <= now) {
            self.is_due = true;
        }
    }

    pub(super) fn erase_at(&self) -> Option<Instant> {
        self.previous.as_ref().map(|previous| previous.until)
    }

    /// `None` while a rekey is due or under way: there is nothing to wait for.
    pub(super) fn rekey_at(&self) -> Option<Instant> {
        (!self.is_due && !self.is_under_way()).then(|| self.since + REKEY_AFTER)
    }

    pub(super) fn set_probe_timeout(&mut self, pto: Duration) {
        self.probe_timeout = pto;
    }

    pub(super) fn release_expanded(&mut self) {
        self.current.release();
        if let Some(next) = &mut self.next {
            next.keys.release();
        }
        if let Some(previous) = &mut self.previous {
            previous.open.release();
        }
    }

    /// The generation in use for sealing.
    pub(super) fn sending(&self) -> u32 {
        let is_ahead = self.next.as_ref().is_some_and(|next| next.role == RekeyStep::Offer);
        self.generation + u32::from(is_ahead)
    }

    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) const fn suite(&self) -> Suite {
        self.suite
    }

    fn is_under_way(&self) -> bool {
        self.offer.is_some() || self.next.is_some()
    }

    fn answer(
        &mut self,
        rekey: &Rekey,
        rng: &mut impl RngCore,
    ) -> Result<Option<Rekey>, RekeyError> {
        if self.offer.is_some() && self.glare == Glare::Ours {
            return Ok(None);
        }
        let secret = draw(rng);
        self.prepare(&secret, &rekey.public, RekeyStep::Answer)?;
        let public = key::public_of(&secret);
        Ok(Some(Rekey { generation: rekey.generation, step: RekeyStep::Answer, public }))
    }

    fn take_answer(&mut self, rekey: &Rekey) -> Result<(), RekeyError> {
        let secret = self.offer.take().ok_or(RekeyError::Unexpected)?;
        self.prepare(&secret, &rekey.public, RekeyStep::Offer)?;
        self.sent = 0;
        Ok(())
    }

    fn prepare(
        &mut self,
        secret: &Secret,
        public: &[u8; 32],
        role: RekeyStep,
    ) -> Result<(), RekeyError> {
        let shared = key::agree(secret, public).ok_or(RekeyError::WeakKey)?;
        let root = next_root(&self.current.root, &shared);
        let keys = Keys::derive(root, self.suite, self.side);
        self.next = Some(Box::new(Next { keys, role }));
        self.offer = None;
        self.previous = None;
        Ok(())
    }

    fn advance(&mut self, now: Instant) {
        let Some(next) = self.next.take() else { return };
        let Next { keys, role } = *next;
        if role == RekeyStep::Answer {
            self.sent = 0;
        }
        let old = std::mem::replace(&mut self.current, keys);
        let until = now + self.probe_timeout * KEPT_PROBE_TIMEOUTS;
        self.previous = Some(Box::new(Previous { open: old.open, until }));
        self.generation += 1;
        self.since = now;
        self.is_due = false;
    }

    #[cfg(test)]
    pub(super) fn set_sent(&mut self, sent: u64) {
        self.sent = sent;
    }
}

impl Keys {
    fn derive(root: Secret, suite: Suite, side: Side) -> Self {
        let (ours, theirs) = match side {
            Side::Initiator => (0, 1),
            Side::Responder => (1, 0),
        };
        let seal = PacketKey::derive(&root, suite, ours);
        let open = PacketKey::derive(&root, suite, theirs);
        Self { root, seal, open }
    }

    fn release(&mut self) {
        self.seal.release();
        self.open.release();
    }
}

/// The root of the generation after the one with `root`.
pub(super) fn next_root(root: &Secret, shared: &[u8; 32]) -> Secret {
    kdf::hkdf(&**root, &[shared], &[b"p2sp rekey"])
}

fn draw(rng: &mut impl RngCore) -> Secret {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *secret);
    secret
}
