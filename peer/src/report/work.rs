//! Carrying out what is asked, and telling what came of it.

use p2sp_proto::control::{Member, Problem, code};
use p2sp_proto::id::PeerName;
use p2sp_proto::node::{Command, Scope, Whoami};

use super::{Checked, ListScope, Listed, Report, Request, exit};
use crate::handle::{
    IntoRecipient, Link, Listing, Peer, Receipt, SendError, Sending, SendingAll, Spread,
};

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What to tell whoever asked.
    pub reports: Vec<Report>,
    /// One of [`exit`].
    pub code: u8,
}

impl Outcome {
    fn done(reports: Vec<Report>) -> Self {
        Self { reports, code: exit::DONE }
    }

    fn failed(error: &SendError, to: Option<String>, handle: Option<u64>) -> Self {
        let problem = problem(error);
        let exit = exit_code(error);
        let report =
            Report::Error { code: problem.code, text: problem.text, to, handle, fatal: false };
        Self { reports: vec![report], code: exit }
    }
}

/// A request that was accepted and may wait for receipts.
pub struct Work(State);

enum State {
    Settled(Outcome),
    One { sending: Sending, to: String },
    All(SendingAll),
    Netcheck(Link),
}

impl Peer {
    /// Begins what a person or script asks; messages leave in the order of these calls. The
    /// outcome comes from [`Work::finish`].
    pub async fn begin(&self, request: Request) -> Work {
        begin(self.link(), request).await
    }
}

impl Work {
    /// Waits for the outcome. Dropping this future gives up the waiting, not the request.
    pub async fn finish(self) -> Outcome {
        match self.0 {
            State::Settled(outcome) => outcome,
            State::One { sending, to } => {
                let handle = sending.handle().0;
                match sending.await {
                    Ok(receipt) => Outcome::done(vec![delivered(receipt, handle)]),
                    Err(error) => Outcome::failed(&error, Some(to), Some(handle)),
                }
            }
            State::Netcheck(link) => match link.netcheck().await {
                Ok(check) => {
                    let code = if check.registered { exit::DONE } else { exit::UNREACHABLE };
                    Outcome {
                        reports: vec![Report::Netcheck(Box::new(Checked::new(
                            check,
                            link.buffers(),
                        )))],
                        code,
                    }
                }
                Err(error) => Outcome::failed(&error, None, None),
            },
            State::All(sending) => {
                let handle = sending.handle().0;
                match sending.await {
                    Ok(spread) => spread_outcome(spread, handle),
                    Err(error) => Outcome::failed(&error, None, Some(handle)),
                }
            }
        }
    }
}

pub(crate) async fn begin(link: &Link, request: Request) -> Work {
    let (done, to) = match request {
        Request::Send { to, text } => return send(link, to, text).await,
        Request::Broadcast { text } => return broadcast(link, text).await,
        Request::Netcheck => return Work(State::Netcheck(link.clone())),
        Request::Register { name } => (register(link, &name).await, Some(name)),
        Request::Userlist => (link.list().await.map(|listing| vec![list(listing)]), None),
        Request::Whoami => (link.whoami().await.map(|whoami| vec![whoami_report(whoami)]), None),
        Request::Why { name } => (why(link, &name).await, Some(name)),
        Request::Trust { who } => (trust(link, &who).await, Some(who)),
        Request::Notice { text } => {
            (link.command(Command::Notice { text }).await.map(|()| vec![]), None)
        }
    };
    Work(State::Settled(match done {
        Ok(reports) => Outcome::done(reports),
        Err(error) => Outcome::failed(&error, to, None),
    }))
}

async fn send(link: &Link, to: String, text: String) -> Work {
    let submitted = match to.as_str().into_recipient() {
        Ok(recipient) => link.submit(recipient, text.into()).await,
        Err(error) => Err(error.into()),
    };
    Work(match submitted {
        Ok(sending) => State::One { sending, to },
        Err(error) => State::Settled(Outcome::failed(&error, Some(to), None)),
    })
}

async fn broadcast(link: &Link, text: String) -> Work {
    // An empty line is for nobody.
    if text.is_empty() {
        return Work(State::Settled(Outcome::done(Vec::new())));
    }
    Work(match link.submit_all(text.into()).await {
        Ok(sending) => State::All(sending),
        Err(error) => State::Settled(Outcome::failed(&error, None, None)),
    })
}

async fn register(link: &Link, name: &str) -> Result<Vec<Report>, SendError> {
    link.command(Command::Register { name: PeerName::new(name)? }).await?;
    // `registered` or `error` follows as an event.
    Ok(Vec::new())
}

async fn why(link: &Link, name: &str) -> Result<Vec<Report>, SendError> {
    let unknown = || Problem {
        code: code::NOT_FOUND,
        text: format!("nothing was said to or heard from {name} yet"),
    };
    let why = link.why(PeerName::new(name)?).await?;
    why.map(|why| vec![Report::Why(Box::new(why.into()))])
        .ok_or_else(|| SendError::Failed(unknown()))
}

async fn trust(link: &Link, who: &str) -> Result<Vec<Report>, SendError> {
    let command = if who.contains(':') {
        trust_server(link, who)?
    } else {
        Command::TrustPeer { name: PeerName::new(who)? }
    };
    link.command(command).await?;
    Ok(vec![Report::Trusted { who: who.to_owned() }])
}

fn trust_server(link: &Link, who: &str) -> Result<Command, SendError> {
    let meant = who.parse().map(|server: crate::Rendezvous| server.to_string());
    if meant.as_deref() == Ok(link.server()) {
        return Ok(Command::TrustServer);
    }
    let text = format!("this peer's server is {}, not {who}", link.server());
    Err(SendError::Failed(Problem { code: code::BAD_REQUEST, text }))
}

fn delivered(receipt: Receipt, handle: u64) -> Report {
    Report::Delivered { to: receipt.to, path: receipt.path.into(), handle: Some(handle) }
}

fn spread_outcome(spread: Spread, handle: u64) -> Outcome {
    let counts = Report::Spread { delivered: spread.delivered.len(), failed: spread.failed.len() };
    let code = if spread.failed.is_empty() { exit::DONE } else { exit::UNDELIVERED };
    let failure = |(to, problem): (Option<PeerName>, Problem)| Report::Error {
        code: problem.code,
        text: problem.text,
        to: to.map(String::from),
        handle: Some(handle),
        fatal: false,
    };
    let mut reports: Vec<_> = spread.failed.into_iter().map(failure).collect();
    reports.push(counts);
    Outcome { reports, code }
}

fn list(listing: Listing) -> Report {
    let listed =
        |m: Member| Listed { name: m.name, key: m.key, address: m.observed, since: m.since };
    let scope = match listing.scope {
        Scope::Network => ListScope::Network,
        Scope::Lan => ListScope::Lan,
    };
    Report::List { members: listing.members.into_iter().map(listed).collect(), scope }
}

fn whoami_report(whoami: Whoami) -> Report {
    let Whoami { name, key, observed, mapped, network, server, server_key, registered } = whoami;
    let mapped = mapped.into_iter().map(|mapped| mapped.external).collect();
    Report::Whoami { name, key, address: observed, mapped, network, server, server_key, registered }
}

fn problem(error: &SendError) -> Problem {
    let number = match error {
        SendError::Failed(problem) => return problem.clone(),
        SendError::Name(_) => code::BAD_REQUEST,
        SendError::TooLong => code::TOO_LARGE,
        SendError::Full => code::TOO_MANY,
        SendError::Closed => code::GOING_AWAY,
    };
    Problem { code: number, text: error.to_string() }
}

fn exit_code(error: &SendError) -> u8 {
    match error {
        SendError::Name(_) | SendError::TooLong => exit::USAGE,
        SendError::Full | SendError::Closed => exit::FAILED,
        SendError::Failed(problem) => match problem.code {
            code::BAD_REQUEST | code::TOO_LARGE => exit::USAGE,
            code::UNAUTHORIZED | code::FORBIDDEN | code::CONFLICT => exit::REFUSED,
            code::NOT_FOUND | code::TIMEOUT => exit::UNDELIVERED,
            _ => exit::FAILED,
        },
    }
}
