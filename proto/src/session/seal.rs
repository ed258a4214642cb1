//! Packet protection of one session (SPEC section 5): seals and opens in place, with the clear
//! header as additional data.

use std::fmt;
use std::time::{Duration, Instant};

use rand::RngCore;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::handshake::{Established, Suite};
use super::kdf::{self, Secret};
use super::rekey::{Generations, Phase};
use super::replay::ReplayWindows;
use crate::id::{Address, PacketNumber, PathId, PeerKey, ReceiverId, Token};
use crate::time::earliest;
use crate::wire::codec::Reader;
use crate::wire::frame::Rekey;
use crate::wire::kind;

/// Bytes that authenticate a packet.
const TAG_LEN: usize = 16;
/// Packets that may fail to open before a session must end: the integrity limit of
/// ChaCha20-Poly1305 (RFC 9001 section 6.6), which is the smaller of the two.
const FORGERIES_MAX: u64 = 1 << 36;
/// Packets under one key before it must not seal any more: 64 times what starts a rekey.
const KEY_PACKETS_MAX: u64 = 1 << 32;

/// Which end of the handshake this session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It sent message 1.
    Initiator,
    /// It answered.
    Responder,
}

/// Packet protection of one session: replay windows, key phases, rekeying.
///
/// Idle, it is small: keys are expanded on use, and [`Self::release_expanded`] gives that up.
pub struct Session {
    remote: PeerKey,
    local: Address,
    remote_address: Address,
    generations: Generations,
    replay: ReplayWindows,
    /// The highest count sealed, per path in use: no nonce is ever used twice.
    sealed: Vec<PacketNumber>,
    forgeries: u64,
}

impl Session {
    /// `local` is how the other end addresses packets to us (they carry it in their header),
    /// `remote` how we address it, `own` our static key. `window` is the length of each path's
    /// replay window: 128 in a session with a server, 2048 between peers.
    pub fn new(
        established: Established,
        side: Side,
        own: PeerKey,
        local: Address,
        remote: Address,
        window: usize,
        now: Instant,
    ) -> Self {
        let peer = established.remote();
        Self {
            generations: Generations::new(established, side, own, now),
            remote: peer,
            local,
            remote_address: remote,
            replay: ReplayWindows::new(u16::try_from(window).unwrap_or(u16::MAX)),
            sealed: Vec::new(),
            forgeries: 0,
        }
    }

    /// The other end's static key.
    pub const fn remote(&self) -> PeerKey {
        self.remote
    }

    /// How the other end addresses packets to us.
    pub const fn local(&self) -> Address {
        self.local
    }

    /// How we address packets to the other end.
    pub const fn remote_address(&self) -> Address {
        self.remote_address
    }

    /// Bytes that must stand before the frames in a buffer handed to [`Self::seal`]: 13 or 17.
    pub const fn header_len(&self) -> usize {
        header_len(self.remote_address)
    }

    /// Header and tag: datagram length minus plaintext length.
    pub const fn overhead(&self) -> usize {
        self.header_len() + TAG_LEN
    }

    /// From `start` on, `buffer` is [`Self::header_len`] placeholder bytes and the frames; fills in
    /// the header, encrypts in place and appends the tag. Numbers must grow on each path.
    ///
    /// # Errors
    /// [`SealError`]; what `buffer` holds from `start` on is then of no use.
    pub fn seal(
        &mut self,
        number: PacketNumber,
        buffer: &mut Vec<u8>,
        start: usize,
        now: Instant,
    ) -> Result<(), SealError> {
        self.generations.expire(now);
        if number.count() == PacketNumber::COUNT_MAX || self.generations.sent() >= KEY_PACKETS_MAX {
            return Err(SealError::Exhausted);
        }
        self.claim(number)?;
        let header_len = self.header_len();
        let (phase, key) = self.generations.sealing();
        let packet = buffer.get_mut(start..).ok_or(SealError::Misused)?;
        let (header, frames) = packet.split_at_mut_checked(header_len).ok_or(SealError::Misused)?;
        write_header(header, phase, self.remote_address, number);
        let tag = key
            .seal_in_place_separate_tag(nonce(number), Aad::from(&*header), frames)
            .map_err(|_| SealError::Misused)?;
        buffer.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens a data packet in place. Replays, forgeries and packets under erased keys are errors
    /// and change nothing but the count of forgeries.
    ///
    /// # Errors
    /// [`OpenError`]; on [`OpenError::Exhausted`] the session must end.
    pub fn open<'a>(
        &mut self,
        packet: &'a mut [u8],
        now: Instant,
    ) -> Result<Opened<'a>, OpenError> {
        if self.forgeries >= FORGERIES_MAX {
            return Err(OpenError::Exhausted);
        }
        let (phase, number) = read_header(packet, self.local).ok_or(OpenError::Malformed)?;
        if !self.replay.is_fresh(number) {
            return Err(OpenError::Replayed);
        }
        let (header, sealed) = packet.split_at_mut(header_len(self.local));
        let (key, stage) = self.generations.opening(phase, now).ok_or(OpenError::Unauthentic)?;
        match key.open_in_place(nonce(number), Aad::from(&*header), sealed) {
            Ok(payload) => {
                self.generations.opened(stage, now);
                let newest = self.replay.commit(number);
                Ok(Opened { number, payload, newest })
            }
            Err(_) => {
                self.forgeries += 1;
                Err(OpenError::Unauthentic)
            }
        }
    }

    /// An offer when it is time to rekey (2^26 packets sent, one hour) and none is under way;
    /// send it reliably.
    pub fn poll_rekey(&mut self, rng: &mut impl RngCore, now: Instant) -> Option<Rekey> {
        self.generations.poll_offer(rng, now)
    }

    /// A REKEY frame that arrived; the answer to send reliably, if one is due. Repeated frames
    /// and offers that lost a crossing are nothing.
    ///
    /// # Errors
    /// [`RekeyError`]: the other end broke the rules; close the session.
    pub fn handle_rekey(
        &mut self,
        rekey: &Rekey,
        rng: &mut impl RngCore,
        now: Instant,
    ) -> Result<Option<Rekey>, RekeyError> {
        self.generations.handle(rekey, rng, now)
    }

    /// Forces [`Self::poll_rekey`] to offer as soon as none is under way.
    pub fn request_rekey(&mut self) {
        self.generations.request();
    }

    /// The key generation that packets are sealed under; 0 before the first rekey.
    pub fn generation(&self) -> u32 {
        self.generations.sending()
    }

    /// How packets are protected.
    pub const fn suite(&self) -> Suite {
        self.generations.suite()
    }

    /// Latest probe timeout: an old key is kept for three of them.
    pub fn set_probe_timeout(&mut self, pto: Duration) {
        self.generations.set_probe_timeout(pto);
    }

    /// Erases an old key whose time is over; notes that a rekey is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.generations.expire(now);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        earliest(
            self.generations.erase_at().map(|at| (at, "old key")),
            self.generations.rekey_at().map(|at| (at, "rekey")),
        )
    }

    /// The highest number opened on a path.
    pub fn highest_received(&self, path: PathId) -> Option<PacketNumber> {
        self.replay.highest(path)
    }

    /// Gives up expanded keys (about 550 bytes each); the next packet expands them again.
    pub fn release_expanded(&mut self) {
        self.generations.release_expanded();
    }

    #[cfg(test)]
    pub(super) fn set_forgeries(&mut self, forgeries: u64) {
        self.forgeries = forgeries;
    }

    #[cfg(test)]
    pub(super) fn set_sent(&mut self, sent: u64) {
        self.generations.set_sent(sent);
    }

    /// Refuses a number not above all sealed on its path.
    fn claim(&mut self, number: PacketNumber) -> Result<(), SealError> {
        match self.sealed.binary_search_by_key(&number.path(), |last| last.path()) {
            Ok(at) if self.sealed[at] < number => self.sealed[at] = number,
            Ok(_) => return Err(SealError::Misused),
            Err(at) => {
                self.sealed.reserve_exact(1);
                self.sealed.insert(at, number);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// A packet that opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Its number.
    pub number: PacketNumber,
    /// Its frames.
    pub payload: &'a [u8],
    /// Whether `number` is the highest yet seen on its path: only such a packet may start a
    /// migration.
    pub newest: bool,
}

/// Why a packet did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is no data packet of this session.
    #[error("malformed")]
    Malformed,
    /// Its number was seen, or is below the window.
    #[error("replayed or too old")]
    Replayed,
    /// No key of this session made it.
    #[error("not authentic")]
    Unauthentic,
    /// 2^36 packets were not authentic.
    #[error("too many forgeries, close the session")]
    Exhausted,
}

/// Why a packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Its path has no numbers left, or the key sealed 2^32 packets and no rekey came about.
    #[error("packet numbers are used up")]
    Exhausted,
    /// The number is not above all before on its path, or the buffer has no room for the header.
    #[error("packet number used before, or no room for the header")]
    Misused,
}

/// How a REKEY frame broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// It leads to a generation that is not the next, or answers nothing.
    #[error("unexpected rekey")]
    Unexpected,
    /// Its key is of low order.
    #[error("weak key")]
    WeakKey,
}

/// A key for one direction: 32 bytes always, the cipher's own form from first use.
pub(super) struct PacketKey {
    secret: Secret,
    suite: Suite,
    expanded: Option<Box<LessSafeKey>>,
}

impl PacketKey {
    /// The key of a direction of a generation (SPEC section 5.1); `direction` is 0 from the
    /// initiator of the handshake, 1 to it.
    pub(super) fn derive(root: &Secret, suite: Suite, direction: u8) -> Self {
        let secret = kdf::expand(&**root, &[b"p2sp key ", &[suite.to_wire(), direction]]);
        Self { secret, suite, expanded: None }
    }

    pub(super) fn expanded(&mut self) -> &LessSafeKey {
        self.expanded.get_or_insert_with(|| Box::new(expand(self.suite, &self.secret)))
    }

    pub(super) fn release(&mut self) {
        self.expanded = None;
    }

    #[cfg(test)]
    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

fn expand(suite: Suite, secret: &[u8; 32]) -> LessSafeKey {
    let algorithm = match suite {
        Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        Suite::Aes256Gcm => &AES_256_GCM,
    };
    LessSafeKey::new(UnboundKey::new(algorithm, secret).expect("both ciphers take 32-byte keys"))
}

fn nonce(number: PacketNumber) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.0.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

const fn header_len(address: Address) -> usize {
    match address {
        Address::Peer(_) => 1 + 4 + 8,
        Address::Server(_) => 1 + 8 + 8,
    }
}

fn write_header(header: &mut [u8], phase: Phase, address: Address, number: PacketNumber) {
    let (number_bytes, at) = (number.0.to_be_bytes(), header.len() - 8);
    header[0] = kind::DATA_0 + phase.bit();
    match address {
        Address::Peer(id) => header[1..at].copy_from_slice(&id.0.to_be_bytes()),
        Address::Server(token) => header[1..at].copy_from_slice(&token.0.to_be_bytes()),
    }
    header[at..].copy_from_slice(&number_bytes);
}

/// Phase and number of a packet addressed to `local` with room for a tag.
fn read_header(packet: &[u8], local: Address) -> Option<(Phase, PacketNumber)> {
    let mut reader = Reader::new(packet);
    let phase = match reader.u8().ok()? {
        kind::DATA_0 => Phase::Even,
        kind::DATA_1 => Phase::Odd,
        _ => return None,
    };
    let named = match local {
        Address::Peer(_) => Address::Peer(ReceiverId(reader.u32().ok()?)),
        Address::Server(_) => Address::Server(Token(reader.u64().ok()?)),
    };
    let number = PacketNumber(reader.u64().ok()?);
    (named == local && reader.remaining() >= TAG_LEN).then_some((phase, number))
}
