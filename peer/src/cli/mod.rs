//! The program `peer`: a chat, and one command at a time for scripts.

mod backend;
mod chat;
mod lines;
mod netcheck;
mod oneshot;
mod output;
mod terminal;

use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use p2sp_proto::control::code;
use p2sp_proto::id::PeerName;

use crate::report::{LOCAL_FAILURE, Report, Request, exit};
use crate::state::{FolderError, default_folder};
use crate::{Builder, Peer, Rendezvous, StartError};

/// Talk to other peers by name, wherever they are.
///
/// Without a command: an interactive chat (on a pipe: a line is a message, or a command of the chat).
/// Commands work through a chat that runs under the same name, or start a peer for their own duration.
///
/// Exit codes: 0 done; 1 failed; 2 usage; 3 server unreachable; 4 refused (token, name, block,
/// changed key); 5 recipient unknown or not delivered in time; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "peer", version)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Args)]
struct Options {
    /// The rendezvous server. With KEY it must hold that key
    #[arg(long, global = true, env = "P2SP_RENDEZVOUS", value_name = "[KEY@]HOST[:PORT]")]
    rendezvous: Option<Rendezvous>,
    /// Your name in the network
    #[arg(long, global = true, env = "P2SP_NAME")]
    name: Option<String>,
    /// Access token that the operator handed out
    #[arg(
        long,
        global = true,
        env = "P2SP_TOKEN",
        hide_env_values = true,
        value_name = "ID.SECRET"
    )]
    token: Option<String>,
    /// Read the access token from a file
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Seconds between signs of life to the server [default: 10 to 30, as the router allows]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    keepalive: Option<u64>,
    /// Where key and memory live [default: $XDG_DATA_HOME/p2sp/NAME]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Use a fresh key, write nothing to disk, and give the name up at the end
    #[arg(long, global = true, conflicts_with = "state_dir")]
    ephemeral: bool,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    json: bool,
    /// How long to wait for receipts at the end
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10)]
    linger: u64,
    /// How long one command waits for the server
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10)]
    connect_timeout: u64,
    /// Hide this peer's address: speak with others through the server alone
    #[arg(long, global = true, env = "P2SP_RELAY_ONLY", value_parser = FalseyValueParser::new())]
    relay_only: bool,
    /// Use this local address, with or without a port
    #[arg(long, global = true, value_name = "ADDR", value_parser = parse_bind)]
    bind: Option<SocketAddr>,
    /// Do not look for members of the network on the LAN
    #[arg(long, global = true)]
    no_lan: bool,
    /// Ask no router to forward ports to this peer
    #[arg(long, global = true)]
    no_port_mapping: bool,
    /// Do not guess ports where two NATs leave no other direct path
    #[arg(long, global = true)]
    no_port_guessing: bool,
    /// What to log to stderr: error, warn, info, debug, trace, or a filter
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a message to one peer and wait for its receipt
    Send {
        /// Whom
        #[arg(value_name = "NAME|IP:PORT")]
        to: String,
        /// The message
        text: String,
    },
    /// Send a message to everybody in the network
    Broadcast {
        /// The message
        text: String,
    },
    /// Show who is there
    Userlist,
    /// Show name, key and address
    Whoami,
    /// Show which path leads to a peer, and why
    Why {
        // Not called `name`: that is the option of everybody.
        /// Whom
        #[arg(value_name = "NAME")]
        whom: String,
    },
    /// Show what this host's network allows: the server, the NAT, and what to expect of direct paths
    Netcheck,
    /// Accept a changed key of a peer or of the server
    Trust {
        /// A name, or the server's address
        #[arg(value_name = "NAME|HOST:PORT")]
        who: String,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let format = cli.options.format();
    let done = prepare(&mut cli.options).and_then(|()| run(cli));
    ExitCode::from(match done {
        Ok(code) => code,
        Err(failure) => {
            failure.tell(format);
            failure.code
        }
    })
}

/// Why the program ends: an exit code, the number of an `error` event, and one sentence.
#[derive(Debug)]
struct Failure {
    code: u8,
    number: u16,
    text: String,
}

impl Failure {
    fn usage(text: impl Into<String>) -> Self {
        Self { code: exit::USAGE, number: code::BAD_REQUEST, text: text.into() }
    }

    fn failed(text: impl Into<String>) -> Self {
        Self { code: exit::FAILED, number: LOCAL_FAILURE, text: text.into() }
    }

    /// People read stderr, scripts that asked for JSON read stdout. Where nobody reads, the exit
    /// code still speaks.
    fn tell(&self, format: output::Format) {
        match format {
            output::Format::Text => {
                drop(writeln!(std::io::stderr(), "peer: {}", output::clean(&self.text)))
            }
            output::Format::Json => {
                let text = self.text.clone();
                let (to, handle) = (None, None);
                let report = Report::Error { code: self.number, text, to, handle, fatal: true };
                drop(terminal::print_plain(&output::render(&report, format)));
            }
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let text = error.to_string();
        match error {
            StartError::Name(_) | StartError::Token | StartError::NoFolder => Self::usage(text),
            StartError::Folder(_) | StartError::Socket(_) | StartError::Chance(_) => {
                Self::failed(text)
            }
        }
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        Self::failed(error.to_string())
    }
}

fn prepare(options: &mut Options) -> Result<(), Failure> {
    start_log(&options.log)?;
    if let Some(file) = &options.token_file {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
        options.token = Some(text.trim().to_owned());
    }
    Ok(())
}

/// The name that was given, or is given now by the person at the terminal.
async fn name(given: Option<String>) -> Result<String, Failure> {
    let name = match given {
        Some(name) => name,
        None if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() => {
            terminal::ask_name().await?
        }
        None => return Err(Failure::usage("a name is needed: --name NAME")),
    };
    let name = PeerName::new(&name)
        .map_err(|error| Failure::usage(format!("the name {name:?}: {error}")))?;
    Ok(name.into())
}

fn start_log(filter: &str) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| Failure::usage(format!("--log {filter}: {error}")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

fn run(mut cli: Cli) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start working: {error}")))?;
    let code = runtime.block_on(async {
        cli.options.name = Some(name(cli.options.name.take()).await?);
        match cli.command {
            None => chat::run(&cli.options).await,
            Some(command) => oneshot::run(&cli.options, command.into()).await,
        }
    });
    // A look-up that hangs must not hold the program back.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

impl From<Command> for Request {
    fn from(command: Command) -> Self {
        match command {
            Command::Send { to, text } => Self::Send { to, text },
            Command::Broadcast { text } => Self::Broadcast { text },
            Command::Userlist => Self::Userlist,
            Command::Whoami => Self::Whoami,
            Command::Why { whom } => Self::Why { name: whom },
            Command::Netcheck => Self::Netcheck,
            Command::Trust { who } => Self::Trust { who },
        }
    }
}

impl Options {
    /// The state folder; `None`: nothing on disk.
    fn folder(&self) -> Result<Option<PathBuf>, Failure> {
        if self.ephemeral {
            return Ok(None);
        }
        if let Some(folder) = &self.state_dir {
            return Ok(Some(folder.clone()));
        }
        let name = PeerName::new(self.name.as_deref().unwrap_or_default())
            .map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Some(default_folder(&name)?))
    }

    fn builder(&self) -> Result<Builder, Failure> {
        let Some(rendezvous) = self.rendezvous.clone() else {
            return Err(Failure::usage("a server is needed: --rendezvous HOST[:PORT]"));
        };
        let mut builder = Peer::builder(rendezvous).name(self.name.clone().unwrap_or_default());
        if let Some(seconds) = self.keepalive {
            builder = builder.keepalive(Duration::from_secs(seconds));
        }
        builder = match self.folder()? {
            Some(folder) => builder.state_dir(folder),
            None => builder.ephemeral(),
        };
        if let Some(token) = &self.token {
            builder = builder.token(token);
        }
        if let Some(address) = self.bind {
            builder = builder.bind(address);
        }
        if self.no_lan {
            builder = builder.no_lan();
        }
        if self.relay_only {
            builder = builder.relay_only();
        }
        if self.no_port_mapping {
            builder = builder.no_port_mapping();
        }
        if self.no_port_guessing {
            builder = builder.no_port_guessing();
        }
        Ok(builder)
    }

    /// The command that accepts another key, complete: it is copied as printed.
    fn trust_command(&self, who: &str) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        let mut command = format!("peer trust {who} --name {name}");
        if let Some(folder) = &self.state_dir {
            // Quoted as a shell's word where it may hold anything.
            let folder = folder.display().to_string().replace('\'', r"'\''");
            command.push_str(&format!(" --state-dir '{folder}'"));
        }
        command
    }

    fn linger(&self) -> Duration {
        Duration::from_secs(self.linger)
    }

    fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout)
    }

    fn format(&self) -> output::Format {
        if self.json { output::Format::Json } else { output::Format::Text }
    }
}

fn parse_bind(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    address
        .or_else(|_| text.parse())
        .map_err(|_| "an IP address, with or without a port".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_options_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        for line in [
            ["peer", "--rendezvous", "[::1]:5", "--name", "a", "send", "bob", "hi"],
            ["peer", "send", "bob", "hi", "--rendezvous", "[::1]:5", "--name", "a"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.options.rendezvous.map(|r| r.to_string()).as_deref(), Some("[::1]:5"));
            let request = cli.command.map(Request::from);
            assert_eq!(request, Some(Request::Send { to: "bob".into(), text: "hi".into() }));
        }
    }

    #[test]
    fn whom_to_ask_about_is_not_who_asks() {
        let cli = Cli::try_parse_from(["peer", "--name", "alice", "why", "bob"]).unwrap();
        assert_eq!(cli.options.name.as_deref(), Some("alice"));
        assert_eq!(cli.command.map(Request::from), Some(Request::Why { name: "bob".into() }));
    }

    #[test]
    fn a_local_address_needs_no_port() {
        assert_eq!(parse_bind("127.0.0.1"), Ok("127.0.0.1:0".parse().unwrap()));
        assert_eq!(parse_bind("[::1]:9"), Ok("[::1]:9".parse().unwrap()));
        assert!(parse_bind("localhost").is_err());
    }

    #[test]
    fn keepalives_and_ports_have_ranges() {
        for wrong in [
            ["peer", "--keepalive", "0"],
            ["peer", "--keepalive", "3601"],
            ["peer", "--rendezvous", "a:0"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
