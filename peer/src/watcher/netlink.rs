//! What the kernel announces: links, addresses and routes that come and go (rtnetlink(7)).

use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use tokio::net::UnixDatagram;

/// What is listened to.
const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;
/// Room for one read; the kernel's own messages are smaller.
const BUFFER: usize = 32 << 10;

/// A socket on which the kernel tells of changes.
pub(super) struct Announcements {
    /// Any socket of datagrams is read in the same way.
    socket: UnixDatagram,
    buffer: Vec<u8>,
}

impl Announcements {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS as u32))?;
        let socket = UnixDatagram::from_std(socket.into())?;
        Ok(Self { socket, buffer: vec![0; BUFFER] })
    }

    /// Waits until something changed. True when an address of global scope went away: even if it
    /// is back at once, the network may be another one. Safe to cancel.
    pub(super) async fn next(&mut self) -> io::Result<bool> {
        match self.socket.recv(&mut self.buffer).await {
            Ok(length) => Ok(removes_address(&self.buffer[..length])),
            // More happened than fits the queue, of which anything may have been a part.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Length of the header of every message: length u32, type u16, flags u16, sequence u32, port
/// u32, in the order of bytes of this machine. Messages begin at multiples of 4.
const HEADER: usize = 16;

/// Whether one of the messages says that an address of global scope went away: `RTM_DELADDR`,
/// behind whose header stand family, prefix length, flags and scope, a byte each.
fn removes_address(mut messages: &[u8]) -> bool {
    while let Some((length, rest)) = messages.split_first_chunk::<4>() {
        let length = u32::from_ne_bytes(*length) as usize;
        let kind = rest.first_chunk::<2>().map(|kind| u16::from_ne_bytes(*kind));
        let scope = messages.get(HEADER + 3).filter(|_| length > HEADER + 3);
        if kind == Some(libc::RTM_DELADDR) && scope == Some(&libc::RT_SCOPE_UNIVERSE) {
            return true;
        }
        messages = messages.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watcher::{Look, Watcher};
    use std::process::Command;
    use std::time::Duration;

    fn message(kind: u16, scope: u8) -> Vec<u8> {
        let mut message = 24_u32.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend([2, 24, 0, scope, 1, 0, 0, 0]);
        message
    }

    #[test]
    fn only_a_global_address_that_goes_is_a_removal() {
        let gone = message(libc::RTM_DELADDR, libc::RT_SCOPE_UNIVERSE);
        let local = message(libc::RTM_DELADDR, libc::RT_SCOPE_LINK);
        let new = message(libc::RTM_NEWADDR, libc::RT_SCOPE_UNIVERSE);
        assert!(removes_address(&gone));
        assert!(removes_address(&[&new[..], &local, &gone].concat()));
        assert!(!removes_address(&[&new[..], &local].concat()));
        for cut in 0..20 {
            assert!(!removes_address(&gone[..cut]), "{cut} bytes");
        }
        let mut endless = gone;
        endless[..4].fill(0);
        endless[4..6].fill(0);
        assert!(!removes_address(&endless));
        assert!(!removes_address(&[0xff; 64]));
    }

    /// Runs a test of this program again in a network namespace of its own. Says whether this is
    /// that run; where the system allows no namespaces there is none.
    fn in_own_network(test: &str) -> bool {
        const INSIDE: &str = "P2SP_TEST_OWN_NETWORK";
        if std::env::var_os(INSIDE).is_some() {
            return true;
        }
        let unshare = ["--user", "--map-root-user", "--net"];
        let allowed = Command::new("unshare").args(unshare).arg("true").status();
        if allowed.is_ok_and(|status| status.success()) {
            let program = std::env::current_exe().unwrap();
            let mut again = Command::new("unshare");
            again.args(unshare).arg(program).args(["--exact", test, "--nocapture"]);
            assert!(again.env(INSIDE, "1").status().unwrap().success());
        }
        false
    }

    fn ip(line: &str) {
        let done = Command::new("ip").args(line.split(' ')).status();
        assert!(done.unwrap().success(), "ip {line}");
    }

    const NEVER: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn changes_are_felt_without_polling() {
        if !in_own_network("watcher::netlink::tests::changes_are_felt_without_polling") {
            return;
        }
        // Addresses that the kernel makes by itself would be signs of their own.
        drop(std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"));
        ip("link add lan0 type bridge");
        ip("link set lan0 up");
        let mut watcher = Watcher::new(NEVER);
        assert_eq!(watcher.next().await, Look::Same, "the look at the start");
        for (line, expected) in [
            ("address add 192.0.2.7/24 dev lan0", Look::Same),
            ("route add default via 192.0.2.1 dev lan0", Look::Changed),
            ("route replace default via 192.0.2.2 dev lan0", Look::Changed),
            ("route add 198.51.100.0/24 via 192.0.2.1", Look::Same),
            ("address del 192.0.2.7/24 dev lan0", Look::Changed),
        ] {
            ip(line);
            let look = tokio::time::timeout(SOON, watcher.next()).await;
            assert_eq!(look, Ok(expected), "{line}");
        }
        // Gone and back before anybody looks.
        ip("address add 192.0.2.7/24 dev lan0");
        assert_eq!(tokio::time::timeout(SOON, watcher.next()).await, Ok(Look::Same));
        ip("address del 192.0.2.7/24 dev lan0");
        ip("address add 192.0.2.7/24 dev lan0");
        assert_eq!(tokio::time::timeout(SOON, watcher.next()).await, Ok(Look::Changed));
    }
}
