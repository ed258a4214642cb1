//! The session with the rendezvous: handshake, requests, keepalive, silence.
//!
//! 1. An attempt asks the shell for the server's addresses and races one HANDSHAKE_INIT to all.
//! 2. The first true reply wins; registration goes out with the init where the server's boot
//!    is known, else right after.
//! 3. While up, keepalives go out and silence is noticed; a new attempt then runs beside the old
//!    session, which stays in use until it is replaced.
//!
//! The session's conversation is made anew with every handshake: requests belong to one session,
//! and the node asks again what it still needs.

mod attempt;
mod pulse;
mod requests;
mod up;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::pulse::Pulse;
pub(super) use self::pulse::Sight;
pub(super) use self::up::Up;
use super::api::{Deadline, Effect};
use super::core::Core;
use crate::control::{self, Exposure};
use crate::conversation::Conversation;
use crate::id::{Boot, PathId, PeerKey};
use crate::io::Route;
use crate::session::Initiator;
use crate::time::{Backoff, earliest};
use crate::transport::ControlFrame;
use crate::traversal::nat::Field;
use crate::wire::{Family, token_of};

/// First and largest delay between handshake tries.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A registration refused for the moment is tried again after this.
const REFUSED_RETRY: Duration = Duration::from_secs(5);
/// Silence after which a person is told.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Tries with the pinned key before asking, beside them, which key answers now.
const TRIES_BEFORE_KEY_PROBE: u32 = 4;
/// Tries after which the server's name is looked up again.
const TRIES_PER_RESOLVE: u32 = 5;
/// Most addresses of a server that are tried at once.
const ADDRESSES_MAX: usize = 8;
/// Window of packet numbers in sessions with a server (SPEC section 5).
const REPLAY_WINDOW: usize = 128;
/// Copies of a CLOSE and the time between them: nobody acknowledges it.
const CLOSE_COPIES: u32 = 3;

/// The link to the server.
pub(super) struct ServerLink {
    /// As the person wrote it.
    pub(super) display: String,
    pub(super) key: Option<PeerKey>,
    boot: Option<Boot>,
    /// What a key probe found instead of the pinned key.
    pub(super) refused_key: Option<PeerKey>,
    token: Option<(String, String)>,
    pulse: Pulse,
    exposure: Exposure,
    attempt: Option<Attempt>,
    up: Option<Up>,
    next_request: u32,
    /// What registration says; `None` until there is a name.
    wanted: Option<Wanted>,
    /// The candidates of the last registration.
    told: Vec<control::CandidateText>,
    reported_silent: Reported,
    retry: Backoff,
    retry_at: Option<Instant>,
}

/// What registration says.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) candidates: Vec<control::CandidateText>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    No,
    Yes,
}

/// A handshake under way.
struct Attempt {
    began: Instant,
    addresses: Vec<SocketAddr>,
    stage: Stage,
    backoff: Backoff,
    next_try: Instant,
    tries: u32,
    versions_told: bool,
}

enum Stage {
    /// The shell was asked for addresses.
    Resolving,
    /// Inits are out.
    Waiting(Box<Waiting>),
}

struct Waiting {
    initiator: Initiator,
    conversation: Conversation,
    requests: BTreeMap<u32, Asked>,
    /// Asks any server that answers for its key; sent when the pinned one keeps silent.
    probe: Option<Initiator>,
}

/// What a pending request was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A registration, and how it proved its token.
    Register(Proof),
    /// A registration that stands, said again for its candidates.
    Refresh,
    /// Who is this?
    Lookup(super::api::Recipient),
    /// A page of the list.
    List(super::Purpose),
    /// Presence of all.
    Watch,
    /// An introduction.
    Connect(PeerKey),
    /// A line for the operator, or leaving: nothing follows.
    Other,
}

/// What a token's proof was made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Early,
    Session,
}

/// What the link tells the node.
pub(super) enum Notice {
    /// A session stands.
    Up(FirstContact),
    /// A reply to a request.
    Reply(Asked, control::Outcome),
    /// The server pushes.
    Event(control::Event),
    /// The server sees us at this address.
    Observed(SocketAddr),
    /// Nobody answers; told once per outage.
    Silent,
    /// The server said CLOSE.
    Closed(u16, String),
    /// The server speaks these versions of the protocol and not ours.
    OtherVersions(String),
    /// Another key answers.
    KeyChanged { expected: PeerKey, found: PeerKey },
    /// The last CLOSE copy is out.
    Gone,
}

/// Whether the server's key was pinned before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstContact {
    Yes,
    No,
}

impl ServerLink {
    pub(super) fn new(config: &super::Config) -> Self {
        Self {
            display: config.server.clone(),
            key: config.server_key,
            boot: config.server_boot,
            refused_key: None,
            token: config.token.clone(),
            pulse: Pulse::new(config.keepalive),
            exposure: config.exposure,
            attempt: None,
            up: None,
            next_request: 1,
            wanted: None,
            told: Vec::new(),
            reported_silent: Reported::No,
            retry: Backoff::new(RETRY_FIRST, RETRY_MAX),
            retry_at: None,
        }
    }

    // ---- what the node wants

    /// Registers under this name from now on; renames where a session stands.
    pub(super) fn want(&mut self, wanted: Wanted, core: &mut Core, now: Instant) {
        self.wanted = Some(wanted);
        self.retry_at = None;
        // An init under way carries a registration under the old name.
        self.attempt = None;
        if self.up.is_some() {
            self.ask_register(now);
        } else {
            self.begin(core, now);
        }
    }

    /// A rename was refused: the name that stands is the one to register again.
    pub(super) fn keep_name(&mut self, name: &str) {
        if let Some(wanted) = &mut self.wanted {
            wanted.name = name.to_owned();
        }
    }

    /// The key and the process we are registered with.
    pub(super) fn identity(&self) -> Option<(PeerKey, Boot)> {
        self.key.zip(self.boot)
    }

    /// Whether nobody answers, and that was told.
    pub(super) fn is_silent(&self) -> bool {
        self.reported_silent == Reported::Yes
    }

    pub(super) fn wanted(&self) -> Option<&Wanted> {
        self.wanted.as_ref()
    }

    /// New candidates for the next registration.
    pub(super) fn set_candidates(&mut self, candidates: Vec<control::CandidateText>) {
        if let Some(wanted) = &mut self.wanted {
            wanted.candidates = candidates;
        }
    }

    /// Stops trying; a final refusal came.
    pub(super) fn stop(&mut self) {
        self.attempt = None;
        self.retry_at = None;
        self.wanted = None;
        self.up = None;
    }

    /// Pins the key that was refused and tries again.
    pub(super) fn trust(&mut self) -> bool {
        let Some(found) = self.refused_key.take() else { return false };
        self.key = Some(found);
        self.boot = None;
        self.attempt = None;
        true
    }

    /// Sends a control frame (OPEN) to the server.
    pub(super) fn control(&mut self, frame: ControlFrame, now: Instant) {
        if let Some(up) = &mut self.up {
            up.conversation.transport().control(frame, None, now);
        }
    }

    /// Says good bye; [`Notice::Gone`] follows when it is said.
    pub(super) fn close(&mut self, now: Instant) {
        self.attempt = None;
        self.retry_at = None;
        self.wanted = None;
        if let Some(up) = &mut self.up {
            up.closing = Some((CLOSE_COPIES, now));
        }
    }

    /// The network changed: makes the server see where we are now, or looks for it anew.
    pub(super) fn network_changed(&mut self, core: &mut Core, now: Instant) {
        self.pulse.network_changed();
        if let Some(attempt) = &mut self.attempt {
            attempt.hurry(now);
            core.effect(Effect::Resolve);
        }
        match &mut self.up {
            Some(up) => {
                up.ping(now);
                if !core.serves(up.route) {
                    self.begin(core, now);
                }
            }
            // After a final refusal nothing is waited for.
            None if self.retry_at.is_some() => self.begin(core, now),
            None => {}
        }
    }

    fn ping(&mut self, now: Instant) {
        if let Some(up) = &mut self.up {
            up.ping(now);
        }
    }

    /// The server told a registered peer where it sees it.
    pub(super) fn seen(&mut self, sight: Sight) {
        self.pulse.seen(sight);
    }

    /// What is known of our NAT: the keepalive follows it. True where the server must be told.
    pub(super) fn follow(&mut self, lifetime: Field<Duration>) -> bool {
        self.pulse.follow(lifetime)
    }

    // ---- what happens

    /// A datagram of the handshake or session families from a server address.
    pub(super) fn handle_datagram(
        &mut self,
        route: Route,
        data: &mut [u8],
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        match Family::of(data) {
            Family::HandshakeReply => self.handle_reply(route, data, notices, core, now),
            Family::Retry => self.handle_retry(route, data, core),
            Family::Data => self.handle_data(data, notices, core, now),
            Family::Reset => self.handle_reset(data, core, now),
            Family::Stale => {
                let asked = |up: &Up| up.last_ping.is_some_and(|at| now < at + RETRY_FIRST);
                if self.up.as_ref().is_some_and(|up| token_of(data) == Ok(up.token) && !asked(up)) {
                    self.ping(now);
                }
            }
            Family::Versions => self.handle_versions(data, notices),
            Family::Stun
            | Family::HandshakeInit
            | Family::HandshakeFinish
            | Family::Relay
            | Family::Beacon
            | Family::Other => {}
        }
    }

    pub(super) fn handle_timeout(
        &mut self,
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            match self.up {
                Some(_) => self.ask_register(now),
                None => self.begin(core, now),
            }
        }
        self.attempt_timeout(notices, core, now);
        self.up_timeout(notices, core, now);
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        let mut next = self.retry_at.map(|at| (at, "server retry"));
        if let Some(attempt) = &self.attempt {
            next = earliest(next, Some((attempt.next_try, "server handshake")));
            if self.reported_silent == Reported::No {
                next = earliest(next, Some((attempt.began + SILENT_AFTER, "server silence")));
            }
        }
        if let Some(up) = &self.up {
            next = earliest(next, up.conversation.poll_timeout());
            next = earliest(next, Some(up.ping_due(self.pulse.interval())));
            next = earliest(next, up.finish.as_ref().map(|(_, at)| (*at, "handshake finish")));
            next = earliest(next, up.closing.map(|(_, at)| (at, "closing")));
        }
        next
    }

    /// A route to the server in the address family that the session does not use; for peers, and
    /// so of no use to who hides.
    pub(super) fn other_family(&self, core: &Core) -> Option<Route> {
        if self.exposure == Exposure::Hidden {
            return None;
        }
        let up = self.up.as_ref()?;
        let mut others = up.addresses.iter().filter(|a| a.is_ipv4() != up.route.remote.is_ipv4());
        others.find_map(|address| core.route_to(*address))
    }

    /// Whether nothing speaks against the server being there: one keepalive may be on its way.
    pub(super) fn is_answering(&self) -> bool {
        self.up.as_ref().is_some_and(|up| up.unanswered <= 1)
    }

    /// Round trip of the session.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.up.as_ref()?.conversation.transport_ref().path_stats(PathId::SERVER)?.rtt
    }

    pub(super) fn up(&self) -> Option<&Up> {
        self.up.as_ref()
    }
}
