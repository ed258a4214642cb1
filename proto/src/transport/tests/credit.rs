//! Windows of channels where messages are cancelled and the reserve is short.

use allocation_counter::measure;
use bytes::Bytes;

use crate::id::{Channel, Epoch, PathId, Sequence};
use crate::time::origin;
use crate::transport::Config;
use crate::transport::packet::{Carried, Load, Packet};
use crate::transport::receive::{Inbox, Origin, Part};
use crate::transport::send::Outbox;
use crate::transport::window::{Credit, Pool, cost};
use crate::wire::codec::Reader;
use crate::wire::frame::{Frame, Message};

const WINDOW: u64 = 4096;

/// Room for two windows and one message of the greatest length.
fn narrow() -> Config {
    let message_len_max = 100_000;
    Config {
        channels: 2,
        message_len_max,
        receive_memory_max: 2 * WINDOW as usize + cost(message_len_max as u64) as usize,
        channel_window: WINDOW,
        ..Config::control()
    }
}

/// What was cancelled in front of a message that has begun to arrive moves the place of that
/// message, and takes nothing of its grant: another channel stands in line for what it gave back.
#[test]
fn a_message_that_was_let_in_keeps_its_grant_when_its_place_moves() {
    let mut pool = Pool::new(&narrow());
    let [mut first, mut second] = [Credit::new(&pool), Credit::new(&pool)];
    let message = cost(80_000);
    assert!(first.admit(Channel(0), message, &mut pool), "there is nobody else");
    assert!(!second.admit(Channel(1), message, &mut pool), "the reserve is lent");

    let cancelled = 1000;
    first.settle(cancelled, Some(message), &mut pool);
    assert!(first.admit(Channel(0), message, &mut pool), "it waits for the one that waits for it");
    assert_eq!(first.limit(), cancelled + message);

    first.consume(message, &mut pool);
    assert!(second.admit(Channel(1), message, &mut pool), "the reserve is free again");
}

/// Parts of a cancelled message may lie at the other end until it hears of the SKIP: what they
/// take is not settled before.
#[test]
fn what_was_cancelled_is_settled_when_the_other_end_knows() {
    let (config, channel) = (narrow(), Channel(0));
    let mut outbox = Outbox::default();
    let message = Bytes::from(vec![7; 3000]);
    let pushed = [0, 1].map(|_| outbox.push(channel, message.clone(), &config));
    assert_eq!(pushed, [Ok(Sequence(0)), Ok(Sequence(1))]);
    let (begun, _) = write(&mut outbox);
    assert_eq!(blocked(&begun), Some(0), "the window ends in the second message");

    assert!(outbox.cancel(channel, Sequence(0)));
    let (skipping, carried) = write(&mut outbox);
    assert!(skipping.contains(&Frame::Skip(channel, Sequence(1))), "{skipping:?}");
    assert_eq!(blocked(&skipping), None, "nothing new is settled");

    let skip = carried.iter().find(|carried| matches!(carried, Carried::Skip(..)));
    outbox.on_acked(skip.expect("the SKIP of the packet"), PathId::SERVER);
    let (known, _) = write(&mut outbox);
    assert_eq!(blocked(&known), Some(cost(3000)), "{known:?}");
}

/// All frames that an outbox has to send, without their bytes.
fn write(outbox: &mut Outbox) -> (Vec<Frame<'static>>, Load) {
    let mut bytes = Vec::new();
    let mut packet = Packet::new(&mut bytes, 10_000);
    outbox.write(&mut packet);
    let carried = std::mem::take(&mut packet.carried);
    let (mut frames, mut reader) = (Vec::new(), Reader::new(&bytes));
    while !reader.is_empty() {
        let frame = Frame::decode(&mut reader).expect("a frame");
        if let Frame::Skip(channel, below) = frame {
            frames.push(Frame::Skip(channel, below));
        } else if let Frame::Blocked(channel, settled) = frame {
            frames.push(Frame::Blocked(channel, settled));
        } else {
            assert!(matches!(frame, Frame::Message(_)), "{frame:?}");
        }
    }
    (frames, carried)
}

/// The position that a BLOCKED states.
fn blocked(frames: &[Frame<'_>]) -> Option<u64> {
    frames.iter().find_map(|frame| {
        let Frame::Blocked(_, settled) = frame else { return None };
        Some(*settled)
    })
}

/// Parts of many messages that claim to be long take no more than themselves, and of one the
/// window that promised to hold it.
#[test]
fn what_a_message_claims_to_be_makes_no_room_for_it() {
    let config = Config::peer();
    let now = origin();
    let mut inbox = Inbox::new(&config);
    inbox.restart(Epoch(1), &config, now);
    let total = config.channel_window / 2;
    let mut take = |sequence| {
        let message = Message { channel: Channel(0), sequence, total, offset: 0, bytes: &[7; 64] };
        let stored = inbox.on_message(&message, Origin::Session, &config, now);
        assert_eq!(stored, Ok(Part::Stored));
    };
    let many = measure(|| (1..=100).map(Sequence).for_each(&mut take)).bytes_current;
    assert!(many < total as i64, "{many} bytes");
    let first = measure(|| take(Sequence(0)));
    assert_eq!((first.count_total, first.bytes_current), (1, total as i64));
}
