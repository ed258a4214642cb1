//! A transport whose other end says anything at all, in any order, and whose owner does what
//! owners do: nothing may panic, spin, or grow without end.

#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use p2sp_proto::id::{Channel, Epoch, PacketNumber, PathId, Sequence};
use p2sp_proto::io::Ecn;
use p2sp_proto::transport::{Config, ControlFrame, PathKind, Transport};
use p2sp_proto::wire::codec::VARINT_MAX;
use p2sp_proto::wire::frame::{Ack, EcnCounts, Frame};

/// Packets that may follow each other without a pause.
const BURST_MAX: usize = 20_000;

/// Paths that are spoken of: more than have state at a time.
const PATHS: u8 = 20;

#[derive(Arbitrary, Debug)]
enum Operation<'a> {
    /// From the other end; a refusal ends the session.
    Packet {
        path: u8,
        count: u16,
        frames: &'a [u8],
    },
    Early {
        epoch: u8,
        frames: &'a [u8],
    },
    Send {
        channel: u8,
        len: u16,
    },
    Cancel {
        channel: u8,
        sequence: u8,
    },
    Read,
    Wait {
        millis: u16,
    },
    Jump {
        seconds: u16,
    },
    Session {
        epoch: u8,
    },
    Open {
        path: u8,
        direct: bool,
        payload_max: u16,
    },
    Close {
        path: u8,
    },
    Reset {
        path: u8,
    },
    Restore {
        path: u8,
    },
    Prefer {
        path: u8,
    },
    Probe {
        path: u8,
    },
    Control {
        path: Option<u8>,
        retire: u8,
    },
    OfferEarly {
        max: u16,
    },
    Verdict {
        accepted: bool,
    },
    /// How the packet that came last on a path was marked.
    Mark {
        path: u8,
        mark: u8,
    },
    /// An acknowledgement of packets that left.
    Acknowledge {
        path: u8,
        /// Of the newest that left, so many are left out.
        behind: u8,
        /// So many more than one.
        more: u8,
        told: Told,
    },
}

/// What an acknowledgement says of congestion marks.
#[derive(Arbitrary, Debug)]
enum Told {
    Nothing,
    /// Every packet arrived with ECT(0), and so many of them with CE in its stead.
    Likely {
        ce: u8,
    },
    Anything {
        ect0: u64,
        ect1: u64,
        ce: u64,
    },
}

/// What the other end knows of a path in this session.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The newest packet that came.
    newest: Option<u64>,
    /// What it sends next.
    next: u64,
    counts: EcnCounts,
}

struct Pair {
    transport: Transport,
    other: [Known; PATHS as usize],
    now: Instant,
}

fuzz_target!(|operations: Vec<Operation<'_>>| {
    let now = Instant::now();
    let config = Config { receive_memory_max: 600_000, channels: 4, ..Config::control() };
    let transport = Transport::new(config.clone(), now);
    let mut pair = Pair { transport, other: Default::default(), now };
    for operation in operations {
        pair.perform(operation);
        pair.drain();
        let held = pair.transport.held();
        assert!(held <= 3 * config.receive_memory_max, "{held} bytes");
    }
});

impl Pair {
    fn perform(&mut self, operation: Operation<'_>) {
        let (transport, now) = (&mut self.transport, self.now);
        match operation {
            Operation::Packet { path, count, frames } => {
                self.arrive(path % PATHS, count.into(), frames);
            }
            Operation::Early { epoch, frames } => {
                // A handshake that says nonsense is dropped.
                let _ = transport.handle_early(Epoch(epoch.into()), frames, now);
            }
            Operation::Send { channel, len } => {
                // It may be refused.
                let _ = transport.send(Channel(channel % 5), vec![channel; len.into()].into(), now);
            }
            Operation::Cancel { channel, sequence } => {
                transport.cancel(Channel(channel % 5), Sequence(sequence.into()), now);
            }
            Operation::Read => drop(transport.poll_message(now)),
            Operation::Wait { millis } => self.wait(Duration::from_millis(millis.into())),
            Operation::Jump { seconds } => {
                self.now += Duration::from_secs(seconds.into());
                transport.handle_timeout(self.now);
            }
            Operation::Session { epoch } => self.start_session(Epoch(epoch.into())),
            Operation::Open { path, direct, payload_max } => {
                let kind = if direct { PathKind::Direct } else { PathKind::Relay };
                let payload_max = usize::from(payload_max).max(256);
                transport.open_path(PathId(path % PATHS), kind, payload_max, now);
            }
            Operation::Close { path } => transport.close_path(PathId(path % PATHS), now),
            Operation::Reset { path } => transport.reset_path(PathId(path % PATHS), now),
            Operation::Restore { path } => transport.restore_path(PathId(path % PATHS), now),
            Operation::Prefer { path } => transport.prefer_path(PathId(path % PATHS), now),
            Operation::Probe { path } => transport.probe(PathId(path % PATHS), now),
            Operation::Control { path, retire } => {
                let frame = ControlFrame::PathRetire(PathId(retire));
                transport.control(frame, path.map(|path| PathId(path % PATHS)), now);
            }
            Operation::OfferEarly { max } => drop(transport.poll_early(max.into(), now)),
            Operation::Verdict { accepted } => transport.early_verdict(accepted, now),
            Operation::Mark { path, mark } => {
                let mark = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce][usize::from(mark % 4)];
                transport.note_mark(PathId(path % PATHS), mark, now);
            }
            Operation::Acknowledge { path, behind, more, told } => {
                self.acknowledge(path % PATHS, behind.into(), more.into(), &told);
            }
        }
    }

    fn acknowledge(&mut self, path: u8, behind: u64, more: u64, told: &Told) {
        let known = &mut self.other[usize::from(path)];
        let Some(high) = known.newest.and_then(|newest| newest.checked_sub(behind)) else { return };
        let low = high.saturating_sub(more);
        let marks = match *told {
            Told::Nothing => None,
            Told::Likely { ce } => {
                let ce = u64::from(ce).min(high - low + 1);
                known.counts.ect0 += high - low + 1 - ce;
                known.counts.ce += ce;
                Some(known.counts)
            }
            Told::Anything { ect0, ect1, ce } => Some(EcnCounts {
                ect0: ect0.min(VARINT_MAX),
                ect1: ect1.min(VARINT_MAX),
                ce: ce.min(VARINT_MAX),
            }),
        };
        let (next, ranges) = (known.next, [(low, high)]);
        let ack = Ack::new(PathId(path), &ranges, 0).expect("one range").with_marks(marks);
        let mut frames = Vec::new();
        Frame::Ack(ack).encode(&mut frames);
        self.arrive(path, next, &frames);
    }

    /// A packet from the other end; a refusal ends the session.
    fn arrive(&mut self, path: u8, count: u64, frames: &[u8]) {
        let known = &mut self.other[usize::from(path)];
        known.next = known.next.max(count + 1);
        let number = PacketNumber::new(PathId(path), count);
        if self.transport.handle_packet(number, frames, self.now).is_err() {
            self.start_session(self.transport.remote_epoch());
        }
    }

    fn start_session(&mut self, epoch: Epoch) {
        self.other = Default::default();
        self.transport.start_session(epoch, self.now);
    }

    /// Follows the timers, as a shell does.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        let mut spins = 0;
        while let Some((at, why)) = self.transport.poll_timeout().filter(|(at, _)| *at <= end) {
            spins = if at <= self.now { spins + 1 } else { 0 };
            assert!(spins < 200, "spinning: {why}");
            self.now = at.max(self.now);
            self.transport.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        let mut packet = Vec::new();
        for sent in 0.. {
            assert!(sent < BURST_MAX, "it does not stop sending");
            packet.clear();
            let Some(number) = self.transport.poll_packet(&mut packet, self.now) else { break };
            assert!(!packet.is_empty());
            assert!(matches!(self.transport.mark(number.path()), Ecn::NotEct | Ecn::Ect0));
            self.other[usize::from(number.path().0)].newest = Some(number.count());
        }
        while self.transport.poll_event().is_some() {}
    }
}
