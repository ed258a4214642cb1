//! One other end: its session keys, and the transport whose packets they seal.
//!
//! Sessions come and go with restarts and roaming; the transport with its messages outlives
//! them. Both whole machines hold conversations: the Hub one for each peer, the Node one with its
//! server and one for each peer it talks to.
//!
//! A responder's session waits for its first packet before it counts (SPEC sections 4.8 and 4.9).
//! It serves at once, with a budget of bytes, or stands beside what there is until that packet
//! arrives.

use std::time::Instant;

use rand::RngCore;

use crate::id::{Address, Epoch, PacketNumber, PathId};
use crate::session::{OpenError, RekeyError, Session};
use crate::time::earliest;
use crate::transport::{self, ControlFrame, FrameError, Transport};
use crate::wire::DATAGRAM_LEN_MAX;

/// Largest sealed datagram to an end that has shown nothing yet, before a relay header.
const DATAGRAM_CAPACITY: usize = crate::wire::DATAGRAM_LEN_BASE;

/// The messages to and from one other end and the keys they travel under.
pub struct Conversation {
    transport: Transport,
    current: Option<Current>,
    /// Says nothing until its first packet opens.
    tentative: Option<(Session, Epoch)>,
    events: std::collections::VecDeque<transport::Event>,
}

struct Current {
    session: Session,
    standing: Standing,
}

/// Whether the other end has shown that it holds a session's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has.
    Confirmed,
    /// Not yet: at most this many more bytes may be sent to it.
    Awaited {
        /// Bytes of datagrams left.
        budget: usize,
    },
}

/// A packet that opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its number; the path is the one the sender put it on.
    pub number: PacketNumber,
    /// Whether it is the newest on its path: only such a packet may start a migration.
    pub newest: bool,
    /// Whether it is the first under its keys and so confirms a session that was awaited.
    pub confirmed: bool,
}

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// It did not open: count and drop it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is authentic and breaks the rules: close the session.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Conversation {
    /// No session yet; messages may be queued.
    pub fn new(config: transport::Config, now: Instant) -> Self {
        Self {
            transport: Transport::new(config, now),
            current: None,
            tentative: None,
            events: std::collections::VecDeque::new(),
        }
    }

    /// A session takes over at once. The transport starts anew on it; the owner opens its paths.
    pub fn install(&mut self, session: Session, epoch: Epoch, standing: Standing, now: Instant) {
        self.tentative = None;
        self.current = Some(Current { session, standing });
        self.transport.start_session(epoch, now);
    }

    /// A responder's session, beside a living one if there is one: it takes over when its first
    /// packet opens.
    pub fn install_tentative(&mut self, session: Session, epoch: Epoch) {
        self.tentative = Some((session, epoch));
    }

    /// The session is over; messages stay queued for the next one.
    pub fn drop_session(&mut self) {
        self.current = None;
        self.tentative = None;
    }

    /// Opens a data packet in place and hands its frames to the transport.
    ///
    /// # Errors
    /// [`PacketError::Open`] leaves everything unchanged.
    pub fn handle_packet(
        &mut self,
        packet: &mut [u8],
        rng: &mut impl RngCore,
        now: Instant,
    ) -> Result<Arrived, PacketError> {
        match self.handle_current(packet, now) {
            Err(PacketError::Open(error)) => match self.handle_tentative(packet, now)? {
                Some(arrived) => Ok(arrived),
                None => Err(error.into()),
            },
            other => other,
        }
        .and_then(|arrived| {
            self.collect_events(rng, now)?;
            Ok(arrived)
        })
    }

    /// The next sealed datagram and its path; the owner wraps and routes it. Call until `None`.
    pub fn poll_datagram(
        &mut self,
        rng: &mut impl RngCore,
        now: Instant,
    ) -> Option<(PathId, Vec<u8>)> {
        let mut datagram = Vec::with_capacity(DATAGRAM_LEN_MAX);
        let path = self.poll_datagram_into(&mut datagram, rng, now)?;
        Some((path, datagram))
    }

    /// As [`Self::poll_datagram`]; the datagram goes to the end of `out`.
    pub fn poll_datagram_into(
        &mut self,
        out: &mut Vec<u8>,
        rng: &mut impl RngCore,
        now: Instant,
    ) -> Option<PathId> {
        let current = self.current.as_mut()?;
        if matches!(current.standing, Standing::Awaited { budget } if budget < DATAGRAM_CAPACITY) {
            return None;
        }
        if let Some(offer) = current.session.poll_rekey(rng, now) {
            self.transport.control(ControlFrame::Rekey(offer), None, now);
        }
        let start = out.len();
        out.resize(start + current.session.header_len(), 0);
        let Some(number) = self.transport.poll_packet(out, now) else {
            out.truncate(start);
            return None;
        };
        if current.session.seal(number, out, start, now).is_err() {
            // The numbers of a path are used up: nothing more can be said under these keys.
            self.current = None;
            out.truncate(start);
            return None;
        }
        if let Standing::Awaited { budget } = &mut current.standing {
            *budget = budget.saturating_sub(out.len() - start);
        }
        Some(number.path())
    }

    /// Transport events for the owner; rekeying is handled inside.
    pub fn poll_event(&mut self) -> Option<transport::Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.transport.poll_event()
    }

    /// Lets deadlines pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        if let Some(current) = &mut self.current {
            current.session.set_probe_timeout(self.transport.probe_timeout());
            current.session.handle_timeout(now);
        }
    }

    /// The earliest deadline. Without a session nothing is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let current = self.current.as_ref()?;
        if matches!(current.standing, Standing::Awaited { budget } if budget < DATAGRAM_CAPACITY) {
            return current.session.poll_timeout();
        }
        earliest(self.transport.poll_timeout(), current.session.poll_timeout())
    }

    /// The messages.
    pub fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// The messages, to look at.
    pub fn transport_ref(&self) -> &Transport {
        &self.transport
    }

    /// The session that packets are sealed with.
    pub fn session(&self) -> Option<&Session> {
        self.current.as_ref().map(|current| &current.session)
    }

    /// Whether the other end has shown that it holds the current keys.
    pub fn is_confirmed(&self) -> bool {
        matches!(self.current, Some(Current { standing: Standing::Confirmed, .. }))
    }

    /// The ids under which packets for this conversation arrive.
    pub fn local_addresses(&self) -> impl Iterator<Item = Address> + '_ {
        let current = self.current.as_ref().map(|current| current.session.local());
        current.into_iter().chain(self.tentative.as_ref().map(|(session, _)| session.local()))
    }

    /// Lets go of what an idle session can make again: its expanded keys, some 500 bytes each, and
    /// room that its last packets took.
    pub fn rest(&mut self) {
        if !self.transport.is_idle() {
            return;
        }
        self.transport.rest();
        if let Some(current) = &mut self.current {
            current.session.release_expanded();
        }
    }

    /// Asks for fresh keys soon.
    pub fn request_rekey(&mut self) {
        if let Some(current) = &mut self.current {
            current.session.request_rekey();
        }
    }

    fn handle_current(&mut self, packet: &mut [u8], now: Instant) -> Result<Arrived, PacketError> {
        let current = self.current.as_mut().ok_or(OpenError::Malformed)?;
        let opened = current.session.open(packet, now)?;
        let confirmed = current.standing != Standing::Confirmed;
        current.standing = Standing::Confirmed;
        let arrived = Arrived { number: opened.number, newest: opened.newest, confirmed };
        self.transport.handle_packet(opened.number, opened.payload, now)?;
        Ok(arrived)
    }

    /// `None` when there is no such session or the packet is not its first.
    fn handle_tentative(
        &mut self,
        packet: &mut [u8],
        now: Instant,
    ) -> Result<Option<Arrived>, PacketError> {
        let Some((mut session, epoch)) = self.tentative.take() else { return Ok(None) };
        let Ok(opened) = session.open(packet, now) else {
            self.tentative = Some((session, epoch));
            return Ok(None);
        };
        let (number, newest) = (opened.number, opened.newest);
        self.transport.start_session(epoch, now);
        let fed = self.transport.handle_packet(number, opened.payload, now);
        self.current = Some(Current { session, standing: Standing::Confirmed });
        fed?;
        Ok(Some(Arrived { number, newest, confirmed: true }))
    }

    /// Takes the rekeying out of the transport's events.
    fn collect_events(&mut self, rng: &mut impl RngCore, now: Instant) -> Result<(), FrameError> {
        while let Some(event) = self.transport.poll_event() {
            let transport::Event::Control { frame: ControlFrame::Rekey(rekey), .. } = &event else {
                self.events.push_back(event);
                continue;
            };
            let Some(current) = &mut self.current else { continue };
            match current.session.handle_rekey(rekey, rng, now) {
                Ok(Some(answer)) => {
                    self.transport.control(ControlFrame::Rekey(answer), None, now);
                }
                Ok(None) => {}
                Err(RekeyError::Unexpected) => return Err(FrameError(400, "unexpected rekey")),
                Err(RekeyError::WeakKey) => return Err(FrameError(400, "weak key in a rekey")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
