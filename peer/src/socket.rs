//! The Unix socket of a state folder: how a second process works through the first.
//!
//! JSON, one object a line. The client sends `{"id": N, "request": REQUEST}`, with a
//! [`Request`]; it is answered with any number of `{"id": N, "report": REPORT}` and then
//! `{"id": N, "code": EXIT}`. `{"attach": true}` asks for everything that happens from then on,
//! as `{"report": REPORT}` without an id. The folder is its owner's alone, so is the socket.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

use crate::handle::Link;
use crate::report::{Outcome, Report, Request, begin};

/// What a client says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Question {
    Ask { id: u64, request: Request },
    Attach { attach: bool },
}

/// What it hears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// Something happened, or (with the id of a request) came of a request.
    Report {
        /// Of the request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        /// What to tell.
        report: Box<Report>,
    },
    /// The request is over.
    Done {
        /// Of the request.
        id: u64,
        /// One of [`crate::report::exit`].
        code: u8,
    },
}

/// The listening side, in the process that holds the folder.
pub(crate) struct Service {
    listener: UnixListener,
    path: PathBuf,
}

impl Service {
    /// Only the holder of the folder's lock may call this: what lies at `path` is taken for a
    /// leftover and removed.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until dropped.
    pub(crate) async fn run(self, link: Link) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if clients.len() < CLIENTS_MAX => match accepted {
                    Ok((stream, _)) => drop(clients.spawn(serve(stream, link.clone()))),
                    Err(error) => debug!(%error, "accept on the control socket"),
                },
                Some(_) = clients.join_next() => {}
                () = link.closed() => return,
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Left behind, it is removed by the next holder of the folder.
        drop(std::fs::remove_file(&self.path));
    }
}

/// The asking side.
pub struct Client {
    lines: tokio::io::Lines<BufReader<tokio::net::unix::OwnedReadHalf>>,
    to: OwnedWriteHalf,
}

impl Client {
    /// Connects to the process that works in the folder.
    ///
    /// # Errors
    /// What the system says; `NotFound` and `ConnectionRefused`: there is none.
    pub async fn connect(folder: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(crate::state::socket_path(folder)).await?;
        let (from, to) = stream.into_split();
        Ok(Self { lines: BufReader::new(from).lines(), to })
    }

    /// Asks; what comes of it is read with [`Self::next`].
    ///
    /// # Errors
    /// When the other process is gone.
    pub async fn ask(&mut self, id: u64, request: Request) -> io::Result<()> {
        write_line(&mut self.to, &Question::Ask { id, request }).await
    }

    /// Asks for everything that happens.
    ///
    /// # Errors
    /// When the other process is gone.
    pub async fn attach(&mut self) -> io::Result<()> {
        write_line(&mut self.to, &Question::Attach { attach: true }).await
    }

    /// The next answer; `None` when the other process ended. Safe to cancel.
    ///
    /// # Errors
    /// When the connection broke, or the other side speaks something else.
    pub async fn next(&mut self) -> io::Result<Option<Answer>> {
        let Some(line) = self.lines.next_line().await? else { return Ok(None) };
        Ok(Some(serde_json::from_str(&line)?))
    }
}

/// Processes that may work through one other at a time; more wait to be accepted.
const CLIENTS_MAX: usize = 64;
/// Longest line of a client: a message of 16 MiB, its text escaped.
const LINE_LEN_MAX: u64 = 100 << 20;
/// Requests of one client that may wait for their receipts; more wait to be read.
const REQUESTS_MAX: usize = 256;
/// Answers on their way to one client; whoever does not read them waits.
const ANSWERS_MAX: usize = 256;

async fn serve(stream: UnixStream, link: Link) {
    let (from, mut to) = stream.into_split();
    let (answers, mut queue) = mpsc::channel(ANSWERS_MAX);
    let writer = async {
        while let Some(answer) = queue.recv().await {
            write_line(&mut to, &answer).await?;
        }
        Ok::<(), io::Error>(())
    };
    let outcome = tokio::select! {
        read = read_questions(from, link, answers) => read,
        written = writer => written,
    };
    if let Err(error) = outcome {
        debug!(%error, "client of the control socket");
    }
}

async fn read_questions(
    from: impl AsyncRead + Unpin,
    link: Link,
    answers: mpsc::Sender<Answer>,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut tasks = JoinSet::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut from).take(LINE_LEN_MAX).read_until(b'\n', &mut line).await?;
        if read == 0 {
            break;
        }
        match serde_json::from_slice(&line)? {
            Question::Attach { .. } => drop(tasks.spawn(watch(link.clone(), answers.clone()))),
            Question::Ask { id, request } => {
                let work = begin(&link, request).await;
                let answers = answers.clone();
                tasks.spawn(async move { answer(id, work.finish().await, &answers).await });
            }
        }
        while tasks.len() >= REQUESTS_MAX {
            tasks.join_next().await;
        }
    }
    Ok(())
}

async fn answer(id: u64, outcome: Outcome, answers: &mpsc::Sender<Answer>) {
    for report in outcome.reports {
        // A client that went away needs no answer.
        drop(answers.send(Answer::Report { id: Some(id), report: Box::new(report) }).await);
    }
    drop(answers.send(Answer::Done { id, code: outcome.code }).await);
}

/// Forwards everything that happens until the client or the peer is gone.
async fn watch(link: Link, answers: mpsc::Sender<Answer>) {
    let (mut events, mut messages) = (link.events(), link.taps());
    loop {
        let report = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => Report::of_event(event, link.server()),
                Err(RecvError::Lagged(count)) => Some(Report::Missed { count }),
                Err(RecvError::Closed) => return,
            },
            message = messages.recv() => match message {
                Ok(message) => Some(Report::of_message(&message)),
                Err(RecvError::Lagged(count)) => Some(Report::Missed { count }),
                Err(RecvError::Closed) => return,
            },
        };
        if let Some(report) = report
            && answers.send(Answer::Report { id: None, report: Box::new(report) }).await.is_err()
        {
            return;
        }
    }
}

async fn write_line(to: &mut OwnedWriteHalf, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    to.write_all(&text).await
}
