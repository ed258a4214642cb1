//! The state folder: who this peer is and whom it knows.
//!
//! - `key`: the secret key, readable by its owner alone.
//! - `known.json`: keys of servers (by HOST:PORT) and of peers (by network and name) as first met,
//!   and the secrets that networks share on LANs; readable by its owner alone.
//! - `lock`: held by the one process that works in the folder.
//! - `control.sock`: where that process answers others (see [`crate::socket`]).
//!
//! Files are replaced whole: written beside, flushed to disk, renamed.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use p2sp_proto::id::{Boot, LanSecret, NetworkId, PeerKey, PeerName};
use p2sp_proto::node::Known;
use p2sp_proto::session::StaticKey;
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Where the state of `name` lives unless told otherwise: `$XDG_DATA_HOME/p2sp/NAME`, else
/// `~/.local/share/p2sp/NAME`.
///
/// # Errors
/// [`FolderError::NoHome`] where neither variable says where data belongs.
pub fn default_folder(name: &PeerName) -> Result<PathBuf, FolderError> {
    let absolute =
        |variable| std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute());
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .ok_or(FolderError::NoHome)?;
    Ok(data.join("p2sp").join(folder_name(name)))
}

/// `.` and `..` are names but no folders.
fn folder_name(name: &PeerName) -> String {
    match name.as_str().strip_prefix('.') {
        Some(rest) => format!("%2e{rest}"),
        None => name.as_str().to_owned(),
    }
}

/// The Unix socket of the process that works in `folder`.
pub fn socket_path(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// A state folder that this process holds.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held for its lock, which the system takes back when the process ends, however it ends.
    lock: File,
}

impl Drop for Folder {
    /// A program that is just being started holds a copy of the file for a moment, so that closing
    /// it is not enough.
    fn drop(&mut self) {
        // The system takes the lock back at the end of the process all the same.
        let _ = self.lock.unlock();
    }
}

impl Folder {
    /// Makes the folder if need be and locks it.
    ///
    /// # Errors
    /// [`FolderError::Locked`] while another process holds it; otherwise what the system says.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key, made on first use.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn key(&self) -> Result<StaticKey, FolderError> {
        let path = self.path.join("key");
        match fs::read_to_string(&path) {
            Ok(text) => {
                parse_key(&Zeroizing::new(text)).ok_or(FolderError::Foreign { path, what: "key" })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_key(&path),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(FolderError::Foreign { path, what: "key" })
            }
            Err(source) => Err(FolderError::Unusable { path, source }),
        }
    }

    /// What is remembered; empty at first.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn memory(&self) -> Result<Memory, FolderError> {
        let path = self.path.join(KNOWN_FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|_| FolderError::Foreign { path, what: "list of known keys" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(source) => Err(FolderError::Unusable { path, source }),
        }
    }

    /// Writes down what is remembered.
    ///
    /// # Errors
    /// What the system says, a full disk for one; the old file then stands.
    pub fn remember(&self, memory: &Memory) -> Result<(), FolderError> {
        let path = self.path.join(KNOWN_FILE);
        let text = serde_json::to_vec_pretty(memory)
            .map_err(|error| FolderError::Unusable { path: path.clone(), source: error.into() })?;
        self.replace(&path, &text)
    }

    fn make_key(&self, path: &Path) -> Result<StaticKey, FolderError> {
        let key = fresh_key()
            .map_err(|source| FolderError::Unusable { path: path.to_owned(), source })?;
        let hex = Zeroizing::new(HEXLOWER.encode(&key.to_bytes()[..]));
        let text = Zeroizing::new(format!("{KEY_LABEL}{}\n", hex.as_str()));
        self.replace(path, text.as_bytes())?;
        Ok(key)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), FolderError> {
        self.try_replace(path, content)
            .map_err(|source| FolderError::Unusable { path: path.to_owned(), source })
    }

    fn try_replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename itself lives in the folder.
        File::open(&self.path)?.sync_all()
    }
}

/// A key of this moment's chance.
///
/// # Errors
/// When the system has no chance to give.
pub fn fresh_key() -> io::Result<StaticKey> {
    let secret = Zeroizing::new(random_bytes()?);
    Ok(StaticKey::from_bytes(*secret))
}

/// 32 bytes of chance from the system.
pub(crate) fn random_bytes() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Why a state folder cannot be used: one sentence each.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Neither `XDG_DATA_HOME` nor `HOME` is an absolute path.
    #[error("there is no home for the state folder: set HOME, or use --state-dir or --ephemeral")]
    NoHome,
    /// Another process works there.
    #[error("the state folder {} is in use by another process that does not answer", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot use {}: {source}", path.display())]
    Unusable {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file there is not ours.
    #[error("{} is not a {what} that this program wrote: move it away, or use another --state-dir", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
}

/// Keys as first met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    #[serde(default)]
    servers: BTreeMap<String, Identity>,
    /// By network (see [`network_label`]), then by name.
    #[serde(default)]
    peers: BTreeMap<String, BTreeMap<PeerName, Identity>>,
    /// By network label: what the server called the network when it last let this peer in.
    #[serde(default)]
    networks: BTreeMap<String, NetworkId>,
    /// By network label: what its members share, for their LANs.
    #[serde(default)]
    lan_secrets: BTreeMap<String, LanSecret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    key: PeerKey,
    boot: Boot,
}

/// Names a network before the server does: the server's HOST:PORT, and the public part of the
/// access token, which selects the network there.
pub fn network_label(server: &str, token_id: Option<&str>) -> String {
    match token_id {
        Some(id) => format!("{id}@{server}"),
        None => server.to_owned(),
    }
}

impl Memory {
    /// Key and boot of the server `HOST:PORT`.
    pub fn server(&self, server: &str) -> Option<(PeerKey, Boot)> {
        self.servers.get(server).map(|identity| (identity.key, identity.boot))
    }

    /// The peers known in a network.
    pub fn peers(&self, network: &str) -> Vec<Known> {
        let known = |(name, id): (&PeerName, &Identity)| Known {
            name: name.clone(),
            key: id.key,
            boot: id.boot,
        };
        self.peers.get(network).into_iter().flatten().map(known).collect()
    }

    /// Writes down a server, in place of what was known of it.
    pub fn set_server(&mut self, server: &str, key: PeerKey, boot: Boot) {
        self.servers.insert(server.to_owned(), Identity { key, boot });
    }

    /// The id of the network behind a label, once a server told it.
    pub fn network(&self, label: &str) -> Option<NetworkId> {
        self.networks.get(label).copied()
    }

    /// What the members of the network behind a label share, if it is no open one.
    pub fn lan_secret(&self, label: &str) -> Option<&LanSecret> {
        self.lan_secrets.get(label)
    }

    /// Writes down the id of a network and what its members share.
    pub fn set_network(&mut self, label: &str, id: NetworkId, lan_secret: Option<LanSecret>) {
        self.networks.insert(label.to_owned(), id);
        match lan_secret {
            Some(secret) => self.lan_secrets.insert(label.to_owned(), secret),
            None => self.lan_secrets.remove(label),
        };
    }

    /// Writes down a peer, in place of what was known of the name. A new name beyond
    /// [`Self::PEERS_MAX`] is not written.
    pub fn set_peer(&mut self, network: &str, peer: Known) {
        let names = self.peers.entry(network.to_owned()).or_default();
        if names.len() < Self::PEERS_MAX || names.contains_key(&peer.name) {
            names.insert(peer.name, Identity { key: peer.key, boot: peer.boot });
        }
    }

    /// Forgets a server's key; the next contact decides anew. False when it was not known.
    pub fn forget_server(&mut self, server: &str) -> bool {
        self.servers.remove(server).is_some()
    }

    /// Forgets a peer's key in every network. False when it was not known.
    pub fn forget_peer(&mut self, name: &PeerName) -> bool {
        self.peers.values_mut().filter_map(|names| names.remove(name)).count() > 0
    }

    /// Bounds the file to some megabytes a network: the whole of it is written at each change.
    pub const PEERS_MAX: usize = 16_384;
}

/// First word of a key file: tells it from other files, and its version.
const KEY_LABEL: &str = "p2sp-key-1 ";
const KNOWN_FILE: &str = "known.json";

fn parse_key(text: &str) -> Option<StaticKey> {
    let hex = text.strip_prefix(KEY_LABEL)?.trim_end();
    let bytes = Zeroizing::new(HEXLOWER.decode(hex.as_bytes()).ok()?);
    bytes.as_slice().try_into().ok().map(StaticKey::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn name(text: &str) -> PeerName {
        PeerName::new(text).unwrap()
    }

    fn known(text: &str, byte: u8) -> Known {
        Known { name: name(text), key: PeerKey::from_bytes([byte; 32]), boot: Boot(byte.into()) }
    }

    #[test]
    fn a_folder_keeps_its_key_and_its_owner_alone_reads_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep/alice");
        let first = Folder::open(&path).unwrap().key().unwrap().public();
        let again = Folder::open(&path).unwrap().key().unwrap().public();
        assert_eq!(first, again);
        let mode = |file: &str| fs::metadata(path.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("key"), mode("")), (0o600, 0o700));
        let other = Folder::open(&place.path().join("bob")).unwrap().key().unwrap().public();
        assert_ne!(first, other);
    }

    #[test]
    fn one_process_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let held = Folder::open(place.path()).unwrap();
        assert!(matches!(Folder::open(place.path()), Err(FolderError::Locked { .. })));
        drop(held);
        assert!(Folder::open(place.path()).is_ok());
    }

    #[test]
    fn foreign_files_are_named_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        for content in [&b"-----BEGIN KEY-----"[..], b"", b"p2sp-key-1 abc\n", b"\xff\xfe"] {
            fs::write(place.path().join("key"), content).unwrap();
            let error = folder.key().err().unwrap();
            assert!(matches!(error, FolderError::Foreign { .. }), "{error}");
            assert!(
                error.to_string().contains("key is not a key that this program wrote"),
                "{error}"
            );
            assert_eq!(fs::read(place.path().join("key")).unwrap(), content);
        }
        fs::write(place.path().join(KNOWN_FILE), "{").unwrap();
        assert!(matches!(folder.memory(), Err(FolderError::Foreign { .. })));
        fs::remove_file(place.path().join("key")).unwrap();
        fs::create_dir(place.path().join("key")).unwrap();
        assert!(matches!(folder.key(), Err(FolderError::Unusable { .. })));
    }

    #[test]
    fn memory_is_written_and_read_back() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let mut memory = folder.memory().unwrap();
        assert_eq!(memory, Memory::default());
        let label = network_label("s:1", Some("team"));
        memory.set_server("s:1", PeerKey::from_bytes([9; 32]), Boot(u64::MAX));
        memory.set_network(&label, NetworkId([1; 16]), Some(LanSecret([2; 32])));
        memory.set_peer(&label, known("bob", 1));
        memory.set_peer(&label, known("小明", 2));
        memory.set_peer(&label, known("bob", 3));
        folder.remember(&memory).unwrap();
        let mut read = folder.memory().unwrap();
        assert_eq!(read, memory);
        assert_eq!(read.server("s:1"), Some((PeerKey::from_bytes([9; 32]), Boot(u64::MAX))));
        assert_eq!(read.peers(&label), [known("bob", 3), known("小明", 2)]);
        assert_eq!(read.peers(&network_label("s:1", None)), [], "another network");
        assert_eq!(read.lan_secret(&label), Some(&LanSecret([2; 32])));
        read.set_network(&label, NetworkId([1; 16]), None);
        assert_eq!(read.lan_secret(&label), None);
        let mode = fs::metadata(place.path().join(KNOWN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(read.forget_peer(&name("bob")) && !read.forget_peer(&name("bob")));
        assert!(read.forget_server("s:1") && !read.forget_server("s:1"));
        assert_eq!(read.peers(&label), [known("小明", 2)]);
    }

    #[test]
    fn names_are_folders_below_ours() {
        for (text, folder) in
            [("alice", "alice"), (".", "%2e"), ("..", "%2e."), (".a", "%2ea"), ("小明", "小明")]
        {
            assert_eq!(folder_name(&name(text)), folder);
        }
    }
}
