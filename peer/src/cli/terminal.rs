//! Lines in and lines out: a line editor on a terminal, plain lines on a pipe. Reading blocks,
//! so it has a thread of its own.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use p2sp_proto::control::code;
use rustyline::completion::Completer;
use rustyline::error::{ReadlineError, Signal};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, ExternalPrinter, Helper};
use tokio::sync::{mpsc, oneshot};

use super::Failure;
use super::lines::COMMANDS;
use crate::report::exit;

/// Something typed.
#[derive(Debug)]
pub(super) enum Typed {
    Line(String),
    /// Ctrl-C at the line editor.
    Interrupt,
    End,
}

/// Where lines come from and go to.
pub(super) struct Terminal {
    typed: mpsc::Receiver<Typed>,
    /// The reader waits for this after each line, so that it does not prompt on the way out.
    resume: std_mpsc::Sender<()>,
    printer: Printer,
    names: Names,
    _before: Restored,
}

/// The terminal as it was; given back at the end.
struct Restored(Option<Termios>);

impl Restored {
    fn of_terminal() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }
}

enum Printer {
    Above(Box<dyn ExternalPrinter + Send>),
    Plain,
}

/// Names to complete.
type Names = Arc<Mutex<BTreeSet<String>>>;

impl Terminal {
    /// A line editor.
    pub(super) fn interactive() -> Result<Self, Failure> {
        let before = Restored::of_terminal();
        let names = Names::default();
        let mut editor = Editor::<Words, DefaultHistory>::new().map_err(unusable)?;
        editor.set_helper(Some(Words(Arc::clone(&names))));
        let printer = match editor.create_external_printer() {
            Ok(printer) => Printer::Above(Box::new(printer)),
            Err(_) => Printer::Plain,
        };
        let (typed_out, typed) = mpsc::channel(TYPED_MAX);
        let (resume, resumed) = std_mpsc::channel();
        thread::spawn(move || edit_lines(editor, &typed_out, &resumed));
        Ok(Self { typed, resume, printer, names, _before: before })
    }

    /// Plain lines.
    pub(super) fn pipe() -> Self {
        let (typed_out, typed) = mpsc::channel(TYPED_MAX);
        let (resume, _) = std_mpsc::channel();
        thread::spawn(move || read_lines(&typed_out));
        let (names, printer) = (Names::default(), Printer::Plain);
        Self { typed, resume, printer, names, _before: Restored(None) }
    }

    /// The next line. Safe to cancel. Call [`Self::resume`] when it is dealt with.
    pub(super) async fn next(&mut self) -> Typed {
        self.typed.recv().await.unwrap_or(Typed::End)
    }

    /// Let the next line be typed.
    pub(super) fn resume(&self) {
        // A reader on a pipe, or one that ended, does not listen.
        self.resume.send(()).ok();
    }

    /// Prints whole lines, above the one being typed.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub(super) fn print(&mut self, lines: &str) -> io::Result<()> {
        match &mut self.printer {
            Printer::Above(printer) => {
                printer.print(format!("{lines}\n")).map_err(io::Error::other)
            }
            Printer::Plain => print_plain(lines),
        }
    }

    /// A name to complete from now on.
    pub(super) fn learn(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES_MAX {
            names.insert(name.to_owned());
        }
    }

    /// A name not to complete any more.
    pub(super) fn forget(&self, name: &str) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs nothing back.
            tcsetattr(io::stdin(), SetArg::TCSADRAIN, before).ok();
        }
    }
}

/// Prints whole lines to stdout at once.
///
/// # Errors
/// When nobody reads any more.
pub(super) fn print_plain(lines: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{lines}")?;
    out.flush()
}

/// Asks for a name until there is one.
pub(super) async fn ask_name() -> Result<String, Failure> {
    let _before = Restored::of_terminal();
    let (answer, answered) = oneshot::channel();
    // Reading blocks, and a signal must not wait for it.
    thread::spawn(move || answer.send(read_name()));
    tokio::select! {
        name = answered => name.unwrap_or_else(|_| Err(interrupted())),
        signal = super::chat::signalled() => Err(signal.map_or_else(|error| error, |_| interrupted())),
    }
}

fn interrupted() -> Failure {
    let text = "interrupted before a name was given".to_owned();
    Failure { code: exit::INTERRUPTED, number: code::TIMEOUT, text }
}

fn read_name() -> Result<String, Failure> {
    let mut editor = Editor::<(), DefaultHistory>::new().map_err(unusable)?;
    // The editor takes SIGINT for itself, and looks out for it only where others may print.
    let _printer = editor.create_external_printer().map_err(unusable)?;
    loop {
        match editor.readline("name: ") {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => return Ok(line.trim().to_owned()),
            Err(ReadlineError::Interrupted | ReadlineError::Signal(Signal::Interrupt)) => {
                return Err(interrupted());
            }
            Err(ReadlineError::Eof) => return Err(Failure::usage("a name is needed: --name NAME")),
            Err(error) => return Err(unusable(error)),
        }
    }
}

/// Lines read and not yet dealt with.
const TYPED_MAX: usize = 16;
/// Names to complete; further ones are typed in full.
const NAMES_MAX: usize = 4096;
/// Longest line on a pipe: the longest message and a command before it.
const LINE_LEN_MAX: u64 = (16 << 20) + 1024;

fn unusable(error: ReadlineError) -> Failure {
    Failure::failed(format!("cannot use the terminal: {error}"))
}

fn edit_lines(
    mut editor: Editor<Words, DefaultHistory>,
    typed: &mpsc::Sender<Typed>,
    resumed: &std_mpsc::Receiver<()>,
) {
    loop {
        let (next, last) = match editor.readline("> ") {
            Ok(line) => {
                // A line too long for the history is still said.
                drop(editor.add_history_entry(line.as_str()));
                (Typed::Line(line), false)
            }
            Err(ReadlineError::Interrupted) => (Typed::Interrupt, true),
            Err(_) => (Typed::End, true),
        };
        if typed.blocking_send(next).is_err() || last || resumed.recv().is_err() {
            return;
        }
    }
}

fn read_lines(typed: &mpsc::Sender<Typed>) {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
        if typed.blocking_send(Typed::Line(text)).is_err() {
            return;
        }
    }
    // The chat that would hear this is gone otherwise.
    drop(typed.blocking_send(Typed::End));
}

/// Completes commands at the start of a line and names anywhere.
struct Words(Names);

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(complete(&line[..pos], &names))
    }
}

impl Hinter for Words {
    type Hint = String;
}
impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

/// Where the last word begins, and what it may become.
fn complete(typed: &str, names: &BTreeSet<String>) -> (usize, Vec<String>) {
    let start = typed
        .rfind(char::is_whitespace)
        .map_or(0, |at| at + typed[at..].chars().next().map_or(1, char::len_utf8));
    let word = &typed[start..];
    let known = names.iter().map(String::as_str);
    let candidates =
        if word.starts_with('/') && start == 0 { COMMANDS.to_vec() } else { known.collect() };
    let fitting = candidates.into_iter().filter(|candidate| candidate.starts_with(word));
    (start, fitting.map(|candidate| format!("{candidate} ")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_names_complete() {
        let names: BTreeSet<String> = ["alice", "bob", "bonnie", "小明"].map(String::from).into();
        let all = |typed: &str| complete(typed, &names);
        assert_eq!(all("/us"), (0, vec!["/userlist ".to_owned()]));
        assert_eq!(all("/send bo"), (6, vec!["bob ".to_owned(), "bonnie ".to_owned()]));
        assert_eq!(all("/send 小"), (6, vec!["小明 ".to_owned()]));
        assert_eq!(all("说　bob"), ("说　".len(), vec!["bob ".to_owned()]));
        assert_eq!(all("say /us"), (4, vec![]));
        assert_eq!(all("x"), (0, vec![]));
    }
}
