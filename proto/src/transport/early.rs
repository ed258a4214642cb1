//! Frames in message 1 of a handshake, sent and received before there is a session (SPEC section 4.7).

use std::time::Instant;

use super::packet::{Carried, Packet};
use super::receive::Origin;
use super::send::EarlyVerdict;
use super::{FrameError, MALFORMED, Transport};
use crate::id::{Epoch, PathId};
use crate::wire::codec::Reader;
use crate::wire::frame::Frame;

/// Early data whose fate is not known.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) session: EarlySession,
    pub(super) control: Vec<Carried>,
}

/// Whether the session that the handshake made has started here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlySession {
    Awaited,
    Started,
}

impl Transport {
    /// Frames for message 1, at most `max` bytes; `None` when nothing is queued. Counted as in
    /// flight until `early_verdict`, which must follow; asking again before counts as rejected.
    pub fn poll_early(&mut self, max: usize, now: Instant) -> Option<Vec<u8>> {
        self.early_verdict(false, now);
        let mut frames = Vec::new();
        let mut packet = Packet::new(&mut frames, max);
        // Messages first: a registration must come before what needs it.
        self.outbox.write_early(&mut packet);
        self.control.write(&mut packet, |path| path.is_none());
        let control: Vec<Carried> = std::mem::take(&mut packet.carried)
            .into_iter()
            .filter(|carried| matches!(carried, Carried::Control(_)))
            .collect();
        if frames.is_empty() {
            return None;
        }
        self.early = Some(Box::new(Early { session: EarlySession::Awaited, control }));
        Some(frames)
    }

    /// Whether the other end took the early data. May come before or after `start_session`.
    pub fn early_verdict(&mut self, accepted: bool, now: Instant) {
        let Some(early) = self.early.take() else { return };
        let verdict = match (accepted, early.session) {
            (true, EarlySession::Started) => EarlyVerdict::Accepted,
            (true, EarlySession::Awaited) => EarlyVerdict::AcceptedBefore,
            (false, _) => EarlyVerdict::Rejected,
        };
        self.outbox.end_early(verdict);
        if !accepted {
            self.requeue(&early.control, now);
        }
    }

    /// Frames of accepted early data (responder), from a sender of this epoch: MESSAGE and SKIP
    /// are honoured, the rest is returned as control events like in `handle_packet`.
    /// `start_session` with the same epoch follows, at once or when the session is confirmed.
    ///
    /// # Errors
    /// [`FrameError`] when the frames break the rules; drop the handshake.
    pub fn handle_early(
        &mut self,
        remote_epoch: Epoch,
        frames: &[u8],
        now: Instant,
    ) -> Result<(), FrameError> {
        self.inbox.begin_early(remote_epoch);
        let was_readable = self.inbox.is_readable();
        let mut reader = Reader::new(frames);
        while !reader.is_empty() {
            match Frame::decode(&mut reader).map_err(|_| MALFORMED)? {
                Frame::Message(message) => {
                    self.check_channel(message.channel)?;
                    self.inbox.on_message(&message, Origin::Early, &self.config, now)?;
                }
                Frame::Skip(channel, below) => {
                    self.check_channel(channel)?;
                    self.inbox.on_skip(channel, below, now);
                }
                frame @ (Frame::Padding(_)
                | Frame::Ping
                | Frame::Observed(_)
                | Frame::Ack(_)
                | Frame::Receipt(..)
                | Frame::Window(..)
                | Frame::Blocked(..)
                | Frame::Confirm
                | Frame::PathChallenge(_)
                | Frame::PathResponse(_)
                | Frame::PathRetire(_)
                | Frame::Candidates(_)
                | Frame::Rekey(_)
                | Frame::Close(..)
                | Frame::Open(_)
                | Frame::Nat(..)
                | Frame::Punch(_)
                | Frame::Stream(_)
                | Frame::Datagram(_)
                | Frame::Unknown(_)) => self.pass_on(&frame, PathId::SERVER)?,
            }
        }
        self.note_readable(was_readable);
        Ok(())
    }
}
