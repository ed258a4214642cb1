//! The Port Control Protocol (RFC 6887): MAP for one UDP port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::exchange::Read;

const VERSION: u8 = 2;
const MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
const UDP: u8 = 17;
/// Header and MAP data, of questions and answers alike.
const LEN: usize = 60;
/// Result code UNSUPP_VERSION (RFC 6887 section 7.4).
const UNSUPPORTED_VERSION: u8 = 1;

/// Ties answers to questions, and lets nobody else change a mapping (section 11.2).
pub(super) type Nonce = [u8; 12];

/// A question for a mapping, or, with a lifetime of zero, for its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) nonce: Nonce,
    /// The address of this host, from which the question is sent.
    pub(super) local: IpAddr,
    /// The port of the socket.
    pub(super) port: u16,
    /// What the external address shall be, where the router has the choice.
    pub(super) suggested: SocketAddr,
    pub(super) lifetime: Duration,
}

impl Question {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, MAP, 0, 0];
        bytes.extend(seconds(self.lifetime).to_be_bytes());
        bytes.extend(wide(self.local).octets());
        bytes.extend(self.nonce);
        bytes.extend([UDP, 0, 0, 0]);
        bytes.extend(self.port.to_be_bytes());
        bytes.extend(self.suggested.port().to_be_bytes());
        bytes.extend(wide(self.suggested.ip()).octets());
        bytes
    }

    /// Reads what may be the answer: the external address and how long it lasts.
    pub(super) fn read(&self, answer: &[u8]) -> Read<(SocketAddr, Duration)> {
        match answer {
            // A server of NAT-PMP alone (RFC 6887 appendix A).
            [0, ..] => return Read::OtherVersion,
            [_, kind, _, UNSUPPORTED_VERSION, ..] if *kind == RESPONSE | MAP => {
                return Read::OtherVersion;
            }
            [VERSION, kind, ..] if *kind == RESPONSE | MAP && answer.len() >= LEN => {}
            _ => return Read::Foreign,
        }
        let port = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
        let ours = answer[24..36] == self.nonce && answer[36] == UDP && port(40) == self.port;
        if !ours {
            return Read::Foreign;
        }
        if answer[3] != 0 {
            return Read::Refusal(answer[3].into());
        }
        let mut lifetime = [0; 4];
        lifetime.copy_from_slice(&answer[4..8]);
        let mut external = [0; 16];
        external.copy_from_slice(&answer[44..60]);
        let external = Ipv6Addr::from(external).to_canonical();
        let lifetime = Duration::from_secs(u32::from_be_bytes(lifetime).into());
        Read::Answer((SocketAddr::new(external, port(42)), lifetime))
    }
}

/// "Any address" in the family of `local` (section 11.1).
pub(super) const fn any(local: IpAddr) -> IpAddr {
    match local {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

pub(super) fn seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            nonce: [7; 12],
            local: "10.0.0.2".parse().unwrap(),
            port: 4000,
            suggested: "0.0.0.0:4000".parse().unwrap(),
            lifetime: Duration::from_secs(7200),
        }
    }

    fn answer(result: u8) -> Vec<u8> {
        let mut bytes = vec![2, 0x81, 0, result, 0, 0, 0, 120];
        bytes.extend([0; 16]);
        bytes.extend([7; 12]);
        bytes.extend([17, 0, 0, 0, 0x0f, 0xa0, 0x13, 0x88]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 100, 64, 0, 9]);
        bytes
    }

    #[test]
    fn a_question_is_as_the_rfc_has_it() {
        let bytes = question().encode();
        assert_eq!(bytes.len(), LEN);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x1c, 0x20]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2]);
        assert_eq!(bytes[24..36], [7; 12]);
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 0x0f, 0xa0, 0x0f, 0xa0]);
        assert_eq!(bytes[44..60], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn answers_are_told_from_refusals_and_from_others() {
        let expected = ("100.64.0.9:5000".parse().unwrap(), Duration::from_secs(120));
        assert!(matches!(question().read(&answer(0)), Read::Answer(found) if found == expected));
        assert!(matches!(question().read(&answer(8)), Read::Refusal(8)));
        assert!(matches!(question().read(&answer(1)), Read::OtherVersion));
        assert!(matches!(question().read(&[0, 0x81, 0, 1, 0, 0, 0, 1]), Read::OtherVersion));
        for wrong in [0, 1, 24, 36, 41] {
            let mut foreign = answer(0);
            foreign[wrong] ^= 0x40;
            assert!(matches!(question().read(&foreign), Read::Foreign), "byte {wrong}");
        }
        for length in 1..LEN {
            let read = question().read(&answer(0)[..length]);
            assert!(matches!(read, Read::Foreign), "{length} bytes");
        }
        assert!(matches!(question().read(&[]), Read::Foreign));
    }
}
