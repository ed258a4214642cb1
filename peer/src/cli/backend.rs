//! What a chat or a command works with: a peer of its own, or one that runs in another process.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Failure, Options};
use crate::report::{LOCAL_FAILURE, Outcome, Report, Request, exit};
use crate::socket::{Answer, Client};
use crate::state::{Folder, FolderError};
use crate::{Event, Peer, StartError};

/// Carries out requests and tells what happens.
pub(super) enum Backend {
    Own(Box<Own>),
    Other(Other),
}

/// How long a folder may stay locked by a process that does not serve it: the system takes its
/// time to end one that was killed.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at such a folder.
const TAKEOVER_PAUSE: Duration = Duration::from_millis(50);
/// How long a running process may be busy; after that it is worked through all the same.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Id of the first question, which only finds out whether it is answered.
const PROBE: u64 = 0;

/// A peer in this process.
pub(super) struct Own {
    peer: Peer,
    server: String,
    /// For the commands that accept other keys.
    options: Options,
    events: broadcast::Receiver<Event>,
    tasks: JoinSet<Outcome>,
}

/// A peer in another process.
pub(super) struct Other {
    client: Client,
    asked: u64,
    answered: u64,
}

/// What comes from a backend.
#[derive(Debug)]
pub(super) enum Update {
    Report(Report),
    Outcome(Outcome),
    /// The peer ended.
    Ended,
}

/// What a peer of one's own does with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Yes,
    No,
}

impl Backend {
    /// Through the process that works in the state folder, else with a peer of one's own.
    pub(super) async fn open(options: &Options, receiving: Receiving) -> Result<Self, Failure> {
        let deadline = Instant::now() + TAKEOVER_PATIENCE;
        loop {
            if let Some(other) = Self::other(options).await? {
                return Ok(other);
            }
            match Self::start(options, receiving).await? {
                Ok(own) => return Ok(own),
                Err(taken) if Instant::now() >= deadline => return Err(taken.into()),
                // Another process took the folder in between, or ends just now.
                Err(_) => sleep(TAKEOVER_PAUSE).await,
            }
        }
    }

    /// A peer of one's own, unless another process holds the folder.
    async fn start(
        options: &Options,
        receiving: Receiving,
    ) -> Result<Result<Self, FolderError>, Failure> {
        let mut builder = options.builder()?;
        let server = options.rendezvous.as_ref().map(ToString::to_string).unwrap_or_default();
        if receiving == Receiving::No {
            builder = builder
                .send_only()
                // It ends before a port that is mapped for it, or guessed, is of use.
                .no_port_mapping()
                .no_port_guessing()
                .delivery_timeout(Some(options.linger().max(options.connect_timeout())));
        }
        match builder.start().await {
            Ok(peer) => {
                let events = peer.events();
                let tasks = JoinSet::new();
                let options = options.clone();
                let own = Own { peer, server, options, events, tasks };
                Ok(Ok(Self::Own(Box::new(own))))
            }
            Err(StartError::Folder(taken @ FolderError::Locked { .. })) => Ok(Err(taken)),
            Err(error) => Err(error.into()),
        }
    }

    /// The running process on the same state folder, if there is one.
    pub(super) async fn other(options: &Options) -> Result<Option<Self>, Failure> {
        let Some(folder) = options.folder()? else { return Ok(None) };
        let Ok(mut client) = Client::connect(&folder).await else { return Ok(None) };
        let served = is_served(&mut client).await;
        Ok(served.then_some(Self::Other(Other { client, asked: PROBE, answered: PROBE })))
    }

    /// The state folder for this process, as soon as one that ends has given it back.
    pub(super) async fn folder(path: &Path) -> Result<Folder, Failure> {
        let deadline = Instant::now() + TAKEOVER_PATIENCE;
        loop {
            match Folder::open(path) {
                Err(FolderError::Locked { .. }) if Instant::now() < deadline => {
                    sleep(TAKEOVER_PAUSE).await;
                }
                opened => return Ok(opened?),
            }
        }
    }

    /// From now on tell everything that happens there, too.
    pub(super) async fn attach(&mut self) -> Result<(), Failure> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Other(other) => other.client.attach().await.map_err(gone),
        }
    }

    /// Begins a request; its outcome comes from [`Self::next`].
    pub(super) async fn ask(&mut self, request: Request) -> Result<(), Failure> {
        match self {
            Self::Own(own) => {
                let work = own.peer.begin(request).await;
                own.tasks.spawn(work.finish());
                Ok(())
            }
            Self::Other(other) => {
                other.asked += 1;
                other.client.ask(other.asked, request).await.map_err(gone)
            }
        }
    }

    /// What happens next. Safe to cancel.
    pub(super) async fn next(&mut self) -> Update {
        match self {
            Self::Own(own) => own.next().await,
            Self::Other(other) => other.next().await,
        }
    }

    /// Whether requests are without an outcome yet.
    pub(super) fn is_waiting(&self) -> bool {
        match self {
            Self::Own(own) => !own.tasks.is_empty(),
            Self::Other(other) => other.asked > other.answered,
        }
    }

    /// The peer in this process, if it is.
    pub(super) fn own(&self) -> Option<&Peer> {
        match self {
            Self::Own(own) => Some(&own.peer),
            Self::Other(_) => None,
        }
    }

    /// Says good bye where the peer is one's own; what to tell of it.
    pub(super) async fn close(self) -> Vec<Report> {
        match self {
            Self::Own(own) => {
                let Own { peer, server, .. } = *own;
                let last = peer.close().await;
                let mut reports: Vec<Report> = last.iter().map(Report::of_message).collect();
                reports.push(Report::Bye { server, reason: String::new() });
                reports
            }
            Self::Other(_) => Vec::new(),
        }
    }
}

impl Own {
    async fn next(&mut self) -> Update {
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Ok(event) => if let Some(report) = self.report(event) {
                        return Update::Report(report);
                    },
                    Err(RecvError::Lagged(count)) => return Update::Report(Report::Missed { count }),
                    Err(RecvError::Closed) => return Update::Ended,
                },
                Some(outcome) = self.tasks.join_next() => return Update::Outcome(outcome.unwrap_or_else(|error| {
                    // Tasks are neither aborted nor do they panic.
                    let text = error.to_string();
                    let report = Report::Error { code: LOCAL_FAILURE, text, to: None, handle: None, fatal: false };
                    Outcome { reports: vec![report], code: exit::FAILED }
                })),
                Some(message) = self.peer.recv() => return Update::Report(Report::of_message(&message)),
            }
        }
    }
}

impl Own {
    fn report(&self, event: Event) -> Option<Report> {
        let remedy =
            |who: &str| format!("/trust {who} in a chat, or: {}", self.options.trust_command(who));
        if let Event::ServerKeyChanged { expected, found } = &event {
            let remedy = remedy(&self.server);
            return Some(Report::server_key_changed(&self.server, expected, found, &remedy));
        }
        if let Event::PeerKeyChanged { name, expected, found } = &event {
            let remedy = remedy(name.as_str());
            return Some(Report::peer_key_changed(name, expected, found, &remedy));
        }
        Report::of_event(event, &self.server)
    }
}

impl Other {
    async fn next(&mut self) -> Update {
        loop {
            match self.client.next().await {
                Ok(Some(
                    Answer::Report { id: Some(PROBE), .. } | Answer::Done { id: PROBE, .. },
                )) => {}
                Ok(Some(Answer::Report { report, .. })) => return Update::Report(*report),
                Ok(Some(Answer::Done { code, .. })) => {
                    self.answered += 1;
                    return Update::Outcome(Outcome { reports: Vec::new(), code });
                }
                Ok(None) | Err(_) => return Update::Ended,
            }
        }
    }
}

/// Whether somebody is behind the socket: that of a process that ends just now still accepts.
async fn is_served(client: &mut Client) -> bool {
    if client.ask(PROBE, Request::Whoami).await.is_err() {
        return false;
    }
    // Silence is no end: it may be busy, or stopped for a while.
    let answer = timeout(PROBE_PATIENCE, client.next()).await;
    answer.map_or(true, |answer| matches!(answer, Ok(Some(_))))
}

fn gone(error: io::Error) -> Failure {
    Failure::failed(format!("the peer that runs under this name does not answer: {error}"))
}
