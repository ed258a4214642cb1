//! What a beacon says, inside its seal (SPEC section 15.2).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::codec::{DecodeError, Reader, Writer as _};
use crate::id::{Boot, PeerKey, PeerName};

/// Every beacon says this many bytes, zeros at the end: names and addresses do not show in sizes.
pub const BEACON_CONTENT_LEN: usize = 288;
/// Addresses that a beacon names at most, as many as a set of candidates has.
pub const BEACON_ADDRESSES_MAX: usize = 8;

/// A peer's word to the other peers of its network on its LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// What it asks for.
    pub kind: BeaconKind,
    /// Who is there.
    pub key: PeerKey,
    /// The process.
    pub boot: Boot,
    /// Drawn once by the process; enters the connect id of a meeting.
    pub nonce: [u8; 16],
    /// The sender's clock: time since 1970-01-01 UTC, in milliseconds on the wire.
    pub at: Duration,
    /// Port of its IPv4 socket; 0: none.
    pub port_v4: u16,
    /// Port of its IPv6 socket; 0: none.
    pub port_v6: u16,
    /// The name it registers.
    pub name: PeerName,
    /// Addresses of its interfaces, at most [`BEACON_ADDRESSES_MAX`].
    pub addresses: Vec<IpAddr>,
}

/// What a beacon asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeaconKind {
    /// New here: whoever hears it answers.
    Hello,
    /// Still here, or an answer.
    Here,
    /// Leaves.
    Bye,
}

impl Beacon {
    /// The bytes to seal.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BEACON_CONTENT_LEN);
        out.put_u8(match self.kind {
            BeaconKind::Hello => 0,
            BeaconKind::Here => 1,
            BeaconKind::Bye => 2,
        });
        out.put(self.key.as_bytes());
        out.put_u64(self.boot.0);
        out.put(&self.nonce);
        out.put_u64(self.at.as_millis() as u64);
        out.put_u16(self.port_v4);
        out.put_u16(self.port_v6);
        out.put_string(self.name.as_str().as_bytes());
        let count = self.addresses.len().min(BEACON_ADDRESSES_MAX);
        out.put_u8(count as u8);
        for ip in &self.addresses[..count] {
            put_ip(&mut out, *ip);
        }
        debug_assert!(out.len() <= BEACON_CONTENT_LEN, "names and addresses are bounded");
        out.resize(BEACON_CONTENT_LEN, 0);
        out
    }

    /// Reads what [`Self::encode`] wrote; what follows the addresses is of a later version.
    ///
    /// # Errors
    /// [`DecodeError`] when it is cut short or says what it may not.
    pub fn decode(content: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(content);
        let kind = match reader.u8()? {
            0 => BeaconKind::Hello,
            1 => BeaconKind::Here,
            2 => BeaconKind::Bye,
            _ => return Err(DecodeError::Malformed),
        };
        let key = PeerKey::from_bytes(reader.array()?);
        let boot = Boot(reader.u64()?);
        let nonce = reader.array()?;
        let at = Duration::from_millis(reader.u64()?);
        let (port_v4, port_v6) = (reader.u16()?, reader.u16()?);
        let name = read_name(reader.string(PeerName::LEN_MAX)?)?;
        let count = usize::from(reader.u8()?);
        if count > BEACON_ADDRESSES_MAX {
            return Err(DecodeError::Malformed);
        }
        let addresses = (0..count).map(|_| read_ip(&mut reader)).collect::<Result<_, _>>()?;
        Ok(Self { kind, key, boot, nonce, at, port_v4, port_v6, name, addresses })
    }

    /// The peer's socket at an address of its host; `None` where it has none of that family.
    pub fn socket_at(&self, ip: IpAddr) -> Option<SocketAddr> {
        let port = if ip.is_ipv4() { self.port_v4 } else { self.port_v6 };
        (port != 0).then_some(SocketAddr::new(ip, port))
    }
}

/// A name as a server writes it: one that is not case-mapped is not a name.
fn read_name(bytes: &[u8]) -> Result<PeerName, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed)?;
    let name = PeerName::new(text).map_err(|_| DecodeError::Malformed)?;
    if name.as_str() == text { Ok(name) } else { Err(DecodeError::Malformed) }
}

fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put(&ip.octets());
        }
    }
}

fn read_ip(reader: &mut Reader<'_>) -> Result<IpAddr, DecodeError> {
    match reader.u8()? {
        4 => Ok(IpAddr::from(reader.array::<4>()?)),
        6 => Ok(IpAddr::from(reader.array::<16>()?)),
        _ => Err(DecodeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn longest() -> Beacon {
        Beacon {
            kind: BeaconKind::Hello,
            key: PeerKey::from_bytes([1; 32]),
            boot: Boot(2),
            nonce: [3; 16],
            at: Duration::from_millis(u64::MAX),
            port_v4: 4,
            port_v6: 6,
            name: PeerName::new(&"x".repeat(PeerName::LEN_MAX)).unwrap(),
            addresses: vec![IpAddr::from([7; 16]); BEACON_ADDRESSES_MAX],
        }
    }

    #[test]
    fn the_longest_beacon_fits_and_all_have_one_length() {
        let long = longest();
        let addresses = vec![IpAddr::from([192, 0, 2, 1])];
        let short = Beacon { name: PeerName::new("a").unwrap(), addresses, ..long };
        for beacon in [long, short] {
            assert_eq!(beacon.encode().len(), BEACON_CONTENT_LEN);
            assert_eq!(Beacon::decode(&beacon.encode()), Ok(beacon));
        }
    }

    #[test]
    fn a_socket_has_the_port_of_its_family() {
        let beacon = Beacon { port_v6: 0, ..longest() };
        assert_eq!(beacon.socket_at(IpAddr::from([7; 4])).unwrap().port(), 4);
        assert_eq!(beacon.socket_at(IpAddr::from([7; 16])), None);
    }

    #[test]
    fn a_name_that_is_not_case_mapped_is_refused() {
        let mut content = Beacon { name: PeerName::new("alice").unwrap(), ..longest() }.encode();
        let at = content.windows(5).position(|window| window == b"alice").unwrap();
        content[at] = b'A';
        assert_eq!(Beacon::decode(&content), Err(DecodeError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(beacon) = Beacon::decode(&bytes) {
                prop_assert_eq!(Beacon::decode(&beacon.encode()), Ok(beacon));
            }
        }
    }
}
