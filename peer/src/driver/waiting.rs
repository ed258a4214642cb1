//! Who waits for what else than the fate of one message.

use std::collections::BTreeMap;

use p2sp_proto::control::{Member, Page, Problem};
use p2sp_proto::id::PeerName;
use p2sp_proto::node::{Handle, Scope};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::handle::{Listing, SendError, Spread};
use crate::stream::Stream;

/// Outcomes that are waited for, besides the fates of messages. Bounded by the room in the send
/// queue and, for lists and streams, by the tasks that ask.
#[derive(Default)]
pub(super) struct WaitingRoom(BTreeMap<Handle, Waiting>);

/// Whom to tell. The room a message takes in the queue is given back when this is dropped.
pub(super) enum Waiting {
    All {
        done: oneshot::Sender<Result<Spread, SendError>>,
        /// How many outcomes to expect, once known.
        members: Option<u32>,
        spread: Spread,
        _room: OwnedSemaphorePermit,
    },
    List {
        done: oneshot::Sender<Result<Listing, SendError>>,
        members: Vec<Member>,
    },
    Stream {
        done: oneshot::Sender<Result<Stream, SendError>>,
    },
}

impl WaitingRoom {
    pub(super) fn add(&mut self, handle: Handle, waiting: Waiting) {
        self.0.insert(handle, waiting);
    }

    pub(super) fn delivered(&mut self, handle: Handle, to: PeerName) {
        if let Some(Waiting::All { spread, .. }) = self.0.get_mut(&handle) {
            spread.delivered.push(to);
            self.finish_if_complete(handle);
        }
    }

    pub(super) fn failed(&mut self, handle: Handle, to: Option<PeerName>, problem: Problem) {
        if let Some(Waiting::All { spread, members: Some(_), .. }) = self.0.get_mut(&handle) {
            spread.failed.push((to, problem));
            return self.finish_if_complete(handle);
        }
        let error = SendError::Failed(problem);
        match self.0.remove(&handle) {
            Some(Waiting::All { done, .. }) => drop(done.send(Err(error))),
            Some(Waiting::List { done, .. }) => drop(done.send(Err(error))),
            Some(Waiting::Stream { done }) => drop(done.send(Err(error))),
            None => {}
        }
    }

    /// Dropped where nobody waits any more, the stream ends.
    pub(super) fn opened(&mut self, handle: Handle, stream: Stream) {
        if let Some(Waiting::Stream { done }) = self.0.remove(&handle) {
            drop(done.send(Ok(stream)));
        }
    }

    pub(super) fn spread(&mut self, handle: Handle, count: u32) {
        if let Some(Waiting::All { members, .. }) = self.0.get_mut(&handle) {
            *members = Some(count);
            self.finish_if_complete(handle);
        }
    }

    fn finish_if_complete(&mut self, handle: Handle) {
        let Some(Waiting::All { members: Some(members), spread, .. }) = self.0.get(&handle) else {
            return;
        };
        if spread.delivered.len() + spread.failed.len() < *members as usize {
            return;
        }
        if let Some(Waiting::All { done, spread, .. }) = self.0.remove(&handle) {
            drop(done.send(Ok(spread)));
        }
    }

    pub(super) fn listed(&mut self, handle: Handle, scope: Scope, page: Page) {
        let Some(Waiting::List { members, .. }) = self.0.get_mut(&handle) else { return };
        members.extend(page.members);
        if page.next.is_some() {
            return;
        }
        if let Some(Waiting::List { done, members }) = self.0.remove(&handle) {
            drop(done.send(Ok(Listing { members, scope })));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    fn room() -> (Arc<Semaphore>, OwnedSemaphorePermit) {
        let semaphore = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&semaphore).try_acquire_owned().unwrap();
        (semaphore, permit)
    }

    fn name(text: &str) -> PeerName {
        PeerName::new(text).unwrap()
    }

    fn problem() -> Problem {
        Problem { code: 404, text: "nobody".to_owned() }
    }

    #[test]
    fn a_message_to_everybody_ends_with_its_last_outcome() {
        let (_queue, permit) = room();
        let (done, mut reply) = oneshot::channel();
        let mut waiting = WaitingRoom::default();
        let spread = Spread::default();
        waiting.add(Handle(1), Waiting::All { done, members: None, spread, _room: permit });
        waiting.spread(Handle(1), 2);
        waiting.delivered(Handle(1), name("bob"));
        assert!(reply.try_recv().is_err());
        waiting.failed(Handle(1), Some(name("eve")), problem());
        let expected =
            Spread { delivered: vec![name("bob")], failed: vec![(Some(name("eve")), problem())] };
        assert_eq!(reply.try_recv().unwrap(), Ok(expected));
    }

    #[test]
    fn a_message_to_nobody_or_refused_ends_at_once() {
        for refused in [false, true] {
            let (_queue, permit) = room();
            let (done, mut reply) = oneshot::channel();
            let mut waiting = WaitingRoom::default();
            let spread = Spread::default();
            waiting.add(Handle(1), Waiting::All { done, members: None, spread, _room: permit });
            if refused {
                waiting.failed(Handle(1), None, problem());
                assert_eq!(reply.try_recv().unwrap(), Err(SendError::Failed(problem())));
            } else {
                waiting.spread(Handle(1), 0);
                assert_eq!(reply.try_recv().unwrap(), Ok(Spread::default()));
            }
        }
    }

    #[test]
    fn a_list_ends_with_its_last_page() {
        let (done, mut reply) = oneshot::channel();
        let mut waiting = WaitingRoom::default();
        waiting.add(Handle(1), Waiting::List { done, members: Vec::new() });
        let page = |next: Option<&str>| Page {
            members: Vec::new(),
            next: next.map(str::to_owned),
            total: 0,
        };
        waiting.listed(Handle(1), Scope::Network, page(Some("more")));
        assert!(reply.try_recv().is_err());
        waiting.listed(Handle(1), Scope::Network, page(None));
        let listing = Listing { members: Vec::new(), scope: Scope::Network };
        assert_eq!(reply.try_recv().unwrap(), Ok(listing));
    }
}
