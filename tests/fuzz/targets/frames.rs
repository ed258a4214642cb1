//! The frames of a packet: what is read is written so that it is read the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use p2sp_proto::wire::codec::Reader;
use p2sp_proto::wire::frame::Frame;

fuzz_target!(|packet: &[u8]| {
    let mut reader = Reader::new(packet);
    while !reader.is_empty() {
        let Ok(frame) = Frame::decode(&mut reader) else { return };
        if let Frame::Ack(ack) = &frame {
            assert!(ack.ranges().count() <= 32);
            assert!(ack.ranges().all(|(low, high)| low <= high && high <= ack.largest));
        }
        if matches!(frame, Frame::Unknown(_)) {
            continue;
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let mut again = Reader::new(&bytes);
        let Ok(read) = Frame::decode(&mut again) else { panic!("{frame:?} is not understood") };
        let mut rewritten = Vec::new();
        read.encode(&mut rewritten);
        assert_eq!(rewritten, bytes, "{frame:?}");
        assert!(again.is_empty());
    }
});
