//! The last datagrams, for people who look into a failure.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::packet::{Packet, family};

/// Enough to see the last seconds of a conversation, little enough to read.
const LINES_MAX: usize = 2000;

/// A ring of what happened to datagrams.
#[derive(Debug, Default)]
pub struct Trace {
    lines: VecDeque<Line>,
    /// Over everything that was ever noted: two runs with the same value did the same.
    fingerprint: u64,
}

#[derive(Debug)]
struct Line {
    time: Duration,
    place: String,
    src: SocketAddr,
    dst: SocketAddr,
    family: &'static str,
    len: usize,
    what: &'static str,
}

impl Trace {
    pub(crate) fn note(
        &mut self,
        time: Duration,
        place: &str,
        packet: &Packet,
        what: &'static str,
    ) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.mix(&time.as_nanos().to_be_bytes());
        self.mix(place.as_bytes());
        self.mix(what.as_bytes());
        self.mix(&packet.payload);
        self.lines.push_back(Line {
            time,
            place: place.to_owned(),
            src: packet.src,
            dst: packet.dst,
            family: family(&packet.payload),
            len: packet.payload.len(),
            what,
        });
    }

    /// A number that depends on every datagram noted so far, its time and its fate.
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> String {
        let skipped = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skipped).map(|line| format!("{line}\n")).collect()
    }

    /// FNV-1a: small, and good enough to compare two runs.
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.fingerprint ^= u64::from(*byte);
            self.fingerprint = self.fingerprint.wrapping_mul(0x0000_0100_0000_01B3);
        }
        self.fingerprint = self.fingerprint.wrapping_add(bytes.len() as u64 + 1);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tail(LINES_MAX))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, place, src, dst, family, len, what } = self;
        let seconds = time.as_secs_f64();
        write!(f, "{seconds:>10.4} {place:<12} {src} -> {dst} {family} {len} {what}")
    }
}
