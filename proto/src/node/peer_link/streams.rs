//! Streams and datagrams of one peer: use of its transport, and when it counts as gone.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::PeerLink;
use crate::transport::{DatagramError, OpenStreamError, Read, StreamError, StreamKey, Transport};

/// Streams to a peer that was not heard of for so long are lost: its keepalives are 20 s apart.
const SILENCE_MAX: Duration = Duration::from_secs(60);

impl PeerLink {
    pub(in crate::node) fn open_stream(
        &mut self,
        now: Instant,
    ) -> Result<StreamKey, OpenStreamError> {
        if !self.has_open_streams() {
            self.alive_at = now;
        }
        self.in_use(now).open_stream(now)
    }

    pub(in crate::node) fn write_stream(
        &mut self,
        key: StreamKey,
        bytes: &[u8],
        now: Instant,
    ) -> Result<usize, StreamError> {
        self.in_use(now).write_stream(key, bytes, now)
    }

    pub(in crate::node) fn read_stream(
        &mut self,
        key: StreamKey,
        max: usize,
        now: Instant,
    ) -> Result<Read, StreamError> {
        self.in_use(now).read_stream(key, max, now)
    }

    pub(in crate::node) fn send_datagram(
        &mut self,
        datagram: Bytes,
        now: Instant,
    ) -> Result<(), DatagramError> {
        self.in_use(now).send_datagram(datagram, now)
    }

    /// The transport, of which the application just made use.
    pub(in crate::node) fn in_use(&mut self, now: Instant) -> &mut Transport {
        self.note_use(now);
        self.conversation.transport()
    }

    pub(super) fn has_open_streams(&self) -> bool {
        self.conversation.transport_ref().has_open_streams()
    }

    /// When a peer that stays silent counts as gone.
    pub(super) fn lost_at(&self) -> Option<Instant> {
        self.has_open_streams().then(|| self.alive_at + SILENCE_MAX)
    }

    pub(super) fn lose_streams(&mut self, now: Instant) {
        self.conversation.transport().lose_streams(now);
    }

    /// While streams are open the path of their data is asked for a sign of life as well.
    pub(super) fn keep_streams_warm(&mut self, now: Instant) {
        let path = self.preferred;
        let is_open = self.conversation.transport_ref().path_stats(path).is_some();
        if is_open && self.has_session() && self.has_open_streams() {
            self.conversation.transport().probe(path, now);
        }
    }
}
