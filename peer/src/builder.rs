//! Putting a peer together.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use p2sp_proto::control::Exposure;
use p2sp_proto::id::{InvalidName, PeerName};
use p2sp_proto::node::{Config, Discovery, Guessing, Keepalive, NameKeeping, Node};
use p2sp_proto::session::StaticKey;
use tokio::sync::{broadcast, mpsc, watch};

use crate::Rendezvous;
use crate::desk::Clerk;
use crate::driver::{Driver, Messages, Publish, Status, Store};
use crate::handle::{DATAGRAM_QUEUE_MAX, EVENTS_MAX, Link, ORDERS_MAX, Peer, STREAM_QUEUE_MAX};
use crate::lan::Lan;
use crate::net::Net;
use crate::portmap::PortMapper;
use crate::socket::Service;
use crate::state::{self, Folder, FolderError, Memory};

/// What a peer needs to start. Made by [`Peer::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    rendezvous: Rendezvous,
    name: Option<String>,
    token: Option<Arc<str>>,
    place: Place,
    keepalive: Keepalive,
    delivery_timeout: Option<Duration>,
    bind: Option<SocketAddr>,
    guessing: Guessing,
    receiving: bool,
    accepting: bool,
    discovery: Discovery,
    exposure: Exposure,
    port_mapping: bool,
}

#[derive(Clone, Debug)]
enum Place {
    /// The default folder of the name.
    OfName,
    Folder(PathBuf),
    Nowhere,
}

impl Builder {
    pub(crate) fn new(rendezvous: Rendezvous) -> Self {
        Self {
            rendezvous,
            name: None,
            token: None,
            place: Place::OfName,
            keepalive: Keepalive::Adaptive,
            delivery_timeout: Some(Self::DELIVERY_TIMEOUT),
            bind: None,
            guessing: Guessing::On,
            receiving: true,
            accepting: false,
            discovery: Discovery::On,
            exposure: Exposure::Open,
            port_mapping: true,
        }
    }

    /// Time a message waits for its receipt unless told otherwise.
    pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

    /// Under which name to register. Without one the peer can look around, but not be found.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The access token `id.secret` that the operator handed out; it selects the network.
    pub fn token(mut self, token: impl AsRef<str>) -> Self {
        self.token = Some(Arc::from(token.as_ref()));
        self
    }

    /// Keep key and memory here. Default: [`state::default_folder`] of the name.
    pub fn state_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.place = Place::Folder(folder.into());
        self
    }

    /// Use a fresh key and write nothing to disk.
    pub fn ephemeral(mut self) -> Self {
        self.place = Place::Nowhere;
        self
    }

    /// How often the peer shows the server that it is there, 1 to 3600 s. Default: every 15 s,
    /// or 10 to 30 s as is learned of how long the router keeps idle mappings.
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.keepalive = Keepalive::Fixed(interval);
        self
    }

    /// How long a message may wait for its receipt; `None`: as long as the peer runs. Default:
    /// [`Self::DELIVERY_TIMEOUT`].
    pub fn delivery_timeout(mut self, limit: Option<Duration>) -> Self {
        self.delivery_timeout = limit;
        self
    }

    /// Use one socket bound to this address instead of one for each family.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// Guess no ports: neither open sockets by the dozen nor probe ports by the thousand where two
    /// NATs leave no other direct path.
    pub fn no_port_guessing(mut self) -> Self {
        self.guessing = Guessing::Off;
        self
    }

    /// Neither look for members of the network on the LAN nor show itself there. (In an open
    /// network nobody does.)
    pub fn no_lan(mut self) -> Self {
        self.discovery = Discovery::Off;
        self
    }

    /// Ask no router to forward ports to this peer. Without the feature `portmap` none is asked.
    pub fn no_port_mapping(mut self) -> Self {
        self.port_mapping = false;
        self
    }

    /// Leave messages for this peer unreceipted: for a peer that only sends, and would swallow
    /// what it takes. [`Peer::recv`] then never answers.
    pub fn send_only(mut self) -> Self {
        self.receiving = false;
        self
    }

    /// Take streams that other peers open: [`Peer::accept_stream`]. They are refused otherwise.
    pub fn accept_streams(mut self) -> Self {
        self.accepting = true;
        self
    }

    /// Hide: no peer learns an address of this one, and all its traffic goes through the server,
    /// the only host that it sends to. It learns no address of others either.
    pub fn relay_only(mut self) -> Self {
        self.exposure = Exposure::Hidden;
        self
    }

    /// Opens folder and sockets and starts to register; does not wait for the server (that is
    /// [`Peer::registered`]). Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(self) -> Result<Peer, StartError> {
        let name = self.name.as_deref().map(PeerName::new).transpose()?;
        let token = self.token.as_deref().map(split_token).transpose()?;
        let folder = self.open_folder(name.as_ref())?;
        let (key, memory) = match &folder {
            Some(folder) => (folder.key()?, folder.memory()?),
            None => (state::fresh_key()?, Memory::default()),
        };
        let label = state::network_label(
            &self.rendezvous.to_string(),
            token.as_ref().map(|(id, _)| id.as_str()),
        );
        let config = self.config(key, name, token, &memory, &label);
        let net = Net::open(self.bind).map_err(StartError::Socket)?;
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let node = Node::new(config, state::random_bytes()?, Instant::now(), unix);
        let service_at = folder.as_ref().map(|folder| state::socket_path(folder.path()));
        let store = Store::new(folder, memory, self.rendezvous.to_string(), label);
        self.launch(node, net, store, service_at)
    }

    fn open_folder(&self, name: Option<&PeerName>) -> Result<Option<Folder>, StartError> {
        let path = match (&self.place, name) {
            (Place::Nowhere, _) => return Ok(None),
            (Place::Folder(path), _) => path.clone(),
            (Place::OfName, Some(name)) => state::default_folder(name)?,
            (Place::OfName, None) => return Err(StartError::NoFolder),
        };
        Ok(Some(Folder::open(&path)?))
    }

    fn config(
        &self,
        static_key: StaticKey,
        name: Option<PeerName>,
        token: Option<(String, String)>,
        memory: &Memory,
        label: &str,
    ) -> Config {
        let server = self.rendezvous.to_string();
        let remembered = memory.server(&server);
        let pinned = self.rendezvous.key();
        let boot = remembered.filter(|(key, _)| pinned.is_none_or(|pinned| pinned == *key));
        Config {
            static_key,
            server,
            server_key: pinned.or(remembered.map(|(key, _)| key)),
            server_boot: boot.map(|(_, boot)| boot),
            network: memory.network(label),
            lan_secret: memory.lan_secret(label).cloned(),
            discovery: self.discovery,
            token,
            name,
            keepalive: self.keepalive,
            known: memory.peers(label),
            aes: p2sp_proto::session::has_aes_hardware(),
            name_keeping: match self.place {
                Place::Nowhere => NameKeeping::GiveUp,
                Place::Folder(_) | Place::OfName => NameKeeping::Keep,
            },
            delivery_timeout: self.delivery_timeout,
            guessing: self.guessing,
            exposure: self.exposure,
        }
    }

    fn launch(
        self,
        node: Node,
        net: Net,
        store: Store,
        service_at: Option<PathBuf>,
    ) -> Result<Peer, StartError> {
        let (orders, orders_in) = mpsc::channel(ORDERS_MAX);
        let (streams_out, streams) = mpsc::channel(STREAM_QUEUE_MAX);
        let (datagrams_out, datagrams) = mpsc::channel(DATAGRAM_QUEUE_MAX);
        let (status_out, status) = watch::channel(Status::Connecting);
        let events = broadcast::Sender::new(EVENTS_MAX);
        let taps = broadcast::Sender::new(EVENTS_MAX);
        let server = self.rendezvous.to_string();
        let link = Link::new(orders, events.clone(), taps.clone(), status, server, net.buffers());
        let service = match service_at {
            Some(path) => Some(
                Service::bind(&path).map_err(|source| FolderError::Unusable { path, source })?,
            ),
            None => None,
        };
        let mapper = self.port_mapper(&net);
        let publish = Publish {
            messages: if self.receiving { Messages::Taken } else { Messages::Left },
            events,
            taps,
            status: status_out,
            streams: self.accepting.then_some(streams_out),
            datagrams: datagrams_out,
        };
        let lan = Lan::new(self.bind);
        let inbox = (orders_in, Clerk::new(link.desk()));
        let driver = Driver::new(node, (net, lan), store, self.rendezvous, inbox, publish, mapper);
        let task = tokio::spawn(driver.run());
        Ok(Peer::new(link, (streams, datagrams), task, service))
    }

    #[cfg(feature = "portmap")]
    fn port_mapper(&self, net: &Net) -> PortMapper {
        if self.port_mapping && self.exposure == Exposure::Open {
            PortMapper::start(&net.bound())
        } else {
            PortMapper::idle()
        }
    }

    #[cfg(not(feature = "portmap"))]
    fn port_mapper(&self, _: &Net) -> PortMapper {
        PortMapper::idle()
    }
}

/// Why a peer did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The token is none.
    #[error("an access token is written ID.SECRET, as the operator of the server handed it out")]
    Token,
    /// Neither a name nor a folder nor `ephemeral` says where the state belongs.
    #[error("without a name, a state folder or 'ephemeral' must be chosen")]
    NoFolder,
    /// The state folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// No socket.
    #[error("cannot open a UDP socket: {0}")]
    Socket(io::Error),
    /// The system has no chance to give.
    #[error("cannot draw random numbers: {0}")]
    Chance(#[from] io::Error),
}

fn split_token(token: &str) -> Result<(String, String), StartError> {
    match token.trim().split_once('.') {
        Some((id, secret)) if !id.is_empty() && !secret.is_empty() => {
            Ok((id.to_owned(), secret.to_owned()))
        }
        Some(_) | None => Err(StartError::Token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> Builder {
        Builder::new("127.0.0.1".parse().unwrap())
    }

    #[test]
    fn a_token_has_two_parts() {
        assert_eq!(split_token(" a.b.c\n").unwrap(), ("a".to_owned(), "b.c".to_owned()));
        for text in ["", "a", "a.", ".b"] {
            assert!(matches!(split_token(text), Err(StartError::Token)), "{text:?}");
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_said_before_anything_starts() {
        assert!(matches!(builder().start().await, Err(StartError::NoFolder)));
        assert!(matches!(builder().name("a b").start().await, Err(StartError::Name(_))));
        assert!(matches!(builder().name("a").token("x").start().await, Err(StartError::Token)));
    }

    #[tokio::test]
    async fn a_folder_serves_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let _held = Folder::open(folder.path()).unwrap();
        let second = builder().name("a").state_dir(folder.path()).start().await;
        assert!(matches!(second, Err(StartError::Folder(FolderError::Locked { .. }))));
    }
}
