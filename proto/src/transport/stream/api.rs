//! What owners see of streams.

use bytes::Bytes;

/// Which ids this end gives to the streams that it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamSide {
    /// Even ones: its static key is the smaller one.
    Even,
    /// Odd ones.
    Odd,
}

/// A stream as one end knows it. Never given again by a transport, whatever becomes of the other
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamKey {
    /// Which end opened it.
    pub opener: Opener,
    /// Counts the streams that this end opened.
    pub index: u64,
}

/// Which end opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opener {
    /// This one.
    Here,
    /// The other one.
    There,
}

/// Codes that the protocol itself gives to streams it ends; those below 1000 are kept for it.
pub mod stream_code {
    /// Given up without a reason.
    pub const CANCELLED: u64 = 0;
    /// The application takes no streams.
    pub const REFUSED: u64 = 403;
    /// The other end seemed to be gone.
    pub const LOST: u64 = 408;
    /// The application is behind with the streams it has.
    pub const BUSY: u64 = 429;
}

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The other end opened it.
    Opened,
    /// `read_stream` answers something else than [`Read::Pending`].
    Readable,
    /// `write_stream`, which took less than it was given, takes more.
    Writable,
    /// The other end has every byte that was written, and knows that no more follow.
    Finished,
    /// The other end reads no more, for this reason; what was written is dropped.
    Stopped(u64),
    /// The other end is gone: it restarted, left, or is silent for too long. Only what had
    /// arrived to the end can still be read.
    Lost,
    /// Both directions are over: nothing follows, and nothing is remembered of it.
    Closed,
}

/// What reading brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes, at least one.
    Bytes(Bytes),
    /// None now: [`StreamEvent::Readable`] follows.
    Pending,
    /// The other end finished, and everything was read.
    End,
}

/// Why a stream does not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It is over, or never was.
    #[error("the stream is closed")]
    Closed,
    /// The other end gave it up.
    #[error("the other side reset the stream, code {0}")]
    Reset(u64),
    /// The other end reads no more.
    #[error("the other side reads no more of the stream, code {0}")]
    Stopped(u64),
    /// The other end is gone.
    #[error("the other side of the stream is gone; open another one when it is back")]
    Lost,
}

/// Why no stream was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenStreamError {
    /// [`STREAMS_OPEN_MAX`](super::STREAMS_OPEN_MAX) are open, or the other end allows no more now.
    #[error("too many streams are open to this peer; close some")]
    TooMany,
    /// There are none with a server.
    #[error("there are no streams with a server")]
    NotHere,
}

/// Why a datagram was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Longer than the path in use carries.
    #[error("a datagram has at most {0} bytes on this path")]
    TooLong(usize),
    /// There are none with a server.
    #[error("there are no datagrams with a server")]
    NotHere,
}
