//! One type per meaning: keys, names, tokens and numbers that travel on the wire.
//!
//! Everything here is checked once, when it is made; after that nothing re-checks it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use precis_core::profile::PrecisFastInvocation as _;
use precis_profiles::UsernameCaseMapped;
use serde::{Deserialize, Serialize};

/// An X25519 static public key (RFC 7748): what a peer, or a server, *is*.
///
/// Text form: 52 characters of unpadded, lower-case base32 (RFC 4648 section 6).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerKey([u8; 32]);

impl PeerKey {
    /// Wraps 32 public key bytes as they travel on the wire.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes as they travel on the wire.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first ten characters of the text form, for people to compare.
    pub fn fingerprint(&self) -> String {
        self.to_string()[..10].to_owned()
    }

    /// Four numbers with the order of the bytes.
    fn words(&self) -> [u64; 4] {
        let (words, _) = self.0.as_chunks();
        std::array::from_fn(|at| u64::from_be_bytes(words[at]))
    }
}

/// The order of the bytes. Keys lead to the parts of a node several times a message: whole words
/// are compared without a call.
impl Ord for PeerKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.words().cmp(&other.words())
    }
}

impl PartialOrd for PeerKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// The text is not a public key: 52 characters of base32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key is 52 letters and digits (base32)")]
pub struct InvalidKey;

impl FromStr for PeerKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes =
            BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| InvalidKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidKey)
    }
}

impl Serialize for PeerKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A peer's name inside its network: 1 to 64 bytes of letters, digits, `-`, `_` and `.` in any
/// script, case-mapped by PRECIS `UsernameCaseMapped` (RFC 8265 section 3.3), and never
/// something that reads as an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// Longest name in bytes of UTF-8, so that a name always fits a line and a datagram.
    pub const LEN_MAX: usize = 64;

    /// Checks and case-maps `text`.
    ///
    /// # Errors
    /// One variant of [`InvalidName`] per rule that the text breaks.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        // Case mapping may change the length a little; nothing maps 256 bytes to 64.
        if text.len() > 4 * Self::LEN_MAX {
            return Err(InvalidName::TooLong);
        }
        if text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
            return Err(InvalidName::Address);
        }
        let name = case_mapped(text).ok_or(InvalidName::Characters)?;
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.chars().all(allowed) {
            return Err(InvalidName::Characters);
        }
        if name.len() > Self::LEN_MAX {
            return Err(InvalidName::TooLong);
        }
        if name.parse::<IpAddr>().is_ok() {
            return Err(InvalidName::Address);
        }
        Ok(Self(name.into()))
    }

    /// The name as it is shown and compared.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Times that the profile is applied again before a text is refused (RFC 8264 section 7).
const REAPPLIED_MAX: u8 = 3;

/// Applies the profile until its result stands, or others could not read the name: the lower case
/// of some letters is younger than the profile's tables, which do not allow it.
fn case_mapped(text: &str) -> Option<String> {
    let enforce = |text: &str| UsernameCaseMapped::enforce(text).ok().map(Cow::into_owned);
    let mut name = enforce(text)?;
    for _ in 0..REAPPLIED_MAX {
        let again = enforce(&name)?;
        if again == name {
            return Some(name);
        }
        name = again;
    }
    None
}

/// Why a text cannot be a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It reads as an IP address, with or without a port.
    #[error("a name must not look like an address")]
    Address,
    /// A character outside letters, digits, `-`, `_` and `.`.
    #[error("a name consists of letters, digits, '-', '_' and '.'")]
    Characters,
    /// Nothing is left.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`PeerName::LEN_MAX`] bytes.
    #[error("a name has at most 64 bytes")]
    TooLong,
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for PeerName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl TryFrom<String> for PeerName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(&text)
    }
}

impl From<PeerName> for String {
    fn from(name: PeerName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// A session token: the 64 bits a server chooses for a session. The low [`Token::SLOT_BITS`]
/// bits are a slot in the server's table, the rest is random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// Bits that name the slot; the 40 bits above are random.
    pub const SLOT_BITS: u32 = 24;

    /// Joins a slot and 40 random bits (the upper 24 of `random` are ignored).
    pub const fn new(slot: u32, random: u64) -> Self {
        Self((random << Self::SLOT_BITS) | (slot as u64 & ((1 << Self::SLOT_BITS) - 1)))
    }

    /// The slot in the server's table.
    pub const fn slot(self) -> usize {
        (self.0 & ((1 << Self::SLOT_BITS) - 1)) as usize
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows a token can make the server look at a packet: only the slot is shown.
        write!(f, "Token(slot {})", self.slot())
    }
}

/// The 32 bits by which a peer recognises packets of one of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiverId(pub u32);

/// What the sender of a data packet writes so that its receiver finds the session: a server
/// chose a [`Token`], a peer a [`ReceiverId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A session at a peer: 4 bytes in the packet header.
    Peer(ReceiverId),
    /// A session at a server: 8 bytes in the packet header.
    Server(Token),
}

/// A path of a session. `0` leads through the server; the rest are direct and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u8);

impl PathId {
    /// The path to the server or, between peers, the relayed path.
    pub const SERVER: Self = Self(0);
}

/// A packet number: the top byte is the path, the lower 56 bits count packets on that path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketNumber(pub u64);

impl PacketNumber {
    /// Largest count on one path.
    pub const COUNT_MAX: u64 = (1 << 56) - 1;

    /// Joins a path and a count; bits of `count` above 56 are cut.
    pub const fn new(path: PathId, count: u64) -> Self {
        Self(((path.0 as u64) << 56) | (count & Self::COUNT_MAX))
    }

    /// The path whose number space this belongs to.
    pub const fn path(self) -> PathId {
        PathId((self.0 >> 56) as u8)
    }

    /// The position on its path, from 0.
    pub const fn count(self) -> u64 {
        self.0 & Self::COUNT_MAX
    }
}

/// A channel of a conversation: an independent ordered queue of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u8);

/// Position of a message in its channel, from 0, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence(pub u64);

/// A byte stream between two peers; the lowest bit says which side opened it (SPEC section 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Names one lineage of a sender's sequence numbers: random, made once for as long as the
/// sender remembers where its channels stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// Random per process start; early data must name the current one of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boot(pub u64);

/// Names one introduction of two peers; salt of the check keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectId(pub [u8; 16]);

/// Chosen by the server for one side of an introduction: the USERNAME of the checks sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckTag(pub [u8; 8]);

/// The number by which a peer and the server name a relayed counterpart in relay frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelayChannel(pub u16);

/// The network a peer belongs to: 16 bytes that the server derives from the network's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub [u8; 16]);

/// What the members of one network share, given to each by the server: seals their beacons on a
/// LAN (SPEC section 15). Text form: 64 lower-case hex digits. Wiped on drop.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct LanSecret(pub [u8; 32]);

impl fmt::Debug for LanSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LanSecret")
    }
}

macro_rules! hex_serde {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                let bytes = data_encoding::HEXLOWER
                    .decode(text.as_bytes())
                    .map_err(serde::de::Error::custom)?;
                bytes
                    .try_into()
                    .map(Self)
                    .map_err(|_| serde::de::Error::custom("wrong length"))
            }
        }
    )*};
}

hex_serde!(ConnectId, CheckTag, NetworkId, LanSecret);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_case_mapped_and_checked() {
        assert_eq!(PeerName::new("Alice").map(|n| n.to_string()).as_deref(), Ok("alice"));
        assert_eq!(PeerName::new("小明").map(|n| n.to_string()).as_deref(), Ok("小明"));
        for (text, error) in [
            ("", InvalidName::Empty),
            ("a b", InvalidName::Characters),
            ("a\u{7}", InvalidName::Characters),
            ("a/b", InvalidName::Characters),
            ("10.0.0.1", InvalidName::Address),
            ("10.0.0.1:5000", InvalidName::Address),
            ("::1", InvalidName::Address),
            ("[::1]:3478", InvalidName::Address),
        ] {
            assert_eq!(PeerName::new(text), Err(error), "{text:?}");
        }
        assert!(PeerName::new(&"x".repeat(64)).is_ok());
        assert_eq!(PeerName::new(&"x".repeat(65)), Err(InvalidName::TooLong));
        assert_eq!(PeerName::new(&"明".repeat(22)), Err(InvalidName::TooLong));
    }

    #[test]
    fn a_name_is_the_name_of_itself() {
        assert_eq!(PeerName::new("\u{13f0}"), Err(InvalidName::Characters), "its lower case");
        for letter in '\0'..=char::MAX {
            if let Ok(name) = PeerName::new(&letter.to_string()) {
                assert_eq!(PeerName::new(name.as_str()), Ok(name));
            }
        }
    }

    #[test]
    fn keys_round_trip_as_text() {
        let key = PeerKey::from_bytes([0xA5; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("short".parse::<PeerKey>(), Err(InvalidKey));
    }

    #[test]
    fn a_token_is_slot_and_chance() {
        let token = Token::new(77, u64::MAX);
        assert_eq!(token.slot(), 77);
        assert_eq!(token.0 >> Token::SLOT_BITS, (1 << 40) - 1);
    }

    #[test]
    fn a_packet_number_is_path_and_count() {
        let number = PacketNumber::new(PathId(3), 9);
        assert_eq!((number.path(), number.count()), (PathId(3), 9));
    }
}
