//! Where the programs under test are: built by the cargo that runs the tests, in the same profile
//! and target folder, so that no stale one is tested.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A program of this workspace: `rendezvous` or `peer`.
pub(crate) fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(build).join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

/// Builds all programs; answers the folder they are in. What cargo says passes through: the first
/// tests wait for it, minutes perhaps, and no other word of theirs tells why.
fn build() -> PathBuf {
    // TARGET/PROFILE/deps/e2e-HASH
    let this = std::env::current_exe().unwrap();
    let folder = this.parent().and_then(Path::parent).unwrap();
    let target = folder.parent().unwrap();
    let profile = match folder.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => "dev",
        other => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--locked", "--workspace", "--bins", "--profile", profile, "--target-dir"])
        .arg(target)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "cargo build failed: {status}");
    folder.to_owned()
}
