//! What the machine says.

use std::time::Instant;

use p2sp_proto::node::{Event, Finality, Handle, StreamHandle, stream_code};
use tracing::debug;

use super::{Driver, Phase, Status};
use crate::handle::{Datagram, Receipt, SendError, Unregistered};
use crate::stream::Stream;

impl Driver {
    pub(super) fn on_event(&mut self, event: Event) {
        match &event {
            Event::Readable => {
                self.readable = true;
                return;
            }
            Event::StreamOpened { stream, peer, key, handle } => {
                let opened = self.streams.add(*stream, peer.clone(), *key);
                return self.on_stream(*stream, opened, *handle);
            }
            Event::Stream { stream, event } => {
                let now = Instant::now();
                return self.streams.on_event(*stream, *event, &mut self.node, now);
            }
            Event::Datagram { from, key, payload } => {
                let (from, key, payload) = (from.clone(), *key, payload.clone());
                // A reader that is behind misses some, as it might on the way.
                drop(self.publish.datagrams.try_send(Datagram { from, key, payload }));
                return;
            }
            Event::Listing { handle, scope, page } => {
                return self.waiting.listed(*handle, *scope, page.clone());
            }
            Event::Closed => self.phase = Phase::Closed,
            Event::Registered(registration) => {
                self.set_status(Status::Registered(registration.clone()));
            }
            Event::Refused { problem, finality: Finality::Final } => {
                self.set_status(Status::Unregistered(Unregistered::Refused(problem.clone())));
            }
            Event::ServerKeyChanged { expected, found } => {
                let (expected, found) = (*expected, *found);
                self.set_status(Status::Unregistered(Unregistered::KeyChanged { expected, found }));
            }
            Event::Delivered { handle, to, path } => {
                let receipt = || Ok(Receipt { to: to.clone(), path: *path });
                if !self.clerk.settle(*handle, receipt) {
                    self.waiting.delivered(*handle, to.clone());
                }
            }
            Event::Spread { handle, members } => self.waiting.spread(*handle, *members),
            Event::Failed { handle, to, problem } => {
                let failure = || Err(SendError::Failed(problem.clone()));
                if !self.clerk.settle(*handle, failure) {
                    self.waiting.failed(*handle, to.clone(), problem.clone());
                }
            }
            // Routers that begin anew forget what they forwarded.
            Event::Observed(_) => self.mapper.renew(),
            Event::Refused { finality: Finality::Passing, .. }
            | Event::Nat(_)
            | Event::ServerSilent
            | Event::ServerClosed { .. }
            | Event::PeerKeyChanged { .. }
            | Event::Joined(_)
            | Event::Left { .. }
            | Event::Renamed { .. }
            | Event::Near(_)
            | Event::Path { .. }
            | Event::Notice { .. } => {}
        }
        self.publish(event);
    }

    /// Whom a stream goes to: who asked for it, or who takes those of others.
    fn on_stream(&mut self, stream: StreamHandle, opened: Stream, handle: Option<Handle>) {
        let Some(handle) = handle else {
            return self.offer_stream(stream, opened);
        };
        self.waiting.opened(handle, opened);
    }

    fn offer_stream(&self, stream: StreamHandle, mut opened: Stream) {
        let code = match &self.publish.streams {
            None => stream_code::REFUSED,
            Some(taker) => match taker.try_send(opened) {
                Ok(()) => return,
                Err(error) => {
                    opened = error.into_inner();
                    stream_code::BUSY
                }
            },
        };
        debug!(?stream, peer = %opened.peer(), code, "stream refused");
        opened.reset(code);
        opened.stop(code);
    }

    fn set_status(&self, status: Status) {
        self.publish.status.send_replace(status);
    }
}
