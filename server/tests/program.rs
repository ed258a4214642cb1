//! The program as operators meet it: exit codes, messages, signals, commands from a pipe, STUN.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by ending there")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stun_rs::attributes::stun::XorMappedAddress;
use stun_rs::methods::BINDING;
use stun_rs::{
    MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunMessage, StunMessageBuilder,
};

/// `rendezvous` with a data folder of its own and nothing from the surrounding environment.
fn rendezvous(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rendezvous"));
    command.env_clear().env("P2SP_DATA_DIR", folder).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    outcome(rendezvous(folder, arguments).output().unwrap())
}

fn outcome(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A running server that is stopped when the test ends.
struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    log: BufReader<std::process::ChildStderr>,
    ready: serde_json::Value,
}

impl Server {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = rendezvous(folder, arguments);
        command.args(["--log-format", "json"]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let ready = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server did not start");
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
            if entry["message"].as_str().is_some_and(|text| text.starts_with("ready")) {
                break entry;
            }
        };
        Self { child, stdin, log, ready }
    }

    /// The addresses of a field of the ready line.
    fn addresses(&self, field: &str) -> Vec<SocketAddr> {
        let text = self.ready[field].as_str().unwrap();
        let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap();
        list.split(", ").filter(|one| !one.is_empty()).map(|one| one.parse().unwrap()).collect()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the end; answers exit code, standard output and the rest of the log.
    fn finish(mut self) -> (i32, String, String) {
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        let mut said = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut said).unwrap();
        }
        (self.child.wait().unwrap().code().unwrap(), said, log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where the test asked it to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks `server` with a STUN Binding request; answers what it saw and from where it answered.
fn bind(client: &UdpSocket, server: SocketAddr) -> (SocketAddr, SocketAddr) {
    let request = StunMessageBuilder::new(BINDING, MessageClass::Request).build();
    let mut bytes = [0; 512];
    let length = MessageEncoderBuilder::default().build().encode(&mut bytes, &request).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.send_to(&bytes[..length], server).unwrap();
    let (length, from) = client.recv_from(&mut bytes).unwrap();
    let decoder = MessageDecoderBuilder::default().build();
    let (answer, _): (StunMessage, usize) = decoder.decode(&bytes[..length]).unwrap();
    assert_eq!(answer.class(), MessageClass::SuccessResponse);
    assert_eq!(answer.transaction_id(), request.transaction_id());
    let mapped = answer.get::<XorMappedAddress>().unwrap().as_xor_mapped_address().unwrap();
    (*mapped.socket_address(), from)
}

#[test]
fn every_port_of_every_family_answers_stun_from_where_it_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--listen", "127.0.0.1:0", "[::1]:0"]);
    let all = [server.addresses("listen"), server.addresses("alt")].concat();
    assert_eq!(all.len(), 4);
    for asked in all {
        let client = UdpSocket::bind(SocketAddr::new(asked.ip(), 0)).unwrap();
        assert_eq!(bind(&client, asked), (client.local_addr().unwrap(), asked));
    }
}

#[test]
fn a_server_on_all_addresses_answers_from_the_one_that_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--listen", "[::]:0"]);
    let ports = [server.addresses("listen")[0].port(), server.addresses("alt")[0].port()];
    for (ip, port) in ["127.0.0.1", "127.0.0.2", "::1"].iter().flat_map(|ip| ports.map(|p| (ip, p)))
    {
        let asked = SocketAddr::new(ip.parse().unwrap(), port);
        let own = if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let client = UdpSocket::bind(own).unwrap();
        assert_eq!(bind(&client, asked), (client.local_addr().unwrap(), asked));
    }
}

#[test]
fn a_taken_port_ends_with_1_and_the_name_of_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = taken.local_addr().unwrap().port().to_string();
    for arguments in
        [vec!["--listen", &address], vec!["--listen", "127.0.0.1:0", "--alt-port", &port]]
    {
        let (code, _, said) = finish(folder.path(), &arguments);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&address), "{said}");
    }
}

#[test]
fn flags_count_more_than_the_environment_and_that_more_than_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let taken = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let [flag, variable, file] = taken.each_ref().map(|s| s.local_addr().unwrap().to_string());
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, format!("listen = '{file}'")).unwrap();
    let settings = ["--config", settings.to_str().unwrap()];
    let problem = |with_variable, arguments: &[&str]| {
        let mut command = rendezvous(folder.path(), &[&settings, arguments].concat());
        if with_variable {
            command.env("P2SP_LISTEN", &variable);
        }
        let (code, _, said) = outcome(command.output().unwrap());
        assert_eq!(code, 1, "{said}");
        said
    };
    assert!(problem(false, &[]).contains(&file));
    assert!(problem(true, &[]).contains(&variable));
    assert!(problem(true, &["run"]).contains(&variable));
    assert!(problem(true, &["--listen", &flag]).contains(&flag));
    assert!(problem(true, &["--listen", &flag, "run"]).contains(&flag));
    assert!(problem(true, &["run", "--listen", &flag]).contains(&flag));
}

#[test]
fn a_bad_configuration_ends_with_2_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "# ours\nno-dot\n").unwrap();
    for (arguments, part) in [
        (["--token-file", tokens.to_str().unwrap()], "line 2"),
        (["--config", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--broadcast-max", "0"], "broadcast-max"),
    ] {
        let (code, _, said) = finish(folder.path(), &arguments);
        assert_eq!((code, said.lines().count()), (2, 1), "{said}");
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn the_key_is_made_once_and_shown_beside_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let (code, key, _) = finish(folder.path(), &["key"]);
    assert_eq!((code, key.trim().len()), (0, 52));
    let server = Server::start(folder.path(), &["--listen", "127.0.0.1:0"]);
    assert_eq!(server.ready["key"], key.trim());
    assert_eq!(finish(folder.path(), &["key"]), (0, key, String::new()));
    let (code, _, said) = finish(folder.path(), &["--listen", "127.0.0.1:0"]);
    assert_eq!(code, 1);
    assert!(said.contains("another rendezvous server"), "{said}");
}

#[test]
fn the_end_of_standard_input_stops_nothing_and_signals_stop_in_good_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start(folder.path(), &["--listen", "127.0.0.1:0"]);
        server.stdin = None;
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        bind(&client, server.addresses("listen")[0]);
        server.signal(signal);
        let (code, _, log) = server.finish();
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("stopped"), "{log}");
    }
}

#[test]
fn a_pipe_gives_commands() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--listen", "127.0.0.1:0"]);
    for line in
        ["/STATUS", "", "userlist", "/send 小明 你好", "/broadcast 大家好", "/nothing", "ver"]
    {
        server.say(line);
    }
    server.say("/quit");
    let (code, said, log) = server.finish();
    assert_eq!(code, 0, "{log}");
    for part in ["up 0 s, 0 peers", "小明", "On its way to 0 peers", "/help", "rendezvous 0."] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn nobody_listening_is_no_reason_to_fail() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--listen", "127.0.0.1:0"]);
    drop(server.child.stdout.take());
    server.say("/status");
    server.say("/status");
    server.say("/quit");
    assert_eq!(server.finish().0, 0);
}

#[test]
fn a_server_without_tokens_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = rendezvous(folder.path(), &["--listen", "127.0.0.1:0"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"quit\n").unwrap();
    let (code, _, log) = outcome(child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("WARN") && log.contains("--token-file"), "{log}");
}

#[test]
fn the_ready_line_tells_peers_where_to_connect() {
    for (external, host) in [("203.0.113.7", "203.0.113.7"), ("2001:db8::7", "[2001:db8::7]")] {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["--listen", "127.0.0.1:0", "--external-ip", external];
        let server = Server::start(folder.path(), &arguments);
        let port = server.addresses("listen")[0].port();
        let told = server.ready["message"].as_str().unwrap();
        assert!(told.ends_with(&format!("@{host}:{port}")), "{told}");
    }
}
