//! What sessions and packets do with streams.

use super::send::SendHalf;
use super::{Carried, KEPT_MAX, Opener, StreamEvent, StreamKey, Streams, push};
use crate::id::Epoch;
use crate::transport::FrameError;
use crate::transport::packet::Packet;
use crate::transport::receive::Part;
use crate::wire::frame::{StreamData, StreamFrame};

impl Streams {
    /// A session with this epoch of the other end. What was in flight was declared lost before.
    pub(in crate::transport) fn start_session(&mut self, epoch: Epoch) {
        if self.epoch.replace(epoch).is_none_or(|old| old == epoch) {
            return;
        }
        let first = self.first_untold();
        let is_old = |key: &StreamKey| key.opener == Opener::There || key.index < first;
        let old: Vec<StreamKey> = self.table.keys().copied().filter(is_old).collect();
        self.ours.restart(first);
        self.theirs.restart(self.theirs.next);
        (self.theirs_closed, self.max_due) = (0, false);
        for key in old {
            self.lose(key);
            self.retire(key);
        }
    }

    /// From which of our streams on the other end knows of none.
    fn first_untold(&self) -> u64 {
        let mut first = self.ours.next;
        let untold = |index| {
            let stream = self.table.get(&StreamKey { opener: Opener::Here, index });
            stream.is_some_and(|stream| stream.send.is_untold())
        };
        while first > self.ours.base && untold(first - 1) {
            first -= 1;
        }
        first
    }

    /// Of an old lineage only what can be read to its end is kept.
    fn retire(&mut self, key: StreamKey) {
        let kept = self.table.len() <= KEPT_MAX;
        let Some(stream) = self.table.get_mut(&key) else { return };
        stream.send.abandon();
        if !kept || !stream.receive.is_alive() {
            self.forget(key);
        }
    }

    pub(in crate::transport) fn on_frame(
        &mut self,
        frame: &StreamFrame<'_>,
    ) -> Result<Part, FrameError> {
        match *frame {
            StreamFrame::Data(data) => return self.on_data(&data),
            StreamFrame::Reset { id, code, final_size } => {
                let key = self.locate(id)?;
                if let Some(stream) = self.table.get_mut(&key) {
                    stream.receive.on_reset(code, final_size)?;
                    self.after_arrival(key);
                }
            }
            StreamFrame::Stop { id, code } => {
                let key = self.locate(id)?;
                self.on_stop(key, code);
            }
            StreamFrame::Window { id, limit } => {
                let key = self.locate(id)?;
                if let Some(stream) = self.table.get_mut(&key) {
                    stream.send.on_window(limit);
                    self.busy.insert(key);
                }
            }
            StreamFrame::Max(count) => self.ours.max = self.ours.max.max(count),
        }
        Ok(Part::Stored)
    }

    fn on_data(&mut self, data: &StreamData<'_>) -> Result<Part, FrameError> {
        let key = self.locate(data.id)?;
        let Some(stream) = self.table.get_mut(&key) else { return Ok(Part::Repeated) };
        let part = stream.receive.on_data(data)?;
        self.after_arrival(key);
        Ok(part)
    }

    fn on_stop(&mut self, key: StreamKey, code: u64) {
        let alive = self.table.get(&key).is_some_and(|stream| stream.send.is_alive());
        if alive {
            self.reset(key, code);
            self.events.push_back((key, StreamEvent::Stopped(code)));
        }
    }

    pub(in crate::transport) fn on_acked(&mut self, carried: &Carried) {
        match *carried {
            Carried::Data { key, start, len, fin } => {
                let mut finished = false;
                self.change_send(key, |send| {
                    finished = send.on_acked(start, start + u64::from(len), fin);
                });
                if finished {
                    self.events.push_back((key, StreamEvent::Finished));
                }
            }
            Carried::Reset(key) => self.change_send(key, SendHalf::on_reset_acked),
            Carried::Stop(key) => {
                if let Some(stream) = self.table.get_mut(&key) {
                    stream.receive.on_stop_acked();
                }
            }
            Carried::Window(..) | Carried::Max(_) => return,
        }
        self.settle(carried.key());
    }

    /// What was carried is to be said again, unless that was done in another packet.
    pub(in crate::transport) fn on_lost(&mut self, carried: &Carried) {
        if let Carried::Max(count) = carried {
            self.max_due |= *count == self.theirs.max;
            return;
        }
        let Some(stream) = carried.key().and_then(|key| self.table.get_mut(&key)) else { return };
        match *carried {
            Carried::Data { key, start, len, fin } => {
                stream.send.on_lost(start, start + u64::from(len), fin);
                self.busy.insert(key);
            }
            Carried::Reset(key) => {
                stream.send.on_reset_lost();
                self.busy.insert(key);
            }
            Carried::Stop(key) => {
                stream.receive.on_stop_lost();
                self.busy.insert(key);
            }
            Carried::Window(key, limit) => {
                if stream.receive.limit() == limit {
                    self.windows_due.insert(key);
                }
            }
            Carried::Max(_) => {}
        }
    }

    /// Whether any of this is worth a packet of its own.
    pub(in crate::transport) fn is_unacked(&self, carried: &Carried) -> bool {
        let Carried::Data { key, start, len, fin } = *carried else { return true };
        let stream = self.table.get(&key);
        stream.is_some_and(|stream| stream.send.is_unacked(start, start + u64::from(len), fin))
    }

    /// Whether `fill` may add anything.
    pub(in crate::transport) fn has_work(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Adds frames of streams in turn.
    pub(in crate::transport) fn fill(&mut self, packet: &mut Packet<'_>) {
        for step in 0..self.busy.len() {
            let Some(key) = self.next_busy() else { return };
            if !self.write_stream(key, packet) {
                // Full: the next packet begins with the stream that was cut off, unless this one was all its own.
                if step == 0 {
                    self.cursor = Some(key);
                }
                return;
            }
            self.cursor = Some(key);
            self.busy.remove(&key);
        }
    }

    /// Whether a STREAM_WINDOW or STREAMS_MAX is to be told.
    pub(in crate::transport) fn has_credit(&self) -> bool {
        self.max_due || !self.windows_due.is_empty()
    }

    /// Adds STREAM_WINDOW and STREAMS_MAX frames.
    pub(in crate::transport) fn write_credit(&mut self, packet: &mut Packet<'_>) {
        while let Some(key) = self.windows_due.first().copied() {
            let stream = self.table.get(&key).filter(|stream| stream.receive.is_alive());
            if let (Some(stream), Some(id)) = (stream, self.id_of(key)) {
                let limit = stream.receive.limit();
                let frame = StreamFrame::Window { id, limit };
                if !push(packet, frame, Carried::Window(key, limit)) {
                    return;
                }
            }
            self.windows_due.remove(&key);
        }
        let max = self.theirs.max;
        if self.max_due && push(packet, StreamFrame::Max(max), Carried::Max(max)) {
            self.max_due = false;
        }
    }
}
