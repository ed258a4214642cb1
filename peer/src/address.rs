//! How people write the address of a rendezvous server.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use p2sp_proto::id::PeerKey;

/// Where the rendezvous server is: `[KEY@]HOST[:PORT]`.
///
/// The host is a DNS name, an IPv4 address or an IPv6 address; the latter needs brackets when a
/// port follows. With a key the server must prove that it holds it; without one, the first
/// contact decides which key is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    key: Option<PeerKey>,
    host: String,
    port: u16,
}

impl Rendezvous {
    /// The registered STUN port (RFC 8489 section 18.6), taken where none is written.
    pub const DEFAULT_PORT: u16 = 3478;

    /// The key the server must hold, if one was written.
    pub fn key(&self) -> Option<PeerKey> {
        self.key
    }

    /// The host without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Rendezvous {
    type Err = InvalidRendezvous;

    fn from_str(text: &str) -> Result<Self, InvalidRendezvous> {
        let (key, place) = match text.split_once('@') {
            Some((key, place)) => (Some(key.parse().map_err(|_| InvalidRendezvous::Key)?), place),
            None => (None, text),
        };
        let (host, port) = split_port(place)?;
        let port = port.map_or(Ok(Self::DEFAULT_PORT), parse_port)?;
        Ok(Self { key, host: host.to_ascii_lowercase(), port })
    }
}

/// Why a text is not the address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRendezvous {
    /// What stands before `@` is no key.
    #[error("before '@' belongs the server's key, 52 letters and digits")]
    Key,
    /// No usable host.
    #[error("the server is written HOST, HOST:PORT or [IPV6]:PORT")]
    Host,
    /// No usable port.
    #[error("a port is a number from 1 to 65535")]
    Port,
}

fn split_port(place: &str) -> Result<(&str, Option<&str>), InvalidRendezvous> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(InvalidRendezvous::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| InvalidRendezvous::Host)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(InvalidRendezvous::Host),
        };
    }
    if place.parse::<Ipv6Addr>().is_ok() {
        return Ok((place, None));
    }
    let (host, port) = match place.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    };
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || !host.chars().all(allowed) {
        return Err(InvalidRendezvous::Host);
    }
    Ok((host, port))
}

fn parse_port(text: &str) -> Result<u16, InvalidRendezvous> {
    // `parse` alone would take "+1".
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidRendezvous::Port);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(InvalidRendezvous::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let key = PeerKey::from_bytes([7; 32]);
        for (text, host, port, shown) in [
            ("example.org", "example.org", 3478, "example.org:3478"),
            ("Example.ORG:99", "example.org", 99, "example.org:99"),
            ("192.0.2.1", "192.0.2.1", 3478, "192.0.2.1:3478"),
            ("192.0.2.1:1", "192.0.2.1", 1, "192.0.2.1:1"),
            ("2001:db8::1", "2001:db8::1", 3478, "[2001:db8::1]:3478"),
            ("[2001:db8::1]", "2001:db8::1", 3478, "[2001:db8::1]:3478"),
            ("[::1]:65535", "::1", 65535, "[::1]:65535"),
            ("localhost", "localhost", 3478, "localhost:3478"),
        ] {
            let plain: Rendezvous = text.parse().unwrap();
            assert_eq!((plain.host(), plain.port(), plain.key()), (host, port, None), "{text}");
            assert_eq!(plain.to_string(), shown);
            assert_eq!(shown.parse(), Ok(plain), "what is shown reads back");
            let pinned: Rendezvous = format!("{key}@{text}").parse().unwrap();
            assert_eq!((pinned.host(), pinned.key()), (host, Some(key)));
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        use InvalidRendezvous::{Host, Key, Port};
        for (text, error) in [
            ("", Host),
            (":3478", Host),
            ("a b", Host),
            ("[::1", Host),
            ("[::1]x", Host),
            ("[localhost]:1", Host),
            ("http://example.org", Port),
            ("example.org:", Port),
            ("example.org:0", Port),
            ("example.org:65536", Port),
            ("example.org:+5", Port),
            ("example.org:stun", Port),
            ("key@example.org", Key),
            ("@example.org", Key),
        ] {
            assert_eq!(text.parse::<Rendezvous>(), Err(error), "{text:?}");
        }
    }
}
