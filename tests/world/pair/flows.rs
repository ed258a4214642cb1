//! What was asked of streams and datagrams, and whether what comes out agrees with it.
//!
//! It knows nothing of packets, offsets or numbers on the wire. Every stream begins with a name
//! that only its writer's bytes have, and every reason for giving one up is given once; so what a
//! reader sees tells which flow he reads.

mod datagrams;
mod ends;

use std::collections::BTreeMap;

use bytes::Bytes;
use p2sp_proto::id::Epoch;
use p2sp_proto::transport::{Opener, Read, StreamError, StreamEvent, StreamKey};

use self::datagrams::Datagrams;
use super::ledger::{Violation, pattern};
use super::{STREAMS_ALWAYS, Side};

/// Bytes of the name with which a flow begins.
pub const NAME_LEN: u64 = 8;
/// Reasons below are the protocol's own.
const CODE_FIRST: u64 = 1000;

/// A stream as one process knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub side: Side,
    /// Which process of that side.
    pub epoch: Epoch,
    /// How the process calls it.
    pub key: StreamKey,
}

/// All streams and datagrams there ever were.
#[derive(Debug)]
pub struct Flows {
    records: BTreeMap<Place, Record>,
    /// Whose name it is.
    names: Vec<Place>,
    /// Who gave a flow up, or asked for that, with each reason.
    reasons: Vec<(Place, Reason)>,
    /// What the acceptor's number of a stream is above the opener's, for each pair of processes.
    shifts: BTreeMap<(Side, Epoch, Epoch), i128>,
    /// The living process of each side, and how many there were before.
    living: [(Epoch, u32); 2],
    datagrams: Datagrams,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Reset,
    Stop,
}

/// Both directions of a stream, as one process has them.
#[derive(Debug)]
struct Record {
    name: u64,
    /// The process at the other side when it was opened here.
    remote: Epoch,
    /// The same stream in the process at the other end, once something told.
    twin: Option<Place>,
    written: u64,
    writing: Writing,
    /// Whether its writer knows that everything arrived.
    arrived: bool,
    read: u64,
    /// The first bytes that were read.
    head: Vec<u8>,
    reading: Reading,
    /// Whether its owner knows that the other end is gone.
    lost: bool,
    closed: bool,
}

/// What the writer did last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Open,
    Finished,
    Reset,
    /// The reader did not want more.
    Stopped,
}

/// How far the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    Ended,
    /// It was reset, or lost.
    Broken,
    Stopped,
}

impl Flows {
    /// None.
    pub fn new(living: [Epoch; 2]) -> Self {
        Self {
            records: BTreeMap::new(),
            names: Vec::new(),
            reasons: Vec::new(),
            shifts: BTreeMap::new(),
            living: living.map(|epoch| (epoch, 0)),
            datagrams: Datagrams::default(),
        }
    }

    /// A process took the place of another.
    pub fn note_restart(&mut self, side: Side, epoch: Epoch) {
        let (living, before) = &mut self.living[side as usize];
        (*living, *before) = (epoch, *before + 1);
    }

    /// A stream was opened here.
    pub fn note_open(&mut self, place: Place) -> Result<(), Violation> {
        self.begin(place, Opener::Here)
    }

    /// A stream could not be opened: there must have been many. All may be over for this end, and
    /// not for the other one, or its word of that is on the way.
    pub fn note_refused(&self, side: Side) -> Result<(), Violation> {
        let opened = self.opened(side);
        if opened < STREAMS_ALWAYS {
            return Err(Violation(format!("{side:?} opened {opened} streams and may not go on")));
        }
        Ok(())
    }

    /// The bytes of a flow from a position on.
    pub fn bytes(&self, place: Place, from: u64, len: usize) -> Bytes {
        let name = self.records.get(&place).map_or(0, |record| record.name);
        flow_bytes(name, from, len)
    }

    /// How much of a flow was written.
    pub fn written(&self, place: Place) -> u64 {
        self.records.get(&place).map_or(0, |record| record.written)
    }

    /// Bytes were offered, and so many taken.
    pub fn note_written(
        &mut self,
        place: Place,
        offered: usize,
        answer: Result<usize, StreamError>,
    ) -> Result<(), Violation> {
        let record = self.record(place)?;
        let open = record.writing == Writing::Open && !record.lost && !record.closed;
        match answer {
            Ok(taken) if open && taken <= offered => record.written += taken as u64,
            Err(StreamError::Closed) if !open => {}
            _ => return wrong(place, &format!("takes bytes so: {answer:?}, {record:?}")),
        }
        Ok(())
    }

    /// Its writer said that this was all.
    pub fn note_finish(&mut self, place: Place) -> Result<(), Violation> {
        let record = self.record(place)?;
        if record.writing == Writing::Open {
            record.writing = Writing::Finished;
        }
        Ok(())
    }

    /// A reason for giving a flow up that no other has: the writer does.
    pub fn note_reset(&mut self, place: Place) -> Result<u64, Violation> {
        let record = self.record(place)?;
        if !record.arrived && record.writing != Writing::Stopped {
            record.writing = Writing::Reset;
        }
        Ok(self.reason(place, Reason::Reset))
    }

    /// The same: the reader does.
    pub fn note_stop(&mut self, place: Place) -> Result<u64, Violation> {
        let record = self.record(place)?;
        if record.reading == Reading::Open {
            record.reading = Reading::Stopped;
        }
        Ok(self.reason(place, Reason::Stop))
    }

    /// What reading brought.
    pub fn note_read(
        &mut self,
        place: Place,
        answer: &Result<Read, StreamError>,
    ) -> Result<(), Violation> {
        let record = self.record(place)?;
        let (open, over) = (record.reading == Reading::Open, record.closed);
        match answer {
            Ok(Read::Bytes(bytes)) if open && !over => self.note_bytes(place, bytes),
            Ok(Read::Pending) if open && !over => Ok(()),
            Ok(Read::End) if open && !over => self.note_end(place),
            Err(StreamError::Reset(code)) if open && !over => {
                record.reading = Reading::Broken;
                self.note_broken(place, *code)
            }
            Err(StreamError::Lost) if record.lost => {
                record.reading = Reading::Broken;
                Ok(())
            }
            Err(StreamError::Closed) if !open || over || record.lost => Ok(()),
            _ => wrong(place, &format!("reads {answer:?}, {record:?}")),
        }
    }

    /// The end says that something happened to a stream.
    pub fn note_event(&mut self, place: Place, event: StreamEvent) -> Result<(), Violation> {
        if event == StreamEvent::Opened {
            return self.begin(place, Opener::There);
        }
        let record = self.record(place)?;
        if record.closed {
            return wrong(place, &format!("{event:?} after it was closed"));
        }
        match event {
            StreamEvent::Opened | StreamEvent::Readable | StreamEvent::Writable => Ok(()),
            StreamEvent::Finished => {
                let is_first = !std::mem::replace(&mut record.arrived, true);
                if is_first && record.writing == Writing::Finished {
                    return Ok(());
                }
                wrong(place, &format!("finished: {record:?}"))
            }
            StreamEvent::Stopped(code) => {
                if record.writing == Writing::Reset || record.arrived {
                    return wrong(place, &format!("stopped: {record:?}"));
                }
                record.writing = Writing::Stopped;
                self.note_stopped(place, code)
            }
            StreamEvent::Lost => self.note_lost(place),
            StreamEvent::Closed => {
                record.closed = true;
                Ok(())
            }
        }
    }

    /// The owner gave all streams up.
    pub fn note_surrender(&mut self, side: Side) {
        let epoch = self.living[side as usize].0;
        for (_, record) in self.of_mut(side, epoch) {
            record.lost = true;
        }
    }

    /// What a datagram says that no other says.
    pub fn next_datagram(&self, len: usize) -> Bytes {
        self.datagrams.next(len)
    }

    /// It was accepted.
    pub fn note_datagram_sent(&mut self, from: Side, len: usize) {
        self.datagrams.note_sent(from, len);
    }

    /// A datagram came out.
    pub fn note_datagram(&mut self, to: Side, bytes: &Bytes) -> Result<(), Violation> {
        self.datagrams.note_arrival(to, bytes)
    }

    /// Whether the datagram that was accepted last has come out.
    pub fn has_arrived(&self) -> bool {
        self.datagrams.has_arrived()
    }

    /// How many streams a living process opened.
    pub fn opened(&self, side: Side) -> usize {
        let all = self.of(side, self.living[side as usize].0);
        all.filter(|(place, _)| place.key.opener == Opener::Here).count()
    }

    /// Streams opened, bytes read and datagrams that came, for the account of a run.
    pub fn tally(&self) -> String {
        let read: u64 = self.records.values().map(|record| record.read).sum();
        let ours = self.records.keys().filter(|place| place.key.opener == Opener::Here);
        let (arrived, sent) = self.datagrams.tally();
        format!(
            "{} streams, {read} bytes read of them, {arrived} of {sent} datagrams",
            ours.count()
        )
    }

    fn begin(&mut self, place: Place, opener: Opener) -> Result<(), Violation> {
        let key = place.key;
        let range = Place { key: StreamKey { index: 0, ..key }, ..place }..place;
        let before = self.records.range(range).count() as u64;
        if key.opener != opener || key.index != before || self.records.contains_key(&place) {
            return wrong(place, &format!("is not the next of {before} streams"));
        }
        let record = Record {
            name: self.names.len() as u64,
            remote: self.living[place.side.other() as usize].0,
            twin: None,
            written: 0,
            writing: Writing::Open,
            arrived: false,
            read: 0,
            head: Vec::new(),
            reading: Reading::Open,
            lost: false,
            closed: false,
        };
        self.names.push(place);
        self.records.insert(place, record);
        Ok(())
    }

    fn note_bytes(&mut self, place: Place, bytes: &Bytes) -> Result<(), Violation> {
        let record = self.record(place)?;
        let from = record.read;
        record.read += bytes.len() as u64;
        let missing = (NAME_LEN as usize).saturating_sub(record.head.len());
        record.head.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        let Some(name) = record.head.first_chunk() else { return Ok(()) };
        let name = u64::from_le_bytes(*name);
        let Some(writer) = self.names.get(name as usize).copied() else {
            return wrong(place, "reads what nobody wrote");
        };
        self.pair_up(place, writer)?;
        let (read, written) = (from + bytes.len() as u64, self.written(writer));
        if read > written || flow_bytes(name, from, bytes.len()) != bytes {
            return wrong(place, &format!("reads {from}..{read} of {written} bytes wrongly"));
        }
        Ok(())
    }

    fn note_end(&mut self, place: Place) -> Result<(), Violation> {
        let record = self.record(place)?;
        record.reading = Reading::Ended;
        let (read, twin) = (record.read, record.twin);
        let is_end =
            |record: &Record| record.written == read && !matches!(record.writing, Writing::Open);
        let ended = match twin.and_then(|twin| self.records.get(&twin)) {
            Some(writer) => is_end(writer),
            None => {
                let mut all = self.records.iter();
                all.any(|(other, record)| other.side != place.side && is_end(record))
            }
        };
        if ended { Ok(()) } else { wrong(place, &format!("ends after {read} bytes")) }
    }

    /// A stream may be lost with the process at its other end, or given up here.
    fn note_lost(&mut self, place: Place) -> Result<(), Violation> {
        let (living, before) = self.living[place.side.other() as usize];
        let record = self.record(place)?;
        let surrendered = record.lost;
        let gone = record.twin.map_or(before > 0, |twin| twin.epoch != living);
        record.lost = true;
        if surrendered || gone {
            return Ok(());
        }
        wrong(place, &format!("is lost though its other end lives: {record:?}"))
    }

    fn reason(&mut self, place: Place, reason: Reason) -> u64 {
        self.reasons.push((place, reason));
        CODE_FIRST + self.reasons.len() as u64 - 1
    }

    fn record(&mut self, place: Place) -> Result<&mut Record, Violation> {
        let unknown = || Violation(format!("{place:?}: was never opened"));
        self.records.get_mut(&place).ok_or_else(unknown)
    }

    fn of(&self, side: Side, epoch: Epoch) -> impl Iterator<Item = (&Place, &Record)> {
        let mine = move |place: &Place| place.side == side && place.epoch == epoch;
        self.records.iter().filter(move |(place, _)| mine(place))
    }

    fn of_mut(&mut self, side: Side, epoch: Epoch) -> impl Iterator<Item = (&Place, &mut Record)> {
        let mine = move |place: &Place| place.side == side && place.epoch == epoch;
        self.records.iter_mut().filter(move |(place, _)| mine(place))
    }
}

/// The name, and behind it bytes that tell the flow and every place in it.
fn flow_bytes(name: u64, from: u64, len: usize) -> Bytes {
    let first = from / NAME_LEN;
    let last = (from + len as u64).div_ceil(NAME_LEN);
    let words = (first..last).map(|at| if at == 0 { name } else { pattern(&[name, at]) });
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    Bytes::from(bytes).slice((from % NAME_LEN) as usize..).slice(..len)
}

fn wrong<T>(place: Place, what: &str) -> Result<T, Violation> {
    let Place { side, epoch, key } = place;
    Err(Violation(format!("stream {key:?} of {side:?} {epoch:?}: {what}")))
}
