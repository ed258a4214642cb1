//! The packet loop: the one place where the machine meets sockets, clock, threads and operator.
//!
//! Each turn drains the outputs, waits for whatever comes first, and then gives every source a
//! bounded share, so that a flood of one kind starves none of the others.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use p2sp_proto::hub::{
    self, AccessToken, Effect, Fast, HandshakeDone, Hub, Input, Limits, Output, Routes, Verdict,
};
use p2sp_proto::io::{Route, Transmit};
use p2sp_proto::session::StaticKey;
use p2sp_proto::wire::stun::Places;
use quinn_udp::EcnCodepoint;
use tokio::sync::mpsc;
use tokio::time::{Instant as TokioInstant, Sleep, sleep_until, timeout};

use crate::config::{BROADCAST_MAX, EXPIRE_INTERVALS};
use crate::console::{Answer, Request};
use crate::keys;
use crate::net::{Buffers, Sockets, Train};
use crate::operator::{self, Counters};
use crate::pool::Pool;

/// First datagrams of strangers that wait for their turn; further ones are dropped. Strangers
/// send again, so a longer queue would only hold what is asked twice.
const REST_MAX: usize = 512;

/// Strangers' datagrams taken up per turn, so that live sessions never wait long.
const REST_PER_TURN: usize = 8;

/// Finished handshakes taken up per turn.
const DONE_PER_TURN: usize = 32;

/// Longest time spent on telling the peers that the server stops.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// What a server is.
pub struct Config {
    /// The rules the machine keeps.
    pub hub: hub::Config,
    /// Commands of the operator.
    pub(crate) console: Option<mpsc::Receiver<Request>>,
}

impl Config {
    /// An open network under low limits: everybody may register.
    pub fn open(static_key: StaticKey, reset_key: [u8; 32]) -> Self {
        Self::with_limits(static_key, reset_key, Vec::new(), Limits::open())
    }

    /// Networks that only holders of these tokens enter.
    pub fn with_tokens(
        static_key: StaticKey,
        reset_key: [u8; 32],
        tokens: Vec<AccessToken>,
    ) -> Self {
        Self::with_limits(static_key, reset_key, tokens, Limits::with_tokens())
    }

    fn with_limits(
        static_key: StaticKey,
        reset_key: [u8; 32],
        tokens: Vec<AccessToken>,
        limits: Limits,
    ) -> Self {
        let hub = hub::Config {
            static_key,
            reset_key,
            tokens,
            expire_intervals: EXPIRE_INTERVALS,
            broadcast_max: BROADCAST_MAX,
            aes: p2sp_proto::session::has_aes_hardware(),
            places: Places::default(),
            limits,
        };
        Self { hub, console: None }
    }
}

/// Serves until `shutdown` completes or the operator says so; then tells the peers and returns.
///
/// # Panics
/// When the system gives no random numbers: no key is safe then.
pub async fn run(config: Config, sockets: Sockets, shutdown: impl Future<Output = ()>) {
    let seed = keys::fresh().expect("the system gives random numbers");
    let mut driver = Driver::new(config, sockets, *seed);
    let mut buffers = Buffers::new();
    let mut shutdown = pin!(shutdown);
    loop {
        driver.drain();
        let wake = driver.wait(shutdown.as_mut()).await;
        if driver.serve(wake, &mut buffers) == Turn::Last {
            break;
        }
    }
    driver.farewell().await;
}

struct Driver {
    hub: Hub,
    routes: Arc<Routes>,
    sockets: Sockets,
    console: Option<mpsc::Receiver<Request>>,
    pool: Pool,
    alarm: Alarm,
    /// Strangers' datagrams, oldest first.
    rest: VecDeque<(Route, Vec<u8>)>,
    counters: Counters,
}

/// Why the loop goes on.
enum Wake {
    Stop,
    Console(Option<Request>),
    Packets(usize),
    Handshake(Box<HandshakeDone>),
    /// A deadline passed, or strangers wait.
    Work,
}

/// Whether there is another turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Another,
    Last,
}

impl Driver {
    fn new(config: Config, sockets: Sockets, seed: [u8; 32]) -> Self {
        let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut hub = config.hub;
        hub.places.ports = sockets.ports();
        let hub = Hub::new(hub, seed, Instant::now(), unix_now);
        Self {
            routes: hub.routes(),
            hub,
            sockets,
            console: config.console,
            pool: Pool::start(),
            alarm: Alarm::new(),
            rest: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    async fn wait(&mut self, shutdown: impl Future<Output = ()>) -> Wake {
        let deadline = self.hub.poll_timeout();
        let strangers = self.serves_strangers();
        tokio::select! {
            biased;
            () = shutdown => Wake::Stop,
            request = next_request(&mut self.console) => Wake::Console(request),
            index = self.sockets.readable() => Wake::Packets(index),
            done = self.pool.next() => Wake::Handshake(Box::new(done)),
            () = self.alarm.ring(deadline) => Wake::Work,
            () = tokio::task::yield_now(), if strangers => Wake::Work,
        }
    }

    fn serve(&mut self, wake: Wake, buffers: &mut Buffers) -> Turn {
        match wake {
            Wake::Stop => return Turn::Last,
            Wake::Console(None) => self.console = None,
            Wake::Console(Some(request)) => {
                if self.obey(request) == Turn::Last {
                    return Turn::Last;
                }
            }
            Wake::Packets(index) => self.receive(index, buffers),
            Wake::Handshake(done) => self.handle_done(*done),
            Wake::Work => {}
        }
        self.serve_done();
        self.serve_strangers();
        self.serve_deadline();
        Turn::Another
    }

    fn receive(&mut self, index: usize, buffers: &mut Buffers) {
        match self.sockets.receive(index, buffers) {
            Ok(()) => buffers.trains().for_each(|train| self.handle_train(train)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                self.counters.receive_errors += 1;
                tracing::debug!(%error, "cannot receive");
            }
        }
    }

    /// Judges each datagram of a train. Neighbours that go on along one route leave as one train
    /// again.
    fn handle_train(&mut self, train: Train<'_>) {
        let now = Instant::now();
        let Train { route, ecn, stride, bytes } = train;
        let mut onward: Option<(Route, Range<usize>)> = None;
        for start in (0..bytes.len()).step_by(stride) {
            let range = start..bytes.len().min(start + stride);
            let verdict = Fast::handle(&self.routes, &mut bytes[range.clone()], route, now);
            if let Verdict::Forward(to) = verdict {
                onward = Some(self.join(onward, to, range, stride, bytes, ecn));
                continue;
            }
            if let Some((to, range)) = onward.take() {
                self.forward(to, &bytes[range], stride, ecn);
            }
            self.handle_verdict(verdict, route, &mut bytes[range], now);
        }
        if let Some((to, range)) = onward {
            self.forward(to, &bytes[range], stride, ecn);
        }
    }

    /// Adds a forwarded datagram to the train before it, or sends that off and begins another.
    fn join(
        &mut self,
        onward: Option<(Route, Range<usize>)>,
        to: Route,
        range: Range<usize>,
        stride: usize,
        bytes: &[u8],
        ecn: Option<EcnCodepoint>,
    ) -> (Route, Range<usize>) {
        let Some((before, joined)) = onward else { return (to, range) };
        let full = joined.len() >= stride * self.sockets.train_max(to.local);
        if before == to && !full {
            return (to, joined.start..range.end);
        }
        self.forward(before, &bytes[joined], stride, ecn);
        (to, range)
    }

    fn forward(&mut self, to: Route, bytes: &[u8], stride: usize, ecn: Option<EcnCodepoint>) {
        let result = self.sockets.send(to, bytes, Some(stride), ecn);
        self.count(to, result);
    }

    fn handle_verdict(
        &mut self,
        verdict: Verdict,
        route: Route,
        datagram: &mut [u8],
        now: Instant,
    ) {
        match verdict {
            Verdict::Drop => {}
            Verdict::Reply(payload) => self.send(&Transmit::new(route, payload)),
            Verdict::Elsewhere(transmit) => self.send(&transmit),
            Verdict::Forward(to) => self.forward(to, datagram, datagram.len(), None),
            Verdict::Live => self.handle_datagram(route, datagram, now),
            Verdict::Rest if self.rest.len() < REST_MAX => {
                self.rest.push_back((route, datagram.to_vec()));
            }
            Verdict::Rest => self.counters.rest_shed += 1,
        }
    }

    fn handle_datagram(&mut self, route: Route, data: &mut [u8], now: Instant) {
        self.hub.handle_input(Input::Datagram { route, data }, now);
        self.drain();
    }

    fn handle_done(&mut self, done: HandshakeDone) {
        self.hub.handle_input(Input::HandshakeDone(done), Instant::now());
        self.drain();
    }

    fn serve_done(&mut self) {
        for _ in 0..DONE_PER_TURN {
            let Some(done) = self.pool.try_next() else { return };
            self.handle_done(done);
        }
    }

    fn serves_strangers(&self) -> bool {
        !self.rest.is_empty() && self.pool.has_room()
    }

    fn serve_strangers(&mut self) {
        for _ in 0..REST_PER_TURN {
            if !self.pool.has_room() {
                return;
            }
            let Some((route, mut datagram)) = self.rest.pop_front() else { return };
            self.handle_datagram(route, &mut datagram, Instant::now());
        }
    }

    fn serve_deadline(&mut self) {
        let now = Instant::now();
        let Some((deadline, name)) = self.hub.poll_timeout() else { return };
        if deadline <= now {
            tracing::trace!(name, "deadline");
            self.hub.handle_timeout(now);
        }
    }

    /// Carries out everything the machine wants done.
    fn drain(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Transmit(transmit) => self.send(&transmit),
                Output::Event(event) => operator::log(&event),
                Output::Effect(Effect::Handshake(job)) => self.pool.submit(job),
            }
        }
    }

    fn send(&mut self, transmit: &Transmit) {
        let result = self.sockets.send(transmit.route, &transmit.payload, None, None);
        self.count(transmit.route, result);
    }

    /// A datagram that cannot leave is lost like one on the way: whoever needs it sends it again.
    fn count(&mut self, route: Route, result: io::Result<()>) {
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.counters.send_full += 1;
            }
            Err(error) => {
                self.counters.send_errors += 1;
                tracing::debug!(%error, local = %route.local, remote = %route.remote, "cannot send");
            }
        }
    }

    /// Tells the peers that the server stops, waiting for the kernel but not for ever.
    async fn farewell(&mut self) {
        self.hub.shutdown(Instant::now());
        let farewell = async {
            while let Some(output) = self.hub.poll_output() {
                match output {
                    Output::Transmit(Transmit { route, payload, .. }) => {
                        if let Err(error) = self.sockets.send_patiently(route, &payload).await {
                            tracing::debug!(%error, remote = %route.remote, "cannot send");
                        }
                    }
                    Output::Event(event) => operator::log(&event),
                    Output::Effect(Effect::Handshake(_)) => {}
                }
            }
        };
        if timeout(FAREWELL_MAX, farewell).await.is_err() {
            tracing::warn!("not every peer could be told that the server stops");
        }
        tracing::debug!(counters = ?self.counters, "stopped");
    }

    fn obey(&mut self, request: Request) -> Turn {
        let Request { command, answer } = request;
        let now = Instant::now();
        let (said, turn) = match operator::execute(&mut self.hub, &self.counters, command, now) {
            Some(text) => (Answer::Said(text), Turn::Another),
            None => (Answer::Stopping, Turn::Last),
        };
        // Whoever asked may be gone; the deed is done all the same.
        let _ = answer.send(said);
        turn
    }
}

async fn next_request(console: &mut Option<mpsc::Receiver<Request>>) -> Option<Request> {
    match console {
        Some(requests) => requests.recv().await,
        None => pending().await,
    }
}

/// The one timer of the loop. Arming it costs more than looking at it, so it is left alone while
/// the deadline stays.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl Alarm {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep_until(TokioInstant::now())), armed: None }
    }

    /// Completes at the deadline; never where there is none.
    async fn ring(&mut self, deadline: Option<(Instant, &'static str)>) {
        let Some((at, _)) = deadline else { return pending().await };
        if self.armed != Some(at) {
            self.sleep.as_mut().reset(TokioInstant::from_std(at));
            self.armed = Some(at);
        }
        self.sleep.as_mut().await;
    }
}
