//! Packets, and those who interfere with them.

use super::*;

#[test]
fn packets_pass_both_ways_in_every_suite_and_shape() {
    for responder in [Responder::Server, Responder::Peer] {
        for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
            let mut pair = Pair::new(responder, suite);
            let packet = pair.seal(0, b"up");
            assert_eq!(packet.len(), 2 + pair.ends[0].overhead());
            assert_eq!(pair.open(1, &packet).as_deref(), Ok(&b"up"[..]));
            assert_eq!(pair.open(1, &packet), Err(OpenError::Replayed));
            pair.passes(1);
            pair.passes(0);
        }
    }
}

#[test]
fn no_bit_of_a_packet_can_be_altered() {
    for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
        let mut pair = Pair::new(Responder::Server, suite);
        let packet = pair.seal(0, b"frames");
        for bit in 0..packet.len() * 8 {
            let mut forged = packet.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(pair.open(1, &forged).is_err(), "bit {bit}");
        }
        assert!(pair.open(0, &packet).is_err(), "nobody is sent back what it sealed");
        assert!(pair.open(1, &packet).is_ok(), "forgeries leave no trace");
    }
}

#[test]
fn only_the_highest_number_of_a_path_is_the_newest() {
    let mut pair = Pair::new(Responder::Peer, Suite::ChaCha20Poly1305);
    let (first, second) = (pair.seal(0, b"1"), pair.seal(0, b"2"));
    let mut newest = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        pair.ends[1].open(&mut packet, pair.now).unwrap().newest
    };
    assert!(newest(&second));
    assert!(!newest(&first));
    let highest = Some(PacketNumber::new(PathId(0), 1));
    assert_eq!(pair.ends[1].highest_received(PathId(0)), highest);
    assert_eq!(pair.ends[1].highest_received(PathId(1)), None);
}

#[test]
fn a_number_is_never_used_twice() {
    let mut pair = Pair::new(Responder::Peer, Suite::ChaCha20Poly1305);
    let now = pair.now;
    let mut seal = |path: u8, count: u64, len: usize| {
        pair.ends[0].seal(PacketNumber::new(PathId(path), count), &mut vec![0; len], 0, now)
    };
    assert_eq!(seal(0, 5, 20), Ok(()));
    assert_eq!(seal(0, 5, 20), Err(SealError::Misused));
    assert_eq!(seal(0, 4, 20), Err(SealError::Misused));
    assert_eq!(seal(1, 0, 20), Ok(()));
    assert_eq!(seal(0, 6, 12), Err(SealError::Misused), "no room for the header");
    assert_eq!(seal(0, PacketNumber::COUNT_MAX, 20), Err(SealError::Exhausted));
}

#[test]
fn a_session_ends_after_too_many_forgeries() {
    let mut pair = Pair::new(Responder::Peer, Suite::ChaCha20Poly1305);
    let packet = pair.seal(0, b"frames");
    let mut forged = packet.clone();
    *forged.last_mut().unwrap() ^= 1;
    pair.ends[1].set_forgeries((1 << 36) - 1);
    assert_eq!(pair.open(1, &forged), Err(OpenError::Unauthentic));
    assert_eq!(pair.open(1, &packet), Err(OpenError::Exhausted));
}

#[test]
fn an_idle_session_is_small_and_wakes_up() {
    let mut pair = Pair::new(Responder::Server, Suite::Aes256Gcm);
    pair.passes(0);
    pair.passes(1);
    pair.ends.iter_mut().for_each(Session::release_expanded);
    pair.passes(0);
    pair.passes(1);
    let size = size_of::<Session>();
    assert!(size <= 384, "{size} bytes");
}
