//! Sockets: which to open, how to read them in batches, and from which address an answer leaves.

use std::array;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::task::Poll;

use p2sp_proto::io::{Route, SocketBuffers};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::config::{AltPort, Listen};

/// Kernel buffer asked for on each socket, each way: half a second of a gigabit in small packets.
/// The system may grant less (`net.core.rmem_max`).
const BUFFER_LEN: usize = 8 << 20;

/// Largest thing one read can bring: a train of datagrams that the kernel joined.
const TRAIN_LEN_MAX: usize = 1 << 16;

/// The open sockets of a server: for each listen address a main one and, unless switched off,
/// one on the alternative port, by which peers learn how their NAT maps.
pub struct Sockets {
    sockets: Vec<Socket>,
    /// Main addresses that have one on the alternative port, and that.
    ports: Vec<(SocketAddr, SocketAddr)>,
    /// Where the next search for a readable socket begins, so that a busy one starves nobody.
    next: usize,
}

impl Sockets {
    /// Opens all sockets, or none. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] names the first address that could not be opened.
    pub fn bind(listen: &Listen, alt: AltPort) -> Result<Self, BindError> {
        let addresses = match listen {
            Listen::Default(port) => vec![default_address(*port)],
            Listen::At(addresses) => addresses.clone(),
        };
        let mut sockets = Vec::new();
        for &address in &addresses {
            sockets.push(Socket::bind(address, Use::Main, &addresses)?);
        }
        let mut alts = Vec::new();
        for (&asked, socket) in addresses.iter().zip(&sockets) {
            alts.extend(alt_address(asked, socket.bound, alt)?.map(|at| (socket.bound, at)));
        }
        let others: Vec<SocketAddr> = alts.iter().map(|(_, at)| *at).collect();
        let mut ports = Vec::new();
        for (main, at) in alts {
            if !sockets.iter().any(|socket| socket.bound == at) {
                sockets.push(Socket::bind(at, Use::Alt, &others)?);
                ports.extend(sockets.last().map(|socket| (main, socket.bound)));
            } else {
                ports.push((main, at));
            }
        }
        let sockets = Self { sockets, ports, next: 0 };
        if let Some(shortage) = sockets.buffers().and_then(SocketBuffers::shortage) {
            tracing::info!("{shortage}");
        }
        Ok(sockets)
    }

    /// Opens the ports on a second IP as well, by which peers learn still more about their NAT
    /// (RFC 5780). A socket on all addresses has it already.
    ///
    /// # Errors
    /// [`BindError`] names the first address that could not be opened.
    pub fn add_second_ip(&mut self, ip: IpAddr) -> Result<(), BindError> {
        for (main, alt) in self.ports.clone() {
            if main.is_ipv4() != ip.is_ipv4() && !main.ip().is_unspecified() {
                continue;
            }
            if main.ip().is_unspecified() {
                // Nothing to keep, but the address must be one of this host.
                Socket::bind(SocketAddr::new(ip, 0), Use::Second, &[])?;
                continue;
            }
            let (main, alt) = (SocketAddr::new(ip, main.port()), SocketAddr::new(ip, alt.port()));
            for address in [main, alt] {
                if !self.sockets.iter().any(|socket| socket.bound == address) {
                    self.sockets.push(Socket::bind(address, Use::Second, &[])?);
                }
            }
            if !self.ports.contains(&(main, alt)) {
                self.ports.push((main, alt));
            }
        }
        Ok(())
    }

    /// Main addresses that have one on the alternative port, and that.
    pub(crate) fn ports(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.ports.clone()
    }

    /// The addresses peers register at, in the order given; a port 0 has become a real one.
    pub fn main_addresses(&self) -> Vec<SocketAddr> {
        self.addresses(Use::Main)
    }

    /// The addresses on the alternative port.
    pub fn alt_addresses(&self) -> Vec<SocketAddr> {
        self.addresses(Use::Alt)
    }

    /// The kernel's buffers of a socket; the others have the same. `None` when it does not tell.
    fn buffers(&self) -> Option<SocketBuffers> {
        let socket = self.sockets.first()?;
        let receive = socket.state.recv_buffer_size((&socket.io).into()).ok()?;
        let send = socket.state.send_buffer_size((&socket.io).into()).ok()?;
        Some(SocketBuffers::told(BUFFER_LEN, receive, send))
    }

    fn addresses(&self, used: Use) -> Vec<SocketAddr> {
        self.sockets.iter().filter(|s| s.used == used).map(|s| s.bound).collect()
    }

    /// Waits until a socket can be read; answers which.
    pub(crate) async fn readable(&mut self) -> usize {
        poll_fn(|cx| {
            let count = self.sockets.len();
            for offset in 0..count {
                let index = (self.next + offset) % count;
                if self.sockets[index].io.poll_recv_ready(cx).is_ready() {
                    self.next = index + 1;
                    return Poll::Ready(index);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Reads a batch from a socket that was readable.
    pub(crate) fn receive(&self, index: usize, buffers: &mut Buffers) -> io::Result<()> {
        buffers.filled = 0;
        let socket = &self.sockets[index];
        buffers.bound = socket.bound;
        let (mut slices, meta) = buffers.prepare();
        let read = || socket.state.recv((&socket.io).into(), &mut slices, meta);
        buffers.filled = socket.io.try_io(Interest::READABLE, read)?;
        Ok(())
    }

    /// Sends `contents`, a train of datagrams of `segment` bytes each (the last may be shorter),
    /// from the local address of `route`.
    pub(crate) fn send(
        &self,
        route: Route,
        contents: &[u8],
        segment: Option<usize>,
        ecn: Option<EcnCodepoint>,
    ) -> io::Result<()> {
        let socket = self.socket_for(route.local)?;
        let transmit = socket.transmit(route, contents, segment, ecn);
        socket.state.try_send((&socket.io).into(), &transmit)
    }

    /// Sends one datagram, waiting for room in the kernel's buffer.
    pub(crate) async fn send_patiently(&self, route: Route, contents: &[u8]) -> io::Result<()> {
        let socket = self.socket_for(route.local)?;
        let transmit = socket.transmit(route, contents, None, None);
        let write = || socket.state.try_send((&socket.io).into(), &transmit);
        socket.io.async_io(Interest::WRITABLE, write).await
    }

    /// Most datagrams that may leave as one train from `local`.
    pub(crate) fn train_max(&self, local: SocketAddr) -> usize {
        self.socket_for(local).map_or(1, |socket| socket.state.max_gso_segments())
    }

    /// The socket bound to exactly this address, or to all addresses on its port.
    fn socket_for(&self, local: SocketAddr) -> io::Result<&Socket> {
        let on_port = || self.sockets.iter().filter(|s| s.bound.port() == local.port());
        let exact = on_port().find(|socket| socket.bound.ip() == local.ip());
        exact.or_else(|| on_port().find(|socket| socket.serves(local.ip()))).ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrNotAvailable, "no socket has this local address")
        })
    }
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Main,
    Alt,
    /// On the second IP.
    Second,
}

struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    bound: SocketAddr,
    used: Use,
    family: Family,
}

/// Which remote addresses a socket reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    /// An IPv6 socket on all addresses, to which IPv4 comes with mapped addresses.
    Dual,
}

impl Socket {
    fn bind(address: SocketAddr, used: Use, others: &[SocketAddr]) -> Result<Self, BindError> {
        let family = family(address, others);
        open(address, family)
            .and_then(|(io, state)| {
                let bound = io.local_addr()?;
                Ok(Self { io, state, bound, used, family })
            })
            .map_err(|source| BindError::new(address, used, source))
    }

    fn serves(&self, local: IpAddr) -> bool {
        self.bound.ip().is_unspecified()
            && match self.family {
                Family::V4 => local.is_ipv4(),
                Family::V6 => local.is_ipv6(),
                Family::Dual => true,
            }
    }

    fn transmit<'a>(
        &self,
        route: Route,
        contents: &'a [u8],
        segment_size: Option<usize>,
        ecn: Option<EcnCodepoint>,
    ) -> Transmit<'a> {
        Transmit {
            destination: self.reachable(route.remote),
            ecn,
            contents,
            segment_size,
            src_ip: Some(route.local.ip()).filter(|ip| !ip.is_unspecified()),
        }
    }

    /// The address as this socket's system calls want it.
    fn reachable(&self, remote: SocketAddr) -> SocketAddr {
        match (self.family, remote) {
            (Family::Dual, SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            (Family::Dual | Family::V4 | Family::V6, remote) => remote,
        }
    }
}

fn open(address: SocketAddr, family: Family) -> io::Result<(UdpSocket, UdpSocketState)> {
    let socket = RawSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    match family {
        Family::V4 => {}
        Family::V6 => socket.set_only_v6(true)?,
        Family::Dual => socket.set_only_v6(false)?,
    }
    // The system grants what it allows; a server with small buffers is still a server.
    for result in [socket.set_recv_buffer_size(BUFFER_LEN), socket.set_send_buffer_size(BUFFER_LEN)]
    {
        if let Err(error) = result {
            tracing::debug!(%address, %error, "the system refuses a larger socket buffer");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let state = UdpSocketState::new((&socket).into())?;
    Ok((UdpSocket::from_std(socket.into())?, state))
}

/// An IPv6 wildcard takes IPv4 too, unless an IPv4 address has the same port.
fn family(address: SocketAddr, others: &[SocketAddr]) -> Family {
    let shares_port = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    match address {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(v6) if !v6.ip().is_unspecified() => Family::V6,
        SocketAddr::V6(_) if address.port() != 0 && others.iter().any(shares_port) => Family::V6,
        SocketAddr::V6(_) => Family::Dual,
    }
}

/// All addresses of both families; of IPv4 alone where the system has no IPv6.
fn default_address(port: u16) -> SocketAddr {
    let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let probe = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let works = RawSocket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))
        .and_then(|socket| socket.bind(&probe.into()));
    match works {
        Ok(()) => all,
        Err(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
    }
}

/// Where the alternative socket beside `main` goes. `asked` still has a port 0 where the system
/// chose: then it chooses the alternative too.
fn alt_address(
    asked: SocketAddr,
    main: SocketAddr,
    alt: AltPort,
) -> Result<Option<SocketAddr>, BindError> {
    let port = match alt {
        AltPort::Off => return Ok(None),
        AltPort::Next if asked.port() == 0 => 0,
        AltPort::Next => main.port().checked_add(1).ok_or(BindError::NoNextPort(main))?,
        AltPort::At(port) => port,
    };
    Ok(Some(SocketAddr::new(main.ip(), port)))
}

/// Why a server cannot open its sockets.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("the UDP port of {0} is taken by another program: stop that program, or {1}")]
    Taken(SocketAddr, &'static str),
    /// The host has no such address.
    #[error(
        "this host has no address {0}: listen on one it has, and where a 1:1 NAT translates it \
         name the public one with --external-ip"
    )]
    NoSuchAddress(IpAddr),
    /// The host has no such second address.
    #[error(
        "this host has no second address {0}: name one it has, and where a 1:1 NAT translates it \
         the public one before it, with --alt-ip PUBLIC/LOCAL"
    )]
    NoSecondAddress(IpAddr),
    /// The port is reserved for privileged programs.
    #[error("the system denies the UDP port of {0}: {1}, above 1023, or grant the privilege")]
    Denied(SocketAddr, &'static str),
    /// The listen port is the last one there is.
    #[error("no port follows that of {0} for the alternative: name one, or off, with --alt-port")]
    NoNextPort(SocketAddr),
    /// Anything else.
    #[error("cannot open a UDP socket on {0}: {1}")]
    Other(SocketAddr, #[source] io::Error),
}

impl BindError {
    fn new(address: SocketAddr, used: Use, source: io::Error) -> Self {
        let remedy = match used {
            Use::Main => "choose another with --listen",
            Use::Alt => "choose another (or off) with --alt-port",
            Use::Second => "choose another second IP with --alt-ip",
        };
        let is = |kind| source.kind() == kind;
        if is(io::ErrorKind::AddrInUse) {
            Self::Taken(address, remedy)
        } else if is(io::ErrorKind::AddrNotAvailable) {
            match used {
                Use::Main | Use::Alt => Self::NoSuchAddress(address.ip()),
                Use::Second => Self::NoSecondAddress(address.ip()),
            }
        } else if is(io::ErrorKind::PermissionDenied) {
            Self::Denied(address, remedy)
        } else {
            Self::Other(address, source)
        }
    }
}

/// Room for one batch of reads, and what the last one brought.
pub(crate) struct Buffers {
    bytes: Vec<u8>,
    meta: [RecvMeta; BATCH_SIZE],
    filled: usize,
    bound: SocketAddr,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BATCH_SIZE * TRAIN_LEN_MAX],
            meta: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
            bound: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        }
    }

    /// What the last read brought, in order of arrival.
    pub(crate) fn trains(&mut self) -> impl Iterator<Item = Train<'_>> {
        let bound = self.bound;
        let meta = &self.meta[..self.filled];
        self.bytes.chunks_exact_mut(TRAIN_LEN_MAX).zip(meta).map(move |(bytes, meta)| Train {
            route: Route::udp(local(meta, bound), canonical(meta.addr)),
            ecn: meta.ecn,
            stride: meta.stride.max(1),
            bytes: &mut bytes[..meta.len],
        })
    }

    fn prepare(&mut self) -> ([IoSliceMut<'_>; BATCH_SIZE], &mut [RecvMeta]) {
        let mut chunks = self.bytes.chunks_exact_mut(TRAIN_LEN_MAX);
        let slices = array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        (slices, &mut self.meta)
    }
}

/// Datagrams from one sender that the kernel handed over as one.
pub(crate) struct Train<'a> {
    /// Between whom; `local` is the address that was asked.
    pub(crate) route: Route,
    /// Congestion marks in the IP header.
    pub(crate) ecn: Option<EcnCodepoint>,
    /// Length of each datagram but the last, at least 1.
    pub(crate) stride: usize,
    /// The datagrams, end to end.
    pub(crate) bytes: &'a mut [u8],
}

fn local(meta: &RecvMeta, bound: SocketAddr) -> SocketAddr {
    let ip = meta.dst_ip.map_or(bound.ip(), |ip| ip.to_canonical());
    SocketAddr::new(ip, bound.port())
}

/// The address without what the socket's family added: IPv4 stays IPv4, a flow label is gone, and
/// a scope stays only where an address means nothing without it.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::new(ip.into(), v6.port()),
            IpAddr::V6(ip) => {
                let scope = if ip.is_unicast_link_local() { v6.scope_id() } else { 0 };
                SocketAddrV6::new(ip, v6.port(), 0, scope).into()
            }
        },
    }
}

#[cfg(test)]
mod tests;
