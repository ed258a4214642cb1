//! The test vectors of SPEC section 12, read out of it and computed again.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use rand::{RngCore, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use super::cookie::cookie as cookie_of;
use super::seal::PacketKey;
use super::*;
use crate::id::{
    Address, Boot, ConnectId, Epoch, NetworkId, PacketNumber, PathId, PeerKey, ReceiverId, Token,
};

const SPEC: &str = include_str!("../../SPEC.md");

type Vectors = Vec<(&'static str, Vec<u8>)>;

/// The lines `name = hex` of the code block in the section.
fn written() -> BTreeMap<String, String> {
    let section = SPEC.split_once("\n## 12. Test vectors").expect("section 12").1;
    let block = section.split("```").nth(1).expect("a code block");
    let mut vectors = BTreeMap::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let (name, hex) = line.split_once(" = ").expect("name = hex");
        let known = vectors.insert(name.to_owned(), hex.to_owned());
        assert_eq!(known, None, "{name} twice");
    }
    vectors
}

#[test]
fn the_vectors_of_the_specification_hold() {
    let computed: Vectors =
        [public_values(), schedule(), packets(), handshakes()].into_iter().flatten().collect();
    let text: String = computed
        .iter()
        .map(|(name, value)| format!("{name} = {}\n", HEXLOWER.encode(value)))
        .collect();
    let computed: BTreeMap<String, String> = computed
        .into_iter()
        .map(|(name, value)| (name.to_owned(), HEXLOWER.encode(&value)))
        .collect();
    assert_eq!(computed, written(), "\n{text}");
}

fn initiator() -> StaticKey {
    StaticKey::from_bytes([0x11; 32])
}

fn responder() -> StaticKey {
    StaticKey::from_bytes([0x22; 32])
}

fn public_values() -> Vectors {
    let connect = ConnectId([0x33; 16]);
    let (a, b) = (initiator(), responder());
    let smaller_first = a.public() < b.public();
    let (smaller, larger) = if smaller_first { (&a, &b) } else { (&b, &a) };
    let (up, down) = check_keys(smaller, &larger.public(), &connect).unwrap();
    let (server, peer) = (b.public(), a.public());
    let cookie_key = [0x44; 32];
    let digest = [0x55; 32];
    let session = token_proof_session("secret", &[0x66; 32]);
    let early = token_proof_early("secret", &server, &peer, Boot(7), 8);
    let proof = |text: String| HEXLOWER.decode(text.as_bytes()).unwrap();
    let cookie = |from: &str| cookie_of(&cookie_key, &digest, from.parse().unwrap()).to_vec();
    vec![
        ("initiator public", a.public().as_bytes().to_vec()),
        ("responder public", b.public().as_bytes().to_vec()),
        ("static shared", a.diffie_hellman(&b.public()).unwrap().to_vec()),
        ("check key 0", up.to_vec()),
        ("check key 1", down.to_vec()),
        ("network open", network_id("open").0.to_vec()),
        ("token proof session", proof(session)),
        ("token proof early", proof(early)),
        ("cookie v4", cookie("192.0.2.1:3478")),
        ("cookie v6", cookie("[2001:db8::1]:3478")),
        ("reset", ResetKey::new([0x77; 32]).datagram(Token(0x0102_0304_0506_0708))),
    ]
}

fn first_root() -> kdf::Secret {
    noise::root(&[0xAA; 32], &[0xBB; 32], &[0xCC; 32])
}

fn schedule() -> Vectors {
    let root = first_root();
    let next = rekey::next_root(&root, &[0xDD; 32]);
    let key = |root: &kdf::Secret, suite, direction| {
        PacketKey::derive(root, suite, direction).secret().to_vec()
    };
    let (chacha, aes) = (Suite::ChaCha20Poly1305, Suite::Aes256Gcm);
    vec![
        ("root 0", root.to_vec()),
        ("root 0 chacha key 0", key(&root, chacha, 0)),
        ("root 0 chacha key 1", key(&root, chacha, 1)),
        ("root 0 aes key 0", key(&root, aes, 0)),
        ("root 0 aes key 1", key(&root, aes, 1)),
        ("root 1", next.to_vec()),
        ("root 1 chacha key 0", key(&next, chacha, 0)),
        ("root 1 aes key 1", key(&next, aes, 1)),
    ]
}

fn packet(suite: Suite, remote: Address, number: PacketNumber) -> Vec<u8> {
    let (own, other, now) = (initiator().public(), responder().public(), crate::time::origin());
    let established = Established::with_root(first_root(), other, suite);
    let local = Address::Peer(ReceiverId(0));
    let mut session = Session::new(established, Side::Initiator, own, local, remote, 128, now);
    let mut packet = vec![0; session.header_len()];
    // A PING.
    packet.push(0x01);
    session.seal(number, &mut packet, 0, now).unwrap();
    packet
}

fn packets() -> Vectors {
    let peer = Address::Peer(ReceiverId(0x0A0B_0C0D));
    let server = Address::Server(Token(0x0102_0304_0506_0708));
    let (direct, first) = (PacketNumber::new(PathId(3), 9), PacketNumber::new(PathId(0), 0));
    vec![
        ("chacha packet to a peer", packet(Suite::ChaCha20Poly1305, peer, direct)),
        ("chacha packet to a server", packet(Suite::ChaCha20Poly1305, server, first)),
        ("aes packet to a peer", packet(Suite::Aes256Gcm, peer, direct)),
        ("aes packet to a server", packet(Suite::Aes256Gcm, server, first)),
    ]
}

/// Seeds a handshake's generator with one byte throughout.
struct Constant(u8);

impl RngCore for Constant {
    fn next_u32(&mut self) -> u32 {
        u32::from_ne_bytes([self.0; 4])
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_ne_bytes([self.0; 8])
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

/// The ephemeral secret key that [`Constant`] leads to.
fn ephemeral(byte: u8) -> Vec<u8> {
    let mut secret = vec![0; 32];
    ChaCha20Rng::from_seed([byte; 32]).fill_bytes(&mut secret);
    secret
}

fn init_config(local: &StaticKey, remote: Option<PeerKey>) -> InitConfig<'_> {
    let early = EarlyOffer { boot: Boot(7), counter: 8, frames: vec![0x01] };
    InitConfig {
        local,
        early: remote.map(|_| early),
        remote,
        responder: Responder::Peer,
        network: network_id("open"),
        suites: Suites::new(true),
        receiver: ReceiverId(0x0A0B_0C0D),
        epoch: Epoch(1),
        boot: Boot(2),
        padding: Padding::None,
    }
}

struct Shaken {
    init: Vec<u8>,
    reply: Vec<u8>,
    completed: Completed,
}

fn shake(remote: Option<PeerKey>, network: NetworkId) -> Shaken {
    let local = initiator();
    let config = init_config(&local, remote);
    let mut initiator = Initiator::new(config, &mut Constant(0x88)).unwrap();
    let init = initiator.datagram().to_vec();
    let accepted = Accepted::read(&responder(), Responder::Peer, network, &init).unwrap();
    let info = ReplyInfo {
        address: Address::Peer(ReceiverId(0x0E0F_1011)),
        suite: Suite::Aes256Gcm,
        epoch: Epoch(3),
        boot: Boot(7),
        early: if remote.is_some() { EarlyVerdict::Accepted } else { EarlyVerdict::None },
        observed: None,
        reset: None,
    };
    let (reply, _) = accepted.reply(info, &mut Constant(0x99)).unwrap();
    let completed = initiator.read_reply(&reply).unwrap();
    Shaken { init, reply, completed }
}

fn handshakes() -> Vectors {
    let network = network_id("open");
    let ik = shake(Some(responder().public()), network);
    let xx = shake(None, network);
    vec![
        ("initiator ephemeral", ephemeral(0x88)),
        ("responder ephemeral", ephemeral(0x99)),
        ("ik init", ik.init),
        ("ik reply", ik.reply),
        ("ik hash", ik.completed.established.handshake_hash().to_vec()),
        ("ik root", ik.completed.established.root.to_vec()),
        ("xx init", xx.init),
        ("xx reply", xx.reply),
        ("xx finish", xx.completed.finish.unwrap()),
        ("xx hash", xx.completed.established.handshake_hash().to_vec()),
        ("xx root", xx.completed.established.root.to_vec()),
    ]
}
