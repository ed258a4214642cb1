//! Rekeying, in order and under loss.

use rand::Rng as _;

use super::*;
use crate::wire::frame::{Rekey, RekeyStep};

impl Pair {
    /// One end offers and the other answers; nothing is sealed in between.
    fn exchange(&mut self, offering: usize) {
        let mut rng = rng(9);
        self.ends[offering].request_rekey();
        let offer = self.ends[offering].poll_rekey(&mut rng, self.now).expect("offers");
        let answer = self.ends[1 - offering].handle_rekey(&offer, &mut rng, self.now);
        let answer = answer.unwrap().expect("answers");
        assert_eq!(self.ends[offering].handle_rekey(&answer, &mut rng, self.now), Ok(None));
    }

    fn generations(&self) -> [u32; 2] {
        [self.ends[0].generation(), self.ends[1].generation()]
    }
}

#[test]
fn each_side_switches_when_it_knows_that_the_other_can_follow() {
    let mut pair = Pair::new(Responder::Peer, Suite::ChaCha20Poly1305);
    let late = [pair.seal(0, b"late"), pair.seal(1, b"late")];
    pair.exchange(0);
    assert_eq!(pair.generations(), [1, 0], "only the offering side seals anew");
    pair.passes(1);
    pair.passes(0);
    assert_eq!(pair.generations(), [1, 1]);
    pair.passes(1);
    let phases = [pair.seal(0, b"x")[0], pair.seal(1, b"x")[0]];
    assert_eq!(phases, [0x09, 0x09]);
    for (from, packet) in late.iter().enumerate() {
        assert!(pair.open(1 - from, packet).is_ok(), "old packets still open");
    }
}

#[test]
fn the_old_key_is_erased_after_three_probe_timeouts() {
    let mut pair = Pair::new(Responder::Peer, Suite::ChaCha20Poly1305);
    pair.ends[1].set_probe_timeout(2 * SECOND);
    let late = [pair.seal(0, b"late"), pair.seal(0, b"late")];
    pair.exchange(0);
    pair.passes(0);
    assert_eq!(pair.ends[1].poll_timeout(), Some((pair.now + 6 * SECOND, "old key")));
    pair.now += Duration::from_millis(5999);
    assert!(pair.open(1, &late[0]).is_ok());
    pair.now += Duration::from_millis(1);
    assert_eq!(pair.open(1, &late[1]), Err(OpenError::Unauthentic));
    pair.passes(0);
}

#[test]
fn a_rekey_is_offered_after_an_hour_or_many_packets_and_once() {
    let mut pair = Pair::new(Responder::Peer, Suite::ChaCha20Poly1305);
    let mut rng = rng(3);
    let due = pair.now + HOUR;
    assert_eq!(pair.ends[0].poll_timeout(), Some((due, "rekey")));
    assert_eq!(pair.ends[0].poll_rekey(&mut rng, due - SECOND), None);
    pair.ends[0].handle_timeout(due);
    assert_eq!(pair.ends[0].poll_timeout(), None, "nothing left to wait for");
    assert!(pair.ends[0].poll_rekey(&mut rng, due).is_some());
    assert_eq!(pair.ends[0].poll_rekey(&mut rng, due + HOUR), None);

    pair.ends[1].set_sent((1 << 26) - 1);
    assert_eq!(pair.ends[1].poll_rekey(&mut rng, pair.now), None);
    pair.seal(1, b"one more");
    assert!(pair.ends[1].poll_rekey(&mut rng, pair.now).is_some());
    pair.ends[1].set_sent(1 << 32);
    let number = PacketNumber::new(PathId(0), 1 << 40);
    let sealed = pair.ends[1].seal(number, &mut vec![0; 20], 0, pair.now);
    assert_eq!(sealed, Err(SealError::Exhausted), "a key does not seal for ever");
}

#[test]
fn of_crossing_offers_that_of_the_smaller_key_counts() {
    for (a, b) in [(1, 2), (2, 1)] {
        let (a, b) = (key(a), key(b));
        let smaller = usize::from(b.public() < a.public());
        let mut pair = Pair::between(&a, &b, Responder::Peer, Suite::ChaCha20Poly1305);
        let mut rng = rng(3);
        let now = pair.now;
        pair.ends.iter_mut().for_each(Session::request_rekey);
        let offers = [0, 1].map(|end| pair.ends[end].poll_rekey(&mut rng, now).unwrap());
        let ignored = pair.ends[smaller].handle_rekey(&offers[1 - smaller], &mut rng, now);
        assert_eq!(ignored, Ok(None));
        let answer = pair.ends[1 - smaller].handle_rekey(&offers[smaller], &mut rng, now);
        let answer = answer.unwrap().unwrap();
        assert_eq!(pair.ends[smaller].handle_rekey(&answer, &mut rng, now), Ok(None));
        pair.passes(smaller);
        pair.passes(1 - smaller);
        assert_eq!(pair.generations(), [1, 1]);
        // What was sent again on the way changes nothing.
        for (end, frame) in [(1 - smaller, &offers[smaller]), (smaller, &answer)] {
            assert_eq!(pair.ends[end].handle_rekey(frame, &mut rng, now), Ok(None));
        }
        assert_eq!(pair.ends[smaller].handle_rekey(&offers[1 - smaller], &mut rng, now), Ok(None));
        pair.passes(smaller);
        pair.passes(1 - smaller);
    }
}

#[test]
fn rekeys_against_the_rules_are_errors() {
    let mut pair = Pair::new(Responder::Peer, Suite::ChaCha20Poly1305);
    let mut rng = rng(3);
    let now = pair.now;
    let public = *key(5).public().as_bytes();
    let mut handle = |generation, step, public| {
        pair.ends[0].handle_rekey(&Rekey { generation, step, public }, &mut rng, now)
    };
    assert_eq!(handle(2, RekeyStep::Offer, public), Err(RekeyError::Unexpected));
    assert_eq!(handle(1, RekeyStep::Answer, public), Err(RekeyError::Unexpected));
    assert_eq!(handle(1, RekeyStep::Offer, [0; 32]), Err(RekeyError::WeakKey));
    assert_eq!(handle(0, RekeyStep::Offer, public), Ok(None));
    assert!(matches!(handle(1, RekeyStep::Offer, public), Ok(Some(_))));
}

/// A link that loses and reorders; rekey frames ride in every packet, again and again, as a
/// transport that hears no acknowledgement would send them.
struct Lossy {
    pair: Pair,
    rng: ChaCha12Rng,
    /// Due time, receiving end, packet.
    flying: Vec<(Instant, usize, Vec<u8>)>,
    frames: [Vec<Rekey>; 2],
    opened: u64,
}

impl Lossy {
    const DELAY_MAX: u64 = 250;

    fn step(&mut self) {
        self.pair.now += Duration::from_millis(10);
        for end in 0..2 {
            self.maybe_rekey(end);
            self.send(end);
        }
        let now = self.pair.now;
        let (due, flying) = self.flying.drain(..).partition(|(at, _, _)| *at <= now);
        self.flying = flying;
        let due: Vec<(Instant, usize, Vec<u8>)> = due;
        for (_, end, packet) in due {
            self.receive(end, &packet);
        }
    }

    fn maybe_rekey(&mut self, end: usize) {
        // Often enough for offers to cross.
        if self.rng.random_ratio(1, 20) {
            self.pair.ends[end].request_rekey();
        }
        if let Some(offer) = self.pair.ends[end].poll_rekey(&mut self.rng, self.pair.now) {
            self.keep(end, offer);
        }
    }

    fn keep(&mut self, end: usize, frame: Rekey) {
        self.frames[end].push(frame);
        // The last offer and the last answer, and what came before them.
        let excess = self.frames[end].len().saturating_sub(4);
        self.frames[end].drain(..excess);
    }

    fn send(&mut self, end: usize) {
        let mut body = Vec::new();
        for frame in &self.frames[end] {
            body.extend_from_slice(&frame.generation.to_be_bytes());
            body.push(u8::from(frame.step == RekeyStep::Answer));
            body.extend_from_slice(&frame.public);
        }
        let packet = self.pair.seal(end, &body);
        if !self.rng.random_ratio(3, 10) {
            let delay = self.rng.random_range(0..Self::DELAY_MAX);
            self.flying.push((self.pair.now + Duration::from_millis(delay), 1 - end, packet));
        }
    }

    fn receive(&mut self, end: usize, packet: &[u8]) {
        let body = self.pair.open(end, packet).expect("whatever arrives in time opens");
        self.opened += 1;
        for frame in body.chunks_exact(37) {
            let generation = u32::from_be_bytes(frame[..4].try_into().unwrap());
            let step = if frame[4] == 1 { RekeyStep::Answer } else { RekeyStep::Offer };
            let rekey = Rekey { generation, step, public: frame[5..].try_into().unwrap() };
            let now = self.pair.now;
            let answer = self.pair.ends[end].handle_rekey(&rekey, &mut self.rng, now).unwrap();
            if let Some(answer) = answer {
                self.keep(end, answer);
            }
        }
    }
}

#[test]
fn traffic_survives_many_rekeys_with_loss_and_reordering() {
    for seed in 0..8 {
        let (a, b) = if seed % 2 == 0 { (key(1), key(2)) } else { (key(2), key(1)) };
        let mut pair = Pair::between(&a, &b, Responder::Peer, Suite::ChaCha20Poly1305);
        // Three of them are just longer than the slowest packet takes.
        pair.ends.iter_mut().for_each(|end| end.set_probe_timeout(Duration::from_millis(90)));
        let frames = [Vec::new(), Vec::new()];
        let mut link = Lossy { pair, rng: rng(seed), flying: Vec::new(), frames, opened: 0 };
        for _ in 0..2000 {
            link.step();
        }
        let [a, b] = link.pair.generations();
        assert!(a.min(b) >= 10 && a.abs_diff(b) <= 1, "seed {seed}: generations {a} and {b}");
        assert!(link.opened > 2000, "seed {seed}: {} opened", link.opened);
    }
}

#[test]
fn a_forgery_of_the_next_phase_does_not_switch() {
    let mut pair = Pair::new(Responder::Peer, Suite::Aes256Gcm);
    pair.exchange(0);
    let mut forged = pair.seal(1, b"old keys");
    forged[0] ^= 1;
    assert_eq!(pair.open(0, &forged), Err(OpenError::Unauthentic));
    let mut forged = pair.seal(0, b"new keys");
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(pair.open(1, &forged), Err(OpenError::Unauthentic));
    assert_eq!(pair.generations(), [1, 0]);
    pair.passes(1);
    pair.passes(0);
}

#[test]
fn a_rekey_is_over_before_the_next_begins() {
    let mut pair = Pair::new(Responder::Peer, Suite::ChaCha20Poly1305);
    let mut rng = rng(3);
    pair.ends.iter_mut().for_each(|end| end.set_probe_timeout(SECOND));
    pair.exchange(0);
    pair.passes(0);
    pair.ends[1].request_rekey();
    assert_eq!(pair.ends[1].poll_rekey(&mut rng, pair.now), None, "an old key is kept");
    assert!(pair.ends[1].poll_rekey(&mut rng, pair.now + 3 * SECOND).is_some());
}

#[test]
fn an_offer_erases_the_old_key() {
    let mut pair = Pair::new(Responder::Peer, Suite::ChaCha20Poly1305);
    let mut rng = rng(3);
    let late = [pair.seal(1, b"late"), pair.seal(1, b"late")];
    pair.exchange(0);
    pair.passes(0);
    pair.passes(1);
    assert!(pair.open(0, &late[0]).is_ok());
    let offer =
        Rekey { generation: 2, step: RekeyStep::Offer, public: *key(5).public().as_bytes() };
    assert!(matches!(pair.ends[0].handle_rekey(&offer, &mut rng, pair.now), Ok(Some(_))));
    assert_eq!(pair.open(0, &late[1]), Err(OpenError::Unauthentic));
    pair.passes(1);
}
