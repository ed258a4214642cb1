//! The data folder: a lock against two servers on one folder, and the two secrets that make a
//! restarted server the same server.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

/// 32 secret bytes.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// A key file is 64 characters and a line end; anything much longer is not one of ours.
const FILE_LEN_MAX: u64 = 128;

/// The secrets of a server.
pub(crate) struct Keys {
    /// The X25519 static key: what the server is.
    pub(crate) server: Secret,
    /// Keeps resets valid over a restart.
    pub(crate) reset: Secret,
}

/// A data folder that belongs to this process alone.
pub(crate) struct DataDir {
    path: PathBuf,
    /// Released when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Creates the folder if it is missing, for the owner alone, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let failed = |error| DataError::Folder { path: path.to_owned(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Reads the keys, creating those that do not exist.
    pub(crate) fn keys(&self) -> Result<Keys, DataError> {
        Ok(Keys { server: self.key("server.key")?, reset: self.key("reset.key")? })
    }

    fn key(&self, name: &str) -> Result<Secret, DataError> {
        let path = self.path.join(name);
        match read(&path)? {
            Some(secret) => Ok(secret),
            None => {
                let secret = fresh().map_err(|error| DataError::Chance(error.to_string()))?;
                self.store(name, &secret).map_err(|error| DataError::Write { path, error })?;
                Ok(secret)
            }
        }
    }

    /// Writes a key so that a crash leaves either no file or the whole one.
    fn store(&self, name: &str, secret: &Secret) -> io::Result<()> {
        let temporary = self.path.join(format!(".{name}.new"));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file =
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        let mut text = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&**secret));
        text.push('\n');
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }
}

/// The server's static key, without locking the folder of a running server; created, under the
/// lock, where there is none yet.
pub(crate) fn server_key(folder: &Path) -> Result<Secret, DataError> {
    match read(&folder.join("server.key"))? {
        Some(secret) => Ok(secret),
        None => DataDir::open(folder)?.keys().map(|keys| keys.server),
    }
}

/// Why the data folder cannot be used: a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("cannot use the data folder {path:?}: {error}; name another with --data-dir")]
    Folder { path: PathBuf, error: io::Error },
    #[error(
        "another rendezvous server uses the data folder {0:?}: stop it, or name another folder \
         with --data-dir"
    )]
    InUse(PathBuf),
    #[error(
        "cannot read the key file {path:?}: {error}; make it readable, or name another folder \
             with --data-dir"
    )]
    Read { path: PathBuf, error: io::Error },
    #[error("cannot write the key file {path:?}: {error}; name another folder with --data-dir")]
    Write { path: PathBuf, error: io::Error },
    #[error(
        "{0:?} is not a key of this program (64 hexadecimal digits): put the right file back, or \
         move it away to begin with a new key, which peers must then trust anew"
    )]
    NotAKey(PathBuf),
    #[error("others can read the secret key {0:?}: run chmod 600 on it")]
    Exposed(PathBuf),
    #[error("the system gives no random numbers ({0}): a key cannot be made without them")]
    Chance(String),
}

/// 32 bytes from the system's generator.
pub(crate) fn fresh() -> Result<Secret, rand::rand_core::OsError> {
    let mut secret = Secret::default();
    OsRng.try_fill_bytes(&mut *secret)?;
    Ok(secret)
}

/// The key in a file; `None` where there is no file.
fn read(path: &Path) -> Result<Option<Secret>, DataError> {
    let failed = |error| DataError::Read { path: path.to_owned(), error };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX as usize));
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let secret = decode(&bytes).ok_or_else(|| DataError::NotAKey(path.to_owned()))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(DataError::Exposed(path.to_owned()));
    }
    Ok(Some(secret))
}

fn decode(bytes: &[u8]) -> Option<Secret> {
    let digits = bytes.trim_ascii();
    let mut secret = Secret::default();
    if HEXLOWER_PERMISSIVE.decode_len(digits.len()) != Ok(secret.len()) {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode_mut(digits, &mut *secret).ok()?;
    // All zeros is what a disk leaves after a crash, not what chance gives.
    (*secret != [0; 32]).then_some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn put(folder: &Path, name: &str, content: &str, mode: u32) {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_start_creates_keys_and_the_next_one_finds_them() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/b");
        let first = DataDir::open(&folder).unwrap().keys().unwrap();
        assert_ne!(*first.server, *first.reset);
        let again = DataDir::open(&folder).unwrap().keys().unwrap();
        assert_eq!((*again.server, *again.reset), (*first.server, *first.reset));
        for name in ["server.key", "reset.key"] {
            let metadata = fs::metadata(folder.join(name)).unwrap();
            assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, 65), "{name}");
        }
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(*server_key(&folder).unwrap(), *first.server);
    }

    #[test]
    fn a_folder_serves_one_server_and_still_shows_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let running = DataDir::open(folder.path()).unwrap();
        let Err(error) = DataDir::open(folder.path()) else { panic!("locked twice") };
        assert!(error.to_string().contains("another rendezvous server"), "{error}");
        let keys = running.keys().unwrap();
        assert_eq!(*server_key(folder.path()).unwrap(), *keys.server);
        drop(running);
        assert!(DataDir::open(folder.path()).is_ok());
    }

    #[test]
    fn what_is_not_a_key_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for content in
            ["", "abcd\n", &"z".repeat(64), &"0".repeat(64), &"a".repeat(66), "-----BEGIN"]
        {
            put(folder.path(), "server.key", content, 0o600);
            let error = DataDir::open(folder.path()).unwrap().keys().err().unwrap();
            assert!(matches!(error, DataError::NotAKey(_)), "{content:?}: {error}");
            assert_eq!(fs::read_to_string(folder.path().join("server.key")).unwrap(), content);
        }
        put(folder.path(), "server.key", &"a1".repeat(32), 0o644);
        let error = server_key(folder.path()).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_half_written_key_of_a_crash_does_not_stand_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), ".server.key.new", "12", 0o400);
        assert!(DataDir::open(folder.path()).unwrap().keys().is_ok());
    }
}
