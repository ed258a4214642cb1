//! A port that a router forwards for a while, and the protocols to get, keep and return it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{
    AddAnyPortError, AddPortError, GetExternalIpError, PortMappingProtocol, RemovePortError,
    SearchError, SearchOptions,
};

use super::exchange::ask;
use super::{natpmp, pcp};

/// What routers are asked for; they may give less.
const LIFETIME: Duration = Duration::from_secs(7200);
/// How UPnP routers list the mapping.
const DESCRIPTION: &str = "p2sp";
/// How long UPnP routers are searched for: they wait up to 3 s before they answer.
const SEARCH_MAX: Duration = Duration::from_secs(4);

/// From a socket through this host to a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The socket.
    pub(super) bound: SocketAddr,
    /// The address of this host that the router knows.
    pub(super) local: IpAddr,
    /// The router; its port means nothing.
    pub(super) gateway: SocketAddr,
}

/// Why a port is not mapped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("there is no router to ask")]
    NoRouter,
    #[error("the socket is bound to {0}, from where no router is reached")]
    OtherAddress(IpAddr),
    #[error("the router cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    #[error("cannot draw random numbers: {0}")]
    Chance(#[source] io::Error),
    #[error("the router keeps silent")]
    Silence,
    #[error("the router speaks another version of the protocol")]
    OtherVersion,
    #[error("the router refuses with code {0}")]
    Refused(u16),
    #[error("the router's answer makes no sense: the external address {0}")]
    Nonsense(SocketAddr),
    #[error("UPnP: {0}")]
    Search(#[from] SearchError),
    #[error("UPnP: {0}")]
    ExternalIp(#[from] GetExternalIpError),
    #[error("UPnP: {0}")]
    Add(#[from] AddPortError),
    #[error("UPnP: {0}")]
    AddAny(#[from] AddAnyPortError),
    #[error("UPnP: {0}")]
    Remove(#[from] RemovePortError),
}

/// A port that a router forwards.
pub(super) struct Lease {
    pub(super) way: Way,
    pub(super) external: SocketAddr,
    protocol: Protocol,
}

enum Protocol {
    Pcp(pcp::Nonce),
    NatPmp,
    Upnp(Gateway<Tokio>),
}

impl Lease {
    /// PCP, and NAT-PMP where the router knows only that.
    pub(super) async fn by_port_control(
        way: Way,
        nonce: pcp::Nonce,
    ) -> Result<(Self, Duration), Failure> {
        let suggested = SocketAddr::new(pcp::any(way.local), way.bound.port());
        match map_by_pcp(&way, nonce, suggested, LIFETIME).await {
            // Old routers answer nothing to what they do not know.
            Err(Failure::OtherVersion | Failure::Silence) if way.local.is_ipv4() => {
                let (external, lifetime) = map_by_natpmp(&way, way.bound.port(), LIFETIME).await?;
                Self::checked(way, external, Protocol::NatPmp, lifetime).await
            }
            asked => {
                let (external, lifetime) = asked?;
                Self::checked(way, external, Protocol::Pcp(nonce), lifetime).await
            }
        }
    }

    /// UPnP: the first gateway device that answers a multicast.
    pub(super) async fn by_upnp(way: Way) -> Result<(Self, Duration), Failure> {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new(way.local, 0);
        options.timeout = Some(SEARCH_MAX);
        options.single_search_timeout = Some(SEARCH_MAX);
        let router = search_gateway(options).await?;
        let ip = router.get_external_ip().await?;
        let port = add_by_upnp(&router, &way, way.bound.port()).await?;
        let external = SocketAddr::new(ip, port);
        Self::checked(way, external, Protocol::Upnp(router), LIFETIME).await
    }

    /// Routers lie: an address that no other host could send to is no lease.
    async fn checked(
        way: Way,
        external: SocketAddr,
        protocol: Protocol,
        lifetime: Duration,
    ) -> Result<(Self, Duration), Failure> {
        let sane = is_sane(external, way.local) && !lifetime.is_zero();
        let lease = Self { way, external, protocol };
        if sane {
            return Ok((lease, lifetime));
        }
        // What the router may have opened all the same is of no use.
        drop(lease.release().await);
        Err(Failure::Nonsense(external))
    }

    /// Asks for the same again; the router may give another address. Answers how long it lasts.
    pub(super) async fn renew(&mut self) -> Result<Duration, Failure> {
        let (external, lifetime) = match &self.protocol {
            Protocol::Pcp(nonce) => map_by_pcp(&self.way, *nonce, self.external, LIFETIME).await?,
            Protocol::NatPmp => map_by_natpmp(&self.way, self.external.port(), LIFETIME).await?,
            Protocol::Upnp(router) => {
                let ip = router.get_external_ip().await?;
                let port = add_by_upnp(router, &self.way, self.external.port()).await?;
                (SocketAddr::new(ip, port), LIFETIME)
            }
        };
        if !is_sane(external, self.way.local) || lifetime.is_zero() {
            return Err(Failure::Nonsense(external));
        }
        self.external = external;
        Ok(lifetime)
    }

    /// Whether it goes on beside the `other` one, which takes its place. PCP and NAT-PMP know one
    /// mapping of a socket: to give that back would end the new one.
    pub(super) fn outlives(&self, other: &Self) -> bool {
        let elsewhere = self.external.port() != other.external.port();
        matches!(self.protocol, Protocol::Upnp(_)) && elsewhere || self.way != other.way
    }

    /// Gives the port back.
    pub(super) async fn release(self) -> Result<(), Failure> {
        let none = Duration::ZERO;
        match self.protocol {
            Protocol::Pcp(nonce) => {
                let nowhere = SocketAddr::new(pcp::any(self.way.local), 0);
                map_by_pcp(&self.way, nonce, nowhere, none).await.map(|_| ())
            }
            Protocol::NatPmp => end_by_natpmp(&self.way).await,
            Protocol::Upnp(router) => {
                Ok(router.remove_port(PortMappingProtocol::UDP, self.external.port()).await?)
            }
        }
    }
}

async fn map_by_pcp(
    way: &Way,
    nonce: pcp::Nonce,
    suggested: SocketAddr,
    lifetime: Duration,
) -> Result<(SocketAddr, Duration), Failure> {
    let port = way.bound.port();
    let question = pcp::Question { nonce, local: way.local, port, suggested, lifetime };
    ask(way.local, way.gateway, &question.encode(), |answer| question.read(answer)).await
}

async fn map_by_natpmp(
    way: &Way,
    suggested: u16,
    lifetime: Duration,
) -> Result<(SocketAddr, Duration), Failure> {
    let address = &natpmp::ADDRESS_QUESTION;
    let ip = ask(way.local, way.gateway, address, natpmp::read_address).await?;
    let internal = way.bound.port();
    let question = natpmp::map_question(internal, suggested, lifetime);
    let read = |answer: &[u8]| natpmp::read_map(answer, internal);
    let (port, lifetime) = ask(way.local, way.gateway, &question, read).await?;
    Ok((SocketAddr::new(ip.into(), port), lifetime))
}

async fn end_by_natpmp(way: &Way) -> Result<(), Failure> {
    let internal = way.bound.port();
    let question = natpmp::map_question(internal, 0, Duration::ZERO);
    let read = |answer: &[u8]| natpmp::read_map(answer, internal);
    ask(way.local, way.gateway, &question, read).await.map(|_| ())
}

/// Asks for `wanted` or, where that is taken, for any port. Answers the external port.
async fn add_by_upnp(router: &Gateway<Tokio>, way: &Way, wanted: u16) -> Result<u16, Failure> {
    let local = SocketAddr::new(way.local, way.bound.port());
    let (udp, lifetime) = (PortMappingProtocol::UDP, pcp::seconds(LIFETIME));
    match router.add_port(udp, wanted, local, lifetime, DESCRIPTION).await {
        Ok(()) => Ok(wanted),
        // Its leases do not end by themselves; it is given back like others.
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            router.add_port(udp, wanted, local, 0, DESCRIPTION).await?;
            Ok(wanted)
        }
        Err(AddPortError::PortInUse) => {
            Ok(router.add_any_port(udp, local, lifetime, DESCRIPTION).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether others could send to an external address. A private one, or one of a carrier
/// (100.64.0.0/10), is of use to those behind the same outer router. Over IPv6 it may be the
/// host's own: nothing is translated, a firewall is opened.
fn is_sane(external: SocketAddr, local: IpAddr) -> bool {
    let ip = external.ip();
    let usual = match ip {
        IpAddr::V4(four) => {
            !four.is_link_local() && !four.is_broadcast() && four.octets()[0] != 0 && ip != local
        }
        IpAddr::V6(six) => !six.is_unicast_link_local(),
    };
    usual
        && ip.is_ipv4() == local.is_ipv4()
        && !ip.is_unspecified()
        && !ip.is_loopback()
        && !ip.is_multicast()
        && external.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_of_routers_are_not_believed() {
        let sane = |external: &str, local: &str| {
            is_sane(external.parse().unwrap(), local.parse().unwrap())
        };
        for good in ["203.0.113.5:9", "100.64.0.9:9", "10.1.2.3:9", "192.168.178.20:9"] {
            assert!(sane(good, "192.168.1.2"), "{good}");
        }
        for lie in [
            "0.0.0.0:9",
            "0.1.2.3:9",
            "127.0.0.1:9",
            "169.254.1.1:9",
            "224.0.0.1:9",
            "255.255.255.255:9",
            "203.0.113.5:0",
            "192.168.1.2:9",
            "[2001:db8::1]:9",
        ] {
            assert!(!sane(lie, "192.168.1.2"), "{lie}");
        }
        assert!(sane("[2001:db8::1]:9", "2001:db8::1"), "a firewall that was opened");
        for lie in ["[::]:9", "[::1]:9", "[fe80::1]:9", "[ff02::1]:9", "[2001:db8::1]:0"] {
            assert!(!sane(lie, "2001:db8::1"), "{lie}");
        }
    }
}
