//! Datagrams: each comes out once at most, and as it was sent.

use bytes::Bytes;

use super::flow_bytes;
use crate::pair::Side;
use crate::pair::ledger::Violation;

/// All that were ever accepted, in order.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    sent: Vec<Datagram>,
}

#[derive(Clone, Copy, Debug)]
struct Datagram {
    from: Side,
    len: usize,
    arrived: bool,
}

impl Datagrams {
    pub(super) fn next(&self, len: usize) -> Bytes {
        datagram_bytes(self.sent.len(), len)
    }

    pub(super) fn note_sent(&mut self, from: Side, len: usize) {
        self.sent.push(Datagram { from, len, arrived: false });
    }

    pub(super) fn note_arrival(&mut self, to: Side, bytes: &Bytes) -> Result<(), Violation> {
        let wrong = |what: &str| {
            Err(Violation(format!("a datagram of {} bytes at {to:?} {what}", bytes.len())))
        };
        let at = bytes.first_chunk().map(|name| u64::from_le_bytes(*name) as usize);
        let Some(at) = at.filter(|at| *at < self.sent.len()) else {
            return wrong("was never sent");
        };
        let datagram = &mut self.sent[at];
        if datagram.from == to || datagram_bytes(at, datagram.len) != bytes {
            return wrong("is not what was sent");
        }
        if std::mem::replace(&mut datagram.arrived, true) {
            return wrong("comes again");
        }
        Ok(())
    }

    /// Whether the one that was accepted last has come out.
    pub(super) fn has_arrived(&self) -> bool {
        self.sent.last().is_none_or(|datagram| datagram.arrived)
    }

    /// How many came out, of how many.
    pub(super) fn tally(&self) -> (usize, usize) {
        (self.sent.iter().filter(|datagram| datagram.arrived).count(), self.sent.len())
    }
}

/// The number of a datagram, and behind it bytes that tell every place in it.
fn datagram_bytes(number: usize, len: usize) -> Bytes {
    flow_bytes(number as u64, 0, len)
}
