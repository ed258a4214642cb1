//! What a transport does with streams and datagrams beside its messages.

use std::time::Instant;

use bytes::Bytes;

use super::incoming::Arrival;
use super::incoming::EVENTS_MAX;
use super::packet::{Carried, Packet};
use super::receive::Part;
use super::stream::{DatagramError, OpenStreamError, Read, StreamError, StreamKey, Streams};
use super::{Event, FrameError, RTT_GUESS, Transport};
use crate::wire::frame::StreamFrame;

/// Bytes of frames in a packet that a datagram is measured by while no path is open; a narrower
/// one drops it.
const PATHLESS_PAYLOAD: usize = 1100;

/// Whose turn it is to be first in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Messages,
    Streams,
    Datagrams,
}

impl Turn {
    fn next(self) -> Self {
        match self {
            Self::Messages => Self::Streams,
            Self::Streams => Self::Datagrams,
            Self::Datagrams => Self::Messages,
        }
    }
}

// ---- the owner's side

impl Transport {
    /// Opens a stream; the other end is told at once. Streams outlive sessions with one epoch of
    /// the other end, and end with it.
    ///
    /// # Errors
    /// [`OpenStreamError`].
    pub fn open_stream(&mut self, _now: Instant) -> Result<StreamKey, OpenStreamError> {
        self.streams.as_mut().ok_or(OpenStreamError::NotHere)?.open()
    }

    /// Takes as many of the bytes as there is room for; after fewer than all,
    /// [`StreamEvent::Writable`](super::StreamEvent::Writable) follows.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the stream was finished, reset, stopped or lost.
    pub fn write_stream(
        &mut self,
        key: StreamKey,
        bytes: &[u8],
        _now: Instant,
    ) -> Result<usize, StreamError> {
        self.streams.as_mut().ok_or(StreamError::Closed)?.write(key, bytes)
    }

    /// No more is written; what was is brought over.
    pub fn finish_stream(&mut self, key: StreamKey, _now: Instant) {
        self.with_streams(|streams| streams.finish(key));
    }

    /// Gives up what was written and not acknowledged.
    pub fn reset_stream(&mut self, key: StreamKey, code: u64, _now: Instant) {
        self.with_streams(|streams| streams.reset(key, code));
    }

    /// Nothing is read any more: asks the other end to reset its direction.
    pub fn stop_stream(&mut self, key: StreamKey, code: u64, _now: Instant) {
        self.with_streams(|streams| streams.stop(key, code));
    }

    /// The next bytes of a stream, at most `max`, which is not 0. What is not read holds its
    /// window: the other end waits.
    ///
    /// # Errors
    /// [`StreamError`] when the stream is not to be read (any more).
    pub fn read_stream(
        &mut self,
        key: StreamKey,
        max: usize,
        now: Instant,
    ) -> Result<Read, StreamError> {
        let rtt = self.data_path().and_then(|index| self.paths[index].rtt.measured());
        let streams = self.streams.as_mut().ok_or(StreamError::Closed)?;
        streams.read(key, max, rtt.unwrap_or(RTT_GUESS), now)
    }

    /// The other end is gone: streams that wait for it end, with the code
    /// [`stream_code::LOST`](super::stream_code::LOST) for it if it is not. What had come to its end can be read.
    pub fn lose_streams(&mut self, _now: Instant) {
        self.with_streams(Streams::lose_all);
    }

    /// Whether any stream is open in either direction.
    pub fn has_open_streams(&self) -> bool {
        self.streams.as_ref().is_some_and(|streams| streams.has_open())
    }

    /// Whether the ends of finished streams are on their way.
    pub fn owes_stream_ends(&self) -> bool {
        self.streams.as_ref().is_some_and(|streams| streams.owes_ends())
    }

    /// Queues a datagram, in place of the oldest where
    /// [`DATAGRAMS_MAX`](super::DATAGRAMS_MAX) wait. It goes once, or never.
    ///
    /// # Errors
    /// [`DatagramError`].
    pub fn send_datagram(&mut self, datagram: Bytes, _now: Instant) -> Result<(), DatagramError> {
        let payload_max = self.data_path().map(|index| self.paths[index].payload_max().into());
        let streams = self.streams.as_mut().ok_or(DatagramError::NotHere)?;
        let max = Streams::datagram_len_max(payload_max.unwrap_or(PATHLESS_PAYLOAD));
        if datagram.len() > max {
            return Err(DatagramError::TooLong(max));
        }
        streams.datagrams.push(datagram);
        Ok(())
    }

    fn with_streams(&mut self, act: impl FnOnce(&mut Streams)) {
        if let Some(streams) = &mut self.streams {
            act(streams);
        }
    }
}

// ---- packets

impl Transport {
    pub(super) fn on_stream(
        &mut self,
        frame: &StreamFrame<'_>,
        arrival: &mut Arrival,
    ) -> Result<(), FrameError> {
        let streams = self.streams.as_mut().ok_or(NO_STREAMS)?;
        if self.inbox.is_ahead() {
            return Ok(());
        }
        let part = streams.on_frame(frame)?;
        arrival.note(part);
        if matches!(frame, StreamFrame::Data(_)) && part == Part::Stored {
            self.message_path = Some(arrival.path);
        }
        Ok(())
    }

    /// One more than the owner can be expected to take is dropped, as it might have been on its
    /// way.
    pub(super) fn on_datagram(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        if self.streams.is_none() {
            return Err(NO_STREAMS);
        }
        if !self.inbox.is_ahead() && self.events.len() < EVENTS_MAX {
            self.events.push_back(Event::Datagram(Bytes::copy_from_slice(bytes)));
        }
        Ok(())
    }

    pub(super) fn poll_stream_event(&mut self) -> Option<Event> {
        let (key, event) = self.streams.as_mut()?.poll_event()?;
        Some(Event::Stream(key, event))
    }

    pub(super) fn is_unacked(&self, carried: &Carried) -> bool {
        match (carried, &self.streams) {
            (Carried::Stream(carried), Some(streams)) => streams.is_unacked(carried),
            _ => self.outbox.is_unacked(carried),
        }
    }

    /// Whether messages, streams or datagrams have something to send.
    pub(super) fn has_data(&self) -> bool {
        let streams = self.streams.as_ref();
        self.outbox.has_work()
            || streams.is_some_and(|streams| streams.has_work() || !streams.datagrams.is_empty())
    }

    /// Adds messages, streams and datagrams. Who came first goes last in the next packet, so that
    /// none of them waits for ever for the others.
    pub(super) fn write_data(&mut self, packet: &mut Packet<'_>) {
        let Some(streams) = &mut self.streams else { return self.outbox.write(packet) };
        let mut turn = self.turn;
        let mut served = None;
        for _ in 0..3 {
            let before = packet.len();
            match turn {
                Turn::Messages => self.outbox.write(packet),
                Turn::Streams => streams.fill(packet),
                Turn::Datagrams => streams.datagrams.write(packet),
            }
            if packet.len() > before {
                served = served.or(Some(turn));
            }
            turn = turn.next();
        }
        self.turn = served.map_or(self.turn, Turn::next);
    }
}

const NO_STREAMS: FrameError = FrameError(400, "streams and datagrams are for peers alone");
