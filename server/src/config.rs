//! Settings: flags over environment over file over defaults, each checked once, here.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use p2sp_proto::hub::AccessToken;
use p2sp_proto::wire::stun::SecondIp;
use serde::{Deserialize, Deserializer};

/// The port servers listen on by default, that of STUN.
pub(crate) const PORT: u16 = 3478;

/// Keepalive intervals of silence after which a peer counts as gone, by default.
pub(crate) const EXPIRE_INTERVALS: u32 = 3;

/// Most members a message to everybody may have, by default.
pub(crate) const BROADCAST_MAX: u32 = 256;

/// The network of a token that names none.
const DEFAULT_NETWORK: &str = "default";

/// Longest name of a network in bytes, so that lists stay readable.
const NETWORK_LEN_MAX: usize = 64;

/// A shorter secret can be guessed from one proof; the operator is told.
const SECRET_LEN_GOOD: usize = 16;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On this port of all addresses, both families where the system has IPv6.
    Default(u16),
    /// On exactly these addresses; port 0 lets the system choose.
    At(Vec<SocketAddr>),
}

/// The second port of each listen address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AltPort {
    /// The port after the main one.
    Next,
    /// This port.
    At(u16),
    /// No second port: peers learn less about their NAT.
    Off,
}

impl FromStr for AltPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| format!("{text:?} is neither a port nor off"))
    }
}

/// A second IP as written: `IP`, or `PUBLIC/LOCAL` where a 1:1 NAT translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct AltIp(pub(crate) SecondIp);

impl FromStr for AltIp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (public, local) = text.split_once('/').unwrap_or((text, text));
        let ip = |text: &str| text.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified());
        match (ip(public), ip(local)) {
            (Some(public), Some(local)) if public.is_ipv4() == local.is_ipv4() => {
                Ok(Self(SecondIp { local, public }))
            }
            _ => Err(format!("{text:?} is neither an IP address nor PUBLIC/LOCAL")),
        }
    }
}

impl TryFrom<String> for AltIp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Whether commands are read from standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ConsoleMode {
    Auto,
    Off,
}

/// A listen address as written: `IP`, `IP:PORT` or `[IPv6]:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListenAddress(pub(crate) SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self(SocketAddr::new(ip, PORT)));
        }
        text.parse().map(Self).map_err(|_| {
            format!("{text:?} is not an address such as 192.0.2.1:3478 or [2001:db8::1]:3478")
        })
    }
}

/// One source of settings: what it does not say is left to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Layer {
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) listen: Option<Vec<ListenAddress>>,
    #[serde(deserialize_with = "number_or_word")]
    pub(crate) alt_port: Option<AltPort>,
    pub(crate) external_ip: Option<IpAddr>,
    pub(crate) alt_ip: Option<AltIp>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) expire_intervals: Option<u32>,
    pub(crate) broadcast_max: Option<u32>,
    pub(crate) log: Option<Level>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) console: Option<ConsoleMode>,
}

impl Layer {
    /// Reads a settings file. Relative paths in it are relative to its folder.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let mut layer = Self::parse(path, &text)?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        for path in [&mut layer.data_dir, &mut layer.token_file].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        Ok(layer)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or(text).matches('\n').count() + 1;
            let key = text.lines().nth(line - 1).and_then(|line| line.split_once('='));
            ConfigError::File {
                path: path.to_owned(),
                line,
                key: key.map_or_else(String::new, |(key, _)| format!(", key {}", key.trim())),
                problem: error.message().replace('\n', " "),
            }
        })
    }

    /// This layer, completed by a weaker one.
    pub(crate) fn over(self, weaker: Self) -> Self {
        Self {
            listen: self.listen.or(weaker.listen),
            alt_port: self.alt_port.or(weaker.alt_port),
            external_ip: self.external_ip.or(weaker.external_ip),
            alt_ip: self.alt_ip.or(weaker.alt_ip),
            data_dir: self.data_dir.or(weaker.data_dir),
            token_file: self.token_file.or(weaker.token_file),
            expire_intervals: self.expire_intervals.or(weaker.expire_intervals),
            broadcast_max: self.broadcast_max.or(weaker.broadcast_max),
            log: self.log.or(weaker.log),
            log_format: self.log_format.or(weaker.log_format),
            console: self.console.or(weaker.console),
        }
    }
}

/// Every setting, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) listen: Listen,
    pub(crate) alt_port: AltPort,
    pub(crate) external_ip: Option<IpAddr>,
    pub(crate) alt_ip: Option<AltIp>,
    pub(crate) data_dir: PathBuf,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) expire_intervals: u32,
    pub(crate) broadcast_max: u32,
    pub(crate) log: Level,
    pub(crate) log_format: LogFormat,
    pub(crate) console: ConsoleMode,
}

impl Settings {
    /// Completes the layers with the defaults. `variable` reads the environment.
    pub(crate) fn new(
        layer: Layer,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let alt_port = layer.alt_port.unwrap_or(AltPort::Next);
        if layer.alt_ip.is_some() && alt_port == AltPort::Off {
            return Err(ConfigError::NoSecondPort);
        }
        Ok(Self {
            listen: listen(layer.listen)?,
            alt_port,
            external_ip: layer.external_ip,
            alt_ip: layer.alt_ip,
            data_dir: layer.data_dir.unwrap_or_else(|| default_data_dir(variable)),
            token_file: layer.token_file,
            expire_intervals: positive(
                "expire-intervals",
                layer.expire_intervals,
                EXPIRE_INTERVALS,
            )?,
            broadcast_max: positive("broadcast-max", layer.broadcast_max, BROADCAST_MAX)?,
            log: layer.log.unwrap_or(Level::Info),
            log_format: layer.log_format.unwrap_or(LogFormat::Text),
            console: layer.console.unwrap_or(ConsoleMode::Auto),
        })
    }
}

/// What is wrong with the settings: a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the file {path:?}: {error}; name another, or make it readable")]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{path:?}, line {line}{key}: {problem}; mend this line")]
    File { path: PathBuf, line: usize, key: String, problem: String },
    #[error("{path:?} is not UTF-8 text: save it as UTF-8")]
    NotText { path: PathBuf },
    #[error("{0} must be at least 1: raise it, or leave it out")]
    Zero(&'static str),
    #[error("the address {0} is given twice to listen on: leave one out")]
    Twice(SocketAddr),
    #[error("a second IP takes a second port, too: leave out --alt-port off, or --alt-ip")]
    NoSecondPort,
    #[error("no address is given to listen on: name one, or leave the setting out")]
    NoAddress,
    #[error("{0:?} holds no token: add a line \"ID.SECRET [NETWORK]\", or do without --token-file")]
    NoToken(PathBuf),
}

fn listen(addresses: Option<Vec<ListenAddress>>) -> Result<Listen, ConfigError> {
    let Some(addresses) = addresses else { return Ok(Listen::Default(PORT)) };
    let mut seen: Vec<SocketAddr> = Vec::new();
    for ListenAddress(address) in addresses {
        if address.port() != 0 && seen.contains(&address) {
            return Err(ConfigError::Twice(address));
        }
        seen.push(address);
    }
    if seen.is_empty() { Err(ConfigError::NoAddress) } else { Ok(Listen::At(seen)) }
}

fn positive(name: &'static str, value: Option<u32>, default: u32) -> Result<u32, ConfigError> {
    match value.unwrap_or(default) {
        0 => Err(ConfigError::Zero(name)),
        value => Ok(value),
    }
}

/// `$XDG_DATA_HOME/p2sp/rendezvous`, below `~/.local/share` where that is not set, and below
/// `/var/lib` for a system service, which has no home.
fn default_data_dir(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    // An empty or relative XDG folder counts as not set (XDG Base Directory Specification).
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"));
    base.join("p2sp/rendezvous")
}

/// The access tokens of a token file, and what the operator should know about it.
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<AccessToken>,
    pub(crate) warnings: Vec<String>,
}

impl Tokens {
    /// Reads a token file: a line is `ID.SECRET [NETWORK]`, a word beginning with `#` starts a
    /// comment.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
        let bytes = fs::read(path).map_err(unreadable)?;
        let text =
            String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path: path.to_owned() })?;
        let mut found = Self::parse(path, &text)?;
        if is_open_to_others(&fs::metadata(path).map_err(unreadable)?) {
            found.warnings.push(format!(
                "everybody on this host can read the tokens in {path:?}: run chmod 600 on it"
            ));
        }
        Ok(found)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut found = Self { tokens: Vec::new(), warnings: Vec::new() };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            found.add(path, line, line_number).map_err(|problem| ConfigError::File {
                path: path.to_owned(),
                line: line_number,
                key: String::new(),
                problem,
            })?;
        }
        if found.tokens.is_empty() {
            return Err(ConfigError::NoToken(path.to_owned()));
        }
        Ok(found)
    }

    fn add(&mut self, path: &Path, line: &str, number: usize) -> Result<(), String> {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let Some(token) = words.next() else { return Ok(()) };
        let network = words.next().unwrap_or(DEFAULT_NETWORK);
        if words.next().is_some() {
            return Err("there is more than a token and a network".to_owned());
        }
        // The text of a token never enters a message: messages end up in logs.
        let (id, secret) =
            token.split_once('.').ok_or("a token is ID.SECRET, and there is no dot")?;
        check_id(id)?;
        check_network(network)?;
        if secret.is_empty() {
            return Err(format!("the secret of the token {id} is missing"));
        }
        if self.tokens.iter().any(|token| token.id == id) {
            return Err(format!("the token {id} stands further up already"));
        }
        if secret.len() < SECRET_LEN_GOOD {
            self.warnings.push(format!(
                "{path:?}, line {number}: the secret of the token {id} is short enough to be \
                 guessed: use {SECRET_LEN_GOOD} random characters or more"
            ));
        }
        self.tokens.push(AccessToken {
            id: id.to_owned(),
            secret: secret.to_owned(),
            network: network.to_owned(),
        });
        Ok(())
    }
}

fn check_id(id: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if id.is_empty() || !id.chars().all(allowed) {
        return Err("the part of a token before the dot is letters, digits, '-' and '_'".to_owned());
    }
    Ok(())
}

fn check_network(network: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if network.len() > NETWORK_LEN_MAX || !network.chars().all(allowed) {
        return Err(format!(
            "a network is at most {NETWORK_LEN_MAX} bytes of letters, digits, '-', '_' and '.'"
        ));
    }
    Ok(())
}

/// Whether anybody but the owner and the group may read the file.
fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    metadata.mode() & 0o007 != 0
}

fn one_or_many<'de, D>(deserializer: D) -> Result<Option<Vec<ListenAddress>>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected an address or a list of addresses")]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    let texts = match Written::deserialize(deserializer)? {
        Written::One(text) => vec![text],
        Written::Many(texts) => texts,
    };
    let addresses: Result<_, _> = texts.iter().map(|text| text.parse()).collect();
    addresses.map(Some).map_err(serde::de::Error::custom)
}

fn number_or_word<'de, D>(deserializer: D) -> Result<Option<AltPort>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a port or \"off\"")]
    enum Written {
        Number(u16),
        Word(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(port) => Ok(Some(AltPort::At(port))),
        Written::Word(word) => word.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests;
