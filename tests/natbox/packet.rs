//! The little that a router has to know about an IP packet.

use crate::Failure;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

const UDP: u8 = 17;

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
    }
}
