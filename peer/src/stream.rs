//! Byte streams as applications have them, and the buffers between them and the driver.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use p2sp_proto::id::{PeerKey, PeerName};
use p2sp_proto::node::{Node, Read, StreamError, StreamEvent, StreamHandle, stream_code};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Bytes of one direction between an application and the driver; what is beyond waits in the
/// machine, which holds the window of its stream.
const BUFFER_MAX: usize = 256 << 10;

/// A byte stream to another peer: two flows, each of which ends for itself.
///
/// Writing waits while the other side, or the way there, is behind; what is not read holds back
/// its own stream alone. `shutdown` ends the flow of this side, as [`Self::finish`] does, which
/// also waits until the other side has everything. A stream outlives its paths and sessions; it
/// ends with `ConnectionAborted` when the other side restarts, leaves, or is silent for a minute.
///
/// Dropped, it gives up what was not finished, and reads no more.
#[derive(Debug)]
pub struct Stream {
    peer: PeerName,
    key: PeerKey,
    pipe: Arc<Pipe>,
}

impl Stream {
    /// The name of the other side.
    pub fn peer(&self) -> &PeerName {
        &self.peer
    }

    /// The key of the other side.
    pub fn key(&self) -> PeerKey {
        self.key
    }

    /// Writes no more, and waits until the other side has every byte (its application may still
    /// be reading). Reading goes on.
    ///
    /// # Errors
    /// As writing: when the other side reads no more, or is gone.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.pipe.finish();
        poll_fn(|cx| self.pipe.poll_finished(cx)).await
    }

    /// Gives up what was written and has not arrived. The other side's reading ends with
    /// `ConnectionReset` and this code; applications have those from 1000 on.
    pub fn reset(&mut self, code: u64) {
        self.pipe.reset(code);
    }

    /// Reads no more: the other side's writing ends with `BrokenPipe` and this code.
    pub fn stop(&mut self, code: u64) {
        self.pipe.stop(code);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.pipe.reset(stream_code::CANCELLED);
        self.pipe.stop(stream_code::CANCELLED);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pipe.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pipe.poll_write(cx, bytes)
    }

    /// What was written is on its way without it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.finish();
        Poll::Ready(Ok(()))
    }
}

/// Streams that want the driver's attention.
#[derive(Debug, Default)]
pub(crate) struct Nudges {
    streams: Mutex<BTreeSet<StreamHandle>>,
    notify: Notify,
}

impl Nudges {
    fn nudge(&self, stream: StreamHandle) {
        lock(&self.streams).insert(stream);
        self.notify.notify_one();
    }

    fn take(&self) -> BTreeSet<StreamHandle> {
        std::mem::take(&mut lock(&self.streams))
    }
}

/// What a stream and the driver share.
#[derive(Debug)]
struct Pipe {
    stream: StreamHandle,
    state: Mutex<State>,
    nudges: Arc<Nudges>,
}

#[derive(Debug, Default)]
struct State {
    incoming: VecDeque<Bytes>,
    incoming_len: usize,
    /// The driver left bytes in the machine for want of room.
    full: bool,
    /// How reading ends, once `incoming` is empty.
    read_end: Option<Result<(), Failure>>,
    reader: Option<Waker>,
    outgoing: VecDeque<u8>,
    flow: Flow,
    /// What the driver has to tell the machine.
    reset: Option<u64>,
    stop: Option<u64>,
    writer: Option<Waker>,
}

/// The flow of this side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Open,
    /// Its end waits behind what is in `outgoing`.
    Finishing,
    /// The machine has it all.
    Finished,
    /// The other side has it all.
    Arrived,
    Failed(Failure),
}

/// Why a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Stream(StreamError),
    /// The driver is gone.
    PeerClosed,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let error = match failure {
            Failure::Stream(error) => error,
            Failure::PeerClosed => {
                return Self::new(io::ErrorKind::NotConnected, "the peer is closed");
            }
        };
        let kind = match error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::Lost => io::ErrorKind::ConnectionAborted,
            StreamError::Stopped(_) | StreamError::Closed => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

// ---- the application's side

impl Pipe {
    fn poll_read(&self, cx: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.state);
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if state.incoming_len == 0 {
            return match state.read_end {
                Some(end) => Poll::Ready(end.map_err(Into::into)),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        while let Some(bytes) = state.incoming.front_mut() {
            let len = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..len]);
            bytes.advance(len);
            if !bytes.is_empty() {
                state.incoming_len -= len;
                break;
            }
            state.incoming.pop_front();
            state.incoming_len -= len;
        }
        if state.full && state.incoming_len <= BUFFER_MAX / 2 {
            state.full = false;
            self.nudges.nudge(self.stream);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.state);
        match state.flow {
            Flow::Open => {}
            Flow::Failed(failure) => return Poll::Ready(Err(failure.into())),
            Flow::Finishing | Flow::Finished | Flow::Arrived => {
                return Poll::Ready(Err(Failure::Stream(StreamError::Closed).into()));
            }
        }
        let len = bytes.len().min(BUFFER_MAX - state.outgoing.len());
        if len == 0 && !bytes.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.outgoing.extend(&bytes[..len]);
        self.nudges.nudge(self.stream);
        Poll::Ready(Ok(len))
    }

    fn finish(&self) {
        let mut state = lock(&self.state);
        if state.flow == Flow::Open {
            state.flow = Flow::Finishing;
            self.nudges.nudge(self.stream);
        }
    }

    fn poll_finished(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.state);
        match state.flow {
            Flow::Arrived => Poll::Ready(Ok(())),
            Flow::Failed(failure) => Poll::Ready(Err(failure.into())),
            Flow::Open | Flow::Finishing | Flow::Finished => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// A flow that was ended goes its way: what is given up is an open one.
    fn reset(&self, code: u64) {
        let mut state = lock(&self.state);
        if state.flow == Flow::Open {
            state.outgoing = VecDeque::new();
            state.flow = Flow::Failed(Failure::Stream(StreamError::Closed));
            state.reset = Some(code);
            self.nudges.nudge(self.stream);
        }
    }

    fn stop(&self, code: u64) {
        let mut state = lock(&self.state);
        (state.incoming, state.incoming_len) = (VecDeque::new(), 0);
        if state.stop.is_none() {
            state.read_end.get_or_insert(Err(Failure::Stream(StreamError::Closed)));
            state.stop = Some(code);
            self.nudges.nudge(self.stream);
        }
    }
}

// ---- the driver's side

/// The streams of a driver. When it ends, so do they.
#[derive(Default)]
pub(crate) struct StreamTable {
    pipes: BTreeMap<StreamHandle, Arc<Pipe>>,
    nudges: Arc<Nudges>,
}

impl StreamTable {
    pub(crate) fn add(&mut self, stream: StreamHandle, peer: PeerName, key: PeerKey) -> Stream {
        let state = Mutex::new(State::default());
        let pipe = Arc::new(Pipe { stream, state, nudges: Arc::clone(&self.nudges) });
        self.pipes.insert(stream, Arc::clone(&pipe));
        Stream { peer, key, pipe }
    }

    /// Whether there are streams.
    pub(crate) fn any(&self) -> bool {
        !self.pipes.is_empty()
    }

    /// Waits until an application did something with a stream.
    pub(crate) fn nudged(&self) -> impl Future<Output = ()> + 'static {
        let nudges = Arc::clone(&self.nudges);
        async move { nudges.notify.notified().await }
    }

    /// Brings to the machine what applications did.
    pub(crate) fn serve(&self, node: &mut Node, now: Instant) {
        for stream in self.nudges.take() {
            if let Some(pipe) = self.pipes.get(&stream) {
                pipe.give(node, now);
                pipe.take(node, now);
            }
        }
    }

    /// The peer is closing: nothing more is read; what was written still goes.
    pub(crate) fn close(&self) {
        self.pipes.values().for_each(|pipe| pipe.end_reading(Failure::PeerClosed));
    }

    pub(crate) fn on_event(
        &mut self,
        stream: StreamHandle,
        event: StreamEvent,
        node: &mut Node,
        now: Instant,
    ) {
        let Some(pipe) = self.pipes.get(&stream) else { return };
        match event {
            StreamEvent::Readable => pipe.take(node, now),
            StreamEvent::Writable => pipe.give(node, now),
            StreamEvent::Finished => pipe.arrived(),
            StreamEvent::Stopped(code) => pipe.fail_writing(StreamError::Stopped(code)),
            StreamEvent::Lost => {
                pipe.fail_writing(StreamError::Lost);
                pipe.take(node, now);
            }
            StreamEvent::Opened => {}
            StreamEvent::Closed => {
                pipe.fail(Failure::Stream(StreamError::Closed));
                self.pipes.remove(&stream);
            }
        }
    }
}

impl Drop for StreamTable {
    fn drop(&mut self) {
        self.pipes.values().for_each(|pipe| pipe.fail(Failure::PeerClosed));
    }
}

impl Pipe {
    /// Hands over what was written, and how it ends.
    fn give(&self, node: &mut Node, now: Instant) {
        let mut state = lock(&self.state);
        if let Some(code) = state.reset.take() {
            node.reset_stream(self.stream, code, now);
        }
        while !state.outgoing.is_empty() {
            let (front, _) = state.outgoing.as_slices();
            let given = front.len();
            // A stream that takes no more says why in an event.
            let Ok(taken) = node.write_stream(self.stream, front, now) else { break };
            state.outgoing.drain(..taken);
            if taken < given {
                break;
            }
        }
        if state.flow == Flow::Finishing && state.outgoing.is_empty() {
            state.flow = Flow::Finished;
            node.finish_stream(self.stream, now);
        }
        if state.flow == Flow::Open && state.outgoing.len() < BUFFER_MAX {
            wake(&mut state.writer);
        }
    }

    /// Takes what came, as far as there is room.
    fn take(&self, node: &mut Node, now: Instant) {
        let mut state = lock(&self.state);
        if let Some(code) = state.stop {
            return node.stop_stream(self.stream, code, now);
        }
        while state.read_end.is_none() {
            let room = BUFFER_MAX - state.incoming_len;
            if room == 0 {
                state.full = true;
                break;
            }
            match node.read_stream(self.stream, room, now) {
                Ok(Read::Bytes(bytes)) => {
                    state.incoming_len += bytes.len();
                    state.incoming.push_back(bytes);
                }
                Ok(Read::Pending) => break,
                Ok(Read::End) => state.read_end = Some(Ok(())),
                Err(error) => state.read_end = Some(Err(Failure::Stream(error))),
            }
        }
        if state.incoming_len > 0 || state.read_end.is_some() {
            wake(&mut state.reader);
        }
    }

    /// Unless the end is known already.
    fn end_reading(&self, failure: Failure) {
        let mut state = lock(&self.state);
        state.read_end.get_or_insert(Err(failure));
        wake(&mut state.reader);
    }

    fn arrived(&self) {
        let mut state = lock(&self.state);
        state.flow = Flow::Arrived;
        wake(&mut state.writer);
    }

    fn fail_writing(&self, error: StreamError) {
        lock(&self.state).fail_writing(Failure::Stream(error));
    }

    fn fail(&self, failure: Failure) {
        lock(&self.state).fail_writing(failure);
        self.end_reading(failure);
    }
}

impl State {
    fn fail_writing(&mut self, failure: Failure) {
        if !matches!(self.flow, Flow::Arrived | Flow::Failed(_)) {
            self.flow = Flow::Failed(failure);
            self.outgoing = VecDeque::new();
        }
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Nothing that is done under these locks panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
