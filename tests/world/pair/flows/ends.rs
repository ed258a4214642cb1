//! Which streams of the two ends are the two ends of one, and how they ended.

use p2sp_proto::id::Epoch;
use p2sp_proto::transport::{Opener, StreamKey, stream_code};

use super::{CODE_FIRST, Flows, Place, Reading, Reason, Record, Writing, wrong};
use crate::pair::Side;
use crate::pair::ledger::Violation;

// ---- after a run

impl Flows {
    /// Where nothing moves any more, what was written on streams that are open was read.
    pub fn check_open(&self, side: Side) -> Result<(), Violation> {
        let [near, far] = [side, side.other()].map(|side| self.living[side as usize].0);
        let open = |side: Side, epoch: Epoch, opener: Opener| {
            let open = self.of(side, epoch).filter(move |(_, record)| !record.closed);
            open.filter(move |(place, _)| place.key.opener == opener).count()
        };
        let here = open(side, near, Opener::Here);
        let there = open(side.other(), far, Opener::There);
        if here != there {
            return Err(Violation(format!("{here} streams of {side:?} are open, {there} there")));
        }
        for (place, record) in self.of(side, near).filter(|(_, record)| !record.closed) {
            let Some(reader) = self.reader(*place, record) else { continue };
            let (read, readable) = (reader.read, reader.reading == Reading::Open);
            let writable = matches!(record.writing, Writing::Open | Writing::Finished);
            if writable && readable && !record.lost && read < record.written {
                return wrong(*place, &format!("stands still after {read} bytes: {record:?}"));
            }
        }
        Ok(())
    }

    /// Nothing may hang, and what both ends lived to see the end of must have got there.
    pub fn check_settled(&self, side: Side) -> Result<(), Violation> {
        let epoch = self.living[side as usize].0;
        for (place, record) in self.of(side, epoch) {
            if !record.closed {
                return wrong(*place, &format!("hangs: {record:?}"));
            }
            if record.writing == Writing::Finished && !record.lost && !record.arrived {
                return wrong(*place, &format!("never got there: {record:?}"));
            }
            if record.arrived && record.remote == self.living[side.other() as usize].0 {
                self.check_arrived(*place, record)?;
            }
        }
        Ok(())
    }

    /// Its reader lives and had it all.
    fn check_arrived(&self, place: Place, record: &Record) -> Result<(), Violation> {
        let ended = |reader: &Record| {
            reader.lost || matches!(reader.reading, Reading::Ended | Reading::Stopped)
        };
        match self.reader(place, record) {
            Some(reader) if ended(reader) => Ok(()),
            Some(reader) => wrong(place, &format!("was not read to its end: {reader:?}")),
            // Where all were stopped before a byte was read nobody can tell which is which.
            None => Ok(()),
        }
    }

    /// What the living process at the other end has of a stream.
    fn reader(&self, place: Place, record: &Record) -> Option<&Record> {
        let far = self.living[place.side.other() as usize].0;
        let shifted = || {
            let key = place.key;
            let (processes, sign, opener) = match key.opener {
                Opener::Here => ((place.side, place.epoch, far), 1, Opener::There),
                Opener::There => ((place.side.other(), far, place.epoch), -1, Opener::Here),
            };
            let shift = sign * self.shifts.get(&processes)?;
            let index = u64::try_from(i128::from(key.index) + shift).ok()?;
            Some(Place { side: place.side.other(), epoch: far, key: StreamKey { opener, index } })
        };
        self.records.get(&record.twin.or_else(shifted)?)
    }
}

// ---- while it goes on

impl Flows {
    /// The reader is told that the writer gave up.
    pub(super) fn note_broken(&mut self, place: Place, code: u64) -> Result<(), Violation> {
        let writer = match self.issuer(code) {
            Some((writer, Reason::Reset)) => writer,
            Some((_, Reason::Stop)) => return wrong(place, "is reset for what a reader said"),
            None => return self.check_given_up(place, code),
        };
        self.pair_up(place, writer)?;
        if self.record(writer)?.arrived {
            return wrong(place, "is reset although all of it arrived");
        }
        Ok(())
    }

    /// The writer is told that the reader wants no more.
    pub(super) fn note_stopped(&mut self, place: Place, code: u64) -> Result<(), Violation> {
        match self.issuer(code) {
            Some((reader, Reason::Stop)) => self.pair_up(place, reader),
            Some((_, Reason::Reset)) => wrong(place, "is stopped for what a writer said"),
            None => self.check_given_up(place, code),
        }
    }

    /// The protocol's own word for an owner who gave all streams up.
    fn check_given_up(&self, place: Place, code: u64) -> Result<(), Violation> {
        let twin = self.records.get(&place).and_then(|record| record.twin);
        let is_twin = |other: &Place| twin.map_or(other.side != place.side, |twin| twin == *other);
        let given_up = self.records.iter().any(|(other, record)| is_twin(other) && record.lost);
        if code == stream_code::LOST && given_up {
            return Ok(());
        }
        wrong(place, &format!("ends for a reason that nobody gave: {code}"))
    }

    /// Two places turn out to be the two ends of one stream.
    pub(super) fn pair_up(&mut self, one: Place, other: Place) -> Result<(), Violation> {
        let (opener, acceptor) = match (one.key.opener, other.key.opener) {
            (Opener::Here, Opener::There) => (one, other),
            (Opener::There, Opener::Here) => (other, one),
            _ => return wrong(one, &format!("is no end of {other:?}")),
        };
        let processes = (opener.side, opener.epoch, acceptor.epoch);
        let shift = i128::from(acceptor.key.index) - i128::from(opener.key.index);
        let usual = *self.shifts.entry(processes).or_insert(shift);
        if one.side == other.side || shift != usual {
            return wrong(one, &format!("is another stream than {other:?}, by {shift}, {usual}"));
        }
        for (place, twin) in [(one, other), (other, one)] {
            let known = self.record(place)?.twin.replace(twin);
            if known.is_some_and(|known| known != twin) {
                return wrong(place, &format!("is {known:?} and {twin:?}"));
            }
        }
        Ok(())
    }

    fn issuer(&self, code: u64) -> Option<(Place, Reason)> {
        self.reasons.get(code.checked_sub(CODE_FIRST)? as usize).copied()
    }
}
