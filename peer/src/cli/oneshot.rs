//! One command, then the end.

use p2sp_proto::control::code;
use tokio::time::{Instant, timeout_at};

use super::backend::{Backend, Receiving, Update};
use super::output::render;
use super::terminal::print_plain;
use super::{Failure, Options};
use crate::report::{Report, Request, exit, server_key_changed};
use crate::{PeerName, Rendezvous, Unregistered};

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
    let code = match wait_registered(&backend, options).await? {
        Ready::Yes => carry_out(&mut backend, options, request).await?,
        Ready::No => {
            complain(options, format!("no answer from {}", server(options)));
            exit::UNREACHABLE
        }
    };
    backend.close().await;
    Ok(code)
}

enum Ready {
    Yes,
    No,
}

async fn wait_registered(backend: &Backend, options: &Options) -> Result<Ready, Failure> {
    let Some(peer) = backend.own() else { return Ok(Ready::Yes) };
    let deadline = Instant::now() + options.connect_timeout();
    match timeout_at(deadline, peer.registered()).await {
        Err(_) => Ok(Ready::No),
        Ok(Ok(_)) => Ok(Ready::Yes),
        Ok(Err(Unregistered::Refused(problem))) => {
            Err(Failure { code: exit::REFUSED, number: problem.code, text: problem.text })
        }
        Ok(Err(Unregistered::KeyChanged { expected, found })) => {
            let server = server(options);
            let remedy = options.trust_command(&server);
            let text = server_key_changed(&server, &expected, &found, &remedy);
            Err(Failure { code: exit::REFUSED, number: code::CONFLICT, text })
        }
        Ok(Err(error @ Unregistered::Closed)) => Err(Failure::failed(error.to_string())),
    }
}

async fn carry_out(
    backend: &mut Backend,
    options: &Options,
    request: Request,
) -> Result<u8, Failure> {
    let deadline = Instant::now() + options.linger();
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
                return Ok(outcome.code);
            }
            Ok(Update::Ended) => return Err(Failure::failed("the peer ended before it answered")),
            Err(_) => {
                complain(options, format!("not done within {} s", options.linger().as_secs()));
                return Ok(exit::UNDELIVERED);
            }
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

fn complain(options: &Options, text: String) {
    let report = Report::Error { code: code::TIMEOUT, text, to: None, handle: None, fatal: false };
    // The exit code says it as well.
    drop(print_plain(&render(&report, options.format())));
}

fn server(options: &Options) -> String {
    options.rendezvous.as_ref().map(ToString::to_string).unwrap_or_default()
}
