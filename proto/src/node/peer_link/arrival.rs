//! What arrives: datagrams of the peer, and what the transport makes of them.

use std::time::Instant;

use super::super::core::Core;
use super::{Notice, Origin, PeerLink, Via};
use crate::control;
use crate::conversation::PacketError;
use crate::id::PathId;
use crate::session::OpenError;
use crate::transport::{ControlFrame, Event};
use crate::wire::Family;

impl PeerLink {
    /// A datagram of this peer. `via` is where relayed answers go.
    pub(in crate::node) fn handle_datagram(
        &mut self,
        origin: Origin,
        data: &mut [u8],
        via: Option<Via>,
        core: &mut Core,
        now: Instant,
    ) {
        if self.hides.is_some() && matches!(origin, Origin::Direct(..)) {
            // An answer would tell where we are, or that we take part in what the other must not.
            return;
        }
        match Family::of(data) {
            Family::HandshakeInit => self.handle_init(origin, data, via, core, now),
            Family::HandshakeReply => self.handle_reply(data, core, now),
            Family::Data => self.handle_data(origin, data, core, now),
            Family::Stun => {
                if let Origin::Direct(route, _) = origin {
                    self.handle_check(route, data, now);
                }
            }
            Family::HandshakeFinish
            | Family::Retry
            | Family::Relay
            | Family::Reset
            | Family::Stale
            | Family::Versions
            | Family::Beacon
            | Family::Other => {}
        }
    }

    pub(super) fn handle_data(
        &mut self,
        origin: Origin,
        data: &mut [u8],
        core: &mut Core,
        now: Instant,
    ) {
        let arrived = match self.conversation.handle_packet(data, &mut core.rng, now) {
            Ok(arrived) => arrived,
            // So many forgeries that one might succeed (SPEC section 5.3).
            Err(PacketError::Open(OpenError::Exhausted)) => return self.drop_session(core, now),
            Err(PacketError::Open(_)) => return,
            Err(PacketError::Frame(error)) => {
                self.say_close(control::code::BAD_REQUEST, &error.to_string(), now);
                self.flush_close(core, now);
                self.hold_off(now);
                return self.drop_session(core, now);
            }
        };
        if arrived.confirmed {
            self.note_confirmed(core, now);
        }
        self.note_heard(now);
        (self.last_heard, self.alive_at) = (now, now);
        if let Origin::Direct(route, mark) = origin {
            self.conversation.transport().note_mark(arrived.number.path(), mark, now);
            if let Some(agent) = &mut self.agent {
                agent.traffic(route, now);
            }
            self.learn_path(arrived.number.path(), route, core, now);
        }
    }

    pub(super) fn collect_events(
        &mut self,
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        while let Some(event) = self.conversation.poll_event() {
            match event {
                Event::Delivered { channel, below, path } => {
                    self.last_used = now;
                    self.pause.reset();
                    let path = self.view_of(path);
                    notices.push(Notice::Delivered { channel, below, path });
                }
                Event::Readable => notices.push(Notice::Readable),
                Event::Writable => notices.push(Notice::Writable),
                Event::Stream(key, event) => notices.push(Notice::Stream(key, event)),
                Event::Datagram(datagram) => notices.push(Notice::Datagram(datagram)),
                Event::PathSuspect(path) => {
                    notices.push(Notice::Unusual);
                    self.suspect(path, now);
                }
                Event::PathFailed(path) => {
                    notices.push(Notice::Unusual);
                    self.give_up(path, now);
                }
                Event::PathRecovered(path) => {
                    notices.push(Notice::Unusual);
                    self.recovered(path, now);
                }
                Event::Control { path, frame } => {
                    notices.push(Notice::Unusual);
                    self.handle_control(path, frame, notices, core, now);
                }
            }
        }
    }

    fn handle_control(
        &mut self,
        path: PathId,
        frame: ControlFrame,
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        match frame {
            ControlFrame::Candidates(candidates) => {
                if let Some(agent) = &mut self.agent {
                    agent.set_remote(candidates, now);
                }
            }
            ControlFrame::PathChallenge(data) => {
                let answer = ControlFrame::PathResponse(data);
                self.conversation.transport().control(answer, Some(path), now);
            }
            ControlFrame::PathResponse(data) => self.prove(data, now),
            ControlFrame::PathRetire(path) => self.retired(path, now),
            ControlFrame::Nat(generation, profile) => self.hear_nat(generation, &profile),
            ControlFrame::Punch(punch) => self.hear_punch(punch, core, now),
            ControlFrame::Close(code, _) => {
                match code {
                    control::code::BYE => self.lose_streams(now),
                    _ => self.hold_off(now),
                }
                notices.push(Notice::Closed);
            }
            ControlFrame::Ping
            | ControlFrame::Observed(_)
            | ControlFrame::Rekey(_)
            | ControlFrame::Open(..) => {}
        }
    }
}
