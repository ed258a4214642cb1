//! The command line of `rendezvous`.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use p2sp_proto::hub::Limits;
use p2sp_proto::id::PeerKey;
use p2sp_proto::session::StaticKey;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{
    AltIp, AltPort, ConfigError, ConsoleMode, Layer, Level, ListenAddress, LogFormat, Settings,
    Tokens,
};
use crate::console::Console;
use crate::driver::{self, Config};
use crate::keys::{self, DataDir, DataError, Keys};
use crate::logs::Screen;
use crate::net::{BindError, Sockets};

/// Runs the program: 0 done, 1 failed, 2 usage or configuration.
pub fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where nobody listens the exit code still speaks.
            let _ = writeln!(io::stderr(), "rendezvous: {failure}");
            failure.exit_code()
        }
    }
}

/// A rendezvous server: introduces peers to each other, and relays for those that no direct path
/// connects.
///
/// Every option can also be given in the environment (P2SP_LISTEN for --listen and so on) or in
/// a settings file (TOML, the same names without the dashes in front). The command line counts
/// more than the environment, that more than the file.
#[derive(Debug, Parser)]
#[command(name = "rendezvous", version, subcommand_precedence_over_arg = true)]
struct Cli {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Action {
    /// Serve (the default)
    Run,
    /// Print the server's public key, creating it if there is none yet
    Key,
}

#[derive(Debug, Args)]
struct Options {
    // Brackets in a doc comment would be links.
    #[arg(
        help = "Addresses to listen on, IP[:PORT] [default: [::]:3478 for IPv6 and IPv4, 0.0.0.0:3478 where IPv6 is off]",
        long, value_name = "ADDR", env = "P2SP_LISTEN", global = true, num_args = 1.., value_delimiter = ',')]
    listen: Option<Vec<ListenAddress>>,
    /// Second UDP port, by which peers learn how their NAT works, or off [default: the one after
    /// the listen port]
    #[arg(long, value_name = "PORT|off", env = "P2SP_ALT_PORT", global = true)]
    alt_port: Option<AltPort>,
    /// Public address of this host, where a 1:1 NAT translates it: the ready line tells peers to
    /// connect there [default: none]
    #[arg(long, value_name = "IP", env = "P2SP_EXTERNAL_IP", global = true)]
    external_ip: Option<IpAddr>,
    #[arg(
        help = "Second IP of this host, by which peers and STUN clients learn more about their NAT (RFC 5780); PUBLIC/LOCAL where a 1:1 NAT translates it [default: none]",
        long,
        value_name = "IP",
        env = "P2SP_ALT_IP",
        global = true
    )]
    alt_ip: Option<AltIp>,
    /// Settings file in TOML; relative paths in it start from its folder [default: none]
    #[arg(long, value_name = "FILE", env = "P2SP_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Folder for the server's keys [default: $XDG_DATA_HOME/p2sp/rendezvous, else
    /// ~/.local/share/p2sp/rendezvous, else (no home) /var/lib/p2sp/rendezvous]
    #[arg(long, value_name = "DIR", env = "P2SP_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[arg(
        help = "Access tokens, a line each: ID.SECRET [NETWORK]; # starts a comment [default: none, everybody may register]",
        long,
        value_name = "FILE",
        env = "P2SP_TOKEN_FILE",
        global = true
    )]
    token_file: Option<PathBuf>,
    /// A peer silent for this many of its keepalive intervals is gone [default: 3]
    #[arg(long, value_name = "N", env = "P2SP_EXPIRE_INTERVALS", global = true)]
    expire_intervals: Option<u32>,
    /// Most peers that a message to everybody may have [default: 256]
    #[arg(long, value_name = "N", env = "P2SP_BROADCAST_MAX", global = true)]
    broadcast_max: Option<u32>,
    /// How much is logged [default: info]
    #[arg(long, value_name = "LEVEL", env = "P2SP_LOG", global = true)]
    log: Option<Level>,
    /// How log lines look, on standard error [default: text]
    #[arg(long, value_name = "FORMAT", env = "P2SP_LOG_FORMAT", global = true)]
    log_format: Option<LogFormat>,
    /// Commands from standard input, from a terminal or a pipe; off leaves it alone [default:
    /// auto]
    #[arg(long, value_name = "MODE", env = "P2SP_CONSOLE", global = true)]
    console: Option<ConsoleMode>,
}

impl Cli {
    fn execute(self) -> Result<(), Failure> {
        let action = self.action.unwrap_or(Action::Run);
        let settings = self.options.settings()?;
        match action {
            Action::Run => serve(&settings),
            Action::Key => print_key(&settings),
        }
    }
}

impl Options {
    fn settings(self) -> Result<Settings, ConfigError> {
        let file = self.config.as_deref().map(Layer::read).transpose()?.unwrap_or_default();
        Settings::new(self.layer().over(file), |name| std::env::var(name).ok())
    }

    fn layer(self) -> Layer {
        Layer {
            listen: self.listen,
            alt_port: self.alt_port,
            external_ip: self.external_ip,
            alt_ip: self.alt_ip,
            data_dir: self.data_dir,
            token_file: self.token_file,
            expire_intervals: self.expire_intervals,
            broadcast_max: self.broadcast_max,
            log: self.log,
            log_format: self.log_format,
            console: self.console,
        }
    }
}

/// Why the program ends early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot start: {0}; free some memory or descriptors")]
    System(#[source] io::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(2),
            Self::Data(_) | Self::Bind(_) | Self::System(_) => ExitCode::from(1),
        }
    }
}

fn print_key(settings: &Settings) -> Result<(), Failure> {
    let secret = keys::server_key(&settings.data_dir)?;
    let _ = writeln!(io::stdout(), "{}", StaticKey::from_bytes(*secret).public());
    Ok(())
}

fn serve(settings: &Settings) -> Result<(), Failure> {
    let tokens = settings.token_file.as_deref().map(Tokens::read).transpose()?;
    let data = DataDir::open(&settings.data_dir)?;
    let keys = data.keys()?;
    let screen = Screen::start(settings.log, settings.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::System)?;
    let _inside = runtime.enter();
    let mut sockets = Sockets::bind(&settings.listen, settings.alt_port)?;
    if let Some(AltIp(second)) = settings.alt_ip {
        sockets.add_second_ip(second.local)?;
    }
    let shutdown = stop_signal().map_err(Failure::System)?;
    let mut config = machine(settings, tokens, &keys);
    announce(settings, &sockets, &config.hub.static_key.public());
    let console = match settings.console {
        ConsoleMode::Off => None,
        ConsoleMode::Auto => {
            let (console, requests) = Console::start(&screen);
            config.console = Some(requests);
            Some(console)
        }
    };
    runtime.block_on(driver::run(config, sockets, shutdown));
    if let Some(console) = console {
        console.close();
    }
    tracing::info!("stopped");
    screen.finish();
    Ok(())
}

/// The machine's settings; what the operator should know about them is logged.
fn machine(settings: &Settings, tokens: Option<Tokens>, keys: &Keys) -> Config {
    let key = StaticKey::from_bytes(*keys.server);
    let mut config = match tokens {
        Some(Tokens { tokens, warnings }) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            Config::with_tokens(key, *keys.reset, tokens)
        }
        None => Config::open(key, *keys.reset),
    };
    if config.hub.tokens.is_empty() {
        warn_open(&config.hub.limits);
    }
    config.hub.expire_intervals = settings.expire_intervals;
    config.hub.broadcast_max = settings.broadcast_max;
    config.hub.places.second_ip = settings.alt_ip.map(|AltIp(second)| second);
    config.hub.places.external_ip = settings.external_ip;
    config
}

fn warn_open(limits: &Limits) {
    tracing::warn!(
        peers_max = limits.peers_max,
        relay_bytes_per_second = limits.relay_bytes_per_second,
        connects_per_minute = limits.connects_per_minute,
        "no access tokens: everybody may register, in one open network with low limits; \
         --token-file FILE keeps strangers out and lifts the limits"
    );
}

/// The line that says that everything works, and what to hand out.
fn announce(settings: &Settings, sockets: &Sockets, key: &PeerKey) {
    let listen = sockets.main_addresses();
    let alt = sockets.alt_addresses();
    let host = settings.external_ip.or_else(|| {
        listen.iter().map(SocketAddr::ip).find(|ip| !ip.is_unspecified() && !ip.is_loopback())
    });
    let port = listen.first().map_or(0, SocketAddr::port);
    let host = match host {
        Some(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        Some(IpAddr::V4(ip)) => format!("{ip}:{port}"),
        None => format!("HOST:{port}"),
    };
    tracing::info!(?listen, ?alt, %key, "ready: peers connect with --rendezvous {key}@{host}");
}

/// Completes at Ctrl-C or SIGTERM.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_before_and_after_the_command() {
        for line in [
            "rendezvous --listen 127.0.0.1:1 [::1]:2 --alt-port off --log debug",
            "rendezvous --listen 127.0.0.1:1,[::1]:2 --alt-port off --log debug run",
            "rendezvous --alt-port off --listen 127.0.0.1:1 [::1]:2 run --log debug",
            "rendezvous run --listen 127.0.0.1:1 --listen [::1]:2 --alt-port off --log debug",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let layer = cli.options.layer();
            let listen = ["127.0.0.1:1", "[::1]:2"].map(|text| text.parse().unwrap()).to_vec();
            assert_eq!(layer.listen, Some(listen), "{line}");
            assert_eq!(layer.alt_port, Some(AltPort::Off), "{line}");
            assert_eq!(layer.log, Some(Level::Debug), "{line}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "rendezvous --listen example.org:1",
            "rendezvous --alt-port 70000",
            "rendezvous --log loud",
            "rendezvous --console maybe",
            "rendezvous serve",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
