//! Taking packets apart: what each frame does.

use std::time::Instant;

use smallvec::SmallVec;

use super::packet::Carried;
use super::receive::{Origin, Part};
use super::{ControlFrame, Event, FrameError, Transport};
use crate::id::{Channel, PacketNumber, PathId, Sequence};
use crate::wire::frame::{Ack, Frame};

/// Events that wait for the owner; one packet can hold no more frames of others than this.
pub(super) const EVENTS_MAX: usize = 1024;

impl Transport {
    pub(super) fn handle_frame(
        &mut self,
        frame: &Frame<'_>,
        arrival: &mut Arrival,
        now: Instant,
    ) -> Result<(), FrameError> {
        arrival.eliciting |= frame.is_ack_eliciting();
        match frame {
            Frame::Padding(_) | Frame::Confirm | Frame::Unknown(_) => Ok(()),
            Frame::Ack(ack) => self.on_ack(ack, arrival.path, now),
            Frame::Message(message) => {
                self.check_channel(message.channel)?;
                if self.inbox.is_ahead() {
                    return Ok(());
                }
                let part = self.inbox.on_message(message, Origin::Session, &self.config, now)?;
                arrival.note(part);
                if part == Part::Stored {
                    self.message_path = Some(arrival.path);
                }
                Ok(())
            }
            Frame::Receipt(channel, below) => self.on_receipt(*channel, *below, arrival.path),
            Frame::Skip(channel, below) => {
                self.check_channel(*channel)?;
                if !self.inbox.is_ahead() {
                    self.inbox.on_skip(*channel, *below, now);
                }
                Ok(())
            }
            Frame::Window(channel, limit) => {
                self.check_channel(*channel)?;
                self.outbox.on_window(*channel, *limit);
                Ok(())
            }
            Frame::Blocked(channel, settled) => {
                self.check_channel(*channel)?;
                if self.inbox.is_ahead() {
                    return Ok(());
                }
                self.inbox.on_blocked(*channel, *settled, now)
            }
            Frame::Ping
            | Frame::Observed(_)
            | Frame::PathChallenge(_)
            | Frame::PathResponse(_)
            | Frame::PathRetire(_)
            | Frame::Candidates(_)
            | Frame::Rekey(_)
            | Frame::Close(..)
            | Frame::Open(_)
            | Frame::Nat(..)
            | Frame::Punch(_) => self.pass_on(frame, arrival.path),
            Frame::Stream(frame) => self.on_stream(frame, arrival),
            Frame::Datagram(bytes) => self.on_datagram(bytes),
        }
    }

    pub(super) fn on_ack(
        &mut self,
        ack: &Ack<'_>,
        came_on: PathId,
        now: Instant,
    ) -> Result<(), FrameError> {
        if self.has_ended(ack.path) {
            return Ok(());
        }
        let unknown = FrameError(400, "acknowledgement of a packet never sent");
        let index = self.index(ack.path).ok_or(unknown)?;
        let Self { paths, outbox, streams, .. } = self;
        let mut known: SmallVec<[(PathId, u64); 4]> = SmallVec::new();
        let settled = paths[index].on_ack(ack, ack.path == came_on, now, |carried| {
            match (carried, &mut *streams) {
                (Carried::Stream(carried), Some(streams)) => streams.on_acked(carried),
                (Carried::Ack { path, largest }, _) => note_known(&mut known, *path, *largest),
                _ => outbox.on_acked(carried, ack.path),
            }
        })?;
        for (path, largest) in known {
            if let Some(index) = self.index(path) {
                self.paths[index].received.forget_below(largest);
            }
        }
        self.requeue(&settled.lost, now);
        if settled.recovered {
            self.events.push_back(Event::PathRecovered(ack.path));
            self.rescue(now);
        }
        Ok(())
    }

    pub(super) fn on_receipt(
        &mut self,
        channel: Channel,
        below: Sequence,
        came_on: PathId,
    ) -> Result<(), FrameError> {
        self.check_channel(channel)?;
        if let Some(settled) = self.outbox.on_receipt(channel, below)? {
            let path = settled.path.unwrap_or(came_on);
            self.events.push_back(Event::Delivered { channel, below, path });
        }
        Ok(())
    }

    /// Hands a frame of others to the owner.
    pub(super) fn pass_on(&mut self, frame: &Frame<'_>, path: PathId) -> Result<(), FrameError> {
        let Some(frame) = ControlFrame::from_frame(frame) else { return Ok(()) };
        let event = Event::Control { path, frame };
        // A packet of many PINGs asks one question.
        if self.events.back() == Some(&event) {
            return Ok(());
        }
        if self.events.len() >= EVENTS_MAX {
            return Err(FrameError(429, "too many frames"));
        }
        self.events.push_back(event);
        Ok(())
    }

    pub(super) fn note_arrival(&mut self, number: PacketNumber, arrival: &Arrival, now: Instant) {
        if arrival.part == Part::Refused {
            return;
        }
        let Some(index) = self.index(number.path()) else { return };
        let path = &mut self.paths[index];
        path.received.insert(number.count(), arrival.eliciting, now);
        if arrival.eliciting && (path.suspect || arrival.part == Part::Repeated) {
            path.received.also_elsewhere();
        }
    }

    pub(super) fn check_channel(&self, channel: Channel) -> Result<(), FrameError> {
        if u16::from(channel.0) < self.config.channels {
            return Ok(());
        }
        Err(FrameError(400, "no such channel"))
    }

    pub(super) fn note_readable(&mut self, was_readable: bool) {
        if !was_readable && self.inbox.is_readable() {
            self.events.push_back(Event::Readable);
        }
    }

    pub(super) fn note_writable(&mut self) {
        if self.outbox.take_writable(&self.config) {
            self.events.push_back(Event::Writable);
        }
    }
}

/// The other end has our ACK of a path up to `largest`.
fn note_known(known: &mut SmallVec<[(PathId, u64); 4]>, path: PathId, largest: u64) {
    match known.iter_mut().find(|(of, _)| *of == path) {
        Some((_, before)) => *before = largest.max(*before),
        None => known.push((path, largest)),
    }
}

/// What is to be said about a packet when all its frames are handled.
pub(super) struct Arrival {
    pub(super) path: PathId,
    pub(super) eliciting: bool,
    pub(super) part: Part,
}

impl Arrival {
    pub(super) fn note(&mut self, part: Part) {
        if self.part != Part::Refused && part != Part::Stored {
            self.part = part;
        }
    }
}
