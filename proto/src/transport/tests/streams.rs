//! Byte streams and datagrams, against plain vectors of bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::faults::pattern;
use super::link::{Link, PAYLOAD, Pair, Side};
use crate::id::Epoch;
use crate::transport::{
    Config, DATAGRAMS_MAX, DatagramError, Event, OpenStreamError, Opener, PathKind, Read,
    STREAMS_OPEN_MAX, StreamError, StreamEvent, StreamKey, StreamSide, Transport, stream_code,
};

/// What the applications of both ends do with their streams, driven by events alone.
struct Talk {
    pair: Pair,
    rng: ChaCha12Rng,
    ends: [BTreeMap<StreamKey, Use>; 2],
    len_max: usize,
}

/// One end of a stream.
struct Use {
    out: Vec<u8>,
    written: usize,
    got: Vec<u8>,
    done: Option<Result<(), StreamError>>,
    seen: Vec<StreamEvent>,
}

impl Use {
    fn is_done(&self) -> bool {
        self.done.is_some() && self.seen.contains(&StreamEvent::Finished)
    }
}

impl Talk {
    fn new(pair: Pair, seed: u64, len_max: usize) -> Self {
        let rng = ChaCha12Rng::seed_from_u64(seed);
        Self { pair, rng, ends: [BTreeMap::new(), BTreeMap::new()], len_max }
    }

    fn open(&mut self, side: Side) -> StreamKey {
        let now = self.pair.now;
        let key = self.pair.end(side).transport.open_stream(now).unwrap();
        self.begin(side, key);
        key
    }

    fn begin(&mut self, side: Side, key: StreamKey) {
        let out = pattern(key.index * 2 + side as u64, self.rng.random_range(0..=self.len_max));
        let (written, got, done, seen) = (0, Vec::new(), None, Vec::new());
        self.ends[side as usize].insert(key, Use { out, written, got, done, seen });
        self.write(side, key);
    }

    fn write(&mut self, side: Side, key: StreamKey) {
        let now = self.pair.now;
        let of = self.ends[side as usize].get_mut(&key).unwrap();
        while of.written < of.out.len() {
            let len = self.rng.random_range(1..=50_000).min(of.out.len() - of.written);
            let bytes = &of.out[of.written..of.written + len];
            let taken = self.pair.end(side).transport.write_stream(key, bytes, now).unwrap();
            of.written += taken;
            if taken < len {
                return;
            }
        }
        self.pair.end(side).transport.finish_stream(key, now);
    }

    fn read(&mut self, side: Side, key: StreamKey) {
        let now = self.pair.now;
        let of = self.ends[side as usize].get_mut(&key).unwrap();
        loop {
            let max = self.rng.random_range(1..20_000);
            match self.pair.end(side).transport.read_stream(key, max, now) {
                Ok(Read::Bytes(bytes)) => {
                    assert!((1..=max).contains(&bytes.len()));
                    of.got.extend_from_slice(&bytes);
                }
                Ok(Read::Pending) => return,
                Ok(Read::End) => return of.done = Some(Ok(())),
                Err(error) => return of.done = Some(Err(error)),
            }
        }
    }

    /// Lets both applications see what happened.
    fn react(&mut self) {
        for side in [Side::A, Side::B] {
            for event in std::mem::take(&mut self.pair.end(side).events) {
                let Event::Stream(key, event) = event else { continue };
                if event == StreamEvent::Opened {
                    assert_eq!(key.opener, Opener::There);
                    self.begin(side, key);
                    continue;
                }
                self.ends[side as usize].get_mut(&key).unwrap().seen.push(event);
                match event {
                    StreamEvent::Readable => self.read(side, key),
                    StreamEvent::Writable => self.write(side, key),
                    StreamEvent::Opened
                    | StreamEvent::Finished
                    | StreamEvent::Stopped(_)
                    | StreamEvent::Lost
                    | StreamEvent::Closed => {}
                }
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.pair.now + time;
        while self.pair.now < end {
            self.pair.run_for(Duration::from_millis(5));
            self.react();
        }
    }

    fn is_done(&self) -> bool {
        self.ends.iter().flat_map(BTreeMap::values).all(Use::is_done)
    }

    /// Until every stream came to its end; everything must have come over.
    fn check(&mut self, opened: usize, what: &str) {
        for _ in 0..100_000 {
            if self.is_done() && self.ends.iter().all(|end| end.len() == opened) {
                break;
            }
            self.run_for(Duration::from_millis(5));
        }
        assert!(self.is_done(), "{what}: not done");
        let [a, b] = &self.ends;
        for (key, mine) in a {
            let theirs = &b[&mirrored(*key)];
            assert!(theirs.got == mine.out, "{what}: {key:?} to B");
            assert!(mine.got == theirs.out, "{what}: {key:?} to A");
            assert_eq!((mine.done, theirs.done), (Some(Ok(())), Some(Ok(()))), "{what}");
        }
        self.pair.run_until_idle(Duration::from_secs(120));
        self.react();
        for side in [Side::A, Side::B] {
            let seen = self.ends[side as usize].values().map(|of| of.seen.last());
            assert!(seen.into_iter().all(|last| last == Some(&StreamEvent::Closed)), "{what}");
            assert!(!self.pair.end(side).transport.has_open_streams(), "{what}");
        }
    }
}

/// The key of the same stream at the other end.
fn mirrored(key: StreamKey) -> StreamKey {
    let opener = match key.opener {
        Opener::Here => Opener::There,
        Opener::There => Opener::Here,
    };
    StreamKey { opener, ..key }
}

#[test]
fn streams_bring_over_what_was_written_in_order_and_once() {
    for seed in 0..40 {
        let loss = [0.0, 0.02, 0.1, 0.25][seed as usize % 4];
        let mut talk = Talk::new(Pair::new(Link::lossy(20, loss), seed), seed, 150_000);
        if seed % 3 == 0 {
            talk.pair.open(1, PathKind::Direct, Link::lossy(5, loss));
            talk.pair.prefer(1);
        }
        for _ in 0..3 {
            talk.open(Side::A);
            talk.open(Side::B);
        }
        talk.check(6, &format!("seed {seed}"));
    }
}

#[test]
fn streams_go_on_over_paths_that_die_and_sessions_that_begin() {
    for seed in 0..40 {
        let link = Link::lossy(20, 0.1);
        let mut talk = Talk::new(Pair::new(link, seed), seed, 400_000);
        talk.pair.open(1, PathKind::Direct, link);
        talk.pair.prefer(1);
        for side in [Side::A, Side::B, Side::A] {
            talk.open(side);
        }
        for round in 0..4 {
            talk.run_for(Duration::from_millis(40 + 13 * (seed + round)));
            talk.pair.set(1, |link| link.up = !link.up);
            if (seed + round) % 2 == 0 {
                talk.pair.start();
                talk.pair.open(0, PathKind::Relay, link);
            }
        }
        talk.check(3, &format!("seed {seed}"));
    }
}

#[test]
fn each_direction_ends_for_itself() {
    let mut pair = Pair::new(Link::clean(10), 1);
    let now = pair.now;
    let key = pair.a.transport.open_stream(now).unwrap();
    pair.a.transport.write_stream(key, b"question", now).unwrap();
    pair.a.transport.finish_stream(key, now);
    assert_eq!(pair.a.transport.write_stream(key, b"more", now), Err(StreamError::Closed));
    pair.run_for(Duration::from_secs(1));
    let there = mirrored(key);
    assert_eq!(read(&mut pair, Side::B, there), Ok(Read::Bytes(Bytes::from("question"))));
    assert_eq!(read(&mut pair, Side::B, there), Ok(Read::End));
    assert!(pair.a.events.contains(&Event::Stream(key, StreamEvent::Finished)));
    let now = pair.now;
    pair.b.transport.write_stream(there, b"answer", now).unwrap();
    pair.b.transport.finish_stream(there, now);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(read(&mut pair, Side::A, key), Ok(Read::Bytes(Bytes::from("answer"))));
    assert_eq!(read(&mut pair, Side::A, key), Ok(Read::End));
    pair.run_for(Duration::from_secs(1));
    assert_eq!(read(&mut pair, Side::A, key), Err(StreamError::Closed));
    assert!(pair.is_idle());
}

fn read(pair: &mut Pair, side: Side, key: StreamKey) -> Result<Read, StreamError> {
    let now = pair.now;
    pair.end(side).transport.read_stream(key, 1 << 20, now)
}

/// A pair with one stream, of which B has the first `len` bytes, unread.
fn begun(seed: u64, link: Link, len: usize) -> (Pair, StreamKey) {
    let mut pair = Pair::new(link, seed);
    let now = pair.now;
    let key = pair.a.transport.open_stream(now).unwrap();
    pair.a.transport.write_stream(key, &pattern(0, len), now).unwrap();
    pair.run_for(Duration::from_secs(20));
    (pair, key)
}

fn has_seen(pair: &Pair, side: Side, key: StreamKey, event: StreamEvent) -> bool {
    let end = if side == Side::A { &pair.a } else { &pair.b };
    end.events.contains(&Event::Stream(key, event))
}

#[test]
fn a_reset_discards_what_was_not_read_in_every_state() {
    for seed in 0..30 {
        let link = Link::lossy(10, 0.2);
        let (mut pair, key) = begun(seed, link, 40_000);
        let now = pair.now;
        if seed % 3 == 1 {
            pair.a.transport.write_stream(key, &pattern(1, 20_000), now).unwrap();
        }
        if seed % 3 == 2 {
            // Finished, and nothing of the rest came over.
            pair.set(0, |link| link.up = false);
            pair.a.transport.write_stream(key, b"rest", now).unwrap();
            pair.a.transport.finish_stream(key, now);
            pair.run_for(Duration::from_millis(50));
            pair.set(0, |link| link.up = true);
        }
        let now = pair.now;
        pair.a.transport.reset_stream(key, 77, now);
        assert_eq!(pair.a.transport.write_stream(key, b"x", now), Err(StreamError::Closed));
        pair.run_for(Duration::from_secs(30));
        let there = mirrored(key);
        assert_eq!(read(&mut pair, Side::B, there), Err(StreamError::Reset(77)), "seed {seed}");
        let now = pair.now;
        pair.b.transport.reset_stream(there, 78, now);
        pair.run_for(Duration::from_secs(30));
        assert_eq!(read(&mut pair, Side::A, key), Err(StreamError::Reset(78)));
        for (side, key) in [(Side::A, key), (Side::B, there)] {
            pair.run_for(Duration::from_millis(1));
            assert!(has_seen(&pair, side, key, StreamEvent::Closed), "seed {seed}: {side:?}");
        }
        assert!(pair.is_idle());
    }
}

#[test]
fn a_reset_after_the_end_came_over_changes_nothing() {
    let (mut pair, key) = begun(1, Link::clean(10), 1000);
    let now = pair.now;
    pair.a.transport.finish_stream(key, now);
    pair.run_for(Duration::from_secs(1));
    let now = pair.now;
    pair.a.transport.reset_stream(key, 5, now);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(read(&mut pair, Side::B, mirrored(key)), Ok(Read::Bytes(pattern(0, 1000).into())));
    assert_eq!(read(&mut pair, Side::B, mirrored(key)), Ok(Read::End));
}

#[test]
fn who_is_asked_to_stop_resets_with_the_same_code() {
    for seed in 0..20 {
        let (mut pair, key) = begun(seed, Link::lossy(10, 0.2), 300_000);
        let (there, now) = (mirrored(key), pair.now);
        pair.b.transport.stop_stream(there, 9, now);
        assert_eq!(read(&mut pair, Side::B, there), Err(StreamError::Closed));
        pair.run_for(Duration::from_secs(30));
        assert!(has_seen(&pair, Side::A, key, StreamEvent::Stopped(9)), "seed {seed}");
        let now = pair.now;
        assert_eq!(pair.a.transport.write_stream(key, b"x", now), Err(StreamError::Closed));
        pair.b.transport.finish_stream(there, now);
        pair.run_for(Duration::from_secs(30));
        assert_eq!(read(&mut pair, Side::A, key), Ok(Read::End));
        pair.run_for(Duration::from_millis(1));
        for (side, key) in [(Side::A, key), (Side::B, there)] {
            assert!(has_seen(&pair, side, key, StreamEvent::Closed), "seed {seed}: {side:?}");
        }
        assert!(pair.is_idle());
    }
}

#[test]
fn a_slow_reader_slows_its_own_stream_alone() {
    let mut pair = Pair::new(Link::clean(5), 3);
    let now = pair.now;
    let slow: Vec<StreamKey> =
        (0..50).map(|_| pair.a.transport.open_stream(now).unwrap()).collect();
    for key in &slow {
        // The sender keeps what the window does not let go.
        assert!(pair.a.transport.write_stream(*key, &[7; 200_000], now).unwrap() >= 64 << 10);
    }
    pair.run_for(Duration::from_secs(5));
    let mut talk = Talk::new(pair, 3, 500_000);
    for event in std::mem::take(&mut talk.pair.b.events) {
        assert!(matches!(event, Event::Stream(..)), "{event:?}");
    }
    let key = talk.open(Side::A);
    for _ in 0..10_000 {
        talk.run_for(Duration::from_millis(5));
        if talk.ends[1].get(&mirrored(key)).is_some_and(|of| of.done.is_some()) {
            break;
        }
    }
    assert!(talk.ends[1][&mirrored(key)].got == talk.ends[0][&key].out);
    let held = read(&mut talk.pair, Side::B, mirrored(slow[49])).unwrap();
    assert_eq!(held, Read::Bytes(vec![7; 64 << 10].into()), "one window of it");
}

#[test]
fn what_is_written_and_not_acknowledged_has_a_bound() {
    let mut pair = Pair::bare(&Config::peer(), 1);
    let now = pair.now;
    let chunk = vec![0; 1 << 20];
    let mut total = 0;
    for _ in 0..20 {
        let key = pair.a.transport.open_stream(now).unwrap();
        let taken: usize =
            (0..8).map(|_| pair.a.transport.write_stream(key, &chunk, now).unwrap()).sum();
        assert!((64 << 10..=4 << 20).contains(&taken), "{taken}");
        total += taken;
    }
    assert!(total <= (16 << 20) + 20 * (64 << 10), "{total}");
}

#[test]
fn as_many_streams_as_allowed_are_open_at_a_time() {
    let mut pair = Pair::new(Link::clean(5), 1);
    let now = pair.now;
    let keys: Vec<StreamKey> =
        (0..STREAMS_OPEN_MAX).map(|_| pair.a.transport.open_stream(now).unwrap()).collect();
    assert_eq!(pair.a.transport.open_stream(now), Err(OpenStreamError::TooMany));
    pair.run_for(Duration::from_secs(1));
    for key in &keys[..100] {
        let now = pair.now;
        pair.a.transport.reset_stream(*key, 0, now);
        pair.a.transport.stop_stream(*key, 0, now);
        pair.b.transport.reset_stream(mirrored(*key), 0, now);
        pair.b.transport.stop_stream(mirrored(*key), 0, now);
    }
    pair.run_for(Duration::from_secs(1));
    let now = pair.now;
    let more = (0..200).filter(|_| pair.a.transport.open_stream(now).is_ok()).count();
    assert!((96..=100).contains(&more), "{more}: told in steps");
    pair.run_for(Duration::from_secs(1));
    let opened = |event: &&Event| matches!(event, Event::Stream(_, StreamEvent::Opened));
    assert_eq!(pair.b.events.iter().filter(opened).count(), STREAMS_OPEN_MAX as usize + more);
}

#[test]
fn streams_are_lost_with_the_other_end_and_new_ones_begin_anew() {
    let (mut pair, key) = begun(4, Link::clean(10), 1000);
    let now = pair.now;
    let of_b = pair.b.transport.open_stream(now).unwrap();
    let complete = pair.b.transport.open_stream(now).unwrap();
    pair.b.transport.write_stream(complete, b"all of it", now).unwrap();
    pair.b.transport.finish_stream(complete, now);
    pair.run_for(Duration::from_secs(1));
    // B restarts; before A knows, it opens another stream that B never hears of.
    let config = Config { streams: Some(StreamSide::Odd), ..Config::peer() };
    pair.b.transport = Transport::new(config, pair.now);
    (pair.b.epoch, pair.b.events) = (Epoch(0xB1), Vec::new());
    let now = pair.now;
    let fresh = pair.a.transport.open_stream(now).unwrap();
    pair.a.transport.write_stream(fresh, b"fresh", now).unwrap();
    pair.start();
    pair.open(0, PathKind::Relay, Link::clean(10));
    pair.run_for(Duration::from_secs(1));
    assert!(has_seen(&pair, Side::A, key, StreamEvent::Lost));
    assert!(has_seen(&pair, Side::A, mirrored(of_b), StreamEvent::Lost));
    let kept = mirrored(complete);
    assert_eq!(read(&mut pair, Side::A, kept), Ok(Read::Bytes(Bytes::from("all of it"))));
    assert_eq!(read(&mut pair, Side::A, kept), Ok(Read::End));
    assert_eq!(read(&mut pair, Side::A, key), Err(StreamError::Closed));
    let first = StreamKey { opener: Opener::There, index: 0 };
    assert!(has_seen(&pair, Side::B, first, StreamEvent::Opened));
    assert_eq!(read(&mut pair, Side::B, first), Ok(Read::Bytes(Bytes::from("fresh"))));
    let now = pair.now;
    let theirs = pair.b.transport.open_stream(now).unwrap();
    pair.b.transport.write_stream(theirs, b"hello", now).unwrap();
    pair.run_for(Duration::from_secs(1));
    let here = StreamKey { opener: Opener::There, index: 2 };
    assert_eq!(read(&mut pair, Side::A, here), Ok(Read::Bytes(Bytes::from("hello"))));
}

#[test]
fn streams_given_up_for_lost_end_at_the_other_side_too() {
    let (mut pair, key) = begun(5, Link::clean(10), 1000);
    let now = pair.now;
    pair.set(0, |link| link.up = false);
    pair.a.transport.write_stream(key, b"unheard", now).unwrap();
    pair.a.transport.lose_streams(now);
    pair.run_for(Duration::from_secs(1));
    assert!(has_seen(&pair, Side::A, key, StreamEvent::Lost));
    assert!(!pair.a.transport.has_open_streams());
    pair.start();
    pair.open(0, PathKind::Relay, Link::clean(10));
    pair.run_for(Duration::from_secs(1));
    let there = mirrored(key);
    assert_eq!(read(&mut pair, Side::B, there), Err(StreamError::Reset(stream_code::LOST)));
    let stopped = StreamEvent::Stopped(stream_code::LOST);
    assert!(has_seen(&pair, Side::B, there, stopped));
    pair.run_for(Duration::from_secs(1));
    assert!(has_seen(&pair, Side::A, key, StreamEvent::Closed));
    assert!(has_seen(&pair, Side::B, there, StreamEvent::Closed));
}

fn datagrams(pair: &Pair) -> Vec<Bytes> {
    let of = |event: &Event| {
        let Event::Datagram(bytes) = event else { return None };
        Some(bytes.clone())
    };
    pair.b.events.iter().filter_map(of).collect()
}

#[test]
fn a_datagram_goes_once_or_never() {
    let mut pair = Pair::new(Link::lossy(10, 0.3), 6);
    for n in 0..200u8 {
        let now = pair.now;
        pair.a.transport.send_datagram(vec![n; 30].into(), now).unwrap();
        pair.run_for(Duration::from_millis(50));
    }
    pair.run_for(Duration::from_secs(5));
    let got = datagrams(&pair);
    assert!((100..180).contains(&got.len()), "{}", got.len());
    let once: std::collections::BTreeSet<_> = got.iter().collect();
    assert_eq!(once.len(), got.len(), "none twice");
}

#[test]
fn the_largest_datagram_goes_and_a_larger_one_is_refused() {
    let mut pair = Pair::new(Link::clean(10), 7);
    let now = pair.now;
    let largest = PAYLOAD - 3;
    let refused = pair.a.transport.send_datagram(vec![0; largest + 1].into(), now);
    assert_eq!(refused, Err(DatagramError::TooLong(largest)));
    for _ in 0..20 {
        let now = pair.now;
        // An acknowledgement is under way as well.
        pair.send(Side::B, 0, b"ping".to_vec());
        pair.run_for(Duration::from_millis(11));
        pair.a.transport.send_datagram(vec![0; largest].into(), now).unwrap();
        pair.a.transport.send_datagram(Bytes::new(), now).unwrap();
        pair.run_for(Duration::from_millis(11));
    }
    assert_eq!(datagrams(&pair).len(), 40, "none waits for the acknowledgement's own time");
}

#[test]
fn of_too_many_datagrams_the_oldest_give_way() {
    let mut pair = Pair::bare(&Config::peer(), 8);
    let now = pair.now;
    for n in 0..DATAGRAMS_MAX as u32 + 10 {
        pair.a.transport.send_datagram(n.to_be_bytes().to_vec().into(), now).unwrap();
    }
    pair.start();
    pair.open(0, PathKind::Relay, Link::clean(10));
    pair.run_for(Duration::from_secs(5));
    let got = datagrams(&pair);
    assert_eq!(got.len(), DATAGRAMS_MAX);
    assert_eq!(got[0][..], 10u32.to_be_bytes());
}

#[test]
fn messages_streams_and_datagrams_share_a_narrow_path() {
    let mut link = Link::clean(10);
    link.rate = Some((200_000.0, 20_000.0));
    let mut pair = Pair::new(link, 9);
    let now = pair.now;
    let keys = [0; 2].map(|_| pair.a.transport.open_stream(now).unwrap());
    for n in 0..10 {
        pair.send(Side::A, 2, pattern(n, 1 << 20));
    }
    let mut read_of = [0usize; 2];
    for _ in 0..1500 {
        let now = pair.now;
        for (key, read_of) in keys.iter().zip(&mut read_of) {
            // A full buffer is what bulk is.
            let _ = pair.a.transport.write_stream(*key, &[1; 4000], now);
            while let Ok(Read::Bytes(bytes)) = read(&mut pair, Side::B, mirrored(*key)) {
                *read_of += bytes.len();
            }
        }
        pair.a.transport.send_datagram(vec![2; 200].into(), now).unwrap();
        pair.run_for(Duration::from_millis(10));
    }
    let messages = pair.b.got.len() << 20;
    let streams: usize = read_of.iter().sum();
    assert!(messages > 500_000 && streams > 500_000, "{messages} {read_of:?}");
    assert!(read_of[0].abs_diff(read_of[1]) < streams / 10, "{read_of:?}");
    assert!(datagrams(&pair).len() > 1000, "{}", datagrams(&pair).len());
}
