//! The one place that knows how the programs under test are started, what they read and what they print.

use crate::Failure;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// One of the two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Name it registers, and of its link in the internet.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A line that a peer printed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) at: Instant,
    pub(crate) side: Side,
    pub(crate) said: Said,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Registered,
    Joined,
    Message { text: String },
    Delivered,
    Path(Way),
    Error { text: String },
    Other,
}

/// The kind of path a peer says it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Relay,
    Unknown,
}

impl Said {
    /// Reads one line of `peer --json`.
    fn parse(line: &str) -> Self {
        let Ok(value) = serde_json::from_str::<Value>(line) else { return Self::Other };
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        match value["event"].as_str() {
            Some("registered") => Self::Registered,
            Some("joined") => Self::Joined,
            Some("message") => Self::Message { text: text("text") },
            Some("delivered") => Self::Delivered,
            Some("path") => Self::Path(Way::parse(&value["path"])),
            Some("error") => Self::Error { text: text("text") },
            Some(_) | None => Self::Other,
        }
    }
}

impl Way {
    fn parse(path: &Value) -> Self {
        match path["kind"].as_str() {
            Some("direct") => Self::Direct,
            Some("relay") => Self::Relay,
            Some(_) | None => Self::Unknown,
        }
    }
}

/// A program that is killed when nobody needs it any more.
pub(crate) struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts `rendezvous`; its output goes to a file in `dir`.
    pub(crate) fn rendezvous(
        namespace: &str,
        binary: &Path,
        listen: &[SocketAddr],
        alt_ip: Option<IpAddr>,
        dir: &Path,
    ) -> Result<Self, Failure> {
        let mut command = inside(namespace, binary);
        for address in listen {
            command.args(["--listen", &address.to_string()]);
        }
        if let Some(ip) = alt_ip {
            command.args(["--alt-ip", &ip.to_string()]);
        }
        command.args(["--console", "off", "--data-dir"]).arg(dir.join("rendezvous"));
        command.stdin(Stdio::null());
        let log = std::fs::File::create(dir.join("rendezvous.log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn()?))
    }

    /// Whether it has ended already, and how.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        Ok(self.0.try_wait()?)
    }
}

/// A running `peer`, on pipes.
pub(crate) struct Peer {
    program: Program,
    input: Option<ChildStdin>,
}

impl Peer {
    /// Starts `peer` for `side`; every line it prints goes to `reports`, and to a file in `dir`.
    pub(crate) fn start(
        namespace: &str,
        binary: &Path,
        side: Side,
        rendezvous: SocketAddr,
        dir: &Path,
        reports: Sender<Report>,
    ) -> Result<Self, Failure> {
        let name = side.name();
        let mut command = inside(namespace, binary);
        command.args(["--rendezvous", &rendezvous.to_string(), "--name", name, "--json"]);
        command.arg("--state-dir").arg(dir.join(name));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(dir.join(format!("{name}.err")))?);
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("a peer without standard output")?;
        let mut log = std::fs::File::create(dir.join(format!("{name}.log")))?;
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let at = Instant::now();
                let _ = writeln!(log, "{line}");
                if reports.send(Report { at, side, said: Said::parse(&line) }).is_err() {
                    break;
                }
            }
        });
        Ok(Self { program: Program(child), input })
    }

    /// Sends one message to the peer `to`.
    pub(crate) fn send(&mut self, to: Side, text: &str) -> Result<(), Failure> {
        let input = self.input.as_mut().ok_or("the peer was told to stop already")?;
        Ok(writeln!(input, "/send {} {text}", to.name())?)
    }

    /// Closes its input, at which it says good bye and ends.
    pub(crate) fn stop(&mut self) {
        self.input = None;
    }

    /// How it ended; `None` when it still runs at `deadline`.
    pub(crate) fn wait(&mut self, deadline: Instant) -> Result<Option<ExitStatus>, Failure> {
        loop {
            let ended = self.program.ended()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// `nsenter` becomes the program, so its process id is the program's.
fn inside(namespace: &str, binary: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(binary);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_peer_are_understood() {
        let message = Said::parse(r#"{"event":"message","from":"b","text":"hi"}"#);
        assert_eq!(message, Said::Message { text: "hi".into() });
        let path =
            |kind: &str| Said::parse(&format!(r#"{{"event":"path","path":{{"kind":"{kind}"}}}}"#));
        assert_eq!(path("direct"), Said::Path(Way::Direct));
        assert_eq!(path("relay"), Said::Path(Way::Relay));
        assert_eq!(path("none"), Said::Path(Way::Unknown));
        assert_eq!(Said::parse(r#"{"event":"news of tomorrow"}"#), Said::Other);
        assert_eq!(Said::parse("no JSON"), Said::Other);
    }
}
