//! Conversations between two ends of a session.

use crate::time::origin as start;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::id::{
    Address, Boot, Epoch, NetworkId, PacketNumber, PathId, PeerKey, ReceiverId, Token,
};

mod garbage;
mod handshakes;
mod packets;
mod rekeys;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn rng(seed: u64) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(seed)
}

fn key(number: u8) -> StaticKey {
    StaticKey::from_bytes([number; 32])
}

fn address() -> SocketAddr {
    "192.0.2.7:4242".parse().unwrap()
}

const NETWORK: NetworkId = NetworkId([5; 16]);

fn config<'a>(local: &'a StaticKey, remote: Option<PeerKey>, to: Responder) -> InitConfig<'a> {
    let network = if to == Responder::Server { NetworkId::default() } else { NETWORK };
    InitConfig {
        local,
        remote,
        responder: to,
        network,
        suites: Suites::new(true),
        receiver: ReceiverId(0xA1A2_A3A4),
        epoch: Epoch(11),
        boot: Boot(12),
        early: None,
        padding: Padding::Full,
    }
}

fn says(responder: Responder, suite: Suite) -> ReplyInfo {
    let is_server = responder == Responder::Server;
    ReplyInfo {
        address: match responder {
            Responder::Server => Address::Server(Token(0xB1B2_B3B4_B5B6_B7B8)),
            Responder::Peer => Address::Peer(ReceiverId(0xB1B2_B3B4)),
        },
        suite,
        epoch: Epoch(21),
        boot: Boot(22),
        early: EarlyVerdict::None,
        observed: is_server.then(address),
        reset: is_server.then_some([7; 16]),
    }
}

/// Both ends of one handshake.
struct Handshake {
    init: Vec<u8>,
    reply: Vec<u8>,
    completed: Completed,
    established: Established,
}

fn network(responder: Responder) -> NetworkId {
    if responder == Responder::Server { NetworkId::default() } else { NETWORK }
}

fn shake(config: InitConfig<'_>, to: &StaticKey, suite: Suite, seed: u64) -> Handshake {
    let responder = config.responder;
    let mut rng = rng(seed);
    let mut initiator = Initiator::new(config, &mut rng).unwrap();
    let init = initiator.datagram().to_vec();
    let accepted = Accepted::read(to, responder, network(responder), &init).unwrap();
    let (reply, replied) = accepted.reply(says(responder, suite), &mut rng).unwrap();
    let completed = initiator.read_reply(&reply).unwrap();
    let established = match (replied, &completed.finish) {
        (Replied::Established(established), None) => established,
        (Replied::AwaitFinish(mut pending), Some(finish)) => pending.read_finish(finish).unwrap(),
        (Replied::Established(_) | Replied::AwaitFinish(_), _) => panic!("one end is not done"),
    };
    Handshake { init, reply, completed, established }
}

fn ends_agree(shaken: &Handshake, initiator: &StaticKey, responder: &StaticKey) {
    let (ours, theirs) = (&shaken.completed.established, &shaken.established);
    assert_eq!(ours.handshake_hash(), theirs.handshake_hash());
    assert_eq!(ours.remote(), responder.public());
    assert_eq!(theirs.remote(), initiator.public());
    assert_eq!((ours.remote_epoch(), ours.remote_boot()), (Epoch(21), Boot(22)));
    assert_eq!((theirs.remote_epoch(), theirs.remote_boot()), (Epoch(11), Boot(12)));
    assert_eq!(*ours.root, *theirs.root);
}

fn initiator(remote: Option<&StaticKey>, responder: Responder, seed: u64) -> Initiator {
    let local = key(1);
    let config = config(&local, remote.map(StaticKey::public), responder);
    Initiator::new(config, &mut rng(seed)).unwrap()
}

fn accept(init: &[u8], responder: Responder) -> Result<Accepted, HandshakeError> {
    Accepted::read(&key(2), responder, network(responder), init)
}

fn reply_to(init: &[u8], seed: u64) -> (Vec<u8>, Replied) {
    let info = says(Responder::Peer, Suite::ChaCha20Poly1305);
    accept(init, Responder::Peer).unwrap().reply(info, &mut rng(seed)).unwrap()
}

/// Writes the right mac1 into an altered init.
fn restamp(init: &mut [u8], responder: &StaticKey) {
    let parsed = init::Init::parse(init).unwrap();
    let mac = init::mac1(parsed.pattern, &responder.public(), parsed.head, parsed.noise);
    init[12..28].copy_from_slice(&mac);
}

/// Two sessions that seal for each other, path 0 of each counting up.
struct Pair {
    ends: [Session; 2],
    counts: [u64; 2],
    now: Instant,
}

impl Pair {
    fn new(responder: Responder, suite: Suite) -> Self {
        Self::between(&key(1), &key(2), responder, suite)
    }

    fn between(a: &StaticKey, b: &StaticKey, responder: Responder, suite: Suite) -> Self {
        let shaken = shake(config(a, Some(b.public()), responder), b, suite, 1);
        let (at_a, at_b) = (Address::Peer(ReceiverId(0xA1A2_A3A4)), shaken.completed.info.address);
        let window = if responder == Responder::Server { 128 } else { 2048 };
        let now = start();
        let side = Side::Initiator;
        let established = shaken.completed.established;
        let a_end = Session::new(established, side, a.public(), at_a, at_b, window, now);
        let (own, side) = (b.public(), Side::Responder);
        let b_end = Session::new(shaken.established, side, own, at_b, at_a, window, now);
        Self { ends: [a_end, b_end], counts: [0; 2], now }
    }

    fn seal(&mut self, from: usize, frames: &[u8]) -> Vec<u8> {
        let number = PacketNumber::new(PathId(0), self.counts[from]);
        self.counts[from] += 1;
        let mut packet = vec![0; self.ends[from].header_len()];
        packet.extend_from_slice(frames);
        self.ends[from].seal(number, &mut packet, 0, self.now).unwrap();
        packet
    }

    fn open(&mut self, at: usize, packet: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut packet = packet.to_vec();
        self.ends[at].open(&mut packet, self.now).map(|opened| opened.payload.to_vec())
    }

    fn passes(&mut self, from: usize) {
        let packet = self.seal(from, b"frames");
        assert_eq!(self.open(1 - from, &packet).as_deref(), Ok(&b"frames"[..]));
    }
}
