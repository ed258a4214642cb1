//! A transport whose other end says anything at all, in any order, and whose owner does what
//! owners do: nothing may panic, spin, or grow without end.

#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use p2sp_proto::id::{Channel, Epoch, PacketNumber, PathId, Sequence};
use p2sp_proto::transport::{Config, ControlFrame, PathKind, Transport};

/// Packets that may follow each other without a pause.
const BURST_MAX: usize = 20_000;

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
}

fuzz_target!(|operations: Vec<Operation<'_>>| {
    let mut now = Instant::now();
    let config = Config { receive_memory_max: 600_000, channels: 4, ..Config::control() };
    let mut transport = Transport::new(config.clone(), now);
    for operation in operations {
        perform(&mut transport, operation, &mut now);
        drain(&mut transport, now);
        assert!(transport.held() <= 3 * config.receive_memory_max, "{} bytes", transport.held());
    }
});

fn perform(transport: &mut Transport, operation: Operation<'_>, now: &mut Instant) {
    match operation {
        Operation::Packet { path, count, frames } => {
            let number = PacketNumber::new(PathId(path % 20), count.into());
            if transport.handle_packet(number, frames, *now).is_err() {
                transport.start_session(transport.remote_epoch(), *now);
            }
        }
        Operation::Early { epoch, frames } => {
            // A handshake that says nonsense is dropped.
            let _ = transport.handle_early(Epoch(epoch.into()), frames, *now);
        }
        Operation::Send { channel, len } => {
            // It may be refused.
            let _ = transport.send(Channel(channel % 5), vec![channel; len.into()].into(), *now);
        }
        Operation::Cancel { channel, sequence } => {
            transport.cancel(Channel(channel % 5), Sequence(sequence.into()), *now);
        }
        Operation::Read => drop(transport.poll_message(*now)),
        Operation::Wait { millis } => wait(transport, Duration::from_millis(millis.into()), now),
        Operation::Jump { seconds } => {
            *now += Duration::from_secs(seconds.into());
            transport.handle_timeout(*now);
        }
        Operation::Session { epoch } => transport.start_session(Epoch(epoch.into()), *now),
        Operation::Open { path, direct, payload_max } => {
            let kind = if direct { PathKind::Direct } else { PathKind::Relay };
            let payload_max = usize::from(payload_max).max(256);
            transport.open_path(PathId(path % 20), kind, payload_max, *now);
        }
        Operation::Close { path } => transport.close_path(PathId(path % 20), *now),
        Operation::Reset { path } => transport.reset_path(PathId(path % 20), *now),
        Operation::Restore { path } => transport.restore_path(PathId(path % 20), *now),
        Operation::Prefer { path } => transport.prefer_path(PathId(path % 20), *now),
        Operation::Probe { path } => transport.probe(PathId(path % 20), *now),
        Operation::Control { path, retire } => {
            let frame = ControlFrame::PathRetire(PathId(retire));
            transport.control(frame, path.map(|path| PathId(path % 20)), *now);
        }
        Operation::OfferEarly { max } => drop(transport.poll_early(max.into(), *now)),
        Operation::Verdict { accepted } => transport.early_verdict(accepted, *now),
    }
}

/// Follows the timers, as a shell does.
fn wait(transport: &mut Transport, time: Duration, now: &mut Instant) {
    let end = *now + time;
    let mut spins = 0;
    while let Some((at, why)) = transport.poll_timeout().filter(|(at, _)| *at <= end) {
        spins = if at <= *now { spins + 1 } else { 0 };
        assert!(spins < 200, "spinning: {why}");
        *now = at.max(*now);
        transport.handle_timeout(*now);
        drain(transport, *now);
    }
    *now = end;
}

fn drain(transport: &mut Transport, now: Instant) {
    let mut packet = Vec::new();
    for sent in 0.. {
        assert!(sent < BURST_MAX, "it does not stop sending");
        packet.clear();
        if transport.poll_packet(&mut packet, now).is_none() {
            break;
        }
        assert!(!packet.is_empty());
    }
    while transport.poll_event().is_some() {}
}
