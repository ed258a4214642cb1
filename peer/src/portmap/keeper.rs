//! One socket's port: mapped, renewed at half of its lifetime, tried again ever more rarely where
//! no router would, and given back at the end.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use p2sp_proto::time::Backoff;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::lease::{Failure, Lease, Way};
use super::{Aim, Found, pcp};
use crate::state::random_bytes;
use crate::watcher::DefaultRoute;

/// Between two attempts where no router maps: they cost a multicast and a few datagrams.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// A lease is renewed when half of it is over, but not sooner than this, however short it is.
const RENEW_MIN: Duration = Duration::from_secs(2);
/// One attempt with all protocols: what the slowest router takes to be found and asked.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);
/// One lease, given back or renewed.
const RENEWAL_MAX: Duration = Duration::from_secs(10);
/// Leases given back at a time beside the work: more would be routers that come and go.
const RETURNS_MAX: usize = 4;

pub(super) struct Keeper {
    bound: SocketAddr,
    aim: watch::Receiver<Aim>,
    found: watch::Sender<Found>,
    lease: Option<Lease>,
    /// One for all that is asked with: a router that still holds a mapping of this socket, from
    /// an attempt that was broken off or from before another network, gives it to no other nonce
    /// (RFC 6887 section 11.3).
    nonce: Option<pcp::Nonce>,
    /// Of attempts on the way that was tried last: a link that comes and goes resets nothing.
    retry: Backoff,
    tried: Option<Way>,
    /// Leases that others replaced, on their way back.
    returning: JoinSet<()>,
}

impl Keeper {
    pub(super) fn new(
        bound: SocketAddr,
        aim: watch::Receiver<Aim>,
        found: watch::Sender<Found>,
    ) -> Self {
        let retry = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let returning = JoinSet::new();
        Self { bound, aim, found, lease: None, nonce: None, retry, tried: None, returning }
    }

    /// Works until told to end.
    pub(super) async fn run(mut self) {
        loop {
            let aim = self.aim.borrow_and_update().clone();
            let mut next = self.aim.clone();
            match aim {
                Aim::End => return self.give_back().await,
                Aim::Rest => {
                    self.give_back().await;
                    if next.changed().await.is_err() {
                        return;
                    }
                }
                Aim::Map(routes) => tokio::select! {
                    changed = next.changed() => if changed.is_err() {
                        return self.give_back().await;
                    },
                    never = self.keep(&routes) => match never {},
                },
            }
        }
    }

    async fn keep(&mut self, routes: &[DefaultRoute]) -> Infallible {
        loop {
            let pause = match self.map(routes).await {
                Ok(lifetime) => {
                    self.retry.reset();
                    renew_after(lifetime)
                }
                Err(failure) => {
                    debug!(%failure, bound = %self.bound, "port not mapped");
                    self.lease = None;
                    self.publish();
                    self.retry.advance()
                }
            };
            sleep(pause).await;
        }
    }

    /// Renews the lease, else gets another. Answers how long it lasts.
    async fn map(&mut self, routes: &[DefaultRoute]) -> Result<Duration, Failure> {
        let way = way_out(self.bound, routes)?;
        if self.tried.as_ref() != Some(&way) {
            self.retry.reset();
            self.tried = Some(way.clone());
        }
        // One that a router of another network gave is worth nothing here.
        if let Some(old) = self.lease.take_if(|lease| lease.way != way) {
            self.let_go(old);
        }
        if let Some(lease) = &mut self.lease {
            match timeout(RENEWAL_MAX, lease.renew()).await.unwrap_or(Err(Failure::Silence)) {
                Ok(lifetime) => {
                    self.publish();
                    return Ok(lifetime);
                }
                Err(failure) => debug!(%failure, "lease not renewed"),
            }
        }
        self.publish();
        let nonce = self.nonce()?;
        let obtained = timeout(ATTEMPT_MAX, obtain(&way, nonce)).await;
        let (lease, lifetime) = obtained.unwrap_or(Err(Failure::Silence))?;
        let outlived = |old: &mut Lease| old.outlives(&lease);
        if let Some(old) = self.lease.take_if(outlived) {
            self.let_go(old);
        }
        self.lease = Some(lease);
        self.publish();
        Ok(lifetime)
    }

    /// Gives a lease back in the background: its router may be out of reach.
    fn let_go(&mut self, lease: Lease) {
        while self.returning.try_join_next().is_some() {}
        if self.returning.len() < RETURNS_MAX {
            self.returning.spawn(give_back(self.bound, lease));
        }
    }

    fn nonce(&mut self) -> Result<pcp::Nonce, Failure> {
        if let Some(nonce) = self.nonce {
            return Ok(nonce);
        }
        let chance = random_bytes().map_err(Failure::Chance)?;
        Ok(*self.nonce.insert(std::array::from_fn(|i| chance[i])))
    }

    async fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.publish();
            give_back(self.bound, lease).await;
        }
        while self.returning.join_next().await.is_some() {}
    }

    /// Tells of the lease, or that there is none.
    fn publish(&self) {
        let external = self.lease.as_ref().map(|lease| lease.external);
        self.found.send_if_modified(|found| {
            let before = match external {
                Some(external) => found.insert(self.bound, external),
                None => found.remove(&self.bound),
            };
            if before != external {
                debug!(bound = %self.bound, ?external, "mapped port");
            }
            before != external
        });
    }
}

async fn give_back(bound: SocketAddr, lease: Lease) {
    match timeout(RENEWAL_MAX, lease.release()).await.unwrap_or(Err(Failure::Silence)) {
        Ok(()) => debug!(%bound, "port given back"),
        Err(failure) => debug!(%failure, %bound, "port not given back"),
    }
}

/// Asks with all protocols at once; the first success counts.
async fn obtain(way: &Way, nonce: pcp::Nonce) -> Result<(Lease, Duration), Failure> {
    let mut attempts = JoinSet::new();
    attempts.spawn(Lease::by_port_control(way.clone(), nonce));
    if way.local.is_ipv4() {
        attempts.spawn(Lease::by_upnp(way.clone()));
    }
    let mut last = Failure::Silence;
    while let Some(attempt) = attempts.join_next().await {
        match attempt.unwrap_or(Err(Failure::Silence)) {
            Ok(success) => return Ok(success),
            Err(failure) => {
                debug!(%failure, gateway = ?way.gateway, "not mapped this way");
                last = failure;
            }
        }
    }
    Err(last)
}

fn renew_after(lifetime: Duration) -> Duration {
    (lifetime / 2).max(RENEW_MIN)
}

/// A global address of IPv6 that nothing is sent to.
const ABROAD: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1)), 9);

/// From a socket to the router of its address family.
fn way_out(bound: SocketAddr, routes: &[DefaultRoute]) -> Result<Way, Failure> {
    let same_family = |route: &&DefaultRoute| route.gateway.is_ipv4() == bound.is_ipv4();
    let route = routes.iter().find(same_family);
    let gateway = route.and_then(DefaultRoute::router).ok_or(Failure::NoRouter)?;
    // The system knows from which of its addresses it would send. IPv6 routers are known by
    // addresses of the link; others do not send to such a one.
    let (any, to) = match gateway {
        SocketAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), gateway),
        SocketAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), ABROAD),
    };
    let probe = UdpSocket::bind(SocketAddr::new(any, 0)).map_err(Failure::Unreachable)?;
    probe.connect(to).map_err(Failure::Unreachable)?;
    let local = probe.local_addr().map_err(Failure::Unreachable)?.ip();
    if bound.ip() != any && bound.ip() != local {
        return Err(Failure::OtherAddress(bound.ip()));
    }
    Ok(Way { bound, local, gateway })
}
