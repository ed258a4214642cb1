//! One round, step by step.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::super::api::Effect;
use super::super::super::core::Core;
use super::super::PeerLink;
use super::ports::{aims, enclosed};
use super::{LAST_ANSWERS, LOST_PAUSE, Measured, PAUSE_FIRST, Stage, Task, takes_part};
use crate::io::Route;
use crate::transport::ControlFrame;
use crate::traversal::nat::{Allocation, Dependence, Profile};
use crate::traversal::plan::{PortRange, Strategy};
use crate::traversal::{Openers, PROBES_MAX, Role};
use crate::wire::frame::{self, Candidate, CandidateKind, OpenPorts, PunchStep};

impl PeerLink {
    // ---- the opener's side

    /// The sockets are there. False when nobody here waits for them.
    pub(in crate::node) fn opened_for_punch(
        &mut self,
        bound: &[SocketAddr],
        server: Option<SocketAddr>,
        core: &mut Core,
        now: Instant,
    ) -> bool {
        let Stage::Opening(task, count) = self.punch.stage else { return false };
        // They may be those of a round that was broken off: what is too much is closed.
        let (bound, rest) = bound.split_at(bound.len().min(usize::from(count)));
        if !rest.is_empty() {
            core.effect(Effect::CloseSockets(rest.to_vec()));
        }
        self.punch.sockets = bound.to_vec();
        match (task, self.punch.target, server) {
            (Task::Birthday(range), Some(target), _) if !bound.is_empty() => {
                self.open_at_random(range, target, core, now);
            }
            (Task::Window, Some(target), Some(server)) if bound.len() > 2 => {
                self.open_window(target, server, core, now);
            }
            (Task::Align, Some(_), Some(server)) if bound.len() > 1 => {
                let base = Measured::begin(bound[0], server, core, now);
                self.punch.stage = Stage::Measuring(Task::Align, vec![base]);
            }
            // The system has no sockets to spare, or the server is out of reach.
            (Task::Birthday(_) | Task::Window | Task::Align, ..) => self.end_round(core, now),
        }
        true
    }

    fn open_at_random(
        &mut self,
        range: PortRange,
        target: SocketAddr,
        core: &mut Core,
        now: Instant,
    ) {
        let routes: Vec<Route> =
            self.punch.sockets.iter().map(|bound| Route::udp(*bound, target)).collect();
        self.send_openers(&routes, Openers::Once, core, now);
        let (count, open) = (range.count().min(u32::from(u16::MAX)) as u16, routes.len() as u16);
        self.tell_open(OpenPorts { first: range.first, step: 1, count, open }, now);
        self.punch.stage = Stage::Running;
    }

    /// Ours are between two mappings of which the server tells the ports: all in one burst.
    fn open_window(
        &mut self,
        target: SocketAddr,
        server: SocketAddr,
        core: &mut Core,
        now: Instant,
    ) {
        let sockets = self.punch.sockets.clone();
        let [first, openers @ .., last] = &sockets[..] else { return };
        let before = Measured::begin(*first, server, core, now);
        let routes: Vec<Route> = openers.iter().map(|bound| Route::udp(*bound, target)).collect();
        self.send_openers(&routes, Openers::Once, core, now);
        let after = Measured::begin(*last, server, core, now);
        self.punch.stage = Stage::Measuring(Task::Window, vec![before, after]);
    }

    /// They leave at once: in a window their place among the Bindings matters.
    fn send_openers(&mut self, routes: &[Route], how: Openers, core: &mut Core, now: Instant) {
        let ttl = self.punch.ttl();
        let openers = self.agent.as_mut().map(|agent| agent.open(routes, ttl, how, now));
        openers.into_iter().flatten().for_each(|opener| core.send(opener));
    }

    fn tell_open(&mut self, ports: OpenPorts, now: Instant) {
        self.tell(PunchStep::Open(ports), self.punch.round, now);
    }

    fn tell(&mut self, step: PunchStep, round: u64, now: Instant) {
        let frame = ControlFrame::Punch(frame::Punch { round, step });
        self.conversation.transport().control(frame, None, now);
    }

    /// Whether this is the server's answer to a Binding of this round; goes on with it if so.
    pub(in crate::node) fn measured_for_punch(
        &mut self,
        route: Route,
        datagram: &[u8],
        core: &mut Core,
        now: Instant,
    ) -> bool {
        let Stage::Measuring(task, measured) = &mut self.punch.stage else { return false };
        let answer = measured.iter_mut().find_map(|measured| {
            Some((measured.probe.answer(route, datagram)?, &mut measured.port))
        });
        let Some((observed, port)) = answer else { return false };
        *port = Some(observed.port());
        let task = *task;
        let ports: Option<Vec<u16>> = measured.iter().map(|measured| measured.port).collect();
        if let Some(ports) = ports {
            self.measured_all(task, &ports, core, now);
        }
        true
    }

    fn measured_all(&mut self, task: Task, ports: &[u16], core: &mut Core, now: Instant) {
        let step = match core.nat.allocation.value() {
            Some(Allocation::Sequential { step }) => step,
            // Not so any more.
            Some(Allocation::Preserving | Allocation::Block { .. } | Allocation::Random) | None => {
                return self.end_round(core, now);
            }
        };
        match (task, ports) {
            (Task::Window, [before, after]) => {
                let openers = self.punch.sockets.len().saturating_sub(2) as u16;
                let Some(ports) = enclosed(*before, *after, step, openers) else {
                    return self.end_round(core, now);
                };
                self.tell_open(ports, now);
                self.punch.stage = Stage::Running;
                self.punch.until = Some(now + task.duration());
            }
            (Task::Align, [base]) => self.tell_base(*base, step, core, now),
            _ => self.end_round(core, now),
        }
    }

    // ---- where both NATs count

    fn tell_base(&mut self, base: u16, step: i16, core: &mut Core, now: Instant) {
        let round = match self.role {
            Role::Controlling => self.punch.round,
            Role::Controlled => self.punch.heard,
        };
        self.tell(PunchStep::Base { port: base, step }, round, now);
        self.punch.stage = Stage::Awaiting;
        self.punch.until = Some(now + Task::Align.duration());
        self.aim(core, now);
    }

    /// Opens at the other's next ports, once they are known and ours are told.
    fn aim(&mut self, core: &mut Core, now: Instant) {
        let asked = self.punch.asked.filter(|_| matches!(self.punch.stage, Stage::Awaiting));
        let Some((frame::Punch { step: PunchStep::Base { port, step }, .. }, _)) = asked else {
            return;
        };
        self.punch.asked = None;
        let (Some(target), Some(fresh)) = (self.punch.target, self.punch.sockets.get(1..)) else {
            return;
        };
        let routes = aims(fresh, target, port, step);
        self.send_openers(&routes, Openers::Repeated, core, now);
        self.punch.stage = Stage::Running;
    }

    /// One step of a round that the peer tells.
    pub(in crate::node::peer_link) fn hear_punch(
        &mut self,
        told: frame::Punch,
        core: &mut Core,
        now: Instant,
    ) {
        let punch = &mut self.punch;
        match (told.step, self.role) {
            _ if !takes_part(core) => {}
            // The answer to what we told.
            (PunchStep::Base { .. }, Role::Controlling) => {
                if told.round == punch.round && punch.is_aligning() {
                    punch.asked = Some((told, now));
                    self.aim(core, now);
                }
            }
            (PunchStep::Base { .. }, Role::Controlled) if punch.strategy != Strategy::Aligned => {}
            (PunchStep::Open(_) | PunchStep::Base { .. }, _) => {
                if told.round > punch.heard {
                    punch.heard = told.round;
                    punch.asked = Some((told, now));
                }
            }
        }
    }

    // ---- the prober's side

    /// Answers how many probes will leave.
    pub(super) fn probe_ports(
        &mut self,
        ports: OpenPorts,
        limit: usize,
        core: &Core,
        now: Instant,
    ) -> usize {
        let limit = limit.min(bearable(&core.nat));
        let punch = &mut self.punch;
        let (Some(target), Some(agent)) = (punch.target, &mut self.agent) else { return 0 };
        let probes = agent.probe(target.ip(), ports, limit, now);
        if probes > 0 {
            punch.begin_round(now);
            punch.stage = Stage::Running;
            punch.until = Some(now + probing_time(probes) + LAST_ANSWERS);
        }
        probes
    }

    // ---- both sides

    pub(in crate::node::peer_link) fn punch_timeout(&mut self, core: &mut Core, now: Instant) {
        let punch = &mut self.punch;
        punch.not_before = punch.not_before.filter(|at| *at > now);
        punch.turn = punch.turn.filter(|at| *at > now);
        let silent = match &mut punch.stage {
            Stage::Measuring(_, measured) => measured
                .iter_mut()
                .any(|measured| measured.port.is_none() && !measured.probe.advance(core, now)),
            Stage::Idle
            | Stage::Queued
            | Stage::Opening(..)
            | Stage::Awaiting
            | Stage::Running
            | Stage::Spent => false,
        };
        if silent || punch.until.is_some_and(|until| until <= now) {
            self.end_round(core, now);
        }
    }

    /// There is a path. A socket of the punch that serves it stays, known by what the peer saw.
    pub(in crate::node::peer_link) fn punched(
        &mut self,
        route: Route,
        core: &mut Core,
        now: Instant,
    ) {
        let punch = &mut self.punch;
        punch.in_row = 0;
        if punch.sockets.contains(&route.local) {
            punch.sockets.retain(|bound| *bound != route.local);
            let seen = self.agent.as_ref().and_then(|agent| agent.mapped(route));
            self.keep_socket(route.local, seen.unwrap_or(route.local), core, now);
        }
        self.stop_punch(core, now);
    }

    fn keep_socket(
        &mut self,
        bound: SocketAddr,
        address: SocketAddr,
        core: &mut Core,
        now: Instant,
    ) {
        self.release_socket(core);
        self.punch.kept = Some(bound);
        self.spare = Some((bound, Candidate { kind: CandidateKind::Mapped, address }));
        if let Some(agent) = &mut self.agent {
            agent.set_local(core.local_candidates(self.spare), now);
        }
    }

    /// The socket that a punch found serves no path any more: another route is chosen, or checks
    /// did not find it again.
    pub(in crate::node::peer_link) fn release_idle_socket(
        &mut self,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(kept) = self.punch.kept else { return };
        let in_use = self.direct.values().any(|route| route.local == kept);
        let over = self.agent.as_ref().is_none_or(|agent| match agent.selected() {
            Some(route) => route.local != kept,
            None => agent.is_waiting(),
        });
        if !in_use && over {
            self.release_socket(core);
            self.set_local(core, now);
        }
    }

    /// Closes the socket of a path that is no more, or has another.
    pub(in crate::node::peer_link) fn release_socket(&mut self, core: &mut Core) {
        if let Some(kept) = self.punch.kept.take() {
            self.spare = self.spare.filter(|(bound, _)| *bound != kept);
            core.effect(Effect::CloseSockets(vec![kept]));
        }
    }

    /// The path is gone: the checks have a moment to find it again; where a punch had only just
    /// found it, the next one takes its time.
    pub(in crate::node::peer_link) fn lost_path(&mut self, now: Instant) {
        let punch = &mut self.punch;
        let fresh = |at| now.saturating_duration_since(at) < PAUSE_FIRST;
        let pause = match punch.last_round.is_some_and(fresh) {
            true => punch.pause.advance(),
            false => LOST_PAUSE,
        };
        punch.not_before = punch.not_before.max(Some(now + pause));
    }
}

/// Probes that our own NAT bears: one that maps by address and port takes a port for each, and the
/// host needs most of its block for other things.
fn bearable(own: &Profile) -> usize {
    match (own.mapping.value(), own.allocation.value()) {
        (Some(Dependence::AddressAndPort), Some(Allocation::Block { first, last })) => {
            usize::from(last.saturating_sub(first)) / 4
        }
        _ => PROBES_MAX,
    }
}

/// How long probes take to leave: a thousand a second once they are at speed.
fn probing_time(probes: usize) -> Duration {
    Duration::from_millis(300 + probes as u64)
}
