//! Work inside another network namespace: sockets and TUN devices stay where they were opened.

use crate::Failure;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::path::Path;

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// Runs `work` on a thread of its own inside the namespace `name`.
pub(crate) fn within<T: Send>(
    name: &str,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let path = Path::new(NAMESPACES).join(name);
    let handle = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(handle, CloneFlags::CLONE_NEWNET)
                .map_err(|error| format!("cannot enter {}: {error}", path.display()))?;
            work()
        });
        thread.join().map_err(|_| "a worker thread panicked")?
    })
}

/// A UDP socket inside the namespace `name`.
pub(crate) fn udp(name: &str, local: SocketAddr) -> Result<UdpSocket, Failure> {
    within(name, || Ok(UdpSocket::bind(local)?))
}
