//! Finding out how long an idle mapping lives (SPEC section 9.7).
//!
//! 1. A fresh socket makes a mapping by asking the server where it sees it, and keeps silent.
//! 2. The main socket then asks the server to answer to the fresh one's external port. What
//!    arrives shows that the mapping was alive; the next silence is longer.
//! 3. The first answer that does not arrive ends it: what was shown is a lower bound.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::api::{Deadline, Effect, SocketUse};
use super::core::Core;
use super::flight::{Flight, Purpose};
use crate::io::Route;
use crate::traversal::nat::Field;
use crate::traversal::nat::classify::Reply;

/// Before the measurement begins: a peer that is there for a command measures nothing.
const DELAY: Duration = Duration::from_secs(10);
/// The first silence: the shortest lifetime that common routers have.
const IDLE_FIRST: Duration = Duration::from_secs(30);
/// The longest: to know more would change nothing.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// Between the two requests that make a mapping: some routers keep those longer that are in use
/// for more than two seconds, as the main socket's is.
const IN_USE: Duration = Duration::from_secs(3);
/// Late copies of answers may refresh the mapping for so long.
const SETTLED: Duration = Duration::from_secs(2);

/// Runs the measurement, once for each network.
pub(super) struct Lifetime {
    /// The socket that matters and the server's main address, over IPv4.
    main: Option<Route>,
    stage: Stage,
}

enum Stage {
    /// Nothing happens before this moment.
    Waiting(Instant),
    /// The shell was asked for a socket.
    Opening,
    Running(Run),
    Done,
}

struct Run {
    main: Route,
    socket: SocketAddr,
    idle: Duration,
    step: Step,
    /// What was shown so far.
    shown: Field<Duration>,
}

enum Step {
    /// The fresh socket makes its mapping.
    Making(Flight),
    /// It keeps silent.
    Idle { external: SocketAddr, until: Instant },
    /// The server is asked to answer through the mapping.
    Asking { external: SocketAddr, flight: Flight },
}

/// What a step ended with.
enum Verdict {
    Alive,
    Gone,
    /// The line, or the server, did not do what was needed.
    Unsure,
}

impl Lifetime {
    pub(super) fn new(now: Instant) -> Self {
        Self { main: None, stage: Stage::Waiting(now + DELAY) }
    }

    /// The network changed: what was measured may be wrong.
    pub(super) fn restart(&mut self, core: &mut Core, now: Instant) {
        self.stop(core);
        self.stage = Stage::Waiting(now + DELAY);
        core.nat.lifetime = Field::Unknown;
    }

    /// Does what is due; `main` is there while the NAT's mapping is known and the server answers.
    /// The lifetime, where a step showed something.
    pub(super) fn advance(
        &mut self,
        main: Option<Route>,
        core: &mut Core,
        now: Instant,
    ) -> Option<Field<Duration>> {
        if self.main != main {
            self.main = main;
            self.stop(core);
            self.stage = Stage::Waiting(now + DELAY);
        }
        match &mut self.stage {
            Stage::Waiting(until) if main.is_some() && *until <= now => {
                core.effect(Effect::OpenSockets { usage: SocketUse::Lifetime, count: 1 });
                self.stage = Stage::Opening;
                None
            }
            Stage::Waiting(_) | Stage::Opening | Stage::Done => None,
            Stage::Running(run) => {
                let verdict = run.advance(core, now)?;
                let next = run.follow(&verdict, core, now);
                let shown = run.shown;
                if next == Next::End {
                    self.stop(core);
                }
                match verdict {
                    Verdict::Alive | Verdict::Gone => Some(shown),
                    Verdict::Unsure => None,
                }
            }
        }
    }

    /// The shell's answer to [`Effect::OpenSockets`].
    pub(super) fn opened(&mut self, bound: &[SocketAddr], core: &mut Core, now: Instant) {
        match (&self.stage, self.main, bound) {
            (Stage::Opening, Some(main), [socket]) => {
                self.stage = Stage::Running(Run::begin(main, *socket, core, now));
            }
            (Stage::Opening, _, []) => self.stage = Stage::Done,
            // The run they were for is over.
            _ => core.effect(Effect::CloseSockets(bound.to_vec())),
        }
    }

    /// Takes a datagram that belongs to the measurement; false for every other.
    pub(super) fn handle(&mut self, route: Route, datagram: &[u8]) -> bool {
        let Stage::Running(run) = &mut self.stage else { return false };
        match &mut run.step {
            Step::Making(flight) | Step::Asking { flight, .. } => flight.handle(route, datagram),
            Step::Idle { .. } => false,
        }
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        let at = match &self.stage {
            Stage::Waiting(until) => self.main.and(Some(*until)),
            Stage::Running(run) => run.deadline(),
            Stage::Opening | Stage::Done => None,
        };
        at.map(|at| (at, "mapping lifetime"))
    }

    fn stop(&mut self, core: &mut Core) {
        if let Stage::Running(run) = std::mem::replace(&mut self.stage, Stage::Done) {
            core.effect(Effect::CloseSockets(vec![run.socket]));
        }
    }
}

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Step,
    End,
}

impl Run {
    fn begin(main: Route, socket: SocketAddr, core: &mut Core, now: Instant) -> Self {
        let step = Self::make(main, socket, core, now);
        Self { main, socket, idle: IDLE_FIRST, step, shown: Field::Unknown }
    }

    fn make(main: Route, socket: SocketAddr, core: &mut Core, now: Instant) -> Step {
        let mut flight = Flight::new();
        let route = Route::udp(socket, main.remote);
        for at in [now, now + IN_USE] {
            flight.ask(Purpose::Plain, route, main.remote, core, at);
        }
        flight.advance(core, now);
        Step::Making(flight)
    }

    /// Goes on; the verdict once there is one.
    fn advance(&mut self, core: &mut Core, now: Instant) -> Option<Verdict> {
        match &mut self.step {
            Step::Making(flight) => {
                flight.advance(core, now);
                if !flight.is_over() {
                    return None;
                }
                let external = flight.seen(Route::udp(self.socket, self.main.remote));
                let Some(external) = external.filter(|address| !core.is_own(address.ip())) else {
                    return Some(Verdict::Unsure);
                };
                self.step = Step::Idle { external, until: now + SETTLED + self.idle };
                None
            }
            Step::Idle { external, until } if *until <= now => {
                let external = *external;
                let mut flight = Flight::new();
                let to = Purpose::Redirected { to: self.socket, port: external.port() };
                for purpose in [Purpose::Plain, to] {
                    flight.ask(purpose, self.main, self.main.remote, core, now);
                }
                flight.advance(core, now);
                self.step = Step::Asking { external, flight };
                None
            }
            Step::Idle { .. } => None,
            Step::Asking { external, flight } => {
                flight.advance(core, now);
                let seen = flight.seen(self.main);
                // The answer went to the address that the main socket has.
                let proves = seen.is_some_and(|seen| seen.ip() == external.ip());
                match flight.elsewhere(self.main) {
                    Reply::Heard => Some(Verdict::Alive),
                    _ if !flight.is_over() => None,
                    Reply::Silent(_) if proves => Some(Verdict::Gone),
                    Reply::Silent(_) | Reply::Unsure => Some(Verdict::Unsure),
                }
            }
        }
    }

    /// After a verdict: a longer silence on a mapping that was just used, or the end.
    fn follow(&mut self, verdict: &Verdict, core: &mut Core, now: Instant) -> Next {
        match verdict {
            Verdict::Alive => {}
            Verdict::Gone | Verdict::Unsure => return Next::End,
        }
        let samples = match self.shown {
            Field::Known { samples, .. } => samples + 1,
            Field::Unknown => 1,
        };
        self.shown = Field::Known { value: self.idle, samples };
        if self.idle == IDLE_MAX {
            return Next::End;
        }
        // Whole seconds, as a profile tells them.
        self.idle = Duration::from_secs(self.idle.as_secs() * 3 / 2).min(IDLE_MAX);
        self.step = Self::make(self.main, self.socket, core, now);
        Next::Step
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.step {
            Step::Making(flight) | Step::Asking { flight, .. } => flight.deadline(),
            Step::Idle { until, .. } => Some(*until),
        }
    }
}
