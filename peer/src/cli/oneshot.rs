//! One command, then the end.

use p2sp_proto::control::code;
use tokio::time::{Instant, timeout_at};

use super::backend::{Backend, Receiving, Update};
use super::output::render;
use super::terminal::print_plain;
use super::{Failure, Options};
use crate::report::{Report, Request, exit, server_key_changed};
use crate::{PeerName, Registration, Rendezvous, Unregistered};

/// Carries out one request and returns the exit code.
pub(super) async fn run(options: &Options, request: Request) -> Result<u8, Failure> {
    tokio::select! {
        code = run_to_end(options, request) => code,
        interrupted = super::chat::signalled() => Ok(interrupted?.exit_code_of_command()),
    }
}

async fn run_to_end(options: &Options, request: Request) -> Result<u8, Failure> {
    let mut backend = match (Backend::other(options).await?, &request) {
        (Some(running), _) => running,
        (None, Request::Trust { who }) => return forget_key(options, who).await,
        (None, _) => Backend::open(options, Receiving::No).await?,
    };
    let patience = Instant::now() + options.connect_timeout();
    let code = match wait_ready(&mut backend, options, &request, patience).await? {
        Ready::Yes => {
            let deadline = Instant::now() + options.linger();
            let code = carry_out(&mut backend, options, request, deadline).await?;
            code.unwrap_or_else(|| {
                complain(options, format!("not done within {} s", options.linger().as_secs()));
                exit::UNDELIVERED
            })
        }
        Ready::OnLan => {
            let code = carry_out(&mut backend, options, request, patience).await?;
            code.unwrap_or_else(|| unreachable(options))
        }
        Ready::No => unreachable(options),
    };
    backend.close().await;
    Ok(code)
}

enum Ready {
    Yes,
    /// The server is silent; the recipient of a message may be on the LAN.
    OnLan,
    No,
}

async fn wait_ready(
    backend: &mut Backend,
    options: &Options,
    request: &Request,
    deadline: Instant,
) -> Result<Ready, Failure> {
    let Some(link) = backend.own().map(|peer| peer.link().clone()) else { return Ok(Ready::Yes) };
    tokio::select! {
        biased;
        registered = timeout_at(deadline, link.registered()) => match registered {
            Ok(registered) => judge(registered, options).map(|()| Ready::Yes),
            Err(_) => Ok(Ready::No),
        },
        () = silence(backend), if matches!(request, Request::Send { .. }) => Ok(Ready::OnLan),
    }
}

/// Waits until the server is known to be silent.
async fn silence(backend: &mut Backend) {
    while !matches!(backend.next().await, Update::Report(Report::Silent { .. }) | Update::Ended) {}
}

fn judge(registered: Result<Registration, Unregistered>, options: &Options) -> Result<(), Failure> {
    match registered {
        Ok(_) => Ok(()),
        Err(Unregistered::Refused(problem)) => {
            Err(Failure { code: exit::REFUSED, number: problem.code, text: problem.text })
        }
        Err(Unregistered::KeyChanged { expected, found }) => {
            let server = server(options);
            let remedy = options.trust_command(&server);
            let text = server_key_changed(&server, &expected, &found, &remedy);
            Err(Failure { code: exit::REFUSED, number: code::CONFLICT, text })
        }
        Err(error @ Unregistered::Closed) => Err(Failure::failed(error.to_string())),
    }
}

/// `None`: there was no outcome in time.
async fn carry_out(
    backend: &mut Backend,
    options: &Options,
    request: Request,
    deadline: Instant,
) -> Result<Option<u8>, Failure> {
    backend.ask(request).await?;
    loop {
        match timeout_at(deadline, backend.next()).await {
            Ok(Update::Report(report)) => {
                // Of what happens meanwhile, only a command's own answers concern its caller.
                if backend.own().is_none() {
                    print(options, &report)?;
                }
            }
            Ok(Update::Outcome(outcome)) => {
                for report in &outcome.reports {
                    print(options, report)?;
                }
                return Ok(Some(outcome.code));
            }
            Ok(Update::Ended) => return Err(Failure::failed("the peer ended before it answered")),
            Err(_) => return Ok(None),
        }
    }
}

/// With nothing running, trusting a new key is forgetting the old one: the next contact decides.
async fn forget_key(options: &Options, who: &str) -> Result<u8, Failure> {
    let Some(path) = options.folder()? else {
        return Err(Failure::usage("with --ephemeral no key is remembered"));
    };
    let folder = Backend::folder(&path).await?;
    let mut memory = folder.memory()?;
    let known = if who.contains(':') {
        let server: Rendezvous =
            who.parse().map_err(|error| Failure::usage(format!("{who}: {error}")))?;
        memory.forget_server(&server.to_string())
    } else {
        let name = PeerName::new(who).map_err(|error| Failure::usage(format!("{who}: {error}")))?;
        memory.forget_peer(&name)
    };
    if !known {
        return Err(Failure {
            code: exit::UNDELIVERED,
            number: code::NOT_FOUND,
            text: format!("no key of {who} is remembered"),
        });
    }
    folder.remember(&memory)?;
    print(options, &Report::Trusted { who: who.to_owned() })?;
    Ok(exit::DONE)
}

fn print(options: &Options, report: &Report) -> Result<(), Failure> {
    match print_plain(&render(report, options.format())) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(|error| Failure::failed(format!("cannot print: {error}"))),
    }
}

fn unreachable(options: &Options) -> u8 {
    complain(options, format!("no answer from {}", server(options)));
    exit::UNREACHABLE
}

fn complain(options: &Options, text: String) {
    let report = Report::Error { code: code::TIMEOUT, text, to: None, handle: None, fatal: false };
    // The exit code says it as well.
    drop(print_plain(&render(&report, options.format())));
}

fn server(options: &Options) -> String {
    options.rendezvous.as_ref().map(ToString::to_string).unwrap_or_default()
}
