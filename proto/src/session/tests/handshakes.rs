//! The handshake, and those who interfere with it.

use super::*;
use crate::wire::{HANDSHAKE_INIT_LEN, VERSION};

#[test]
fn a_peer_and_a_server_agree_with_ik_and_xx() {
    let (peer, server) = (key(1), key(2));
    for remote in [Some(server.public()), None] {
        for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
            let shaken = shake(config(&peer, remote, Responder::Server), &server, suite, 1);
            ends_agree(&shaken, &peer, &server);
            assert_eq!(shaken.completed.info, says(Responder::Server, suite));
            assert_eq!(shaken.init.len(), HANDSHAKE_INIT_LEN);
            assert!(shaken.reply.len() < shaken.init.len());
        }
    }
}

#[test]
fn two_peers_agree_unpadded() {
    let (alice, bob) = (key(1), key(2));
    for remote in [Some(bob.public()), None] {
        let mut config = config(&alice, remote, Responder::Peer);
        config.padding = Padding::None;
        let shaken = shake(config, &bob, Suite::ChaCha20Poly1305, 1);
        ends_agree(&shaken, &alice, &bob);
        assert!(shaken.init.len() <= 172);
    }
}
#[test]
fn one_seed_gives_the_same_bytes() {
    let bytes = |seed: u64| {
        [Some(key(2).public()), None].map(|remote| {
            let local = key(1);
            let config = config(&local, remote, Responder::Peer);
            let shaken = shake(config, &key(2), Suite::Aes256Gcm, seed);
            (shaken.init, shaken.reply, shaken.completed.finish)
        })
    };
    assert_eq!(bytes(7), bytes(7));
    for (one, other) in bytes(7).into_iter().zip(bytes(8)) {
        assert_ne!(one.0, other.0);
        assert_ne!(one.1, other.1);
        assert!(one.2.is_none() || one.2 != other.2);
    }
}

#[test]
fn jobs_may_run_on_other_threads() {
    fn is_send<T: Send>() {}
    is_send::<Accepted>();
    is_send::<Replied>();
    is_send::<Initiator>();
    is_send::<Session>();
}

#[test]
fn early_data_arrives_with_the_first_message() {
    let (alice, bob) = (key(1), key(2));
    let offer =
        |len: usize, boot: u64| EarlyOffer { boot: Boot(boot), counter: 4, frames: vec![9; len] };
    let init = |early: EarlyOffer, remote: Option<PeerKey>| {
        let config = InitConfig { early: Some(early), ..config(&alice, remote, Responder::Server) };
        Initiator::new(config, &mut rng(1)).map(|initiator| initiator.datagram().to_vec())
    };
    for len in [0, 1, EARLY_LEN_MAX] {
        let init = init(offer(len, 3), Some(bob.public())).unwrap();
        assert_eq!(init.len(), HANDSHAKE_INIT_LEN);
        let accepted = accept(&init, Responder::Server).unwrap();
        assert_eq!(accepted.early(), Some(&offer(len, 3)));
        assert_eq!((accepted.remote(), accepted.epoch()), (Some(alice.public()), Some(Epoch(11))));
    }
    let malformed = Some(HandshakeError::Malformed);
    assert_eq!(init(offer(EARLY_LEN_MAX + 1, 3), Some(bob.public())).err(), malformed);
    assert_eq!(init(offer(1, 0), Some(bob.public())).err(), malformed, "boot 0 means none");
    assert_eq!(init(offer(1, 3), None).err(), malformed, "nobody to seal it for");
}

#[test]
fn no_bit_of_an_ik_init_can_be_altered() {
    let init = initiator(Some(&key(2)), Responder::Peer, 1).datagram().to_vec();
    let len = init::Init::parse(&init).map(|init| 44 + init.noise.len()).unwrap();
    for bit in (0..len * 8).filter(|bit| !(28 * 8..44 * 8).contains(bit)) {
        let mut forged = init.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(accept(&forged, Responder::Peer).is_err(), "bit {bit}");
        // Whoever knows the responder's key can make mac1 right, and gets no further.
        if (2 * 8..12 * 8).contains(&bit) && init::Init::parse(&forged).is_ok() {
            restamp(&mut forged, &key(2));
            assert!(accept(&forged, Responder::Peer).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn an_altered_xx_init_leads_nowhere() {
    let mut initiator = initiator(None, Responder::Peer, 1);
    let mut forged = initiator.datagram().to_vec();
    forged[4] = 1;
    restamp(&mut forged, &key(2));
    let (reply, _) = reply_to(&forged, 2);
    assert_eq!(initiator.read_reply(&reply).err(), Some(HandshakeError::Unauthentic));
    let (reply, _) = reply_to(initiator.datagram(), 2);
    assert!(initiator.read_reply(&reply).is_ok());
}

#[test]
fn another_role_network_or_key_is_refused() {
    let init = initiator(Some(&key(2)), Responder::Peer, 1).datagram().to_vec();
    assert_eq!(accept(&init, Responder::Server).err(), Some(HandshakeError::Malformed));
    let elsewhere = Accepted::read(&key(2), Responder::Peer, NetworkId([6; 16]), &init);
    assert_eq!(elsewhere.err(), Some(HandshakeError::Unauthentic));
    let other = Accepted::read(&key(3), Responder::Peer, NETWORK, &init);
    assert_eq!(other.err(), Some(HandshakeError::Unauthentic));
}

#[test]
fn forged_replies_do_not_disturb_the_true_one() {
    for remote in [Some(key(2)), None] {
        let mut initiator = initiator(remote.as_ref(), Responder::Peer, 1);
        let init = initiator.datagram().to_vec();
        let (reply, _) = reply_to(&init, 2);
        for bit in 0..reply.len() * 8 {
            let mut forged = reply.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(initiator.read_reply(&forged).is_err(), "bit {bit}");
        }
        for len in 0..reply.len() {
            assert!(initiator.read_reply(&reply[..len]).is_err(), "cut to {len}");
        }
        assert_eq!(initiator.datagram(), init);
        assert_eq!(initiator.read_reply(&reply).map(|done| done.info.epoch), Ok(Epoch(21)));
        assert!(initiator.read_reply(&reply).is_err(), "a reply counts once");
    }
}

#[test]
fn a_second_message_that_says_nonsense_does_not_end_an_xx_handshake() {
    let mut initiator = initiator(None, Responder::Peer, 1);
    let init = initiator.datagram().to_vec();
    let parsed = init::Init::parse(&init).unwrap();
    let recipe = noise::Recipe {
        side: Side::Responder,
        pattern: parsed.pattern,
        local: key(3),
        remote: None,
        prologue: noise::prologue(parsed.head, &NETWORK),
    };
    let mut state = recipe.start(&noise::Seed::draw(&mut rng(5))).unwrap();
    state.read_message(parsed.noise, &mut []).unwrap();
    let mut message = vec![0; 200];
    let len = state.write_message(b"nonsense", &mut message).unwrap();
    let nonsense = [&[5][..], &0xA1A2_A3A4_u32.to_be_bytes(), &message[..len]].concat();
    assert_eq!(initiator.read_reply(&nonsense).err(), Some(HandshakeError::Malformed));

    let (reply, replied) = reply_to(&init, 2);
    let completed = initiator.read_reply(&reply).unwrap();
    let Replied::AwaitFinish(mut pending) = replied else { panic!("XX needs a finish") };
    assert!(pending.read_finish(completed.finish.as_deref().unwrap()).is_ok());
}

#[test]
fn forged_finishes_do_not_disturb_the_true_one() {
    let mut initiator = initiator(None, Responder::Peer, 1);
    let (reply, replied) = reply_to(initiator.datagram(), 2);
    let finish = initiator.read_reply(&reply).unwrap().finish.unwrap();
    let Replied::AwaitFinish(mut pending) = replied else { panic!("XX needs a finish") };
    for bit in 0..finish.len() * 8 {
        let mut forged = finish.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(pending.read_finish(&forged).is_err(), "bit {bit}");
    }
    assert_eq!(pending.read_finish(&finish).map(|done| done.remote()), Ok(key(1).public()));
    assert!(pending.read_finish(&finish).is_err(), "a finish counts once");
}

#[test]
fn keys_of_low_order_are_refused_wherever_they_stand() {
    let local = key(1);
    let zero = PeerKey::from_bytes([0; 32]);
    let to_zero = Initiator::new(config(&local, Some(zero), Responder::Peer), &mut rng(1));
    assert_eq!(to_zero.err(), Some(HandshakeError::WeakKey));

    let mut ik = initiator(Some(&key(2)), Responder::Peer, 1).datagram().to_vec();
    ik[44..76].fill(0);
    restamp(&mut ik, &key(2));
    assert_eq!(accept(&ik, Responder::Peer).err(), Some(HandshakeError::WeakKey));

    let mut xx = initiator(None, Responder::Peer, 1).datagram().to_vec();
    xx[44..76].fill(0);
    restamp(&mut xx, &key(2));
    let info = says(Responder::Peer, Suite::ChaCha20Poly1305);
    let replied = accept(&xx, Responder::Peer).unwrap().reply(info, &mut rng(2));
    assert_eq!(replied.err(), Some(HandshakeError::WeakKey));

    let mut initiator = initiator(Some(&key(2)), Responder::Peer, 1);
    let (mut reply, _) = reply_to(initiator.datagram(), 2);
    reply[5..37].fill(0);
    assert_eq!(initiator.read_reply(&reply).err(), Some(HandshakeError::WeakKey));
}

#[test]
fn a_responder_says_only_what_befits_it() {
    let init = initiator(Some(&key(2)), Responder::Peer, 1).datagram().to_vec();
    let accepted = || accept(&init, Responder::Peer).unwrap();
    let as_server = accepted().reply(says(Responder::Server, Suite::Aes256Gcm), &mut rng(2));
    assert_eq!(as_server.err(), Some(HandshakeError::Malformed));

    let local = key(1);
    let without = InitConfig {
        suites: Suites::new(false),
        ..config(&local, Some(key(2).public()), Responder::Peer)
    };
    let init = Initiator::new(without, &mut rng(1)).unwrap().datagram().to_vec();
    let accepted = accept(&init, Responder::Peer).unwrap();
    assert_eq!(accepted.suites().choose(Suites::new(true)), Suite::ChaCha20Poly1305);
    let unasked = accepted.reply(says(Responder::Peer, Suite::Aes256Gcm), &mut rng(2));
    assert_eq!(unasked.err(), Some(HandshakeError::Malformed));
}

#[test]
fn screening_costs_strangers_one_hash() {
    let own = key(2).public();
    let init = initiator(Some(&key(2)), Responder::Server, 1).datagram().to_vec();
    assert_eq!(screen_init(&init, &own), Ok(()));
    assert_eq!(screen_init(&init, &key(3).public()), Err(InitRefusal::BadMac));
    assert_eq!(screen_init(&init[..1199], &own), Err(InitRefusal::Malformed), "unpadded");
    let unkeyed = initiator(None, Responder::Server, 1).datagram().to_vec();
    assert_eq!(screen_init(&unkeyed, &own), Ok(()));

    let mut future = init.clone();
    future[1] = VERSION + 1;
    assert_eq!(screen_init(&future, &own), Err(InitRefusal::UnknownVersion));
    let versions = [&[0x0D][..], &init[8..12], &[1, VERSION]].concat();
    assert_eq!(versions_reply(&future), Some(versions));
    assert_eq!(versions_reply(&init), None);
}

#[test]
fn the_same_init_has_the_same_identity() {
    let mut initiator = initiator(Some(&key(2)), Responder::Server, 1);
    let id = init_id(initiator.datagram());
    let jar = CookieJar::new([3; 32], start());
    let retry = jar.retry(initiator.datagram(), address(), start()).unwrap();
    assert!(initiator.handle_retry(&retry));
    assert_eq!(init_id(initiator.datagram()), id);
    let mut altered = initiator.datagram().to_vec();
    altered[11] ^= 1;
    assert_ne!(init_id(&altered), id);
}

#[test]
fn a_cookie_is_good_for_its_init_and_address_for_two_periods() {
    let now = start();
    let jar = CookieJar::new([3; 32], now);
    let mut initiator = initiator(Some(&key(2)), Responder::Server, 1);
    assert!(!jar.is_valid(initiator.datagram(), address(), now));
    let retry = jar.retry(initiator.datagram(), address(), now + SECOND).unwrap();
    assert!(retry.len() < initiator.datagram().len());
    assert!(initiator.handle_retry(&retry));

    let init = initiator.datagram();
    assert!(jar.is_valid(init, address(), now + SECOND));
    assert!(jar.is_valid(init, address(), now + 119 * SECOND));
    assert!(!jar.is_valid(init, address(), now + 120 * SECOND));
    let other: SocketAddr = "192.0.2.7:4243".parse().unwrap();
    assert!(!jar.is_valid(init, other, now + SECOND));
    let mut altered = init.to_vec();
    altered[11] ^= 1;
    assert!(!jar.is_valid(&altered, address(), now + SECOND));
    assert!(!CookieJar::new([4; 32], now).is_valid(init, address(), now + SECOND));
    assert!(accept(init, Responder::Server).is_ok(), "the cookie changes nothing else");
}

#[test]
fn only_a_retry_for_our_init_is_taken() {
    let jar = CookieJar::new([3; 32], start());
    let mut ours = initiator(Some(&key(2)), Responder::Server, 1);
    let theirs = initiator(Some(&key(2)), Responder::Server, 2);
    let before = ours.datagram().to_vec();
    let stray = jar.retry(theirs.datagram(), address(), start()).unwrap();
    assert!(!ours.handle_retry(&stray));
    let retry = jar.retry(ours.datagram(), address(), start()).unwrap();
    assert!(!ours.handle_retry(&retry[..36]));
    assert!(!ours.handle_retry(&[&retry[..], &[0]].concat()));
    assert_eq!(ours.datagram(), before);
}

#[test]
fn a_reset_is_known_by_its_tag() {
    let reset = ResetKey::new([8; 32]);
    let (token, other) = (Token(77), Token(78));
    let datagram = reset.datagram(token);
    assert!(is_reset(&datagram, token, &reset.tag(token)));
    assert!(!is_reset(&datagram, other, &reset.tag(other)));
    assert!(!is_reset(&datagram, token, &ResetKey::new([9; 32]).tag(token)));
    assert!(!is_reset(&datagram[..24], token, &reset.tag(token)));
}
