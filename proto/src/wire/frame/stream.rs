//! Byte streams and unreliable datagrams (SPEC section 16).

use super::number;
use crate::id::StreamId;
use crate::wire::codec::{DecodeError, Reader, VARINT_MAX, Writer};

/// What is said of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFrame<'a> {
    /// Bytes of a stream.
    Data(StreamData<'a>),
    /// The sender gives its direction of the stream up.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        code: u64,
        /// How many bytes were sent of it, in any packet.
        final_size: u64,
    },
    /// The sender reads no more: it asks for a RESET_STREAM.
    Stop {
        /// The stream.
        id: StreamId,
        /// Why.
        code: u64,
    },
    /// The stream may be sent up to this position.
    Window {
        /// The stream.
        id: StreamId,
        /// The position.
        limit: u64,
    },
    /// How many streams the receiver of this frame may have opened in all.
    Max(u64),
}

/// Bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamData<'a> {
    /// The stream.
    pub id: StreamId,
    /// Where `bytes` belong; their end is at most 2^62 - 1.
    pub offset: u64,
    /// Whether the stream ends with them.
    pub fin: bool,
    /// The bytes; may be empty.
    pub bytes: &'a [u8],
}

impl<'a> StreamFrame<'a> {
    /// The frame of this type; `None` when that is not one of a stream.
    pub(super) fn decode(kind: u8, reader: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
        let id = |reader: &mut Reader<'a>| reader.varint().map(StreamId);
        Ok(Some(match kind {
            number::STREAM => Self::Data(StreamData::decode(reader)?),
            number::RESET_STREAM => Self::Reset {
                id: id(reader)?,
                code: reader.varint()?,
                final_size: reader.varint()?,
            },
            number::STOP_SENDING => Self::Stop { id: id(reader)?, code: reader.varint()? },
            number::STREAM_WINDOW => Self::Window { id: id(reader)?, limit: reader.varint()? },
            number::STREAMS_MAX => Self::Max(reader.varint()?),
            _ => return Ok(None),
        }))
    }

    pub(super) fn encode(&self, out: &mut impl Writer) {
        match *self {
            Self::Data(data) => data.encode(out),
            Self::Reset { id, code, final_size } => {
                put(out, number::RESET_STREAM, &[id.0, code, final_size]);
            }
            Self::Stop { id, code } => put(out, number::STOP_SENDING, &[id.0, code]),
            Self::Window { id, limit } => put(out, number::STREAM_WINDOW, &[id.0, limit]),
            Self::Max(count) => put(out, number::STREAMS_MAX, &[count]),
        }
    }
}

impl<'a> StreamData<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let id = StreamId(reader.varint()?);
        let offset = reader.varint()?;
        let fin = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Malformed),
        };
        let bytes = reader.string(usize::MAX)?;
        // The sum cannot overflow: a varint has 62 bits.
        if offset + bytes.len() as u64 > VARINT_MAX {
            return Err(DecodeError::Malformed);
        }
        Ok(Self { id, offset, fin, bytes })
    }

    fn encode(self, out: &mut impl Writer) {
        put(out, number::STREAM, &[self.id.0, self.offset]);
        out.put_u8(self.fin.into());
        out.put_string(self.bytes);
    }
}

fn put(out: &mut impl Writer, kind: u8, numbers: &[u64]) {
    out.put_u8(kind);
    numbers.iter().for_each(|number| out.put_varint(*number));
}
