//! People at a terminal, on both programs.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use expectrl::process::Process as _;
use expectrl::process::unix::{PtyStream, UnixProcess, WaitStatus};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;

use crate::lines::PATIENCE;
use crate::programs::program;
use crate::stage::{Running, Stage, peer, rendezvous};

/// A program at a terminal, ended by the end of the test at the latest.
struct Screen {
    process: UnixProcess,
    keyboard: PtyStream,
    shown: Arc<(Mutex<String>, Condvar)>,
    /// Where the search for the next text begins.
    read: usize,
}

impl Screen {
    fn start(command: Command) -> Self {
        let mut process = UnixProcess::spawn_command(command).unwrap();
        process.set_window_size(400, 40).unwrap();
        let keyboard = process.open_stream().unwrap();
        let mut screen = process.open_stream().unwrap();
        let shown = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let theirs = Arc::clone(&shown);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]);
                theirs.0.lock().unwrap().push_str(&text);
                theirs.1.notify_all();
            }
        });
        Self { process, keyboard, shown, read: 0 }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.pid().as_raw()), signal).unwrap();
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits until `text` is shown after what was found before.
    fn shows(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        let mut shown = self.shown.0.lock().unwrap();
        loop {
            if let Some(at) = shown[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited too long for {text:?}: {shown:?}");
            shown = self.shown.1.wait_timeout(shown, left).unwrap().0;
        }
    }

    /// How the terminal treats what is typed and shown.
    fn settings(&self) -> Termios {
        tcgetattr(self.process.get_raw_handle().unwrap()).unwrap()
    }

    /// Types a line and waits for the answer.
    fn obeys(&mut self, line: &str, answer: &str) {
        self.type_in(&format!("{line}\r"));
        self.shows(line);
        self.shows(answer);
    }

    /// Waits for the end; answers the exit code.
    fn code(&self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.process.status().unwrap();
            if let WaitStatus::Exited(_, code) = status {
                return code;
            }
            assert_eq!(status, WaitStatus::StillAlive, "{:?}", self.shown.0.lock().unwrap());
            assert!(Instant::now() < until, "does not end: {:?}", self.shown.0.lock().unwrap());
            // There is no wait with a deadline.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn start(stage: &Stage, name: &str) -> Screen {
    let mut screen = Screen::start(stage.command(name, &[]));
    screen.shows(&format!("* hello {name}"));
    screen
}

#[test]
fn it_asks_for_a_name_until_there_is_one() {
    let stage = Stage::new();
    let mut command = peer(stage.home.path());
    command.args(["--rendezvous", &stage.address.to_string()]);
    let mut screen = Screen::start(command);
    screen.shows("name: ");
    screen.type_in("\r");
    screen.shows("name: ");
    screen.type_in("zoe\r");
    screen.shows("* hello zoe");
}

/// A terminal that somebody set to treat its control characters as ordinary ones when shown: not
/// what any program would set by itself.
fn with_settings_of_its_own(stage: &Stage, arguments: &[&str]) -> Screen {
    let mut command = Command::new("sh");
    command.args(["-c", "stty -echoctl && exec \"$@\"", "sh"]).arg(program("peer"));
    command.args(["--rendezvous", &stage.address.to_string()]).args(arguments);
    command.env("HOME", stage.home.path()).env("TERM", "xterm");
    Screen::start(command)
}

fn is_as_before(screen: &Screen) -> bool {
    let flags = screen.settings().local_flags;
    flags.contains(LocalFlags::ICANON | LocalFlags::ISIG) && !flags.contains(LocalFlags::ECHOCTL)
}

#[test]
fn leaving_while_asked_for_a_name_ends_with_130_and_the_terminal_as_it_was() {
    let stage = Stage::new();
    for way in [None, Some(Signal::SIGTERM), Some(Signal::SIGINT), Some(Signal::SIGHUP)] {
        let mut screen = with_settings_of_its_own(&stage, &[]);
        screen.shows("name: ");
        assert!(!is_as_before(&screen), "{way:?}: keys come one by one");
        match way {
            None => screen.type_in("\x03"),
            Some(signal) => screen.signal(signal),
        }
        assert_eq!(screen.code(), 130, "{way:?}");
        assert!(is_as_before(&screen), "{way:?}: {:?}", screen.settings());
    }
}

#[test]
fn the_terminal_is_as_it_was_after_every_way_to_leave_a_chat() {
    let mut stage = Stage::new();
    for way in ["/exit\r", "\x03", "\x04", "int", "term", "hup", "block"] {
        let mut screen = with_settings_of_its_own(&stage, &["--name", "alice"]);
        screen.shows("alice");
        screen.shows("> ");
        match way {
            "int" => screen.signal(Signal::SIGINT),
            "term" => screen.signal(Signal::SIGTERM),
            "hup" => screen.signal(Signal::SIGHUP),
            "block" => stage.server.say("/block alice"),
            keys => screen.type_in(keys),
        }
        assert_eq!(screen.code(), if way == "block" { 4 } else { 0 }, "{way:?}");
        assert!(is_as_before(&screen), "{way:?}: {:?}", screen.settings());
    }
}

#[test]
fn a_servers_new_key_is_accepted_in_the_chat() {
    let mut stage = Stage::new();
    let mut screen = Screen::start(stage.command("alice", &["--keepalive", "1"]));
    screen.shows("* hello alice");
    stage.server.say("/quit");
    assert_eq!(stage.server.code(), 0);
    std::fs::remove_file(stage.home.path().join("server/server.key")).unwrap();
    stage.restart_server();
    let trust = format!("/trust {}", stage.address);
    screen.shows("shows another key than before");
    screen.shows(&format!("{trust} in a chat"));
    screen.obeys(&trust, "* welcome back alice");
    let bob = stage.chat("bob");
    screen.shows("* bob is here");
    screen.type_in("hello\r");
    assert_eq!(bob.message(), "hello");
}

#[test]
fn a_message_comes_above_the_line_being_typed_which_survives() {
    let stage = Stage::new();
    let mut alice = start(&stage, "alice");
    let mut bob = stage.chat("bob");
    alice.shows("* bob is here");
    alice.type_in("half of");
    alice.shows("half of");
    bob.say("an interruption");
    alice.shows("bob: an interruption");
    alice.shows("> half of");
    alice.type_in(" a sentence\r");
    assert_eq!(bob.message(), "half of a sentence");
}

#[test]
fn every_way_to_leave_is_clean_and_seen_at_once() {
    let stage = Stage::new();
    let mut bob = stage.chat("bob");
    for (name, keys) in [("c", "\x03"), ("d", "\x04"), ("exit", "/exit\r"), ("quit", "quit\r")] {
        let mut screen = start(&stage, name);
        bob.sees(name);
        screen.shows("> ");
        screen.type_in(keys);
        let left = bob.event_within(Duration::from_secs(5), "left", |event| event["name"] == name);
        assert_eq!(left["reason"], "bye", "{name}");
        screen.shows("* good bye");
        assert_eq!(screen.code(), 0, "{name}");
    }
}

#[test]
fn a_second_chat_attaches_to_the_first() {
    let stage = Stage::new();
    let mut alice = stage.chat("alice");
    let mut bob = stage.chat("bob");
    alice.sees("bob");
    let mut attached = Screen::start(stage.command("alice", &[]));
    attached.shows("> ");
    attached.type_in("/send bob hello\r");
    assert_eq!(bob.message(), "hello");
    attached.shows("* delivered to bob");
    bob.say("/send alice hi");
    attached.shows("bob (to you): hi");
    attached.type_in("/exit\r");
    assert_eq!(attached.code(), 0);
    bob.say("still there?");
    assert_eq!(alice.event("message", |event| event["to"] == "everybody")["text"], "still there?");
}

#[test]
fn the_operators_console_knows_its_commands_with_and_without_slash() {
    let home = tempfile::tempdir().unwrap();
    let mut command = rendezvous(&home.path().join("server"));
    command.args(["--listen", "127.0.0.1:0"]);
    let mut console = Screen::start(command);
    console.shows("ready: peers connect with --rendezvous ");
    console.shows("@HOST:");
    console.shows(" ");
    let address = {
        let shown = console.shown.0.lock().unwrap();
        let port = shown[..console.read].rsplit("@HOST:").next().unwrap();
        format!("127.0.0.1:{}", port.trim())
    };
    let mut command = peer(home.path());
    command.args(["--rendezvous", &address, "--name", "bob", "--json"]);
    let mut bob = Running::start(&mut command);
    bob.event("registered", |_| true);
    for (typed, shown) in [
        ("/userlist", "1 peer"),
        ("USERLIST", "1 peer"),
        ("/status", "1 peer in 1 network"),
        ("status", "1 peer in 1 network"),
        ("/help", "/broadcast TEXT"),
        ("help", "/broadcast TEXT"),
        ("/ver", "rendezvous 0."),
        ("ver", "rendezvous 0."),
        ("/broadcast tea at four", "On its way to 1 peer."),
        ("broadcast and cake", "On its way to 1 peer."),
        ("/send bob you too", "On its way to bob."),
        ("send bob now", "On its way to bob."),
        ("/nonsense", "/help"),
    ] {
        console.obeys(typed, shown);
    }
    for (text, everybody) in
        [("tea at four", true), ("and cake", true), ("you too", false), ("now", false)]
    {
        let notice = bob.event("notice", |_| true);
        assert_eq!((&notice["text"], &notice["everybody"]), (&text.into(), &everybody.into()));
    }
    console.obeys("/block bob", "bob is blocked");
    assert_eq!(bob.code(), 4);
    console.obeys("unblock bob", "no longer blocked");
    console.type_in("/quit\r");
    assert_eq!(console.code(), 0);
}
