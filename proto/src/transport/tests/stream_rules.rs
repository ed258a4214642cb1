//! Frames of streams that keep the rules, and those that do not.

use std::time::Duration;

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::link::{Link, PAYLOAD, Pair};
use crate::id::{Epoch, PacketNumber, PathId, StreamId};
use crate::transport::{
    Config, DatagramError, FrameError, OpenStreamError, Opener, PathKind, STREAMS_OPEN_MAX,
    StreamKey, Transport,
};
use crate::wire::frame::{Frame, StreamData, StreamFrame};

/// What B answers to a packet of these frames, made by hand.
fn told(frames: &[StreamFrame<'_>]) -> Result<(), FrameError> {
    let mut pair = Pair::new(Link::clean(5), 1);
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| Frame::Stream(*frame).encode(&mut bytes));
    let number = PacketNumber::new(PathId(0), 0);
    let now = pair.now;
    let of_b = pair.b.transport.open_stream(now).unwrap();
    assert_eq!(of_b.index, 0);
    pair.b.transport.handle_packet(number, &bytes, now)
}

fn data(id: u64, offset: u64, fin: bool, bytes: &[u8]) -> StreamFrame<'_> {
    StreamFrame::Data(StreamData { id: StreamId(id), offset, fin, bytes })
}

#[test]
fn who_breaks_the_rules_of_streams_is_told_so() {
    let reset = |id, final_size| StreamFrame::Reset { id: StreamId(id), code: 0, final_size };
    let stop = |id| StreamFrame::Stop { id: StreamId(id), code: 0 };
    let window = |id| StreamFrame::Window { id: StreamId(id), limit: 1 };
    let last = 2 * (STREAMS_OPEN_MAX - 1);
    let good: [&[StreamFrame<'_>]; 8] = [
        &[data(0, 0, false, b"abc"), data(0, 0, true, b"abcd")],
        &[data(0, 65_535, false, b"x")],
        &[data(last, 0, false, b"x")],
        &[reset(0, 65_536), data(0, 3, false, b"x")],
        &[stop(0), window(2), data(1, 0, true, b"")],
        &[reset(0, 3), reset(0, 3)],
        &[data(0, 0, true, b"abc"), reset(0, 3)],
        &[StreamFrame::Max(0), StreamFrame::Max(1 << 60)],
    ];
    for frames in good {
        assert_eq!(told(frames), Ok(()), "{frames:?}");
    }
    let bad: [&[StreamFrame<'_>]; 10] = [
        &[data(0, 65_536, false, b"x")],
        &[reset(0, 65_537)],
        &[data(last + 2, 0, false, b"x")],
        &[data(0, 0, true, b"abc"), data(0, 0, false, b"abcd")],
        &[data(0, 0, true, b"abc"), data(0, 0, true, b"ab")],
        &[data(0, 0, false, b"abc"), data(0, 0, true, b"ab")],
        &[data(0, 0, false, b"abc"), reset(0, 2)],
        &[data(3, 0, false, b"x")],
        &[window(5)],
        &[stop(1 << 61)],
    ];
    for frames in bad {
        assert_eq!(told(frames).unwrap_err().0, 400, "{frames:?}");
    }
}

#[test]
fn a_server_knows_neither_streams_nor_datagrams() {
    let mut pair = Pair::bare(&Config::control(), 1);
    let now = pair.now;
    let mut server = Transport::new(Config::control(), now);
    server.start_session(Epoch(1), now);
    server.open_path(PathId(0), PathKind::Server, PAYLOAD, now);
    assert_eq!(server.open_stream(now), Err(OpenStreamError::NotHere));
    assert_eq!(server.send_datagram(Bytes::new(), now), Err(DatagramError::NotHere));
    for (count, frame) in
        [Frame::Stream(data(0, 0, false, b"x")), Frame::Datagram(b"x")].iter().enumerate()
    {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let number = PacketNumber::new(PathId(0), count as u64);
        assert_eq!(server.handle_packet(number, &bytes, now).unwrap_err().0, 400);
    }
    pair.run_for(Duration::from_millis(1));
}

#[test]
fn no_stream_frames_make_a_transport_panic() {
    for seed in 0..300 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut pair = Pair::new(Link::clean(5), seed);
        for count in 0..60 {
            let mut bytes = Vec::new();
            for _ in 0..rng.random_range(1..6) {
                let id = StreamId(rng.random_range(0..8));
                let near = rng.random_range(0..40);
                let far = [near, near, near, 65_000 + near * 40, u64::MAX >> 2][near as usize % 5];
                let content = vec![1; near as usize];
                let frame = match rng.random_range(0..6) {
                    0 => StreamFrame::Reset { id, code: far, final_size: far },
                    1 => StreamFrame::Stop { id, code: far },
                    2 => StreamFrame::Window { id, limit: far },
                    3 => StreamFrame::Max(far),
                    _ => {
                        let offset = far.min((u64::MAX >> 2) - 100);
                        data(id.0, offset, near % 7 == 0, &content)
                    }
                };
                Frame::Stream(frame).encode(&mut bytes);
            }
            let number = PacketNumber::new(PathId(0), count);
            let now = pair.now;
            // Whoever breaks the rules is closed by the owner; here nothing but a panic counts.
            let _ = pair.b.transport.handle_packet(number, &bytes, now);
            match rng.random_range(0..5) {
                0 => drop(pair.b.transport.open_stream(now)),
                1 => pair.b.transport.lose_streams(now),
                2 => pair.b.transport.start_session(Epoch(rng.random_range(1..3)), now),
                _ => {}
            }
            let opener = if rng.random() { Opener::Here } else { Opener::There };
            let key = StreamKey { opener, index: rng.random_range(0..6) };
            let _ = pair.b.transport.read_stream(key, 10, now);
            let _ = pair.b.transport.write_stream(key, b"some", now);
            match rng.random_range(0..9) {
                0 => pair.b.transport.finish_stream(key, now),
                1 => pair.b.transport.reset_stream(key, 1, now),
                2 => pair.b.transport.stop_stream(key, 1, now),
                _ => {}
            }
            let mut out = Vec::new();
            while pair.b.transport.poll_packet(&mut out, now).is_some() {
                out.clear();
            }
            while pair.b.transport.poll_event().is_some() {}
        }
    }
}
