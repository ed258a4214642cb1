//! Punches: finding a direct path where ports must be guessed (SPEC sections 9.8 to 9.10).
//!
//! Both sides tell each other what they know of their NATs; `traversal::plan` says who opens. A
//! round is one try: the *opener* opens fresh sockets towards the other's observed address and
//! tells which ports these may have got; the *prober* probes them. Where both NATs count, both
//! open, at what each told of its next ports. The agent sends and hears all checks; here is
//! decided who does what when. A node has one punch at a time: the node grants it.

mod ports;
mod round;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::ports::BURST;
use super::super::api::{Deadline, Effect, Guessing, SocketUse};
use super::super::binding::Probe;
use super::super::core::Core;
use super::{Notice, PeerLink};
use crate::control::Exposure;
use crate::io::Route;
use crate::time::{Backoff, earliest};
use crate::transport::ControlFrame;
use crate::traversal::nat::{Profile, Unsolicited};
use crate::traversal::plan::{Opener, PortRange, Strategy, plan, plan_doubting};
use crate::traversal::{Agent, Entry, Role, TTL_NEAR};
use crate::wire::frame::{self, PunchStep};

/// Rounds in a row; what then has not worked will hardly do.
const ROUNDS_MAX: u32 = 3;
/// First and largest pause after as many rounds, while the pair talks.
const PAUSE_FIRST: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(1800);
/// Time to live of openers in the second round: two carriers' routers more.
const TTL_FAR: u8 = 8;
/// A round of random ports: the word to the other side, its two seconds of probes, and a bad line.
const BIRTHDAY: Duration = Duration::from_secs(5);
/// A round in which all ports are known takes a few round trips.
const KNOWN_PORTS: Duration = Duration::from_millis(2500);
/// Answers to the last probes come within this.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// What the peer asked for waits this long for other pairs; then its sockets are soon gone.
const ASKED_TTL: Duration = Duration::from_secs(2);
/// Openers between the two Bindings of a window: a lost one costs no round.
const WINDOW_OPENERS: u16 = 3;
/// After a path was lost the checks have this long to find it again.
const LOST_PAUSE: Duration = Duration::from_secs(1);
/// Where both sides doubt their own NAT the controlled one leaves the other time for its rounds.
const DOUBT_TURN: Duration = Duration::from_secs(15);

/// What a link knows of both NATs and does about them.
pub(super) struct Punch {
    /// What was told in this session, and the number of tellings.
    told: Option<Profile>,
    generation: u64,
    /// What the peer told, under which number.
    theirs: Option<(u64, Profile)>,
    /// Where the server sees the peer, over IPv4.
    target: Option<SocketAddr>,
    trust: Trust,
    /// The plan for both profiles at their word, and the one that is followed.
    plan: Strategy,
    strategy: Strategy,
    /// Our own turn to open begins then.
    turn: Option<Instant>,
    stage: Stage,
    /// When a round under way has come to nothing.
    until: Option<Instant>,
    /// Rounds that we began, and the newest of the peer's that was heard of.
    round: u64,
    heard: u64,
    /// What the peer told in its newest round, until it is acted upon.
    asked: Option<(frame::Punch, Instant)>,
    /// Rounds since there was a pause or a path.
    in_row: u32,
    last_round: Option<Instant>,
    pause: Backoff,
    not_before: Option<Instant>,
    /// Sockets of this round.
    sockets: Vec<SocketAddr>,
    /// The socket of the path that a punch found.
    kept: Option<SocketAddr>,
    rounds: u32,
}

/// Whether our own profile is taken at its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Trusted,
    /// The simple way failed, so that a mapping that may depend on the address does.
    Doubted,
}

enum Stage {
    Idle,
    /// Waits for the node's grant.
    Queued,
    /// So many sockets were asked for.
    Opening(Task, u16),
    /// The server is asked what ports they got.
    Measuring(Task, Vec<Measured>),
    /// Our next ports are told, the peer's are awaited.
    Awaiting,
    /// Openers or probes are out.
    Running,
    /// The last round in a row came to nothing.
    Spent,
}

/// What fresh sockets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Birthday(PortRange),
    Window,
    Align,
}

/// One Binding and its answer.
struct Measured {
    probe: Probe,
    port: Option<u16>,
}

/// What a round may use.
pub(in crate::node) struct Grant {
    /// Probes that the node has left for this minute.
    pub(in crate::node) probes: usize,
    /// Sockets that it may open.
    pub(in crate::node) sockets: u16,
}

impl Measured {
    fn begin(bound: SocketAddr, server: SocketAddr, core: &mut Core, now: Instant) -> Self {
        Self { probe: Probe::begin(Route::udp(bound, server), core, now), port: None }
    }
}

impl Task {
    const fn sockets(self) -> u16 {
        match self {
            Self::Birthday(range) => range.sockets(),
            Self::Window => 1 + WINDOW_OPENERS + 1,
            Self::Align => 1 + BURST,
        }
    }

    const fn duration(self) -> Duration {
        match self {
            Self::Birthday(_) => BIRTHDAY,
            Self::Window | Self::Align => KNOWN_PORTS,
        }
    }
}

impl Punch {
    pub(super) fn new() -> Self {
        Self {
            told: None,
            generation: 0,
            theirs: None,
            target: None,
            trust: Trust::Trusted,
            plan: Strategy::Open,
            strategy: Strategy::Open,
            turn: None,
            stage: Stage::Idle,
            until: None,
            round: 0,
            heard: 0,
            asked: None,
            in_row: 0,
            last_round: None,
            pause: Backoff::new(PAUSE_FIRST, PAUSE_MAX),
            not_before: None,
            sockets: Vec::new(),
            kept: None,
            rounds: 0,
        }
    }

    /// Whether both NATs are known, and no direct path over IPv4 can be found.
    pub(super) fn is_hopeless(&self) -> bool {
        self.strategy == Strategy::Relay
    }

    /// Whether a round is under way.
    pub(super) const fn is_active(&self) -> bool {
        !matches!(self.stage, Stage::Idle | Stage::Queued | Stage::Spent)
    }

    /// Whether this is a round in which the peer tells its next ports, too.
    const fn is_aligning(&self) -> bool {
        matches!(
            self.stage,
            Stage::Opening(Task::Align, _) | Stage::Measuring(Task::Align, _) | Stage::Awaiting
        )
    }

    /// What the peer told of its NAT.
    pub(super) fn their_nat(&self) -> Option<Profile> {
        self.theirs.map(|(_, profile)| profile)
    }

    /// Rounds so far.
    pub(super) const fn rounds(&self) -> u32 {
        self.rounds
    }

    /// A session began: what was told in the old one is told again.
    pub(super) fn began_session(&mut self) {
        self.told = None;
        self.theirs = None;
        self.heard = 0;
        self.asked = None;
    }

    /// Another network, or another NAT: what failed may work now.
    pub(super) fn begin_anew(&mut self) {
        self.in_row = 0;
        self.pause.reset();
        self.not_before = None;
        self.trust = Trust::Trusted;
        self.turn = None;
    }

    /// Where the server sees the peer.
    pub(super) fn set_target(&mut self, observed: Option<SocketAddr>) {
        let target = observed.filter(SocketAddr::is_ipv4);
        if self.target.is_some() && self.target != target {
            self.begin_anew();
        }
        self.target = target;
    }

    /// How the rounds of checks begin.
    pub(super) fn entry(&self) -> Entry {
        match self.their_nat().and_then(|profile| profile.unsolicited.value()) {
            Some(Unsolicited::Remembered) => Entry::Cautious,
            Some(Unsolicited::Forgotten) | None => Entry::Plain,
        }
    }

    fn ttl(&self) -> Option<u8> {
        match self.in_row {
            0 | 1 => Some(TTL_NEAR),
            2 => Some(TTL_FAR),
            // Perhaps more routers stand in our own way than that.
            _ => None,
        }
    }

    /// Counts a round; rounds that are far apart are in no row.
    fn begin_round(&mut self, now: Instant) {
        let apart = |last| now.saturating_duration_since(last) >= PAUSE_FIRST;
        if self.last_round.is_none_or(apart) {
            self.in_row = 0;
        }
        self.last_round = Some(now);
        self.in_row += 1;
        self.rounds = self.rounds.saturating_add(1);
    }

    pub(super) fn deadline(&self) -> Deadline {
        let measuring = match &self.stage {
            Stage::Measuring(_, measured) => {
                let waiting = measured.iter().filter(|measured| measured.port.is_none());
                waiting.map(|measured| measured.probe.deadline()).min()
            }
            Stage::Idle
            | Stage::Queued
            | Stage::Opening(..)
            | Stage::Awaiting
            | Stage::Running
            | Stage::Spent => None,
        };
        let next = earliest(self.until.map(|at| (at, "punch")), measuring.map(|at| (at, "ports")));
        let turns = [self.not_before, self.turn].into_iter().flatten().min();
        earliest(next, turns.map(|at| (at, "next punch")))
    }
}

impl PeerLink {
    // ---- what both sides know

    /// Tells the peer what is known of our NAT, when that is news.
    pub(super) fn tell_nat(&mut self, core: &Core, now: Instant) {
        let punch = &mut self.punch;
        if !takes_part(core) || punch.told == Some(core.nat) || !self.conversation.is_confirmed() {
            return;
        }
        punch.told = Some(core.nat);
        punch.generation += 1;
        let frame = ControlFrame::Nat(punch.generation, Bytes::from(core.nat.encode()));
        self.conversation.transport().control(frame, None, now);
    }

    /// What the peer knows of its NAT; the newest counts.
    pub(super) fn hear_nat(&mut self, generation: u64, profile: &[u8]) {
        if self.punch.theirs.is_none_or(|(newest, _)| generation > newest) {
            self.punch.theirs = Some((generation, Profile::decode(profile)));
            if let Some(agent) = &mut self.agent {
                agent.set_entry(self.punch.entry());
            }
        }
    }

    /// The plan for both profiles. Another kind of plan is tried without regard to what failed.
    fn replan(&mut self, core: &Core) {
        let punch = &mut self.punch;
        let same_router = punch.target.map(|target| target.ip()) == core.observed_v4();
        let theirs = match punch.theirs {
            // Behind one router both count the same ports.
            Some((_, profile)) if takes_part(core) && !same_router => profile,
            Some(_) | None => Profile::default(),
        };
        let trusted = plan(&core.nat, &theirs);
        if std::mem::discriminant(&trusted) != std::mem::discriminant(&punch.plan) {
            punch.begin_anew();
        }
        punch.plan = trusted;
        punch.strategy = match punch.trust {
            Trust::Trusted => trusted,
            Trust::Doubted => plan_doubting(&core.nat, &theirs),
        };
    }

    /// The simple way failed although it is the plan: perhaps our own mapping depends on the
    /// address after all. True when that leads to another plan.
    pub(super) fn doubt_nat(&mut self, core: &Core, now: Instant) -> bool {
        let punch = &mut self.punch;
        if punch.strategy != Strategy::Open || core.nat.doubted() == core.nat {
            return false;
        }
        punch.trust = Trust::Doubted;
        let theirs = punch.their_nat().unwrap_or_default();
        let both = opens(plan_doubting(&theirs, &core.nat), Role::Controlling).is_some();
        if both && self.role == Role::Controlled {
            punch.turn = Some(now + DOUBT_TURN);
        }
        self.replan(core);
        opens(self.punch.strategy, self.role).is_some()
    }

    // ---- when

    /// Asks the node for a round where there is reason for one.
    pub(super) fn want_punch(&mut self, notices: &mut Vec<Notice>, core: &Core, now: Instant) {
        self.replan(core);
        if matches!(self.punch.stage, Stage::Spent) {
            self.punch.stage = Stage::Idle;
            self.want_spare(notices, now);
        }
        if matches!(self.punch.stage, Stage::Idle) && self.wants_round(now) {
            self.punch.stage = Stage::Queued;
            notices.push(Notice::Punch);
        }
    }

    fn wants_round(&self, now: Instant) -> bool {
        let punch = &self.punch;
        let needs_path = self.direct.is_empty()
            && self.agent.as_ref().is_some_and(|agent| agent.selected().is_none())
            && self.offered.is_none();
        let rests = punch.not_before.is_some_and(|at| at > now);
        needs_path
            && !rests
            && punch.target.is_some()
            && self.conversation.is_confirmed()
            && self.is_talking(now)
            && (self.is_asked(now) || self.opens_now(now))
    }

    fn is_asked(&self, now: Instant) -> bool {
        let fresh = |at: Instant| now.saturating_duration_since(at) < ASKED_TTL;
        self.punch.asked.is_some_and(|(_, at)| fresh(at))
    }

    fn opens_now(&self, now: Instant) -> bool {
        let hopes = self.agent.as_deref().is_some_and(Agent::hopes_for_ipv6);
        let later = self.punch.turn.is_some_and(|at| at > now);
        opens(self.punch.strategy, self.role).is_some() && !hopes && !later
    }

    /// Whether this link uses the node's grant.
    pub(in crate::node) const fn is_punching(&self) -> bool {
        self.punch.is_active()
    }

    /// Whether a socket of a punch serves this link's path.
    pub(in crate::node) const fn keeps_socket(&self) -> bool {
        self.punch.kept.is_some()
    }

    /// The node's turn has come to this link. Answers how many probes will leave.
    pub(in crate::node) fn grant_punch(
        &mut self,
        grant: &Grant,
        core: &mut Core,
        now: Instant,
    ) -> usize {
        self.punch.stage = Stage::Idle;
        if !self.wants_round(now) {
            return 0;
        }
        match self.punch.asked.take_if(|(_, at)| now.saturating_duration_since(*at) < ASKED_TTL) {
            Some((frame::Punch { step: PunchStep::Open(ports), .. }, _)) => {
                return self.probe_ports(ports, grant.probes, core, now);
            }
            asked @ Some((frame::Punch { step: PunchStep::Base { .. }, .. }, _)) => {
                self.punch.asked = asked;
                self.open_sockets(Task::Align, grant, core, now);
            }
            None => {
                self.punch.round += 1;
                if let Some(task) = opens(self.punch.strategy, self.role) {
                    self.open_sockets(task, grant, core, now);
                }
            }
        }
        0
    }

    fn open_sockets(&mut self, task: Task, grant: &Grant, core: &mut Core, now: Instant) {
        self.punch.begin_round(now);
        let count = task.sockets().min(grant.sockets);
        self.punch.stage = Stage::Opening(task, count);
        self.punch.until = Some(now + task.duration());
        core.effect(Effect::OpenSockets { usage: SocketUse::Guess, count });
    }

    /// A round came to nothing.
    fn end_round(&mut self, core: &mut Core, now: Instant) {
        self.stop_punch(core, now);
        let punch = &mut self.punch;
        if punch.in_row >= ROUNDS_MAX {
            punch.in_row = 0;
            punch.not_before = Some(now + punch.pause.advance());
            punch.stage = Stage::Spent;
        }
    }

    /// Another introduction makes another agent: a round of ours counts for nothing. One that the
    /// peer asked for does, or it could ask for introductions instead of waiting.
    pub(super) fn interrupt_punch(&mut self, core: &mut Core, now: Instant) {
        if !self.punch.sockets.is_empty() {
            self.punch.in_row = self.punch.in_row.saturating_sub(1);
        }
        self.stop_punch(core, now);
    }

    /// Closes what a round opened, but the socket that serves a path.
    pub(super) fn stop_punch(&mut self, core: &mut Core, now: Instant) {
        self.punch.stage = Stage::Idle;
        self.punch.until = None;
        // The peer's next ports are those of this round.
        self.punch.asked.take_if(|(told, _)| matches!(told.step, PunchStep::Base { .. }));
        if let Some(agent) = &mut self.agent {
            agent.end_guess(now);
        }
        let sockets = std::mem::take(&mut self.punch.sockets);
        if !sockets.is_empty() {
            core.effect(Effect::CloseSockets(sockets));
        }
    }
}

/// What the side of this role opens.
fn opens(strategy: Strategy, role: Role) -> Option<Task> {
    let ours = |opener| match opener {
        Opener::Mine => true,
        Opener::Theirs => false,
        Opener::Controlling => role == Role::Controlling,
    };
    match strategy {
        Strategy::Window { opener } => ours(opener).then_some(Task::Window),
        Strategy::Birthday { opener, range } => ours(opener).then_some(Task::Birthday(range)),
        Strategy::Aligned => (role == Role::Controlling).then_some(Task::Align),
        Strategy::Open | Strategy::Relay => None,
    }
}

/// Whether ports are guessed here at all. Who hides tells nothing of the way to itself.
fn takes_part(core: &Core) -> bool {
    core.guessing == Guessing::On && core.exposure == Exposure::Open
}
