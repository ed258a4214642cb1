//! Sockets: one for each address family and a few spares, batches in, trains out.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::task::Poll;

use p2sp_proto::io::{Ecn, Route, SocketBuffers, TRAIN_LEN_MAX, Train, Transmit};
use p2sp_proto::node::{LocalSocket, SocketUse};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::{debug, info, trace};

/// The sockets of a peer and what waits to leave through them.
pub(crate) struct Net {
    sockets: Vec<Socket>,
    /// What the system had no room for yet, oldest first.
    outbox: Outbox,
    buffer: Vec<u8>,
    /// Several datagrams for one system call.
    train: Vec<u8>,
    /// Payloads of datagrams that left, at most [`SPENT_MAX`].
    spent: Vec<Vec<u8>>,
}

/// At most [`OUTBOX_MAX`] datagrams or trains, and [`OUTBOX_BYTES_MAX`].
#[derive(Default)]
struct Outbox {
    queue: VecDeque<Parcel>,
    bytes: usize,
}

/// Datagrams that wait to leave.
enum Parcel {
    Single(Transmit),
    /// From the byte `sent` on.
    Train {
        train: Train,
        sent: usize,
    },
}

struct Socket {
    /// What it was opened for beyond [`Net::open`].
    usage: Option<SocketUse>,
    io: UdpSocket,
    state: UdpSocketState,
    bound: SocketAddr,
}

impl Net {
    /// Opens a socket for each family the host has, or the one socket that `bind` asks for.
    pub(crate) fn open(bind: Option<SocketAddr>) -> io::Result<Self> {
        let sockets = match bind {
            Some(address) => vec![Socket::open(address, None)?],
            None => open_wildcards()?,
        };
        let buffer = vec![0; RECEIVE_BATCH * RECEIVE_SLOT];
        let (outbox, train, spent) = (Outbox::default(), Vec::new(), Vec::new());
        let net = Self { sockets, outbox, buffer, train, spent };
        if let Some(shortage) = net.buffers().and_then(SocketBuffers::shortage) {
            info!("{shortage}");
        }
        Ok(net)
    }

    /// Opens one more IPv4 socket beside the first one, on a port of the system's choice; at
    /// most [`SocketUse::limit`] of a kind.
    pub(crate) fn open_extra(&mut self, usage: SocketUse) -> io::Result<SocketAddr> {
        let first = self.sockets.iter().map(|socket| socket.bound.ip()).find(IpAddr::is_ipv4);
        let open = self.sockets.iter().filter(|socket| socket.usage == Some(usage)).count();
        let Some(ip) = first.filter(|_| open < usize::from(usage.limit())) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let socket = Socket::open(SocketAddr::new(ip, 0), Some(usage))?;
        let bound = socket.bound;
        self.sockets.push(socket);
        Ok(bound)
    }

    /// Closes sockets that [`Self::open_extra`] opened.
    pub(crate) fn close(&mut self, bound: &[SocketAddr]) {
        self.flush();
        self.sockets.retain(|socket| socket.usage.is_none() || !bound.contains(&socket.bound));
    }

    /// The sockets of [`Net::open`], with the addresses under which hosts of the same links reach
    /// them. Loopback addresses count only `with_loopback`: they mean something else on every host.
    pub(crate) fn local_sockets(&self, with_loopback: bool) -> Vec<LocalSocket> {
        let interfaces = interface_addresses(with_loopback);
        let local = |socket: &Socket| {
            let ip = socket.bound.ip();
            let addresses = if ip.is_unspecified() {
                interfaces.iter().copied().filter(|a| a.is_ipv4() == ip.is_ipv4()).collect()
            } else {
                vec![ip]
            };
            LocalSocket { bound: socket.bound, addresses }
        };
        self.sockets.iter().filter(|socket| socket.usage.is_none()).map(local).collect()
    }

    /// The bound addresses of the sockets of [`Net::open`].
    #[cfg(feature = "portmap")]
    pub(crate) fn bound(&self) -> Vec<SocketAddr> {
        let own = self.sockets.iter().filter(|socket| socket.usage.is_none());
        own.map(|socket| socket.bound).collect()
    }

    /// The kernel's buffers of a socket; the others have the same. `None` when it does not tell.
    pub(crate) fn buffers(&self) -> Option<SocketBuffers> {
        self.sockets.first().and_then(Socket::buffers)
    }

    /// Whether there is a socket that can send to `remote`'s family.
    pub(crate) fn speaks(&self, remote: &SocketAddr) -> bool {
        self.sockets.iter().any(|socket| socket.bound.is_ipv4() == remote.is_ipv4())
    }

    /// Waits until a socket has something to read or, while datagrams wait, room to write.
    pub(crate) async fn ready(&self) {
        poll_fn(|cx| {
            let readable = |s: &Socket| s.io.poll_recv_ready(cx).is_ready();
            let any_readable = self.sockets.iter().map(readable).fold(false, |a, b| a | b);
            let first = self.outbox.queue.front();
            let waiting = first.and_then(|first| self.socket(first.route().local));
            let writable = waiting.is_some_and(|s| s.io.poll_send_ready(cx).is_ready());
            if any_readable || writable { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Reads one batch from each socket. True when there was something.
    pub(crate) fn receive(&mut self, mut deliver: impl FnMut(Route, Ecn, &mut [u8])) -> bool {
        let mut any = false;
        for socket in &self.sockets {
            any |= socket.receive(&mut self.buffer, &mut deliver);
        }
        any
    }

    /// Takes a datagram to be sent by the next [`Self::flush`], or with a train that is full.
    pub(crate) fn push(&mut self, transmit: Transmit) {
        self.outbox.push(Parcel::Single(transmit));
        if self.outbox.queue.len() == SINGLES {
            self.flush();
        }
    }

    /// Sends a train, or takes it to be sent by the next [`Self::flush`].
    pub(crate) fn push_train(&mut self, train: Train) {
        self.outbox.push(Parcel::Train { train, sent: 0 });
        self.flush();
    }

    /// Payloads of datagrams that left.
    pub(crate) fn spent(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.spent.drain(..)
    }

    /// Sends what waits until the system has no more room.
    pub(crate) fn flush(&mut self) {
        while !self.outbox.queue.is_empty() {
            match self.send_front() {
                Ok(sent) => {
                    for _ in 0..sent {
                        let payload = self.outbox.pop();
                        self.spent.extend(payload.filter(|_| self.spent.len() < SPENT_MAX));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Longer than the interface takes, as probes of the path MTU may be, or else
                // refused: lost, as on the way.
                Err(error) => {
                    debug!(%error, "datagram not sent");
                    self.outbox.pop();
                }
            }
        }
    }

    /// Sends what is in front, in one system call if that can be. Returns how many parcels left.
    fn send_front(&mut self) -> io::Result<usize> {
        let Some(first) = self.outbox.queue.front_mut() else { return Ok(0) };
        let route = first.route();
        let Some(socket) = self.sockets.iter().find(|s| s.bound == route.local) else {
            return Ok(1);
        };
        let segments_max = socket.state.max_gso_segments();
        match first {
            Parcel::Train { train, sent } => {
                socket.send_train(train, sent, segments_max)?;
                Ok(1)
            }
            Parcel::Single(transmit) if transmit.ttl.is_some() => {
                socket.send_one(transmit)?;
                Ok(1)
            }
            Parcel::Single(transmit) => {
                let ecn = transmit.ecn;
                self.send_singles(route, ecn, segments_max)
            }
        }
    }

    /// Sends the datagrams in front that can share a system call: same route, mark and size, the
    /// last one possibly shorter. Returns how many.
    fn send_singles(&mut self, route: Route, ecn: Ecn, segments_max: usize) -> io::Result<usize> {
        let count = train_length(&self.outbox.queue, segments_max);
        self.train.clear();
        let (mut singles, mut size) = (self.outbox.queue.iter().map_while(Parcel::single), 0);
        for transmit in singles.by_ref().take(count) {
            size = size.max(transmit.payload.len());
            self.train.extend_from_slice(&transmit.payload);
        }
        let segment = (count > 1).then_some(size);
        if let Some(socket) = self.socket(route.local) {
            socket.send(route.remote, ecn, &self.train, segment)?;
        }
        Ok(count)
    }

    fn socket(&self, bound: SocketAddr) -> Option<&Socket> {
        self.sockets.iter().find(|socket| socket.bound == bound)
    }
}

impl Outbox {
    fn push(&mut self, parcel: Parcel) {
        let bytes = self.bytes + parcel.payload().len();
        if self.queue.len() >= OUTBOX_MAX || bytes > OUTBOX_BYTES_MAX {
            trace!("outbox full, datagrams dropped");
            return;
        }
        self.bytes = bytes;
        self.queue.push_back(parcel);
    }

    /// The buffer of what was in front.
    fn pop(&mut self) -> Option<Vec<u8>> {
        let parcel = self.queue.pop_front()?;
        self.bytes -= parcel.payload().len();
        match parcel {
            Parcel::Single(Transmit { payload, .. }) => Some(payload),
            Parcel::Train { train, .. } => Some(train.payload),
        }
    }
}

impl Parcel {
    fn route(&self) -> Route {
        match self {
            Self::Single(transmit) => transmit.route,
            Self::Train { train, .. } => train.route,
        }
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Single(transmit) => &transmit.payload,
            Self::Train { train, .. } => &train.payload,
        }
    }

    /// A datagram that may share a system call.
    fn single(&self) -> Option<&Transmit> {
        match self {
            Self::Single(transmit) if transmit.ttl.is_none() => Some(transmit),
            Self::Single(_) | Self::Train { .. } => None,
        }
    }
}

impl Socket {
    fn open(address: SocketAddr, usage: Option<SocketUse>) -> io::Result<Self> {
        let raw = RawSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        raw.set_nonblocking(true)?;
        raw.bind(&address.into())?;
        let io = UdpSocket::from_std(raw.into())?;
        // Sets the don't-fragment flag too, and has the system keep no opinion of path MTUs.
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        #[cfg(target_os = "linux")]
        stop_timestamps(&io);
        for grow in [UdpSocketState::set_send_buffer_size, UdpSocketState::set_recv_buffer_size] {
            if let Err(error) = grow(&state, UdpSockRef::from(&io), SOCKET_BUFFER) {
                debug!(%error, "socket buffer stays as it is");
            }
        }
        let bound = io.local_addr()?;
        Ok(Self { usage, io, state, bound })
    }

    fn buffers(&self) -> Option<SocketBuffers> {
        let receive = self.state.recv_buffer_size(UdpSockRef::from(&self.io)).ok()?;
        let send = self.state.send_buffer_size(UdpSockRef::from(&self.io)).ok()?;
        Some(SocketBuffers::told(SOCKET_BUFFER, receive, send))
    }

    fn receive(&self, buffer: &mut [u8], deliver: &mut impl FnMut(Route, Ecn, &mut [u8])) -> bool {
        let mut meta = [RecvMeta::default(); RECEIVE_BATCH];
        let mut count = 0;
        let read = self.io.try_io(Interest::READABLE, || {
            let mut chunks = buffer.chunks_mut(RECEIVE_SLOT);
            let mut slots: [IoSliceMut<'_>; RECEIVE_BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            count = self.state.recv(UdpSockRef::from(&self.io), &mut slots, &mut meta)?;
            // A batch that is not full emptied the socket: no call more to be told so.
            let full = RECEIVE_BATCH.min(quinn_udp::BATCH_SIZE);
            if count < full { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match read {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                debug!(%error, "receive");
                return false;
            }
            Ok(()) | Err(_) => {}
        }
        for (slot, meta) in buffer.chunks_mut(RECEIVE_SLOT).zip(&meta[..count]) {
            let route = Route::udp(self.bound, canonical(meta.addr));
            let ecn = meta.ecn.map_or(Ecn::NotEct, |mark| Ecn::from_bits(mark as u8));
            let length = meta.len.min(slot.len());
            for datagram in slot[..length].chunks_mut(meta.stride.max(1)) {
                deliver(route, ecn, datagram);
            }
        }
        count > 0
    }

    /// Sends a datagram with its own time to live, if it has one. The socket keeps none: this
    /// task is its only user.
    fn send_one(&self, transmit: &Transmit) -> io::Result<()> {
        let Transmit { route, payload, ttl, ecn } = transmit;
        let Some(ttl) = *ttl else { return self.send(route.remote, *ecn, payload, None) };
        let before = self.set_ttl(u32::from(ttl))?;
        let sent = self.send(route.remote, *ecn, payload, None);
        self.set_ttl(before)?;
        sent
    }

    /// Sends what is left of a train, as much at once as the system takes; `sent` tells how far it
    /// got.
    fn send_train(&self, train: &Train, sent: &mut usize, segments_max: usize) -> io::Result<()> {
        let at_once = train.segment.max(1) * segments_max;
        while *sent < train.payload.len() {
            let rest = &train.payload[*sent..];
            let part = &rest[..rest.len().min(at_once)];
            let segment = (part.len() > train.segment).then_some(train.segment);
            self.send(train.route.remote, train.ecn, part, segment)?;
            *sent += part.len();
        }
        Ok(())
    }

    /// Sets the time to live (hop limit) of what leaves; returns the one before.
    fn set_ttl(&self, ttl: u32) -> io::Result<u32> {
        let socket = SockRef::from(&self.io);
        if self.bound.is_ipv4() {
            let before = socket.ttl_v4()?;
            socket.set_ttl_v4(ttl)?;
            Ok(before)
        } else {
            let before = socket.unicast_hops_v6()?;
            socket.set_unicast_hops_v6(ttl)?;
            Ok(before)
        }
    }

    fn send(
        &self,
        to: SocketAddr,
        ecn: Ecn,
        contents: &[u8],
        segment: Option<usize>,
    ) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: to,
            ecn: EcnCodepoint::from_bits(ecn.bits()),
            contents,
            segment_size: segment,
            src_ip: None,
        };
        self.io.try_io(Interest::WRITABLE, || {
            self.state.try_send(UdpSockRef::from(&self.io), &transmit)
        })
    }
}

/// Single datagrams sent before more are made.
const SINGLES: usize = 64;
/// Payloads that may serve again: as many as the machine takes back.
const SPENT_MAX: usize = 4;
/// Datagrams read at once from one socket.
const RECEIVE_BATCH: usize = 8;
/// The kernel merges trains up to this size.
const RECEIVE_SLOT: usize = 1 << 16;
/// Datagrams and trains waiting for the system; about a full socket buffer more. What comes on
/// top is dropped as a router would.
const OUTBOX_MAX: usize = 4096;
/// Bytes of them.
const OUTBOX_BYTES_MAX: usize = 8 << 20;
/// Room in the kernel for bursts while this process does something else.
const SOCKET_BUFFER: usize = 2 << 20;

fn open_wildcards() -> io::Result<Vec<Socket>> {
    let open = |ip| Socket::open(SocketAddr::new(ip, 0), None);
    let four = open(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let six = open(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    match (four, six) {
        (Err(error), Err(_)) => Err(error),
        (four, six) => Ok([four, six].into_iter().flatten().collect()),
    }
}

/// The state of a socket asks for the time of each datagram, which nobody reads, and has then no
/// room for the mark of datagrams that the kernel merged.
#[cfg(target_os = "linux")]
fn stop_timestamps(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};
    if let Err(error) = setsockopt(socket, ReceiveTimestampns, &false) {
        debug!(%error, "timestamps stay");
    }
}

fn interface_addresses(with_loopback: bool) -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        debug!(%error, "interfaces");
        Vec::new()
    });
    let usable = |ip: &IpAddr| (with_loopback || !ip.is_loopback()) && !is_link_local_v6(ip);
    let mut addresses: Vec<IpAddr> = interfaces.iter().map(|i| i.ip()).filter(usable).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Such an address means nothing without the number of an interface, which differs on each host.
fn is_link_local_v6(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(six) if six.is_unicast_link_local())
}

/// One spelling for each remote address: no mapped IPv4, no flow label.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(six) => match six.ip().to_ipv4_mapped() {
            Some(four) => SocketAddr::new(four.into(), six.port()),
            None => SocketAddrV6::new(*six.ip(), six.port(), 0, six.scope_id()).into(),
        },
    }
}

fn train_length(outbox: &VecDeque<Parcel>, segments_max: usize) -> usize {
    let mut singles = outbox.iter().map_while(Parcel::single);
    let Some(first) = singles.next() else { return 0 };
    let size = first.payload.len();
    let fitting = segments_max.min(TRAIN_LEN_MAX / size.max(1)).max(1);
    let mut count = 1;
    for next in singles.take(fitting - 1) {
        if (next.route, next.ecn) != (first.route, first.ecn)
            || next.payload.is_empty()
            || next.payload.len() > size
        {
            break;
        }
        if next.payload.len() < size {
            // Alone in front, the first one may be a probe that is too long for the system; in a
            // train it would take this one with it.
            count += usize::from(count > 1);
            break;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests;
