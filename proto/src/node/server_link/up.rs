//! The session that stands: what it brings, its keepalives, its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Asked, Notice, RETRY_FIRST, Reported, ServerLink};
use crate::control::{FromServer, code};
use crate::conversation::{Conversation, PacketError};
use crate::id::{PathId, Token};
use crate::io::Route;
use crate::node::core::Core;
use crate::session::{OpenError, is_reset};
use crate::transport::{ControlFrame, Event};

/// An unanswered keepalive is repeated after this.
const PING_RETRY: Duration = Duration::from_secs(1);
/// Unanswered keepalives after which a new attempt begins.
const PINGS_BEFORE_ATTEMPT: u32 = 3;

/// A session that stands.
pub(in crate::node) struct Up {
    pub(super) conversation: Conversation,
    pub(in crate::node) route: Route,
    pub(in crate::node) token: Token,
    /// All addresses the server was looked up under.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) reset: [u8; 16],
    /// XX: sent again until the server is heard.
    pub(super) finish: Option<(Vec<u8>, Instant)>,
    pub(super) requests: BTreeMap<u32, Asked>,
    pub(super) handshake_hash: [u8; 32],
    pub(super) last_heard: Instant,
    pub(super) last_ping: Option<Instant>,
    pub(super) unanswered: u32,
    pub(super) closing: Option<(u32, Instant)>,
}

impl ServerLink {
    pub(super) fn handle_data(
        &mut self,
        data: &mut [u8],
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(up) = &mut self.up else { return };
        match up.conversation.handle_packet(data, &mut core.rng, now) {
            Ok(_) => {
                up.finish = None;
                up.last_heard = now;
                up.unanswered = 0;
                self.reported_silent = Reported::No;
                self.collect(notices, now);
            }
            Err(PacketError::Open(OpenError::Exhausted)) => self.lose_session(core, now),
            Err(PacketError::Open(_)) => {}
            Err(PacketError::Frame(error)) => {
                let text = format!("the server broke the protocol: {error}");
                up.say_close(code::BAD_REQUEST, &text, core, now);
                self.lose_session(core, now);
            }
        }
    }

    pub(super) fn handle_reset(&mut self, data: &[u8], core: &mut Core, now: Instant) {
        if self.up.as_ref().is_some_and(|up| is_reset(data, up.token, &up.reset)) {
            self.lose_session(core, now);
        }
    }

    /// The session is worthless: register again at once.
    fn lose_session(&mut self, core: &mut Core, now: Instant) {
        self.up = None;
        self.begin(core, now);
    }

    /// Takes messages and events out of the conversation.
    fn collect(&mut self, notices: &mut Vec<Notice>, now: Instant) {
        let Some(up) = &mut self.up else { return };
        let mut closed = None;
        while let Some(event) = up.conversation.poll_event() {
            let Event::Control { frame, .. } = event else { continue };
            match frame {
                ControlFrame::Observed(address) => notices.push(Notice::Observed(address)),
                ControlFrame::PathChallenge(data) => {
                    let answer = ControlFrame::PathResponse(data);
                    up.conversation.transport().control(answer, Some(PathId::SERVER), now);
                }
                ControlFrame::Close(code, reason) => closed = Some((code, reason)),
                ControlFrame::Ping
                | ControlFrame::PathResponse(_)
                | ControlFrame::Candidates(_)
                | ControlFrame::Rekey(_)
                | ControlFrame::PathRetire(_)
                | ControlFrame::Open(..)
                | ControlFrame::Nat(..)
                | ControlFrame::Punch(_) => {}
            }
        }
        while let Some(message) = up.conversation.transport().poll_message(now) {
            // A message that is no reply or event is one of a later version.
            match serde_json::from_slice(&message.payload) {
                Ok(FromServer::Reply(reply)) => {
                    if let Some(asked) = up.requests.remove(&reply.id) {
                        notices.push(Notice::Reply(asked, reply.outcome));
                    }
                }
                Ok(FromServer::Event(event)) => notices.push(Notice::Event(event)),
                Err(_) => {}
            }
        }
        if let Some((code, reason)) = closed {
            self.up = None;
            self.retry_at = Some(now + self.retry.advance());
            notices.push(Notice::Closed(code, reason));
        }
    }

    pub(super) fn up_timeout(&mut self, notices: &mut Vec<Notice>, core: &mut Core, now: Instant) {
        let keepalive = self.pulse.interval();
        let Some(up) = &mut self.up else { return };
        up.conversation.handle_timeout(now);
        if let Some((copies, at)) = up.closing
            && at <= now
        {
            if copies == 0 {
                self.up = None;
                notices.push(Notice::Gone);
                return;
            }
            up.closing = Some((copies - 1, now + PING_RETRY / 20));
            up.say_close(code::BYE, "bye", core, now);
            return;
        }
        if let Some((finish, at)) = &mut up.finish
            && *at <= now
        {
            *at = now + RETRY_FIRST * 4;
            core.transmit(up.route, finish.clone());
        }
        if up.ping_due(keepalive).0 <= now {
            up.ping(now);
        }
        if up.unanswered > PINGS_BEFORE_ATTEMPT {
            self.begin(core, now);
        }
    }

    /// Sends what the session has to send.
    pub(in crate::node) fn flush(&mut self, core: &mut Core, now: Instant) {
        let Some(up) = &mut self.up else { return };
        while let Some((_, datagram)) = up.conversation.poll_datagram(&mut core.rng, now) {
            core.transmit(up.route, datagram);
        }
    }
}

impl Up {
    /// When the next keepalive is due: after the interval, sooner while one is unanswered.
    pub(super) fn ping_due(&self, keepalive: Duration) -> (Instant, &'static str) {
        let at = match self.last_ping {
            Some(last) if self.unanswered > 0 => last + PING_RETRY * self.unanswered.min(4),
            Some(last) => last + keepalive,
            None => self.last_heard + keepalive,
        };
        (at, "keepalive")
    }

    pub(super) fn ping(&mut self, now: Instant) {
        self.last_ping = Some(now);
        self.unanswered += 1;
        self.conversation.transport().control(ControlFrame::Ping, Some(PathId::SERVER), now);
    }

    fn say_close(&mut self, code: u16, reason: &str, core: &mut Core, now: Instant) {
        let frame = ControlFrame::Close(code, reason.to_owned());
        self.conversation.transport().control(frame, Some(PathId::SERVER), now);
        while let Some((_, datagram)) = self.conversation.poll_datagram(&mut core.rng, now) {
            core.transmit(self.route, datagram);
        }
    }
}
