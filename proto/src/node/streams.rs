//! Streams and datagrams of the application: their handles, and to which peer they belong.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::api::{Event, Handle, Recipient, StreamHandle};
use super::peer_link::PeerLink;
use super::{Affected, Node, Phase};
use crate::control::{Problem, code};
use crate::id::{PeerKey, PeerName};
use crate::transport::{Read, StreamError, StreamEvent, StreamKey, Transport};

/// The streams of all links.
#[derive(Default)]
pub(super) struct StreamTable {
    next: u64,
    by_handle: BTreeMap<StreamHandle, (PeerKey, StreamKey)>,
    /// Mirror of `by_handle`.
    by_key: BTreeMap<(PeerKey, StreamKey), StreamHandle>,
}

impl StreamTable {
    fn add(&mut self, peer: PeerKey, key: StreamKey) -> StreamHandle {
        let handle = StreamHandle(self.next);
        self.next += 1;
        self.by_handle.insert(handle, (peer, key));
        self.by_key.insert((peer, key), handle);
        handle
    }

    fn remove(&mut self, peer: PeerKey, key: StreamKey) -> Option<StreamHandle> {
        let handle = self.by_key.remove(&(peer, key))?;
        self.by_handle.remove(&handle);
        Some(handle)
    }
}

impl Node {
    /// Takes as many of the bytes as there is room for; after fewer than all,
    /// [`StreamEvent::Writable`] follows.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the stream was finished, reset, stopped or lost.
    pub fn write_stream(
        &mut self,
        stream: StreamHandle,
        bytes: &[u8],
        now: Instant,
    ) -> Result<usize, StreamError> {
        self.with_stream(stream, now, |link, key, now| link.write_stream(key, bytes, now))?
    }

    /// The next bytes of a stream, at most `max`, which is not 0. Read only what there is room
    /// for: what stays here holds the window of its stream. [`StreamEvent::Readable`] follows
    /// after [`Read::Pending`].
    ///
    /// # Errors
    /// [`StreamError`] when the stream is not to be read (any more).
    pub fn read_stream(
        &mut self,
        stream: StreamHandle,
        max: usize,
        now: Instant,
    ) -> Result<Read, StreamError> {
        self.with_stream(stream, now, |link, key, now| link.read_stream(key, max, now))?
    }

    /// No more is written to the stream; [`StreamEvent::Finished`] follows when the other side
    /// has everything.
    pub fn finish_stream(&mut self, stream: StreamHandle, now: Instant) {
        self.act_on_stream(stream, now, |transport, key, now| transport.finish_stream(key, now));
    }

    /// Gives up what was written and has not arrived; the other side is told the code.
    pub fn reset_stream(&mut self, stream: StreamHandle, code: u64, now: Instant) {
        self.act_on_stream(stream, now, |transport, key, now| {
            transport.reset_stream(key, code, now);
        });
    }

    /// Reads no more; the other side is told the code, and gives up what it has not sent.
    pub fn stop_stream(&mut self, stream: StreamHandle, code: u64, now: Instant) {
        self.act_on_stream(stream, now, |transport, key, now| {
            transport.stop_stream(key, code, now);
        });
    }

    /// Sends bytes that may get lost, or come twice or late, to a peer that is present or talked to.
    ///
    /// # Errors
    /// 404 when the peer is not known, 413 when the path carries no such datagram, 503 after
    /// [`Command::Close`](super::Command::Close).
    pub fn send_datagram(
        &mut self,
        to: &PeerName,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), Problem> {
        let now = self.advance(now);
        let key = self.link_named(to, now)?;
        let Some(link) = self.links.get_mut(&key) else { return Err(unknown(to)) };
        let queued = link.send_datagram(payload, now);
        queued.map_err(|error| Problem { code: code::TOO_LARGE, text: error.to_string() })?;
        link.connect(&mut self.core, now);
        self.touched.insert(key);
        self.unflushed = self.unflushed.max(Affected::Links);
        Ok(())
    }

    /// A link to a peer that can be reached without asking the server.
    fn link_named(&mut self, name: &PeerName, now: Instant) -> Result<PeerKey, Problem> {
        if self.phase != Phase::Running {
            let text = "this peer says good bye".to_owned();
            return Err(Problem { code: code::GOING_AWAY, text });
        }
        let talking = self.links.values().find(|link| link.name == *name && link.has_session());
        if let Some(link) = talking {
            return Ok(link.key);
        }
        let near = |node: &mut Self| node.near(&Recipient::Name(name.clone()), now);
        let member = self.directory.member(name).cloned().or_else(|| near(self));
        let member = member.ok_or_else(|| unknown(name))?;
        self.trusted(&member)?;
        self.link_to(&member, now)?;
        Ok(member.key)
    }

    /// The recipient of a wish for a stream was found.
    pub(super) fn open_stream(&mut self, id: u64, peer: PeerKey, now: Instant) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let name = link.name.clone();
        match link.open_stream(now) {
            Ok(key) => {
                link.connect(&mut self.core, now);
                self.touched.insert(peer);
                let Some(ticket) = self.outbox.remove(id.into()) else { return };
                self.add_stream(peer, key, name, Some(ticket.handle));
            }
            Err(error) => {
                let problem = Problem { code: code::TOO_MANY, text: error.to_string() };
                self.fail_entry(id, problem, now);
            }
        }
    }

    pub(super) fn handle_stream_event(
        &mut self,
        peer: PeerKey,
        key: StreamKey,
        event: StreamEvent,
    ) {
        let stream = match event {
            StreamEvent::Opened => {
                if let Some(name) = self.links.get(&peer).map(|link| link.name.clone()) {
                    self.add_stream(peer, key, name, None);
                }
                return;
            }
            StreamEvent::Closed => self.streams.remove(peer, key),
            StreamEvent::Readable
            | StreamEvent::Writable
            | StreamEvent::Finished
            | StreamEvent::Stopped(_)
            | StreamEvent::Lost => self.streams.by_key.get(&(peer, key)).copied(),
        };
        if let Some(stream) = stream {
            self.core.event(Event::Stream { stream, event });
        }
    }

    pub(super) fn handle_datagram_of(&mut self, key: PeerKey, payload: Bytes) {
        if let Some(link) = self.links.get(&key) {
            let from = link.name.clone();
            self.core.event(Event::Datagram { from, key, payload });
        }
    }

    fn add_stream(
        &mut self,
        peer: PeerKey,
        key: StreamKey,
        name: PeerName,
        handle: Option<Handle>,
    ) {
        let stream = self.streams.add(peer, key);
        self.core.event(Event::StreamOpened { stream, peer: name, key: peer, handle });
    }

    fn act_on_stream(
        &mut self,
        stream: StreamHandle,
        now: Instant,
        act: impl FnOnce(&mut Transport, StreamKey, Instant),
    ) {
        // What is closed needs no end any more.
        let _: Result<(), StreamError> =
            self.with_stream(stream, now, |link, key, now| act(link.in_use(now), key, now));
    }

    fn with_stream<T>(
        &mut self,
        stream: StreamHandle,
        now: Instant,
        act: impl FnOnce(&mut PeerLink, StreamKey, Instant) -> T,
    ) -> Result<T, StreamError> {
        let now = self.advance(now);
        let (peer, key) = *self.streams.by_handle.get(&stream).ok_or(StreamError::Closed)?;
        let link = self.links.get_mut(&peer).ok_or(StreamError::Closed)?;
        let answer = act(link, key, now);
        self.touched.insert(peer);
        self.unflushed = self.unflushed.max(Affected::Links);
        Ok(answer)
    }
}

fn unknown(name: &PeerName) -> Problem {
    let text = format!("{name} is not known here; send it a message or open a stream first");
    Problem { code: code::NOT_FOUND, text }
}
