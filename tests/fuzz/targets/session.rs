//! Both ends of a session: handshakes whose payload and datagrams are the fuzzer's, packets in
//! any order, spoiled, repeated, across rekeys.

#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use p2sp_proto::id::{Address, Boot, Epoch, NetworkId, PacketNumber, PathId, ReceiverId};
use p2sp_proto::session::{
    Accepted, EARLY_LEN_MAX, EarlyOffer, EarlyVerdict, InitConfig, Initiator, Padding, Replied,
    ReplyInfo, Responder, Session, Side, StaticKey, Suite, Suites,
};
use p2sp_proto::wire::frame::{Rekey, RekeyStep};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// The path of packets that carry the frames of a rekeying.
const FRAMES: PathId = PathId(4);
const NETWORK: NetworkId = NetworkId([5; 16]);

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    early: Option<(u64, u64, &'a [u8])>,
    spoiled: Option<(bool, u16, u8)>,
    aes: bool,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    /// One end seals `len` bytes; the packet waits.
    Seal {
        second: bool,
        path: u8,
        len: u8,
    },
    /// One of the waiting packets is opened, whole or with a bit changed, and may come again.
    Open {
        nth: u8,
        spoiled: Option<u16>,
        again: bool,
    },
    Rekey {
        second: bool,
    },
    /// A REKEY frame that nobody sent.
    Invent {
        second: bool,
        generation: u32,
        answer: bool,
        key: [u8; 32],
    },
    Wait {
        seconds: u16,
    },
    Release {
        second: bool,
    },
}

struct Waiting {
    to: usize,
    plain: Vec<u8>,
    packet: Vec<u8>,
    opened: bool,
}

fuzz_target!(|input: Input<'_>| {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut now = Instant::now();
    let Some(mut ends) = shake(&input, &mut rng, now) else { return };
    let (mut counts, mut waiting) = ([[0u64; 4]; 2], Vec::new());
    let mut frames = [0u64; 2];
    for operation in input.operations {
        match operation {
            Operation::Seal { second, path, len } => {
                let (from, path) = (usize::from(second), path % 4);
                let plain = vec![path ^ len; len.into()];
                let mut packet = vec![0; ends[from].header_len()];
                packet.extend_from_slice(&plain);
                let count = &mut counts[from][usize::from(path)];
                let number = PacketNumber::new(PathId(path), *count);
                *count += 1;
                ends[from].seal(number, &mut packet, 0, now).expect("a number not used before");
                waiting.push(Waiting { to: 1 - from, plain, packet, opened: false });
            }
            Operation::Open { nth, spoiled, again } => {
                let many = waiting.len().max(1);
                let Some(parcel) = waiting.get_mut(usize::from(nth) % many) else { continue };
                open(&mut ends[parcel.to], parcel, spoiled, now);
                if again {
                    open(&mut ends[parcel.to], parcel, None, now);
                }
            }
            Operation::Rekey { second } => {
                let from = usize::from(second);
                rekey(&mut ends, from, &mut frames, &mut rng, now);
            }
            Operation::Invent { second, generation, answer, key } => {
                let step = if answer { RekeyStep::Answer } else { RekeyStep::Offer };
                let frame = Rekey { generation, step, public: key };
                // What an end makes of it concerns only this one session, which ends.
                let _ = ends[usize::from(second)].handle_rekey(&frame, &mut rng, now);
                return;
            }
            Operation::Wait { seconds } => {
                now += Duration::from_secs(seconds.into());
                ends.iter_mut().for_each(|end| end.handle_timeout(now));
            }
            Operation::Release { second } => ends[usize::from(second)].release_expanded(),
        }
    }
});

/// Nothing opens but what was sealed, and that once.
fn open(end: &mut Session, parcel: &mut Waiting, spoiled: Option<u16>, now: Instant) {
    let mut packet = parcel.packet.clone();
    if let Some(bit) = spoiled {
        let bit = usize::from(bit) % (packet.len() * 8);
        packet[bit / 8] ^= 1 << (bit % 8);
    }
    if let Ok(opened) = end.open(&mut packet, now) {
        assert!(spoiled.is_none(), "a spoiled packet");
        assert!(!parcel.opened, "a packet a second time");
        assert_eq!(opened.payload, parcel.plain);
        parcel.opened = true;
    }
}

/// The frames of one rekeying, all of which arrive.
fn rekey(
    ends: &mut [Session; 2],
    from: usize,
    frames: &mut [u64; 2],
    rng: &mut ChaCha8Rng,
    now: Instant,
) {
    ends[from].request_rekey();
    let Some(offer) = ends[from].poll_rekey(rng, now) else { return };
    carry(ends, from, frames, now);
    let answer = ends[1 - from].handle_rekey(&offer, rng, now).expect("an honest offer");
    if let Some(answer) = answer {
        carry(ends, 1 - from, frames, now);
        ends[from].handle_rekey(&answer, rng, now).expect("an honest answer");
    }
}

/// The packet that a frame travels in: it shows its receiver how far the keys of its sender are.
fn carry(ends: &mut [Session; 2], from: usize, frames: &mut [u64; 2], now: Instant) {
    let mut packet = vec![0; ends[from].header_len() + 1];
    let number = PacketNumber::new(FRAMES, frames[from]);
    frames[from] += 1;
    ends[from].seal(number, &mut packet, 0, now).expect("a number not used before");
    ends[1 - from].open(&mut packet, now).expect("an honest packet");
}

fn shake(input: &Input<'_>, rng: &mut ChaCha8Rng, now: Instant) -> Option<[Session; 2]> {
    let keys = [1, 2].map(|byte| StaticKey::from_bytes([byte; 32]));
    let early = input.early.map(|(boot, counter, frames)| EarlyOffer {
        boot: Boot(boot.max(1)),
        counter,
        frames: frames[..frames.len().min(EARLY_LEN_MAX)].to_vec(),
    });
    let config = InitConfig {
        local: &keys[0],
        remote: Some(keys[1].public()),
        responder: Responder::Peer,
        network: NETWORK,
        suites: Suites::new(input.aes),
        receiver: ReceiverId(7),
        epoch: Epoch(1),
        boot: Boot(1),
        early: early.clone(),
        padding: Padding::None,
    };
    let mut initiator = Initiator::new(config, rng).expect("early data that fits");
    let mut init = initiator.datagram().to_vec();
    let spoils_init = matches!(input.spoiled, Some((false, ..)));
    if let Some((false, at, with)) = input.spoiled {
        spoil(&mut init, at, with);
    }
    let accepted = Accepted::read(&keys[1], Responder::Peer, NETWORK, &init).ok()?;
    if !spoils_init {
        assert_eq!(accepted.early(), early.as_ref(), "early data as it was given");
    }
    let suite = accepted.suites().choose(Suites::new(true));
    assert!(input.aes || suite == Suite::ChaCha20Poly1305);
    let local = Address::Peer(ReceiverId(9));
    let info = ReplyInfo {
        address: local,
        suite,
        epoch: Epoch(2),
        boot: Boot(2),
        early: if early.is_some() { EarlyVerdict::Accepted } else { EarlyVerdict::None },
        observed: None,
        reset: None,
    };
    let (mut reply, replied) = accepted.reply(info, rng).ok()?;
    let Replied::Established(established) = replied else { panic!("IK needs no third message") };
    let intact = reply.clone();
    if let Some((true, at, with)) = input.spoiled {
        spoil(&mut reply, at, with);
    }
    if reply != intact {
        assert!(initiator.read_reply(&reply).is_err(), "a spoiled reply");
    }
    let completed = initiator.read_reply(&intact).ok()?;
    let remote = Address::Peer(ReceiverId(7));
    let second =
        Session::new(established, Side::Responder, keys[1].public(), local, remote, 2048, now);
    let own = keys[0].public();
    let first = Session::new(completed.established, Side::Initiator, own, remote, local, 2048, now);
    Some([first, second])
}

fn spoil(datagram: &mut [u8], at: u16, with: u8) {
    let at = usize::from(at) % datagram.len();
    datagram[at] ^= with;
}
