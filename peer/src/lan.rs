//! The LAN: datagrams for everybody on the links of this host, by multicast and, where a link
//! does not know it, by broadcast (SPEC section 15.1).

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;

use if_addrs::{IfAddr, Interface};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tracing::{debug, trace};

/// Where beacons go; not assigned to anybody, and not among the ports that systems give out.
const PORT: u16 = 23_478;
/// "P2" in the block for local use of RFC 2365.
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 80, 50);
/// "P2SP" among the transient groups of a link, RFC 4291 section 2.7.
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x5032, 0x5350);
/// Links spoken to; a host with more has them for its containers.
const LINKS_MAX: usize = 32;
/// Datagrams taken from a socket in one go.
const RECEIVE_BATCH: usize = 16;
/// Longer datagrams are none of ours.
const RECEIVE_LEN_MAX: usize = 2048;

/// Sockets that everybody on the link speaks to. Opened by the first announcement: who says
/// nothing hears nothing.
pub(crate) struct Lan {
    /// Speak only where this address is.
    only: Option<IpAddr>,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    /// Links spoken to, whose groups were joined.
    spoken: Vec<Link>,
}

/// A way out of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    V4 { address: Ipv4Addr, broadcast: Option<Ipv4Addr> },
    V6 { index: u32 },
}

impl Lan {
    pub(crate) fn new(bind: Option<SocketAddr>) -> Self {
        let only = bind.map(|bind| bind.ip()).filter(|ip| !ip.is_unspecified());
        Self { only, v4: None, v6: None, spoken: Vec::new() }
    }

    /// Sends a datagram to everybody on every link.
    pub(crate) fn announce(&mut self, datagram: &[u8]) {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            debug!(%error, "interfaces");
            Vec::new()
        });
        let links = links(&interfaces, self.only);
        self.leave_all_but(links.clone());
        for link in links {
            if let Err(error) = self.announce_on(link, datagram) {
                trace!(%error, ?link, "nothing announced");
            }
        }
    }

    /// Leaves the groups of links that are no more: a socket can be in few.
    fn leave_all_but(&mut self, links: Vec<Link>) {
        let gone = std::mem::replace(&mut self.spoken, links);
        for link in gone.into_iter().filter(|link| !self.spoken.contains(link)) {
            if let Err(error) = self.leave(link) {
                // The system did so when the interface went.
                trace!(%error, ?link, "group not left");
            }
        }
    }

    fn leave(&self, link: Link) -> io::Result<()> {
        match (link, &self.v4, &self.v6) {
            (Link::V4 { address, .. }, Some(socket), _) => {
                SockRef::from(socket).leave_multicast_v4(&GROUP_V4, &address)
            }
            (Link::V6 { index }, _, Some(socket)) => {
                SockRef::from(socket).leave_multicast_v6(&GROUP_V6, index)
            }
            (Link::V4 { .. } | Link::V6 { .. }, ..) => Ok(()),
        }
    }

    fn announce_on(&mut self, link: Link, datagram: &[u8]) -> io::Result<()> {
        match link {
            Link::V4 { address, broadcast } => {
                let socket = SockRef::from(opened(&mut self.v4, Ipv4Addr::UNSPECIFIED.into())?);
                multicast_v4(&socket, address, datagram).or_else(|error| match broadcast {
                    Some(all) => {
                        socket.send_to(datagram, &SocketAddr::from((all, PORT)).into()).map(drop)
                    }
                    None => Err(error),
                })
            }
            Link::V6 { index } => {
                let socket = SockRef::from(opened(&mut self.v6, Ipv6Addr::UNSPECIFIED.into())?);
                joined(socket.join_multicast_v6(&GROUP_V6, index))?;
                socket.set_multicast_if_v6(index)?;
                socket.send_to(datagram, &SocketAddr::from((GROUP_V6, PORT)).into()).map(drop)
            }
        }
    }

    /// Waits until somebody was heard; for ever before the first announcement.
    pub(crate) async fn ready(&self) {
        poll_fn(|cx| {
            let readable = |socket: &UdpSocket| socket.poll_recv_ready(cx).is_ready();
            let sockets = self.sockets();
            if sockets.map(readable).fold(false, |a, b| a | b) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Reads one batch from each socket.
    pub(crate) fn receive(&self, mut deliver: impl FnMut(SocketAddr, &[u8])) {
        let mut buffer = [0; RECEIVE_LEN_MAX];
        for socket in self.sockets() {
            for _ in 0..RECEIVE_BATCH {
                match socket.try_recv_from(&mut buffer) {
                    Ok((length, from)) => deliver(from, &buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        debug!(%error, "receive from the LAN");
                        break;
                    }
                }
            }
        }
    }

    fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.v4.iter().chain(&self.v6)
    }
}

fn multicast_v4(socket: &Socket, address: Ipv4Addr, datagram: &[u8]) -> io::Result<()> {
    joined(socket.join_multicast_v4(&GROUP_V4, &address))?;
    socket.set_multicast_if_v4(&address)?;
    socket.send_to(datagram, &SocketAddr::from((GROUP_V4, PORT)).into()).map(drop)
}

/// Whoever is in the group already is content, too.
fn joined(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        other => other,
    }
}

fn opened(socket: &mut Option<UdpSocket>, any: IpAddr) -> io::Result<&UdpSocket> {
    if socket.is_none() {
        *socket = Some(open(any)?);
    }
    socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// Several peers of one host share the port, and hear each other.
fn open(any: IpAddr) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(any, PORT);
    let raw = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    raw.set_reuse_address(true)?;
    raw.set_nonblocking(true)?;
    if address.is_ipv6() {
        raw.set_only_v6(true)?;
        raw.set_multicast_hops_v6(1)?;
        raw.set_multicast_loop_v6(true)?;
    } else {
        raw.set_broadcast(true)?;
        raw.set_ttl_v4(1)?;
        raw.set_multicast_ttl_v4(1)?;
        raw.set_multicast_loop_v4(true)?;
    }
    raw.bind(&address.into())?;
    UdpSocket::from_std(raw.into())
}

/// The links of these interfaces: by address for IPv4, by number for IPv6. Loopback is no LAN
/// unless a peer lives there alone.
fn links(interfaces: &[Interface], only: Option<IpAddr>) -> Vec<Link> {
    let wanted = |ip: IpAddr| only.map_or(!ip.is_loopback(), |only| only == ip);
    let mut links = Vec::new();
    for interface in interfaces.iter().filter(|interface| wanted(interface.ip())) {
        let link = match &interface.addr {
            IfAddr::V4(v4) => Some(Link::V4 { address: v4.ip, broadcast: v4.broadcast }),
            IfAddr::V6(_) => interface.index.map(|index| Link::V6 { index }),
        };
        if let Some(link) = link.filter(|link| !links.contains(link) && links.len() < LINKS_MAX) {
            links.push(link);
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_on_one_host_hear_each_other_and_themselves() {
        let bind = Some("127.0.0.1:0".parse().unwrap());
        let (mut a, mut b) = (Lan::new(bind), Lan::new(bind));
        // The first announcement opens the socket.
        b.announce(b"from b");
        let word = format!("from a, process {}", std::process::id());
        a.announce(word.as_bytes());
        for lan in [&a, &b] {
            let mut heard = Vec::new();
            while !heard.contains(&word) {
                lan.ready().await;
                lan.receive(|from, data| {
                    assert!(from.ip().is_loopback());
                    heard.push(String::from_utf8_lossy(data).into_owned());
                });
            }
        }
    }

    #[tokio::test]
    async fn the_group_of_a_link_that_is_gone_is_left() {
        let mut lan = Lan::new(Some("127.0.0.1:0".parse().unwrap()));
        lan.announce(b"here");
        let [link] = lan.spoken[..] else { panic!("one link: {:?}", lan.spoken) };
        lan.leave_all_but(vec![link]);
        assert!(lan.leave(link).is_ok(), "still a member");
        lan.announce(b"again");
        lan.leave_all_but(Vec::new());
        assert!(lan.leave(link).is_err(), "left before");
    }

    #[test]
    fn loopback_is_a_link_only_where_nothing_else_is_wanted() {
        let interfaces = if_addrs::get_if_addrs().unwrap();
        let loopback =
            |link: &Link| matches!(link, Link::V4 { address, .. } if address.is_loopback());
        assert!(!links(&interfaces, None).iter().any(loopback));
        let only = links(&interfaces, Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(only.len(), 1);
        assert!(only.iter().all(loopback));
    }
}
