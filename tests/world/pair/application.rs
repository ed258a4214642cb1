//! What an application does with the streams of its end.

use std::collections::BTreeMap;
use std::time::Instant;

use p2sp_proto::id::Epoch;
use p2sp_proto::transport::{OpenStreamError, Read, StreamEvent, StreamKey, Transport};

use super::Side;
use super::end::Reading;
use super::flows::{Flows, NAME_LEN, Place};
use super::ledger::Violation;

/// Bytes offered or asked for at a time.
const PORTION: usize = 10_000;
/// The streams of one process that are not over.
pub(super) struct Application {
    side: Side,
    epoch: Epoch,
    streams: BTreeMap<StreamKey, Use>,
    /// Whether everything is to come to its end.
    closing: bool,
}

/// What is still to be done with a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// Bytes that it wants to write.
    left: u64,
    /// Whether they are the last ones.
    ends: bool,
    /// Whether it waits for room.
    blocked: bool,
    readable: Readable,
}

/// Whether there is something to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Readable {
    #[default]
    No,
    /// It was told so.
    Told,
    /// It was told so, and read some of it.
    Perhaps,
}

impl Application {
    pub(super) fn new(side: Side, epoch: Epoch) -> Self {
        Self { side, epoch, streams: BTreeMap::new(), closing: false }
    }

    /// Whether all its streams are over.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    pub(super) fn is_readable(&self) -> bool {
        self.streams.values().any(|of| of.readable != Readable::No)
    }

    /// No stream gets more than it has, and each comes to its end, also those to come.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.streams.values_mut().for_each(|of| of.ends = true);
    }

    /// Opens a stream, to write so many bytes; none, or as many as a name needs.
    pub(super) fn open(
        &mut self,
        len: u64,
        ends: bool,
        transport: &mut Transport,
        flows: &mut Flows,
        now: Instant,
    ) -> Result<(), Violation> {
        match transport.open_stream(now) {
            Ok(key) => {
                flows.note_open(self.place(key))?;
                let left = if len == 0 { 0 } else { len.max(NAME_LEN) };
                self.streams.insert(key, Use { left, ends, ..Use::default() });
                Ok(())
            }
            Err(OpenStreamError::TooMany) => flows.note_refused(self.side),
            Err(error) => Err(Violation(format!("{:?}: {error}", self.side))),
        }
    }

    /// Wants to write more bytes on one of its streams.
    pub(super) fn write_more(&mut self, nth: u64, len: u64) {
        if let Some(of) = self.pick(nth).and_then(|key| self.streams.get_mut(&key))
            && !of.ends
        {
            of.left += len.max(NAME_LEN);
        }
    }

    /// What it wants to write on one of its streams is all.
    pub(super) fn finish(&mut self, nth: u64) {
        if let Some(of) = self.pick(nth).and_then(|key| self.streams.get_mut(&key)) {
            of.ends = true;
        }
    }

    /// One of its streams, over all that are not over.
    pub(super) fn pick(&self, nth: u64) -> Option<StreamKey> {
        let nth = nth as usize % self.streams.len().max(1);
        self.streams.keys().nth(nth).copied()
    }

    pub(super) fn place(&self, key: StreamKey) -> Place {
        Place { side: self.side, epoch: self.epoch, key }
    }

    pub(super) fn note(
        &mut self,
        key: StreamKey,
        event: StreamEvent,
        flows: &mut Flows,
    ) -> Result<(), Violation> {
        flows.note_event(self.place(key), event)?;
        match event {
            StreamEvent::Opened => {
                self.streams.insert(key, Use { ends: self.closing, ..Use::default() });
            }
            StreamEvent::Closed => {
                self.streams.remove(&key);
            }
            StreamEvent::Readable => {
                if let Some(of) = self.streams.get_mut(&key) {
                    of.readable = Readable::Told;
                }
            }
            StreamEvent::Writable => {
                if let Some(of) = self.streams.get_mut(&key) {
                    of.blocked = false;
                }
            }
            StreamEvent::Finished | StreamEvent::Stopped(_) | StreamEvent::Lost => {}
        }
        Ok(())
    }

    /// Writes what it wants to as far as there is room.
    pub(super) fn write(
        &mut self,
        transport: &mut Transport,
        flows: &mut Flows,
        now: Instant,
    ) -> Result<(), Violation> {
        let (side, epoch) = (self.side, self.epoch);
        for (key, of) in &mut self.streams {
            let place = Place { side, epoch, key: *key };
            while of.left > 0 && !of.blocked {
                let len = of.left.min(PORTION as u64) as usize;
                let bytes = flows.bytes(place, flows.written(place), len);
                let answer = transport.write_stream(*key, &bytes, now);
                flows.note_written(place, len, answer)?;
                // Where nothing is taken any more, nothing is wanted.
                of.left -= answer.unwrap_or(usize::MAX).min(of.left as usize) as u64;
                of.blocked = answer.is_ok_and(|taken| taken < len);
            }
            if of.left == 0 && std::mem::take(&mut of.ends) {
                flows.note_finish(place)?;
                transport.finish_stream(*key, now);
            }
        }
        Ok(())
    }

    /// Reads all there is, or a portion of one stream if it is slow. Answers whether it read.
    pub(super) fn read(
        &mut self,
        reading: Reading,
        transport: &mut Transport,
        flows: &mut Flows,
        now: Instant,
    ) -> Result<bool, Violation> {
        let (side, epoch) = (self.side, self.epoch);
        let mut any = false;
        for (key, of) in &mut self.streams {
            while of.readable != Readable::No {
                any = true;
                let answer = transport.read_stream(*key, PORTION, now);
                let place = Place { side, epoch, key: *key };
                flows.note_read(place, &answer)?;
                if answer == Ok(Read::Pending) && of.readable == Readable::Told {
                    return Err(Violation(format!("{place:?}: nothing to read after all")));
                }
                let more = matches!(answer, Ok(Read::Bytes(_)));
                of.readable = if more { Readable::Perhaps } else { Readable::No };
                if reading == Reading::Slow {
                    return Ok(true);
                }
            }
        }
        Ok(any)
    }
}
