//! Datagrams: each goes once, in one packet, or never.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::transport::packet::Packet;
use crate::wire::frame::Frame;

/// Datagrams that wait for a packet; the oldest gives way, for what they tell gets old.
pub const DATAGRAMS_MAX: usize = 256;
/// Their frame's type and length.
pub(super) const HEADER_LEN: usize = 3;

/// In order of arrival.
#[derive(Debug, Default)]
pub(in crate::transport) struct Datagrams(VecDeque<Bytes>);

impl Datagrams {
    pub(in crate::transport) fn push(&mut self, datagram: Bytes) {
        if self.0.len() >= DATAGRAMS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(datagram);
    }

    pub(in crate::transport) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what fits; what no packet of this path carries is dropped.
    pub(in crate::transport) fn write(&mut self, packet: &mut Packet<'_>) {
        while let Some(datagram) = self.0.front() {
            let hopeless = datagram.len() > packet.len_max().saturating_sub(HEADER_LEN);
            if !hopeless && !packet.push(&Frame::Datagram(datagram)) {
                return;
            }
            self.0.pop_front();
        }
        self.0 = VecDeque::new();
    }
}
