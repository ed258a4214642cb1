//! The little that a router has to know about an IP packet.

use crate::Failure;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::str::FromStr;

const UDP: u8 = 17;
/// Where the fields of an IPv4 header are (RFC 791 section 3.1).
const FOUR_TTL_AND_PROTOCOL: Range<usize> = 8..10;
const FOUR_CHECKSUM: Range<usize> = 10..12;
const FOUR_SOURCE: usize = 12;
const FOUR_DESTINATION: usize = 16;
/// The hop limit of an IPv6 header (RFC 8200 section 3).
const SIX_HOP_LIMIT: usize = 7;
/// More fragments, and the fragment's offset: neither is set in a whole datagram.
const FRAGMENT: u16 = 0x3FFF;

/// Destination of an IP packet, `None` for anything that is not IPv4 or IPv6.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Addr::from(field::<4>(packet, 16)?).into()),
        6 => Some(Ipv6Addr::from(field::<16>(packet, 24)?).into()),
        _ => None,
    }
}

/// Whether the packet is a UDP datagram; extension headers are not followed.
pub(crate) fn is_udp(packet: &[u8]) -> bool {
    let protocol = match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(9),
        Some(6) => packet.get(6),
        Some(_) | None => None,
    };
    protocol == Some(&UDP)
}

/// Passes `hops` routers: lowers the time to live, or the hop limit. Tells whether the packet survives.
pub(crate) fn travel(packet: &mut [u8], hops: u8) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let Some(before) = field::<2>(packet, FOUR_TTL_AND_PROTOCOL.start) else {
                return false;
            };
            let [ttl, protocol] = before;
            let after = [ttl.saturating_sub(hops), protocol];
            replace(packet, FOUR_TTL_AND_PROTOCOL, after);
            adjust(packet, FOUR_CHECKSUM, &before, &after);
            after[0] > 0
        }
        Some(6) => {
            let Some(limit) = packet.get_mut(SIX_HOP_LIMIT) else { return false };
            *limit = limit.saturating_sub(hops);
            *limit > 0
        }
        Some(_) | None => false,
    }
}

/// The two ends of a whole UDP datagram over IPv4, which is all that a NAT box translates.
pub(crate) struct Datagram<'a> {
    packet: &'a mut [u8],
    /// Where the UDP header begins.
    udp: usize,
}

impl<'a> Datagram<'a> {
    /// `None` for any other packet, and for a fragment.
    pub(crate) fn in_packet(packet: &'a mut [u8]) -> Option<Self> {
        let first = *packet.first()?;
        let fragment = u16::from_be_bytes(field(packet, 6)?) & FRAGMENT;
        let udp = usize::from(first & 0x0F) * 4;
        let whole = first >> 4 == 4 && is_udp(packet) && fragment == 0;
        (whole && udp >= 20 && packet.len() >= udp + 8).then_some(Self { packet, udp })
    }

    pub(crate) fn source(&self) -> Option<SocketAddr> {
        self.end(FOUR_SOURCE, self.udp)
    }

    pub(crate) fn destination(&self) -> Option<SocketAddr> {
        self.end(FOUR_DESTINATION, self.udp + 2)
    }

    pub(crate) fn set_source(&mut self, source: SocketAddrV4) {
        self.set_end(FOUR_SOURCE, self.udp, source);
    }

    pub(crate) fn set_destination(&mut self, destination: SocketAddrV4) {
        self.set_end(FOUR_DESTINATION, self.udp + 2, destination);
    }

    fn end(&self, address: usize, port: usize) -> Option<SocketAddr> {
        let address = Ipv4Addr::from(field::<4>(self.packet, address)?);
        let port = u16::from_be_bytes(field(self.packet, port)?);
        Some((address, port).into())
    }

    fn set_end(&mut self, address_at: usize, port_at: usize, end: SocketAddrV4) {
        let (address, port) = (end.ip().octets(), end.port().to_be_bytes());
        let udp_checksum = self.udp + 6..self.udp + 8;
        let old_address = field::<4>(self.packet, address_at).unwrap_or_default();
        let old_port = field::<2>(self.packet, port_at).unwrap_or_default();
        replace(self.packet, address_at..address_at + 4, address);
        replace(self.packet, port_at..port_at + 2, port);
        adjust(self.packet, FOUR_CHECKSUM, &old_address, &address);
        // Zero says that the sender made none (RFC 768).
        if field(self.packet, udp_checksum.start) != Some([0, 0]) {
            adjust(self.packet, udp_checksum.clone(), &old_address, &address);
            adjust(self.packet, udp_checksum, &old_port, &port);
        }
    }
}

fn replace<const N: usize>(packet: &mut [u8], at: Range<usize>, bytes: [u8; N]) {
    if let Some(slot) = packet.get_mut(at) {
        slot.copy_from_slice(&bytes);
    }
}

/// Brings the checksum in `at` up to date with a change of some of the bytes that it covers (RFC 1624).
fn adjust(packet: &mut [u8], at: Range<usize>, old: &[u8], new: &[u8]) {
    let Some(checksum) = field::<2>(packet, at.start).map(u16::from_be_bytes) else { return };
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair[1]);
    let removed = old.chunks_exact(2).map(|pair| word(pair) ^ 0xFFFF);
    let added = new.chunks_exact(2).map(word);
    let mut sum = u32::from(!checksum) + removed.sum::<u32>() + added.sum::<u32>();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    replace(packet, at, (!(sum as u16)).to_be_bytes());
}

fn field<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.try_into().ok()
}

/// The addresses behind a link: ADDRESS/LENGTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    address: IpAddr,
    length: u32,
}

impl Prefix {
    pub(crate) fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let differing = mine.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= self.length
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let differing = mine.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= self.length
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Prefix {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let (address, length) =
            text.split_once('/').ok_or_else(|| format!("{text} is no ADDRESS/LENGTH"))?;
        let address: IpAddr = address.parse()?;
        let length: u32 = length.parse()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if length > longest {
            return Err(format!("{text} is longer than {longest} bits").into());
        }
        Ok(Self { address, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_addresses_and_no_others() {
        let prefix: Prefix = "192.0.2.8/29".parse().unwrap();
        assert!(prefix.contains("192.0.2.15".parse().unwrap()));
        assert!(!prefix.contains("192.0.2.16".parse().unwrap()));
        assert!(!prefix.contains("2001:db8::1".parse().unwrap()));
        let everything: Prefix = "::/0".parse().unwrap();
        assert!(everything.contains("2001:db8::1".parse().unwrap()));
        assert!("192.0.2.8/33".parse::<Prefix>().is_err());
    }

    #[test]
    fn destination_and_protocol_are_read_from_both_families() {
        let mut four = [0_u8; 28];
        four[0] = 0x45;
        four[9] = UDP;
        four[16..20].copy_from_slice(&[198, 51, 100, 1]);
        assert_eq!(destination(&four), Some("198.51.100.1".parse().unwrap()));
        assert!(is_udp(&four));

        let mut six = [0_u8; 48];
        six[0] = 0x60;
        six[6] = 58;
        six[39] = 1;
        assert_eq!(destination(&six), Some("::1".parse().unwrap()));
        assert!(!is_udp(&six));
    }

    #[test]
    fn a_cut_packet_has_no_destination() {
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0x45; 19]), None);
        assert_eq!(destination(&[0x60; 39]), None);
        assert!(!is_udp(&[0x45]));
        assert!(!travel(&mut [0x45; 9], 1) && !travel(&mut [0x60; 7], 1));
        assert!(Datagram::in_packet(&mut [0x45; 27]).is_none());
    }

    /// From 10.1.0.130:7 to 198.51.100.1:9, with checksums as RFC 791 and RFC 768 define them.
    fn datagram(ttl: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 30, 0, 0, 0, 0, ttl, UDP, 0, 0];
        packet.extend([10, 1, 0, 130, 198, 51, 100, 1]);
        packet.extend([0, 7, 0, 9, 0, 10, 0, 0, b'h', b'i']);
        let header = !sum(&packet[..20]);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        let udp = !sum(&covered_by_udp(&packet));
        packet[26..28].copy_from_slice(&udp.to_be_bytes());
        packet
    }

    /// The pseudo header and the datagram.
    fn covered_by_udp(packet: &[u8]) -> Vec<u8> {
        let mut covered = packet[12..20].to_vec();
        covered.extend([0, UDP, packet[24], packet[25]]);
        covered.extend(&packet[20..]);
        covered
    }

    /// The sum in one's complement (RFC 1071).
    fn sum(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let total: u32 = words.sum();
        ((total & 0xFFFF) + (total >> 16)) as u16
    }

    fn assert_sound(packet: &[u8]) {
        assert_eq!(sum(&packet[..20]), 0xFFFF, "the header's checksum");
        assert_eq!(sum(&covered_by_udp(packet)), 0xFFFF, "the datagram's checksum");
    }

    #[test]
    fn hops_are_counted_and_the_checksum_follows() {
        let mut packet = datagram(64);
        assert_sound(&packet);
        assert!(travel(&mut packet, 10));
        assert_eq!(packet[8], 54);
        assert_sound(&packet);
        assert!(travel(&mut datagram(11), 10));
        assert!(!travel(&mut datagram(10), 10));
        assert!(!travel(&mut datagram(5), 10));

        let mut six = vec![0_u8; 48];
        six[0] = 0x60;
        six[7] = 11;
        assert!(travel(&mut six, 10));
        assert_eq!(six[7], 1);
        assert!(!travel(&mut six, 10));
    }

    #[test]
    fn a_datagram_with_another_address_is_sound() {
        let mut packet = datagram(64);
        let mut inside = Datagram::in_packet(&mut packet).unwrap();
        inside.set_source("192.0.2.1:40960".parse().unwrap());
        inside.set_destination("203.0.113.1:65535".parse().unwrap());
        assert_eq!(inside.source(), Some("192.0.2.1:40960".parse().unwrap()));
        assert_eq!(inside.destination(), Some("203.0.113.1:65535".parse().unwrap()));
        assert_sound(&packet);
    }

    #[test]
    fn a_fragment_is_no_datagram() {
        let mut packet = datagram(64);
        packet[6] = 0x20;
        assert!(Datagram::in_packet(&mut packet).is_none());
    }
}
