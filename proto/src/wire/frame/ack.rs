//! Acknowledged packet numbers.

use super::number;
use crate::id::PathId;
use crate::io::Ecn;
use crate::wire::codec::{DecodeError, Reader, VARINT_MAX, Writer};

/// Most ranges of an ACK that are read or written; older ones fall away.
pub const ACK_RANGES_MAX: usize = 32;

/// Body of an ACK: newest range first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The path whose packets are acknowledged.
    pub path: PathId,
    /// Largest packet count acknowledged.
    pub largest: u64,
    /// Time between receiving `largest` and sending this, in microseconds.
    pub delay_us: u64,
    /// Marks of the packets that arrived, once there was one (RFC 9000 section 19.3.2).
    pub marks: Option<EcnCounts>,
    ranges: AckRanges<'a>,
}

/// Packets of a path by their congestion mark, counted as they arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcnCounts {
    /// With ECT(0).
    pub ect0: u64,
    /// With ECT(1).
    pub ect1: u64,
    /// With CE.
    pub ce: u64,
}

impl EcnCounts {
    /// One more.
    pub fn note(&mut self, mark: Ecn) {
        match mark {
            Ecn::NotEct => {}
            Ecn::Ect1 => self.ect1 += 1,
            Ecn::Ect0 => self.ect0 += 1,
            Ecn::Ce => self.ce += 1,
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { ect0: reader.varint()?, ect1: reader.varint()?, ce: reader.varint()? })
    }

    fn encode(self, out: &mut impl Writer) {
        [self.ect0, self.ect1, self.ce].into_iter().for_each(|count| out.put_varint(count));
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum AckRanges<'a> {
    /// Varints as they were read: the first length, then pairs of gap and length.
    Encoded(&'a [u8]),
    /// Inclusive ranges, newest first, disjoint and not adjacent.
    Given(&'a [(u64, u64)]),
}

impl<'a> Ack<'a> {
    /// An acknowledgement of inclusive `ranges` `(low, high)`, newest first, disjoint, with at
    /// least one number between two neighbours. Returns `None` for no ranges.
    pub fn new(path: PathId, ranges: &'a [(u64, u64)], delay_us: u64) -> Option<Self> {
        let &(_, largest) = ranges.first()?;
        let ranges = &ranges[..ranges.len().min(ACK_RANGES_MAX)];
        Some(Self { path, largest, delay_us, marks: None, ranges: AckRanges::Given(ranges) })
    }

    /// The same, with the marks of what arrived.
    #[must_use]
    pub fn with_marks(self, marks: Option<EcnCounts>) -> Self {
        Self { marks, ..self }
    }

    /// The inclusive ranges `(low, high)`, newest first. Only well-formed ones are ever held.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + 'a {
        let (given, encoded) = match self.ranges {
            AckRanges::Given(given) => (given, None),
            AckRanges::Encoded(bytes) => (&[][..], Some(RangeReader::new(self.largest, bytes))),
        };
        given.iter().copied().chain(encoded.into_iter().flatten())
    }

    /// The frame of type ACK_ECN.
    pub(super) fn decode_marked(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let ack = Self::decode(reader)?;
        Ok(Self { marks: Some(EcnCounts::decode(reader)?), ..ack })
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let path = PathId(reader.u8()?);
        let largest = reader.varint()?;
        let delay_us = reader.varint()?;
        let more = reader.varint()?;
        if more >= ACK_RANGES_MAX as u64 {
            return Err(DecodeError::Malformed);
        }
        let start = reader.clone();
        let mut low = largest.checked_sub(reader.varint()?).ok_or(DecodeError::Malformed)?;
        for _ in 0..more {
            let gap = reader.varint()?;
            let len = reader.varint()?;
            // A gap of 0 means one missing packet, as in RFC 9000 section 19.3.1.
            let high = low.checked_sub(gap + 2).ok_or(DecodeError::Malformed)?;
            low = high.checked_sub(len).ok_or(DecodeError::Malformed)?;
        }
        let mut body = start.clone();
        let bytes = body.bytes(start.remaining() - reader.remaining())?;
        Ok(Self { path, largest, delay_us, marks: None, ranges: AckRanges::Encoded(bytes) })
    }

    pub(super) fn encode(&self, out: &mut impl Writer) {
        out.put_u8(if self.marks.is_some() { number::ACK_ECN } else { number::ACK });
        out.put_u8(self.path.0);
        out.put_varint(self.largest);
        out.put_varint(self.delay_us.min(VARINT_MAX));
        out.put_varint(self.ranges().count() as u64 - 1);
        let mut above: Option<u64> = None;
        for (low, high) in self.ranges() {
            if let Some(above) = above {
                out.put_varint(above - high - 2);
            }
            out.put_varint(high - low);
            above = Some(low);
        }
        if let Some(marks) = self.marks {
            marks.encode(out);
        }
    }
}

/// Walks encoded ranges that [`Ack::decode`] found well-formed.
struct RangeReader<'a> {
    reader: Reader<'a>,
    high: Option<u64>,
}

impl<'a> RangeReader<'a> {
    fn new(largest: u64, bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), high: Some(largest) }
    }
}

impl Iterator for RangeReader<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let high = self.high?;
        let low = high - self.reader.varint().ok()?;
        self.high = self.reader.varint().ok().map(|gap| low - gap - 2);
        Some((low, high))
    }
}
