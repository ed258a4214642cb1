//! A datagram of a stranger, at every function that looks into one before it is authenticated.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use p2sp_proto::id::{Epoch, LanSecret, NetworkId, ReceiverId, Token};
use p2sp_proto::session::{
    Accepted, CookieJar, InitConfig, Initiator, Padding, ResetKey, Responder, StaticKey, Suites,
    init_id, is_reset, open_beacon, screen_init, versions_reply,
};
use p2sp_proto::wire::beacon::Beacon;
use p2sp_proto::wire::{Family, RELAY_HEADER_LEN, RelayHeader, receiver_of, token_of};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

const UNIX: Duration = Duration::from_secs(1_800_000_000);

fuzz_target!(|datagram: &[u8]| {
    let now = Instant::now();
    let _ = Family::of(datagram);
    let _ = (token_of(datagram), receiver_of(datagram));
    if let Ok((header, inside)) = RelayHeader::decode(datagram) {
        assert_eq!(header.encode(), datagram[..RELAY_HEADER_LEN]);
        assert_eq!(inside.len(), datagram.len() - RELAY_HEADER_LEN);
    }
    answers_are_smaller(datagram, now);
    handshakes(datagram);
    assert!(open_beacon(&LanSecret([7; 32]), datagram, UNIX).is_none());
    if let Ok(beacon) = Beacon::decode(datagram) {
        assert_eq!(Beacon::decode(&beacon.encode()), Ok(beacon));
    }
    let reset = ResetKey::new([3; 32]);
    assert!(!is_reset(datagram, Token(5), &reset.tag(Token(5))));
});

/// What is sent to an address that nobody has proved is no larger than what came.
fn answers_are_smaller(datagram: &[u8], now: Instant) {
    let from = ([192, 0, 2, 1], 4242).into();
    let jar = CookieJar::new([1; 32], now);
    assert!(!jar.is_valid(datagram, from, now));
    for answer in [jar.retry(datagram, from, now), versions_reply(datagram)].into_iter().flatten() {
        assert!(answer.len() <= datagram.len());
    }
}

/// Nobody who lacks a key gets further than the door.
fn handshakes(datagram: &[u8]) {
    let key = StaticKey::from_bytes([2; 32]);
    let network = NetworkId([5; 16]);
    let _ = (init_id(datagram), screen_init(datagram, &key.public()));
    for responder in [Responder::Peer, Responder::Server] {
        let accepted = Accepted::read(&key, responder, network, datagram);
        assert!(accepted.is_err() || accepted.is_ok_and(|accepted| accepted.remote().is_none()));
    }
    let config = InitConfig {
        local: &key,
        remote: None,
        responder: Responder::Server,
        network: NetworkId::default(),
        suites: Suites::new(true),
        receiver: ReceiverId(0x0101_0101),
        epoch: Epoch(1),
        boot: p2sp_proto::id::Boot(1),
        early: None,
        padding: Padding::Full,
    };
    let Ok(mut initiator) = Initiator::new(config, &mut ChaCha8Rng::seed_from_u64(1)) else {
        panic!("an init that depends on nobody");
    };
    let _ = initiator.handle_retry(datagram);
    let _ = initiator.read_reply(datagram);
}
