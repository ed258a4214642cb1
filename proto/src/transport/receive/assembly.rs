//! One message on its way in: its parts until it is whole.

use bytes::Bytes;

use super::Origin;
use crate::transport::ranges::Ranges;
use crate::wire::frame::Message;

/// Holes in one message. More than a full congestion window can cause; beyond it parts are not
/// acknowledged and come again.
const RANGES_MAX: usize = 16 << 10;

/// One message on its way in.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) body: Body,
    pub(super) total: u32,
    /// What its parts of this session take of the window; 0 when none came.
    pub(super) charged: u64,
    pub(super) origin: Origin,
}

#[derive(Debug)]
pub(super) enum Body {
    /// Has as much room as [`Room`] says.
    Partial {
        bytes: Vec<u8>,
        got: Ranges,
    },
    Whole(Bytes),
}

/// How much room to make for a message that comes in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// For all of it: no part has to move again.
    Whole,
    /// For those that came, and as much again.
    Parts,
}

impl Assembly {
    pub(super) fn new(message: &Message<'_>, origin: Origin) -> Self {
        let body = Body::Partial { bytes: Vec::new(), got: Ranges::default() };
        Self { body, total: message.total as u32, charged: 0, origin }
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self.body, Body::Whole(_))
    }

    /// Bytes that came.
    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Partial { bytes, .. } => bytes.len(),
            Body::Whole(bytes) => bytes.len(),
        }
    }

    /// Stores a part; says how many positions are new, `None` when there are too many holes.
    pub(super) fn insert(&mut self, message: &Message<'_>, room: Room) -> Option<u32> {
        let Body::Partial { bytes, got } = &mut self.body else { return Some(0) };
        if message.is_whole() {
            // Without parts that came before, nothing has to be counted.
            let known =
                if got.is_empty() { self.total.max(1) } else { got.insert(0, self.total.max(1)) };
            self.body = Body::Whole(Bytes::copy_from_slice(message.bytes));
            return Some(known);
        }
        if got.len() >= RANGES_MAX {
            return None;
        }
        let start = message.offset as usize;
        let end = start + message.bytes.len();
        if bytes.capacity() < end {
            let total = self.total as usize;
            let capacity = match room {
                Room::Whole => total,
                Room::Parts => (bytes.len() * 2).clamp(end, total),
            };
            bytes.reserve_exact(capacity - bytes.len());
        }
        if bytes.len() == start {
            bytes.extend_from_slice(message.bytes);
        } else {
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(message.bytes);
        }
        let fresh = got.insert(start as u32, end as u32);
        if got.is_whole(self.total) {
            self.body = Body::Whole(Bytes::from(std::mem::take(bytes)));
        }
        Some(fresh)
    }
}
