//! Where a server answers STUN, for clients that find out about their NAT (RFC 5780).

use std::net::{IpAddr, SocketAddr};

/// The addresses a server answers at, as its sockets have them and as the world knows them.
/// The default knows no other place than the one asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Main addresses, each with the one on the second port; an unspecified IP means every one.
    pub ports: Vec<(SocketAddr, SocketAddr)>,
    /// A second IP with the same ports.
    pub second_ip: Option<SecondIp>,
    /// How the world knows every other IP of this family, where a 1:1 NAT translates.
    pub external_ip: Option<IpAddr>,
}

/// A second IP of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondIp {
    /// The host's own.
    pub local: IpAddr,
    /// As the world knows it: another one where a 1:1 NAT translates.
    pub public: IpAddr,
}

impl Places {
    /// The other port beside the one of `local`.
    pub fn other_port(&self, local: SocketAddr) -> Option<u16> {
        let is_at = |bound: &SocketAddr| bound.ip().is_unspecified() || bound.ip() == local.ip();
        self.ports.iter().filter(|(main, _)| is_at(main)).find_map(|(main, second)| {
            if local.port() == main.port() {
                Some(second.port())
            } else {
                (local.port() == second.port()).then_some(main.port())
            }
        })
    }

    /// The other IP beside that of `local`. Asked at the second one, the first is known only
    /// where the sockets are bound to it.
    pub fn other_ip(&self, local: SocketAddr) -> Option<IpAddr> {
        let second = self.second_ip?.local;
        if second.is_ipv4() != local.is_ipv4() {
            return None;
        }
        if second != local.ip() {
            return Some(second);
        }
        let bound = self.ports.iter().map(|(main, _)| main.ip());
        let mut first = bound.filter(|ip| !ip.is_unspecified() && ip.is_ipv4() == second.is_ipv4());
        first.find(|ip| *ip != second)
    }

    /// OTHER-ADDRESS (RFC 5780 section 7.4): both the IP and the port are others. Only where
    /// there are two IPs: clients take it for a promise of full service.
    pub fn other_address(&self, local: SocketAddr) -> Option<SocketAddr> {
        let other = SocketAddr::new(self.other_ip(local)?, self.other_port(local)?);
        Some(self.public(other))
    }

    /// An address of the server as the world knows it.
    pub fn public(&self, local: SocketAddr) -> SocketAddr {
        let second = self.second_ip.filter(|second| second.local == local.ip());
        let external = self.external_ip.filter(|ip| ip.is_ipv4() == local.is_ipv4());
        let ip = second.map(|second| second.public).or(external).unwrap_or(local.ip());
        SocketAddr::new(ip, local.port())
    }
}
