//! Finding out what the NAT does (SPEC section 9.7): a sub-machine that asks the server's places
//! with Binding requests (RFC 5780) from the socket that matters and from fresh ones.
//!
//! 1. One flight: how the main socket is mapped, and whether answers from elsewhere come in.
//! 2. Another: what an answer that did not come in left behind, whether two sockets reach each
//!    other under their external addresses, and which ports further sockets get.
//! 3. All fresh sockets are closed, and what was seen is put into the words of RFC 4787.
//!
//! Nothing waits for it: requests that nobody answers end it after seconds.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::api::{Deadline, Effect, SocketUse};
use super::core::Core;
use super::flight::{Flight, Purpose};
use crate::io::Route;
use crate::traversal::nat::Profile;
use crate::traversal::nat::classify::{self, Ports, Reply, Seen};
use crate::traversal::nat::{Dependence, Field, Hairpin, Unsolicited};
use crate::wire::stun::Change;

/// Between two runs where nothing happens: a router may have been exchanged.
const PERIOD: Duration = Duration::from_secs(15 * 60);
/// Between two runs whatever happens: a network that comes and goes must not be asked for ever.
const PAUSE: Duration = Duration::from_secs(10);
/// Fresh sockets of the first flight.
const FIRST: u16 = 2;
/// Further ones, two ordered samples each, where the choice of ports is in question.
const FURTHER: u16 = 8;
/// Between first requests of further sockets, so that they arrive in order.
const SPACING: Duration = Duration::from_millis(5);

/// Where to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The socket that matters and the server's main address, over IPv4.
    pub(super) main: Route,
    pub(super) alt_port: u16,
    /// A second IP, other than that of the main address.
    pub(super) alt_ip: Option<IpAddr>,
}

impl Target {
    fn server(&self) -> SocketAddr {
        self.main.remote
    }

    fn other_port(&self) -> SocketAddr {
        SocketAddr::new(self.server().ip(), self.alt_port)
    }

    fn other_ip(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.alt_ip?, self.alt_port))
    }
}

/// Runs the measurement when it is due.
pub(super) struct Profiler {
    target: Option<Target>,
    run: Option<Run>,
    next: Instant,
    /// No run begins before.
    free_at: Instant,
    /// Whether what was known may be of another network.
    network: Network,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Same,
    Changed,
    /// Changed, and what was known is still there.
    Left,
}

impl Profiler {
    pub(super) const fn new(now: Instant) -> Self {
        Self { target: None, run: None, next: now, free_at: now, network: Network::Changed }
    }

    /// The network changed: what was measured may be wrong.
    pub(super) fn restart(&mut self, core: &mut Core, now: Instant) {
        self.network = Network::Left;
        self.stop(core);
        self.next = now;
    }

    /// Does what is due. What is known of the NAT, where a run has more to say of it: silence
    /// takes seconds to count, and a pair that must guess ports need not wait for that.
    pub(super) fn advance(
        &mut self,
        target: Option<Target>,
        core: &mut Core,
        now: Instant,
    ) -> Option<Profile> {
        if self.target != target {
            self.target = target;
            self.stop(core);
            self.next = now;
        }
        if target.is_none() && self.network == Network::Left {
            // What was known is of another network, and nobody tells of this one.
            self.network = Network::Changed;
            return Some(Profile::default());
        }
        match &mut self.run {
            None => {
                let target = target.filter(|_| self.next.max(self.free_at) <= now)?;
                self.free_at = now + PAUSE;
                self.run = Some(Run::begin(target, core));
                None
            }
            Some(run) => {
                let progress = run.advance(core, now);
                let profile = run.classify(core);
                // In the same network, what could not be measured again is as before.
                let known = match self.network {
                    Network::Same => profile.or(core.nat),
                    Network::Changed | Network::Left => profile,
                };
                match progress {
                    Progress::Asking => None,
                    Progress::Listening => Some(known),
                    Progress::Over => {
                        self.stop(core);
                        self.next = now + PERIOD;
                        self.network = Network::Same;
                        Some(known)
                    }
                }
            }
        }
    }

    /// The shell's answer to [`Effect::OpenSockets`].
    pub(super) fn opened(&mut self, bound: &[SocketAddr], core: &mut Core, now: Instant) {
        match &mut self.run {
            Some(run) if run.is_opening() => run.opened(bound, core, now),
            // The run they were for is over.
            _ => core.effect(Effect::CloseSockets(bound.to_vec())),
        }
    }

    /// Takes a datagram that belongs to the measurement; false for every other.
    pub(super) fn handle(&mut self, route: Route, datagram: &[u8]) -> bool {
        self.run.as_mut().is_some_and(|run| run.flight.handle(route, datagram))
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        let at = match (&self.run, self.target) {
            (Some(run), _) if run.is_opening() => return None,
            (Some(run), _) => run.flight.deadline()?,
            (None, Some(_)) => self.next.max(self.free_at),
            (None, None) => return None,
        };
        Some((at, "nat profile"))
    }

    fn stop(&mut self, core: &mut Core) {
        if let Some(run) = self.run.take().filter(|run| !run.fresh.is_empty()) {
            core.effect(Effect::CloseSockets(run.fresh));
        }
    }
}

/// One measurement.
struct Run {
    target: Target,
    step: Step,
    /// Sockets opened for it; the first two are those of the first flight.
    fresh: Vec<SocketAddr>,
    flight: Flight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The shell was asked for the sockets of this flight.
    Opening(Nth),
    Flying(Nth),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nth {
    First,
    Second,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Answers that will come are awaited.
    Asking,
    /// What is still awaited may be silence.
    Listening,
    Over,
}

impl Run {
    fn begin(target: Target, core: &mut Core) -> Self {
        core.effect(Effect::OpenSockets { usage: SocketUse::Measure, count: FIRST });
        let step = Step::Opening(Nth::First);
        Self { target, step, fresh: Vec::new(), flight: Flight::new() }
    }

    fn is_opening(&self) -> bool {
        matches!(self.step, Step::Opening(_))
    }

    fn opened(&mut self, bound: &[SocketAddr], core: &mut Core, now: Instant) {
        // They may be those of a run that was broken off: what is too much is closed.
        let wanted = match self.step {
            Step::Opening(Nth::First) => FIRST,
            Step::Opening(Nth::Second) => FURTHER,
            Step::Flying(_) => 0,
        };
        let (bound, rest) = bound.split_at(bound.len().min(usize::from(wanted)));
        if !rest.is_empty() {
            core.effect(Effect::CloseSockets(rest.to_vec()));
        }
        self.fresh.extend(bound);
        match self.step {
            Step::Opening(Nth::First) => self.begin_first(core, now),
            Step::Opening(Nth::Second) => self.begin_second(core, now),
            Step::Flying(_) => {}
        }
    }

    fn advance(&mut self, core: &mut Core, now: Instant) -> Progress {
        self.flight.advance(core, now);
        if self.step == Step::Flying(Nth::Second) {
            self.ask_unsolicited(core, now);
        }
        if self.step == Step::Flying(Nth::First) && (self.flight.is_over() || self.has_shown()) {
            self.end_first(core, now);
        }
        match self.step {
            Step::Flying(Nth::Second) if self.flight.is_over() => Progress::Over,
            Step::Flying(_) if self.flight.is_answered() => Progress::Listening,
            Step::Flying(_) | Step::Opening(_) => Progress::Asking,
        }
    }

    /// Whether the mapping depends on the destination: then the choice of ports is in question,
    /// and does not wait for what silence may answer.
    fn has_shown(&self) -> bool {
        self.flight.is_answered() && is_dependent(self.mapping())
    }

    fn begin_first(&mut self, core: &mut Core, now: Instant) {
        self.step = Step::Flying(Nth::First);
        let Target { main: Route { local, remote: server, .. }, .. } = self.target;
        let (other_port, other_ip) = (self.target.other_port(), self.target.other_ip());
        for place in [Some(server), Some(other_port), other_ip].into_iter().flatten() {
            self.flight.ask(Purpose::Plain, Route::udp(local, place), place, core, now);
        }
        let changes = [(Change::Port, Some(other_port)), (Change::IpAndPort, other_ip)];
        for (socket, (change, from)) in self.fresh.clone().into_iter().zip(changes) {
            let route = Route::udp(socket, server);
            self.flight.ask(Purpose::Plain, route, server, core, now);
            if let Some(from) = from {
                self.flight.ask(Purpose::Changed(change), route, from, core, now);
            }
        }
        self.flight.advance(core, now);
    }

    /// Further sockets are opened where it is not clear that ports are kept.
    fn end_first(&mut self, core: &mut Core, now: Instant) {
        self.flight.adapt();
        let mapping = self.mapping();
        if !is_dependent(mapping) && classify::preserves(&self.kept()) || self.kept().is_empty() {
            return self.begin_second(core, now);
        }
        self.step = Step::Opening(Nth::Second);
        core.effect(Effect::OpenSockets { usage: SocketUse::Measure, count: FURTHER });
    }

    fn begin_second(&mut self, core: &mut Core, now: Instant) {
        self.step = Step::Flying(Nth::Second);
        let (server, other_port) = (self.target.server(), self.target.other_port());
        self.ask_unsolicited(core, now);
        for (from, to) in self.hairpin_routes(core) {
            self.flight.ask(Purpose::Hairpin, Route::udp(from, to), to, core, now);
        }
        let mut at = now;
        for socket in self.further().to_vec() {
            for place in [server, other_port] {
                self.flight.ask(Purpose::Plain, Route::udp(socket, place), place, core, at);
                at += SPACING;
            }
        }
        self.flight.advance(core, now);
    }

    /// Once, when silence has shown that an answer was filtered.
    fn ask_unsolicited(&mut self, core: &mut Core, now: Instant) {
        let Some(first) = self.unsolicited_socket() else { return };
        let other_port = self.target.other_port();
        let route = Route::udp(first, other_port);
        if !self.flight.has_asked(route) {
            self.flight.ask(Purpose::Plain, route, other_port, core, now);
            self.flight.advance(core, now);
        }
    }

    fn further(&self) -> &[SocketAddr] {
        self.fresh.get(usize::from(FIRST)..).unwrap_or_default()
    }

    // ---- what was seen

    fn seen(&self, socket: SocketAddr) -> Seen {
        let at = |place: SocketAddr| self.flight.seen(Route::udp(socket, place));
        Seen {
            main: at(self.target.server()),
            alt_port: at(self.target.other_port()),
            alt_ip: self.target.other_ip().and_then(at),
        }
    }

    /// The first socket for the answer from the other port is left out: what that answer leaves
    /// behind is another question.
    fn mapping(&self) -> Field<Dependence> {
        let sockets = [self.target.main.local].into_iter().chain(self.further().iter().copied());
        classify::mapping(&sockets.map(|socket| self.seen(socket)).collect::<Vec<_>>())
    }

    /// Local and external port of the sockets of the first flight.
    fn kept(&self) -> Vec<(u16, u16)> {
        let sockets = self.fresh.iter().take(usize::from(FIRST));
        let ports = |socket: &SocketAddr| Some((socket.port(), self.seen(*socket).main?.port()));
        sockets.filter_map(ports).collect()
    }

    /// What came of a request for an answer from elsewhere; silence counts only where both ways
    /// work for others.
    fn reply(&self, nth: usize, from: Option<SocketAddr>) -> Option<Reply> {
        let from = from?;
        let Some(socket) = self.fresh.get(nth) else { return Some(Reply::Unsure) };
        let asked = self.seen(*socket).main.is_some();
        let answers = self.flight.seen(Route::udp(self.target.main.local, from)).is_some();
        let reply = self.flight.elsewhere(Route::udp(*socket, self.target.server()));
        let is_proof = reply == Reply::Heard || (asked && answers);
        Some(if is_proof { reply } else { Reply::Unsure })
    }

    fn filtering(&self) -> Field<Dependence> {
        let port = self.reply(0, Some(self.target.other_port())).unwrap_or(Reply::Unsure);
        classify::filtering(port, self.reply(1, self.target.other_ip()))
    }

    /// The socket at which an answer was filtered, if it can show what that leaves behind.
    fn unsolicited_socket(&self) -> Option<SocketAddr> {
        let filtered =
            matches!(self.reply(0, Some(self.target.other_port())), Some(Reply::Silent(_)));
        let comparable = self.mapping().value()? != Dependence::AddressAndPort;
        self.fresh.first().copied().filter(|_| filtered && comparable)
    }

    fn unsolicited(&self) -> Field<Unsolicited> {
        let seen = self.unsolicited_socket().map(|socket| self.seen(socket));
        match seen.and_then(|seen| seen.main.zip(seen.alt_port)) {
            Some((before, after)) => classify::unsolicited(before, after),
            None => Field::Unknown,
        }
    }

    /// The first two sockets towards each other's external address, where a NAT translates them
    /// and the same for all destinations.
    fn hairpin_routes(&self, core: &Core) -> Vec<(SocketAddr, SocketAddr)> {
        let [first, second, ..] = self.fresh[..] else { return Vec::new() };
        let [Some(at_first), Some(at_second)] = [first, second].map(|one| self.seen(one).main)
        else {
            return Vec::new();
        };
        if core.is_own(at_first.ip()) || is_dependent(self.mapping()) {
            return Vec::new();
        }
        vec![(first, at_second), (second, at_first)]
    }

    /// A router that remembers what it filtered moves one of the two, so that silence proves
    /// nothing there.
    fn hairpin(&self, unsolicited: Field<Unsolicited>) -> Field<Hairpin> {
        let remembers = unsolicited.value() == Some(Unsolicited::Remembered);
        match self.flight.hairpin() {
            Some(Reply::Heard) => Field::Known { value: Hairpin::Works, samples: 1 },
            Some(Reply::Silent(samples)) if !remembers => {
                Field::Known { value: Hairpin::Fails, samples }
            }
            Some(Reply::Silent(_) | Reply::Unsure) | None => Field::Unknown,
        }
    }

    fn ports(&self) -> Ports {
        let mut ports = Ports { kept: self.kept(), ..Ports::default() };
        ports.all = ports.kept.iter().map(|(_, external)| *external).collect();
        for socket in self.further() {
            let mut last = None;
            for place in [self.target.server(), self.target.other_port()] {
                let route = Route::udp(*socket, place);
                ports.all.extend(self.flight.seen(route).map(|address| address.port()));
                let in_time = self.flight.seen_at_once(route).map(|address| address.port());
                // The same port again is the same mapping.
                ports.ordered.extend(in_time.filter(|port| Some(*port) != last));
                last = in_time.or(last);
            }
        }
        ports.all.sort_unstable();
        ports.all.dedup();
        ports
    }

    fn classify(&self, core: &Core) -> Profile {
        let (mapping, unsolicited) = (self.mapping(), self.unsolicited());
        Profile {
            mapping,
            filtering: self.filtering(),
            allocation: classify::allocation(mapping, &self.ports()),
            hairpin: self.hairpin(unsolicited),
            unsolicited,
            lifetime: core.nat.lifetime,
        }
    }
}

fn is_dependent(mapping: Field<Dependence>) -> bool {
    matches!(mapping.value(), Some(Dependence::Address | Dependence::AddressAndPort))
}
