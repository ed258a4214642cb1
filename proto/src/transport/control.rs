//! Frames of others that wait for a packet.

use std::collections::VecDeque;

use bytes::Bytes;

use super::ControlFrame;
use super::packet::{Carried, Packet};
use crate::id::PathId;
use crate::wire::frame::{Frame, Open};

/// More than any owner has to say at once; the oldest unreliable frame makes room, then the
/// oldest of all.
const QUEUE_MAX: usize = 64;

impl ControlFrame {
    /// Whether it is sent again when lost.
    pub(super) fn is_reliable(&self) -> bool {
        match self {
            Self::Ping | Self::Observed(_) | Self::PathChallenge(_) | Self::PathResponse(_) => {
                false
            }
            Self::Candidates(_)
            | Self::Rekey(_)
            | Self::PathRetire(_)
            | Self::Close(..)
            | Self::Open(..)
            | Self::Nat(..)
            | Self::Punch(_) => true,
        }
    }

    /// Whether it means the same in another session.
    fn outlives_session(&self) -> bool {
        matches!(self, Self::Candidates(_) | Self::Open(..))
    }

    /// The owned form of a frame that is not the transport's own.
    pub(super) fn from_frame(frame: &Frame<'_>) -> Option<Self> {
        Some(match frame {
            Frame::Ping => Self::Ping,
            Frame::Observed(address) => Self::Observed(*address),
            Frame::PathChallenge(data) => Self::PathChallenge(*data),
            Frame::PathResponse(data) => Self::PathResponse(*data),
            Frame::PathRetire(path) => Self::PathRetire(*path),
            Frame::Candidates(candidates) => Self::Candidates(candidates.clone()),
            Frame::Rekey(rekey) => Self::Rekey(*rekey),
            Frame::Close(code, reason) => Self::Close(*code, (*reason).to_owned()),
            Frame::Open(open) => {
                Self::Open(open.target, open.connect, Bytes::copy_from_slice(open.datagram))
            }
            Frame::Nat(generation, profile) => {
                Self::Nat(*generation, Bytes::copy_from_slice(profile))
            }
            Frame::Punch(punch) => Self::Punch(*punch),
            Frame::Padding(_)
            | Frame::Ack(_)
            | Frame::Message(_)
            | Frame::Receipt(..)
            | Frame::Skip(..)
            | Frame::Window(..)
            | Frame::Blocked(..)
            | Frame::Confirm
            | Frame::Stream(_)
            | Frame::Datagram(_)
            | Frame::Unknown(_) => return None,
        })
    }

    /// As it travels.
    fn frame(&self) -> Frame<'_> {
        match self {
            Self::Ping => Frame::Ping,
            Self::Observed(address) => Frame::Observed(*address),
            Self::PathChallenge(data) => Frame::PathChallenge(*data),
            Self::PathResponse(data) => Frame::PathResponse(*data),
            Self::Candidates(candidates) => Frame::Candidates(candidates.clone()),
            Self::Rekey(rekey) => Frame::Rekey(*rekey),
            Self::PathRetire(path) => Frame::PathRetire(*path),
            Self::Close(code, reason) => Frame::Close(*code, reason),
            Self::Open(target, connect, datagram) => {
                Frame::Open(Open { target: *target, connect: *connect, datagram })
            }
            Self::Nat(generation, profile) => Frame::Nat(*generation, profile),
            Self::Punch(punch) => Frame::Punch(*punch),
        }
    }
}

/// In order of arrival.
#[derive(Debug, Default)]
pub(super) struct ControlQueue {
    frames: VecDeque<(ControlFrame, Option<PathId>)>,
    /// Newest generation of candidates seen here: older lost ones are not repeated.
    generation: u64,
    /// The same of what is known of the NAT.
    nat_generation: u64,
}

impl ControlQueue {
    pub(super) fn push(&mut self, frame: ControlFrame, path: Option<PathId>) {
        if let ControlFrame::Candidates(new) = &frame {
            if new.generation < self.generation {
                return;
            }
            self.generation = new.generation;
            self.frames.retain(|(old, _)| !matches!(old, ControlFrame::Candidates(_)));
        }
        if let ControlFrame::Nat(new, _) = &frame {
            if *new < self.nat_generation {
                return;
            }
            self.nat_generation = *new;
            self.frames.retain(|(old, _)| !matches!(old, ControlFrame::Nat(..)));
        }
        if self.frames.len() >= QUEUE_MAX {
            let oldest = self.frames.iter().position(|(frame, _)| !frame.is_reliable());
            self.frames.remove(oldest.unwrap_or(0));
        }
        self.frames.push_back((frame, path));
    }

    /// A lost frame goes again, on any path, unless a newer one replaced it.
    pub(super) fn on_lost(&mut self, frame: &ControlFrame) {
        let waiting = self.frames.iter().any(|(other, _)| other == frame);
        if frame.is_reliable() && !waiting {
            self.push(frame.clone(), None);
        }
    }

    /// What belongs to the old session goes.
    pub(super) fn restart(&mut self) {
        self.frames.retain(|(frame, _)| frame.outlives_session());
    }

    /// Keeps a frame that was in flight when the session ended.
    pub(super) fn keep(&mut self, frame: &ControlFrame) {
        if frame.outlives_session() {
            self.on_lost(frame);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds the frames meant for this path.
    pub(super) fn write(
        &mut self,
        packet: &mut Packet<'_>,
        mut fits_path: impl FnMut(Option<PathId>) -> bool,
    ) {
        let mut index = 0;
        while let Some((frame, path)) = self.frames.get(index) {
            if fits_path(*path) && push(packet, frame) {
                self.frames.remove(index);
            } else {
                index += 1;
            }
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }
}

/// A CLOSE is not ack-eliciting, but one that got lost would leave the other end waiting: a
/// CONFIRM beside it makes its packet count.
fn push(packet: &mut Packet<'_>, frame: &ControlFrame) -> bool {
    let fits = packet.push(&frame.frame());
    if fits && frame.is_reliable() {
        if matches!(frame, ControlFrame::Close(..)) {
            packet.push(&Frame::Confirm);
        }
        packet.carried.push(Carried::Control(Box::new(frame.clone())));
    }
    fits
}
