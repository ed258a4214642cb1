//! Between the application and the driver: messages to send and their fates, messages that came.
//!
//! One lock, held for moments. Each side takes all there is at once, so that under load a message
//! costs little besides its way.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use p2sp_proto::node::{Handle, Incoming, Recipient};
use tokio::sync::{Semaphore, TryAcquireError};

use crate::handle::{Receipt, SendError};

/// What became of a message.
pub(crate) type Fate = Result<Receipt, SendError>;

/// Messages taken for the application and not yet asked for.
pub const RECEIVE_QUEUE_MAX: usize = 256;

/// The handle of a message names its place at the desk, in these bits, and how often that was used
/// before, in those above. All handles are exact in a JSON number of any reader: below 2^53.
const INDEX_BITS: u32 = 24;
/// How often a place is used until its handles come again.
const GENERATIONS: u32 = 1 << 28;
/// Marks handles of what is no message.
const BESIDE: u64 = 1 << 52;

/// What the application's handles and the driver share.
pub(crate) struct Desk {
    state: Mutex<State>,
    /// What messages on their way may take together.
    room: Arc<Semaphore>,
}

/// A message handed over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Submission {
    pub(crate) handle: Handle,
    pub(crate) to: Recipient,
    pub(crate) payload: Bytes,
}

struct State {
    /// Bounded by the room.
    outgoing: Vec<Submission>,
    /// Bounded by the messages on their way, and by those whose fate nobody asked for yet but
    /// holds on to.
    places: Vec<Place>,
    free: Vec<u32>,
    /// Messages that were given up.
    cancelled: Vec<Handle>,
    /// At most [`RECEIVE_QUEUE_MAX`].
    incoming: VecDeque<Incoming>,
    readers: Vec<Waker>,
    driver: Option<Waker>,
    /// Whether the driver waits for the application to take messages.
    backlog: Backlog,
    service: Service,
    /// Numbers handles of what is no message.
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backlog {
    None,
    Waits,
}

/// Whether the driver is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Open,
    Ended,
}

/// Where the fate of one message is kept.
struct Place {
    generation: u32,
    /// What the message takes of the room.
    units: u32,
    stage: Stage,
}

enum Stage {
    Free,
    /// On its way; somebody may wait.
    Underway(Option<Waker>),
    /// On its way, and nobody will ask.
    Forgotten,
    Settled(Fate),
}

// ---- the application's side

impl Desk {
    pub(crate) fn new(room: usize) -> Self {
        let state = State {
            outgoing: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            cancelled: Vec::new(),
            incoming: VecDeque::new(),
            readers: Vec::new(),
            driver: None,
            backlog: Backlog::None,
            service: Service::Open,
            next: 0,
        };
        Self { state: Mutex::new(state), room: Arc::new(Semaphore::new(room)) }
    }

    /// What messages on their way may take together.
    pub(crate) fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    /// Waits until there is room for a message, and takes it: [`Self::place`] follows at once.
    pub(crate) async fn wait_for_room(&self, units: u32) -> Result<(), SendError> {
        if let Ok(room) = self.room.try_acquire_many(units) {
            room.forget();
            return Ok(());
        }
        let room = self.room.acquire_many(units).await;
        room.map_err(|_| SendError::Closed)?.forget();
        Ok(())
    }

    /// Hands a message over, or refuses where there is no room.
    pub(crate) fn try_submit(
        &self,
        to: Recipient,
        payload: Bytes,
        units: u32,
    ) -> Result<Handle, SendError> {
        let room = self.room.try_acquire_many(units).map_err(|error| match error {
            TryAcquireError::NoPermits => SendError::Full,
            TryAcquireError::Closed => SendError::Closed,
        })?;
        room.forget();
        self.place(to, payload, units)
    }

    /// Hands a message over for which there is room.
    pub(crate) fn place(
        &self,
        to: Recipient,
        payload: Bytes,
        units: u32,
    ) -> Result<Handle, SendError> {
        let mut state = self.lock();
        if state.service == Service::Ended {
            return Err(SendError::Closed);
        }
        let Some(handle) = state.take_place(units) else { return Err(SendError::Full) };
        state.outgoing.push(Submission { handle, to, payload });
        wake(state);
        Ok(handle)
    }

    /// A handle for something else than a message.
    pub(crate) fn handle(&self) -> Handle {
        let mut state = self.lock();
        state.next += 1;
        Handle(BESIDE | state.next)
    }

    pub(crate) fn poll_fate(&self, handle: Handle, cx: &Context<'_>) -> Poll<Fate> {
        let mut state = self.lock();
        let ended = state.service == Service::Ended;
        let Some((index, place)) = state.find(handle) else {
            return Poll::Ready(Err(SendError::Closed));
        };
        match std::mem::replace(&mut place.stage, Stage::Free) {
            Stage::Settled(fate) => {
                state.free.push(index);
                Poll::Ready(fate)
            }
            Stage::Underway(_) if !ended => {
                place.stage = Stage::Underway(Some(cx.waker().clone()));
                Poll::Pending
            }
            Stage::Underway(_) | Stage::Forgotten | Stage::Free => {
                Poll::Ready(Err(SendError::Closed))
            }
        }
    }

    /// Nobody will ask for the fate of a message any more.
    pub(crate) fn forget(&self, handle: Handle) {
        let mut state = self.lock();
        let Some((index, place)) = state.find(handle) else { return };
        match place.stage {
            Stage::Settled(_) => {
                place.stage = Stage::Free;
                state.free.push(index);
            }
            Stage::Underway(_) => place.stage = Stage::Forgotten,
            Stage::Forgotten | Stage::Free => {}
        }
    }

    /// Gives a message up.
    pub(crate) fn cancel(&self, handle: Handle) {
        let mut state = self.lock();
        state.cancelled.push(handle);
        wake(state);
    }

    /// The next message that came; `None` when the driver is gone and all were taken.
    pub(crate) async fn recv(&self) -> Option<Incoming> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<Option<Incoming>> {
        let mut state = self.lock();
        let message = state.incoming.pop_front();
        if message.is_none() && state.service == Service::Open {
            if !state.readers.iter().any(|reader| reader.will_wake(cx.waker())) {
                state.readers.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        // A few at a time: each wakeup of the driver costs more than a message.
        if state.backlog == Backlog::Waits && state.incoming.len() <= RECEIVE_QUEUE_MAX / 2 {
            wake(state);
        }
        Poll::Ready(message)
    }

    /// What came and was not received.
    pub(crate) fn take_incoming(&self) -> Vec<Incoming> {
        self.lock().incoming.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the driver once the desk is free.
fn wake(mut state: MutexGuard<'_, State>) {
    let driver = state.driver.take();
    drop(state);
    if let Some(driver) = driver {
        driver.wake();
    }
}

impl State {
    /// `None` when the application holds on to the fates of more messages than handles can tell
    /// apart.
    fn take_place(&mut self, units: u32) -> Option<Handle> {
        let stage = Stage::Underway(None);
        let (index, generation) = match self.free.pop() {
            Some(index) => {
                let place = &mut self.places[index as usize];
                let generation = (place.generation + 1) % GENERATIONS;
                *place = Place { generation, units, stage };
                (index, generation)
            }
            None => {
                let index = self.places.len() as u32;
                if index >> INDEX_BITS != 0 {
                    return None;
                }
                self.places.push(Place { generation: 0, units, stage });
                (index, 0)
            }
        };
        Some(Handle(u64::from(generation) << INDEX_BITS | u64::from(index)))
    }

    fn find(&mut self, handle: Handle) -> Option<(u32, &mut Place)> {
        let index = (handle.0 & ((1 << INDEX_BITS) - 1)) as u32;
        let place = self.places.get_mut(index as usize)?;
        (u64::from(place.generation) == handle.0 >> INDEX_BITS).then_some((index, place))
    }

    /// Notes what became of a message; answers who waits for it and what it took of the room.
    fn settle(&mut self, handle: Handle, fate: Fate) -> (Option<Waker>, u32) {
        let Some((index, place)) = self.find(handle) else { return (None, 0) };
        let units = std::mem::take(&mut place.units);
        match std::mem::replace(&mut place.stage, Stage::Free) {
            Stage::Underway(waker) => {
                place.stage = Stage::Settled(fate);
                (waker, units)
            }
            Stage::Forgotten => {
                self.free.push(index);
                (None, units)
            }
            stage @ (Stage::Settled(_) | Stage::Free) => {
                place.stage = stage;
                (None, units)
            }
        }
    }
}

// ---- the driver's side

/// The driver's end of a desk. With it ends the service: whoever waits is told.
pub(crate) struct Clerk {
    desk: Arc<Desk>,
    /// Served before, and empty: its room serves again.
    outgoing: Vec<Submission>,
    /// Fates to be told.
    settled: Vec<(Handle, Fate)>,
    wakers: Vec<Waker>,
}

impl Clerk {
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, outgoing: Vec::new(), settled: Vec::new(), wakers: Vec::new() }
    }

    /// Waits until the application wants something, or took messages where `backlog` waits.
    pub(crate) async fn wanted(&self, backlog: bool) {
        poll_fn(|cx| {
            let mut state = self.desk.lock();
            state.backlog = if backlog { Backlog::Waits } else { Backlog::None };
            let room = backlog && state.incoming.len() < RECEIVE_QUEUE_MAX;
            if room || !state.outgoing.is_empty() || !state.cancelled.is_empty() {
                return Poll::Ready(());
            }
            if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
                state.driver = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Takes the messages that were handed over, in order, and what was given up.
    pub(crate) fn take(
        &mut self,
        mut submitted: impl FnMut(Submission),
        mut cancelled: impl FnMut(Handle),
    ) {
        let mut state = self.desk.lock();
        std::mem::swap(&mut state.outgoing, &mut self.outgoing);
        let given_up = std::mem::take(&mut state.cancelled);
        drop(state);
        self.outgoing.drain(..).for_each(&mut submitted);
        given_up.into_iter().for_each(&mut cancelled);
    }

    /// Messages that the application has room for.
    pub(crate) fn room(&self) -> usize {
        RECEIVE_QUEUE_MAX.saturating_sub(self.desk.lock().incoming.len())
    }

    /// Hands messages to the application, and leaves none.
    pub(crate) fn deliver(&mut self, messages: &mut VecDeque<Incoming>) {
        let mut state = self.desk.lock();
        if state.incoming.is_empty() {
            std::mem::swap(&mut state.incoming, messages);
        } else {
            state.incoming.append(messages);
        }
        self.wakers.append(&mut state.readers);
        drop(state);
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Notes what became of a message; [`Self::tell`] tells. False for handles of other things.
    pub(crate) fn settle(&mut self, handle: Handle, fate: impl FnOnce() -> Fate) -> bool {
        let is_message = handle.0 & BESIDE == 0;
        if is_message {
            self.settled.push((handle, fate()));
        }
        is_message
    }

    /// Tells what became of messages: their room is free again.
    pub(crate) fn tell(&mut self) {
        if self.settled.is_empty() {
            return;
        }
        let mut freed = 0;
        let mut state = self.desk.lock();
        for (handle, fate) in self.settled.drain(..) {
            let (waker, units) = state.settle(handle, fate);
            self.wakers.extend(waker);
            freed += units as usize;
        }
        drop(state);
        self.desk.room.add_permits(freed);
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.tell();
        let mut state = self.desk.lock();
        state.service = Service::Ended;
        state.outgoing = Vec::new();
        self.wakers.append(&mut state.readers);
        for place in &mut state.places {
            if let Stage::Underway(waker) = &mut place.stage {
                self.wakers.extend(waker.take());
            }
        }
        drop(state);
        self.desk.room.close();
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
