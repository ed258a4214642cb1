//! The operator's console: commands from a terminal, with line editing, or from a pipe, one a
//! line.

use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _, Write as _};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::termios::{self, SetArg, Termios};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::sync::{mpsc, oneshot};

use crate::logs::Screen;

/// Longest line read from a pipe, in bytes; what the machine lets through is shorter.
const LINE_LEN_MAX: u64 = 128 << 10;

/// Commands waiting; the reader waits for each answer, so more cannot come.
const REQUESTS_MAX: usize = 1;

/// What the operator can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    UserList,
    Status,
    Broadcast(String),
    Send { name: String, text: String },
    Block(String),
    Unblock(String),
    Help,
    Version,
    Quit,
}

/// All commands, for `/help`.
pub(crate) const HELP: &str = "\
/userlist          who is here
/status            uptime, peers, relayed data, drops
/broadcast TEXT    say TEXT to everybody
/send NAME TEXT    say TEXT to one peer
/block NAME        disconnect a peer and refuse its key and name from now on
/unblock NAME      lift that
/ver               version of this program
/help              this list
/quit              tell the peers and stop
The slash and the case do not matter. Ctrl-D leaves the console, Ctrl-C stops the server.";

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let line = line.trim();
        let (word, rest) = split(line.strip_prefix('/').unwrap_or(line));
        match word.to_lowercase().as_str() {
            "" => Err(CommandError::Empty),
            "userlist" => alone(Self::UserList, rest, "/userlist"),
            "status" => alone(Self::Status, rest, "/status"),
            "help" | "?" => alone(Self::Help, rest, "/help"),
            "ver" | "version" => alone(Self::Version, rest, "/ver"),
            "quit" => alone(Self::Quit, rest, "/quit"),
            "broadcast" => text(rest, "/broadcast TEXT").map(Self::Broadcast),
            "block" => name(rest, "/block NAME").map(Self::Block),
            "unblock" => name(rest, "/unblock NAME").map(Self::Unblock),
            "send" => {
                let (name, said) = split(rest);
                let text = text(said, "/send NAME TEXT")?;
                Ok(Self::Send { name: name.to_owned(), text })
            }
            _ => Err(CommandError::Unknown(word.to_owned())),
        }
    }
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("nothing was said")]
    Empty,
    #[error("there is no command {0:?}: /help lists them")]
    Unknown(String),
    #[error("write it as {0}")]
    Usage(&'static str),
}

/// The first word and what follows it.
fn split(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim_start())
}

fn alone(command: Command, rest: &str, usage: &'static str) -> Result<Command, CommandError> {
    if rest.is_empty() { Ok(command) } else { Err(CommandError::Usage(usage)) }
}

fn text(rest: &str, usage: &'static str) -> Result<String, CommandError> {
    if rest.is_empty() { Err(CommandError::Usage(usage)) } else { Ok(rest.to_owned()) }
}

fn name(rest: &str, usage: &'static str) -> Result<String, CommandError> {
    match split(rest) {
        ("", _) => Err(CommandError::Usage(usage)),
        (name, "") => Ok(name.to_owned()),
        _ => Err(CommandError::Usage(usage)),
    }
}

/// A command on its way to the packet loop.
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What the console shows, and whether it goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Said(String),
    Stopping,
}

/// A started console.
pub(crate) struct Console {
    screen: Screen,
    /// How the terminal was before the line editor changed it.
    terminal: Option<Termios>,
    /// Whether the line editor has changed it just now.
    editing: Arc<AtomicBool>,
}

impl Console {
    /// Reads standard input on a thread of its own: with line editing where it and standard
    /// output are a terminal, line by line otherwise.
    pub(crate) fn start(screen: &Screen) -> (Self, mpsc::Receiver<Request>) {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let editing = Arc::new(AtomicBool::new(false));
        let mut console =
            Self { screen: screen.clone(), terminal: None, editing: Arc::clone(&editing) };
        let terminal = io::stdin().is_terminal();
        if terminal && !is_foreground() {
            // Reading would make the shell stop this process.
            tracing::debug!("no console: the terminal belongs to another program");
        } else if terminal && io::stdout().is_terminal() {
            console.terminal = termios::tcgetattr(io::stdin()).ok();
            let screen = screen.clone();
            thread::spawn(move || edit_lines(&requests, &screen, &editing));
        } else {
            thread::spawn(move || read_pipe(&requests));
        }
        (console, queue)
    }

    /// Gives the terminal back as it was, whatever the line editor is doing.
    pub(crate) fn close(&self) {
        let Some(terminal) = &self.terminal else { return };
        self.screen.detach();
        if self.editing.load(Ordering::SeqCst) {
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, terminal);
            say("");
        }
    }
}

fn is_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()) == Ok(nix::unistd::getpgrp())
}

fn edit_lines(requests: &mpsc::Sender<Request>, screen: &Screen, editing: &AtomicBool) {
    // A terminal left in bracketed paste mode by a sudden end would disturb the shell after us.
    let config = rustyline::Config::builder().bracketed_paste(false).build();
    let mut editor = match DefaultEditor::with_config(config) {
        Ok(editor) => editor,
        Err(error) => return tracing::warn!(%error, "no console: the terminal cannot be used"),
    };
    if let Ok(printer) = editor.create_external_printer() {
        screen.attach(printer);
    }
    loop {
        editing.store(true, Ordering::SeqCst);
        let line = editor.readline("> ");
        editing.store(false, Ordering::SeqCst);
        match line {
            Ok(line) => {
                // A history that is full or disabled is no reason to stop.
                let _ = editor.add_history_entry(line.trim());
                if obey(&line, requests) == Next::Leave {
                    return;
                }
            }
            Err(ReadlineError::Interrupted) => {
                obey("quit", requests);
                return;
            }
            Err(_) => break,
        }
    }
    screen.detach();
    say("The console is closed, the server goes on. Ctrl-C stops it.");
}

fn read_pipe(requests: &mpsc::Sender<Request>) {
    let mut input = BufReader::new(io::stdin());
    while let Ok(Some(line)) = read_line(&mut input) {
        if obey(&line, requests) == Next::Leave {
            return;
        }
    }
    tracing::debug!("standard input has ended: no further commands, the server goes on");
}

/// The next line without its end; a longer one than allowed comes in pieces. `None` at the end.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let count = input.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut bytes)?;
    Ok((count > 0).then(|| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

/// Whether more lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Leave,
}

/// Carries one line to the packet loop and shows what came of it.
fn obey(line: &str, requests: &mpsc::Sender<Request>) -> Next {
    let command = match line.parse() {
        Ok(command) => command,
        Err(CommandError::Empty) => return Next::Go,
        Err(error @ (CommandError::Unknown(_) | CommandError::Usage(_))) => {
            say(&error.to_string());
            return Next::Go;
        }
    };
    let (answer, answered) = oneshot::channel();
    if requests.blocking_send(Request { command, answer }).is_err() {
        return Next::Leave;
    }
    match answered.blocking_recv() {
        Ok(Answer::Said(text)) => {
            say(&text);
            Next::Go
        }
        Ok(Answer::Stopping) | Err(_) => Next::Leave,
    }
}

/// Prints to standard output; if that is closed, nobody is there to miss it.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_take_a_slash_or_none_in_any_case() {
        for (line, command) in [
            ("/userlist", Command::UserList),
            ("USERLIST", Command::UserList),
            ("  /Status  ", Command::Status),
            ("help", Command::Help),
            ("/VER", Command::Version),
            ("Quit", Command::Quit),
            ("/block Bob", Command::Block("Bob".into())),
            ("unblock home/小明", Command::Unblock("home/小明".into())),
        ] {
            assert_eq!(line.parse(), Ok(command), "{line:?}");
        }
    }

    #[test]
    fn texts_keep_their_words_and_scripts() {
        let said = "/Broadcast  大家好,  see you at 5 / 6".parse();
        assert_eq!(said, Ok(Command::Broadcast("大家好,  see you at 5 / 6".into())));
        let said = "send 小明 /quit is a word".parse();
        let expected = Command::Send { name: "小明".into(), text: "/quit is a word".into() };
        assert_eq!(said, Ok(expected));
    }

    #[test]
    fn what_is_no_command_brings_a_hint() {
        let problem = |line: &str| line.parse::<Command>().unwrap_err();
        assert_eq!(problem(""), CommandError::Empty);
        assert_eq!(problem(" / "), CommandError::Empty);
        assert_eq!(problem("/userlists"), CommandError::Unknown("userlists".into()));
        for (line, usage) in [
            ("/broadcast", "/broadcast TEXT"),
            ("/send", "/send NAME TEXT"),
            ("/send bob", "/send NAME TEXT"),
            ("/block", "/block NAME"),
            ("/block a b", "/block NAME"),
            ("/quit now", "/quit"),
        ] {
            assert_eq!(problem(line), CommandError::Usage(usage), "{line:?}");
        }
    }

    #[test]
    fn a_pipe_gives_lines_and_its_end() {
        let mut input = io::Cursor::new("status\r\n\n说 x");
        let mut next = || read_line(&mut input).unwrap();
        assert_eq!(next().as_deref(), Some("status"));
        assert_eq!(next().as_deref(), Some(""));
        assert_eq!(next().as_deref(), Some("说 x"));
        assert_eq!(next(), None);
    }

    #[test]
    fn an_endless_line_comes_in_pieces() {
        let mut input = BufReader::new(io::repeat(b'x'));
        let piece = read_line(&mut input).unwrap().unwrap();
        assert_eq!(piece.len() as u64, LINE_LEN_MAX);
    }
}
