//! Ports of routers that are forwarded to this peer's sockets, because the routers were asked to.
//!
//! PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD are tried in the background, for IPv4 at once
//! and the first success counting; for IPv6, PCP opens the firewall where there is a router that
//! understands it. What is mapped leads to a socket that answers nobody without keys.

#[cfg(feature = "portmap")]
mod exchange;
#[cfg(feature = "portmap")]
mod keeper;
#[cfg(feature = "portmap")]
mod lease;
#[cfg(feature = "portmap")]
mod natpmp;
#[cfg(feature = "portmap")]
mod pcp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use p2sp_proto::node::Mapped;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::watcher::DefaultRoute;

/// How long routers may take to give ports back when the peer ends.
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// What the keepers are to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Aim {
    /// Have no port mapped.
    Rest,
    /// Have ports mapped by the routers at the end of these routes.
    Map(Vec<DefaultRoute>),
    /// Give the ports back and end.
    End,
}

/// External addresses by the bound address of their socket.
type Found = BTreeMap<SocketAddr, SocketAddr>;

/// Keeps ports mapped, one task for each socket.
pub(crate) struct PortMapper {
    aim: watch::Sender<Aim>,
    found: watch::Sender<Found>,
    seen: watch::Receiver<Found>,
    keepers: JoinSet<()>,
}

impl PortMapper {
    /// A mapper that maps nothing.
    pub(crate) fn idle() -> Self {
        let (found, seen) = watch::channel(Found::new());
        Self { aim: watch::Sender::new(Aim::Rest), found, seen, keepers: JoinSet::new() }
    }

    /// A mapper for these sockets; begins with [`Self::map`].
    #[cfg(feature = "portmap")]
    pub(crate) fn start(sockets: &[SocketAddr]) -> Self {
        let mut mapper = Self::idle();
        for bound in sockets {
            let keeper = keeper::Keeper::new(*bound, mapper.aim.subscribe(), mapper.found.clone());
            mapper.keepers.spawn(keeper.run());
        }
        mapper
    }

    /// Maps through these routes from now on, or renews at once what is mapped.
    pub(crate) fn map(&self, routes: &[DefaultRoute]) {
        self.aim.send_replace(Aim::Map(routes.to_vec()));
    }

    /// Renews what is mapped at once: a router may have forgotten it.
    pub(crate) fn renew(&self) {
        if !self.found.borrow().is_empty() {
            // Nothing new, but it wakes the keepers.
            self.aim.send_modify(|_| {});
        }
    }

    /// Gives back what is mapped.
    pub(crate) fn rest(&self) {
        self.aim.send_replace(Aim::Rest);
    }

    /// Waits until something else is mapped than before; answers all that is. Safe to cancel.
    pub(crate) async fn changed(&mut self) -> Vec<Mapped> {
        // The sender lives as long as this.
        drop(self.seen.changed().await);
        let found = self.seen.borrow_and_update();
        found
            .iter()
            .map(|(bound, external)| Mapped { bound: *bound, external: *external })
            .collect()
    }

    /// Gives everything back, as far as routers answer in time.
    pub(crate) async fn finish(mut self) {
        self.aim.send_replace(Aim::End);
        let all = async { while self.keepers.join_next().await.is_some() {} };
        // What could not be given back ends with its lease.
        drop(tokio::time::timeout(RELEASE_MAX, all).await);
    }
}
