//! A folder, a server and peers for one test; everything ends with it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lines::{Lines, PATIENCE};
use crate::programs::program;

/// Between two looks for somebody.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// One test's world.
pub(crate) struct Stage {
    pub(crate) home: tempfile::TempDir,
    pub(crate) server: Running,
    pub(crate) address: SocketAddr,
    pub(crate) alt: Option<SocketAddr>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with_server(&["--listen", "127.0.0.1:0"])
    }

    pub(crate) fn with_server(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (server, ready) = start_server(&home.path().join("server"), arguments);
        let address = addresses(&ready, "listen")[0];
        let alt = addresses(&ready, "alt").first().copied();
        Self { home, server, address, alt }
    }

    /// Starts the server anew at the same address, with the same key.
    pub(crate) fn restart_server(&mut self) {
        self.restart_server_with(&[]);
    }

    /// The same with more options.
    pub(crate) fn restart_server_with(&mut self, more: &[&str]) {
        let address = self.address.to_string();
        let arguments = [&["--listen", &address], more].concat();
        self.server = start_server(&self.home.path().join("server"), &arguments).0;
    }

    /// `peer` as `name`, with its state in the home folder of this stage.
    pub(crate) fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = peer(self.home.path());
        command.args(["--rendezvous", &self.address.to_string(), "--name", name]).args(arguments);
        command
    }

    /// A chat that speaks JSON, registered.
    pub(crate) fn chat(&self, name: &str) -> Running {
        self.chat_with(name, &[])
    }

    pub(crate) fn chat_with(&self, name: &str, arguments: &[&str]) -> Running {
        let chat = Running::start(self.command(name, arguments).arg("--json"));
        chat.event("registered", |_| true);
        chat
    }

    /// Runs a command to its end: exit code, standard output, standard error.
    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> (i32, String, String) {
        finish(&mut self.command(name, arguments))
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.home.path().join(".local/share/p2sp").join(name)
    }
}

/// `peer` with nothing from the surrounding environment.
pub(crate) fn peer(home: &Path) -> Command {
    clean(Command::new(program("peer")), home)
}

/// `rendezvous` with nothing from the surrounding environment.
pub(crate) fn rendezvous(data: &Path) -> Command {
    let mut command = clean(Command::new(program("rendezvous")), data);
    command.arg("--data-dir").arg(data);
    command
}

fn clean(mut command: Command, home: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", home).env("TERM", "xterm");
    command
}

fn start_server(data: &Path, arguments: &[&str]) -> (Running, Value) {
    let mut command = rendezvous(data);
    command.args(["--log-format", "json"]).args(arguments);
    let server = Running::start(&mut command);
    let ready = server.err.find("ready", |line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        entry["message"].as_str()?.starts_with("ready").then_some(entry)
    });
    (server, ready)
}

/// The addresses of a field of the server's ready line.
pub(crate) fn addresses(ready: &Value, field: &str) -> Vec<SocketAddr> {
    let text = ready[field].as_str().unwrap();
    let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap();
    list.split(", ").filter(|one| !one.is_empty()).map(|one| one.parse().unwrap()).collect()
}

/// Runs a program without input to its end.
pub(crate) fn finish(command: &mut Command) -> (i32, String, String) {
    let mut running = Running::start(command);
    running.close();
    let code = running.code();
    (code, running.out.to_end().join("\n"), running.err.to_end().join("\n"))
}

/// A program that runs, ended by the end of the test at the latest.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let out = Lines::of(child.stdout.take().unwrap());
        let err = Lines::of(child.stderr.take().unwrap());
        Self { child, stdin, out, err }
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Ends its input.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for an event with these fields, and takes it out.
    pub(crate) fn event(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.event_within(PATIENCE, kind, fits)
    }

    pub(crate) fn event_within(
        &self,
        patience: Duration,
        kind: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        self.out.find_within(patience, kind, |line| {
            let event: Value = serde_json::from_str(line).unwrap();
            (event["event"] == kind && fits(&event)).then_some(event)
        })
    }

    /// The text of the next message.
    pub(crate) fn message(&self) -> String {
        self.event("message", |_| true)["text"].as_str().unwrap().to_owned()
    }

    /// Waits for `name` to be there. Who was there at the first look never joins.
    pub(crate) fn sees(&mut self, name: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.say("/userlist");
            let list = self.event("list", |_| true);
            if list["members"].as_array().unwrap().iter().any(|member| member["name"] == name) {
                return;
            }
            assert!(Instant::now() < until, "{name} does not come: {:#?}", self.out.so_far());
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Sends until a message goes directly: paths are looked for while the first ones travel.
    pub(crate) fn talk_directly(&mut self, to: &str) {
        let until = Instant::now() + PATIENCE;
        for number in 0.. {
            self.say(&format!("/send {to} try {number}"));
            if self.event("delivered", |_| true)["path"]["kind"] == "direct" {
                return;
            }
            assert!(Instant::now() < until, "no direct path: {:#?}", self.out.so_far());
        }
    }

    /// Waits for the end; answers the exit code, or the number of the signal and 128.
    pub(crate) fn code(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
            }
            let (out, err) = (self.out.so_far(), self.err.so_far());
            assert!(Instant::now() < until, "does not end: {out:#?} {err:#?}");
            // There is no wait with a deadline.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
