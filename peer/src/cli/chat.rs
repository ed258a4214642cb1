//! The chat: what is typed goes out, what happens is printed.

use std::io::{self, IsTerminal as _};
use std::pin::pin;

use p2sp_proto::control::code;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::backend::{Backend, Receiving, Update};
use super::lines::{self, Line};
use super::output::{Format, render};
use super::terminal::{Terminal, Typed};
use super::{Failure, Options};
use crate::report::{LOCAL_FAILURE, Outcome, Report, Request, exit};

/// Chats until the person leaves; returns the exit code.
pub(super) async fn run(options: &Options) -> Result<u8, Failure> {
    let backend = Backend::open(options, Receiving::Yes).await?;
    let mode = Mode::of_process(options);
    let terminal = match mode {
        Mode::Interactive => Terminal::interactive()?,
        Mode::Pipe => Terminal::pipe(),
    };
    Chat::new(backend, terminal, mode, options).run().await
}

/// Who sits at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Interactive,
    Pipe,
}

impl Mode {
    fn of_process(options: &Options) -> Self {
        if io::stdin().is_terminal() && io::stdout().is_terminal() && !options.json {
            Self::Interactive
        } else {
            Self::Pipe
        }
    }
}

/// How far the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// On a pipe: not read before the registration, or this moment.
    Held(Instant),
    Open,
    /// It ended; receipts are waited for until this moment.
    Ended(Instant),
}

struct Chat<'a> {
    backend: Backend,
    terminal: Terminal,
    mode: Mode,
    options: &'a Options,
    input: Input,
    was_registered: bool,
    undelivered: bool,
}

impl<'a> Chat<'a> {
    fn new(backend: Backend, terminal: Terminal, mode: Mode, options: &'a Options) -> Self {
        let held = mode == Mode::Pipe && backend.own().is_some();
        let input = if held {
            Input::Held(Instant::now() + options.connect_timeout())
        } else {
            Input::Open
        };
        let was_registered = backend.own().is_none();
        Self { backend, terminal, mode, options, input, was_registered, undelivered: false }
    }

    async fn run(mut self) -> Result<u8, Failure> {
        self.backend.attach().await?;
        let left = self.talk().await;
        for report in self.backend.close().await {
            // Nobody may be left to read it.
            drop(self.terminal.print(&render(&report, self.options.format())));
        }
        match left {
            Ok(code) => Ok(code),
            Err(failure) if failure.code == CLOSED_STDOUT => Ok(exit::DONE),
            Err(failure) => Err(failure),
        }
    }

    async fn talk(&mut self) -> Result<u8, Failure> {
        let mut signals = pin!(signalled());
        loop {
            let deadline = match self.input {
                Input::Held(until) | Input::Ended(until) => Some(until),
                Input::Open => None,
            };
            if matches!(self.input, Input::Ended(_)) && !self.backend.is_waiting() {
                return Ok(self.code_at_end());
            }
            tokio::select! {
                biased;
                signal = &mut signals => return Ok(signal?.exit_code_of_chat(self.mode)),
                update = self.backend.next() => if let Some(code) = self.on_update(update)? {
                    return Ok(code);
                },
                typed = self.terminal.next(), if self.input == Input::Open => {
                    if let Some(code) = self.on_typed(typed).await? {
                        return Ok(code);
                    }
                    self.terminal.resume();
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if matches!(self.input, Input::Ended(_)) {
                        return Ok(self.code_at_end());
                    }
                    self.input = Input::Open;
                }
            }
        }
    }

    /// `Some`: leave with this code.
    fn on_update(&mut self, update: Update) -> Result<Option<u8>, Failure> {
        match update {
            Update::Report(report) => {
                self.print(&report)?;
                Ok(self.on_report(&report))
            }
            Update::Outcome(outcome) => self.on_outcome(&outcome).map(|()| None),
            Update::Ended => Err(Failure::failed("the peer ended")),
        }
    }

    fn on_report(&mut self, report: &Report) -> Option<u8> {
        match report {
            Report::Registered { .. } => {
                self.was_registered = true;
                if matches!(self.input, Input::Held(_)) {
                    self.input = Input::Open;
                }
                None
            }
            Report::Joined { name, .. }
            | Report::Near { name, .. }
            | Report::Message { from: name, .. } => {
                self.terminal.learn(name.as_str());
                None
            }
            Report::Left { name, .. } => {
                self.terminal.forget(name.as_str());
                None
            }
            Report::Renamed { from, to } => {
                self.terminal.forget(from.as_str());
                self.terminal.learn(to.as_str());
                None
            }
            Report::Error { fatal: true, code, to, .. } => self.on_refusal(*code, to.as_deref()),
            Report::Observed { .. }
            | Report::Silent { .. }
            | Report::Delivered { .. }
            | Report::Spread { .. }
            | Report::Path { .. }
            | Report::Notice { .. }
            | Report::List { .. }
            | Report::Whoami { .. }
            | Report::Why(_)
            | Report::Netcheck(_)
            | Report::Trusted { .. }
            | Report::Missed { .. }
            | Report::Error { fatal: false, .. }
            | Report::Bye { .. } => None,
        }
    }

    /// A person can choose another name, or accept a key (`to`: whose); a script, or a peer
    /// replaced by another of the same key, cannot go on.
    fn on_refusal(&mut self, number: u16, to: Option<&str>) -> Option<u8> {
        if self.mode == Mode::Interactive && number == code::CONFLICT && to.is_some() {
            return None;
        }
        let name_refused =
            matches!(number, code::CONFLICT | code::BAD_REQUEST) && !self.was_registered;
        if self.mode == Mode::Interactive && name_refused {
            // Where nobody reads, the next line that is typed finds out.
            drop(self.terminal.print("* /reg NAME tries another name, /exit leaves"));
            return None;
        }
        Some(exit::REFUSED)
    }

    fn on_outcome(&mut self, outcome: &Outcome) -> Result<(), Failure> {
        self.undelivered |= outcome.code != exit::DONE;
        for report in &outcome.reports {
            if let Report::List { members, .. } = report {
                members.iter().for_each(|member| self.terminal.learn(member.name.as_str()));
            }
            self.print(report)?;
        }
        Ok(())
    }

    /// `Some`: leave with this code.
    async fn on_typed(&mut self, typed: Typed) -> Result<Option<u8>, Failure> {
        match typed {
            Typed::Line(line) => match lines::parse(&line) {
                Line::Nothing => {}
                Line::Ask(request) => self.ask(request).await?,
                Line::Help => self.say(lines::HELP)?,
                Line::Version => self.say(concat!("peer ", env!("CARGO_PKG_VERSION")))?,
                Line::Leave if self.mode == Mode::Interactive => return Ok(Some(exit::DONE)),
                Line::Leave => self.input = Input::Ended(Instant::now() + self.options.linger()),
                Line::Usage(usage) => self.usage(usage)?,
            },
            Typed::Interrupt => return Ok(Some(exit::DONE)),
            Typed::End if self.mode == Mode::Interactive => return Ok(Some(exit::DONE)),
            Typed::End => self.input = Input::Ended(Instant::now() + self.options.linger()),
        }
        Ok(None)
    }

    async fn ask(&mut self, request: Request) -> Result<(), Failure> {
        self.backend.ask(request).await
    }

    fn code_at_end(&self) -> u8 {
        if !self.was_registered {
            exit::UNREACHABLE
        } else if self.undelivered || self.backend.is_waiting() {
            exit::UNDELIVERED
        } else {
            exit::DONE
        }
    }

    fn usage(&mut self, usage: &str) -> Result<(), Failure> {
        let text = usage.to_owned();
        self.print(&Report::Error {
            code: code::BAD_REQUEST,
            text,
            to: None,
            handle: None,
            fatal: false,
        })
    }

    /// Words of the program itself; scripts that read JSON did not ask for them.
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        match self.options.format() {
            Format::Text => self.terminal.print(text).map_err(|_| closed_stdout()),
            Format::Json => Ok(()),
        }
    }

    fn print(&mut self, report: &Report) -> Result<(), Failure> {
        self.terminal.print(&render(report, self.options.format())).map_err(|_| closed_stdout())
    }
}

/// No exit code: the mark of an end that is to be quiet.
const CLOSED_STDOUT: u8 = u8::MAX;

fn closed_stdout() -> Failure {
    Failure { code: CLOSED_STDOUT, number: LOCAL_FAILURE, text: String::new() }
}

/// A signal that ends the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    pub(super) fn exit_code_of_command(self) -> u8 {
        exit::INTERRUPTED
    }

    fn exit_code_of_chat(self, mode: Mode) -> u8 {
        match (self, mode) {
            (Self::Interrupt, Mode::Pipe) => exit::INTERRUPTED,
            (Self::Interrupt, Mode::Interactive) | (Self::Terminate, _) => exit::DONE,
        }
    }
}

/// Waits for a signal that ends the program.
pub(super) async fn signalled() -> Result<Signal, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => Signal::Interrupt,
        _ = terminate.recv() => Signal::Terminate,
        _ = hangup.recv() => Signal::Terminate,
    })
}
