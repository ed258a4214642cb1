//! Notices that the network under the sockets changed.
//!
//! Signs are: what the kernel announces (Linux), a default route that is another one, a machine
//! that slept. Interfaces and routes are looked at shortly after a sign, and every few seconds
//! in any case, for systems without signs.

#[cfg(target_os = "linux")]
mod netlink;
/// Other systems are polled.
#[cfg(not(target_os = "linux"))]
mod netlink {
    pub(super) enum Announcements {}

    impl Announcements {
        pub(super) fn open() -> std::io::Result<Self> {
            Err(std::io::ErrorKind::Unsupported.into())
        }

        pub(super) async fn next(&mut self) -> std::io::Result<bool> {
            match *self {}
        }
    }
}
mod routes;

use std::time::{Duration, Instant, SystemTime};

use tokio::time::{Interval, MissedTickBehavior};
use tracing::debug;

pub(crate) use routes::DefaultRoute;

/// How often interfaces are looked at without a sign: a change is felt within seconds, the look
/// costs some tens of microseconds.
pub(crate) const POLL: Duration = Duration::from_secs(5);
/// From the first sign to the look: a change of network is a burst of messages.
const SETTLE: Duration = Duration::from_millis(100);
/// The wall clock runs on while a machine sleeps, the monotonic one does not. Corrections of the
/// wall clock are smaller than this, or rare.
const JUMP: Duration = Duration::from_secs(10);

/// What a look found, beside the addresses of the interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing that tells the network from the one before.
    Same,
    /// This is another network, even if the addresses are those of before.
    Changed,
}

/// Knows when to look.
pub(crate) struct Watcher {
    poll: Interval,
    /// When signs are to be followed by a look.
    look_at: Option<Instant>,
    /// An address went away, if only for a moment.
    removed: bool,
    clocks: Clocks,
    routes: Vec<DefaultRoute>,
    announcements: Option<netlink::Announcements>,
}

impl Watcher {
    /// Looks at once, and then every `poll` or sooner.
    pub(crate) fn new(poll: Duration) -> Self {
        let mut poll = tokio::time::interval(poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            poll,
            look_at: None,
            removed: false,
            clocks: Clocks { wall: SystemTime::now(), steady: Instant::now() },
            routes: routes::default_routes(),
            announcements: netlink::Announcements::open()
                .inspect_err(|error| debug!(%error, "interfaces are polled only"))
                .ok(),
        }
    }

    /// The ways out of this host, as of the last look.
    pub(crate) fn routes(&self) -> &[DefaultRoute] {
        &self.routes
    }

    /// Waits until it is time to look at the interfaces. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Look {
        loop {
            tokio::select! {
                _ = self.poll.tick() => break,
                () = sleep_until(self.look_at) => break,
                removed = next_announcement(&mut self.announcements) => {
                    self.removed |= removed;
                    self.look_at.get_or_insert_with(|| Instant::now() + SETTLE);
                }
            }
        }
        self.look_at = None;
        self.look()
    }

    fn look(&mut self) -> Look {
        let routes = routes::default_routes();
        let rerouted = self.routes != routes;
        let slept = self.clocks.jumped(SystemTime::now(), Instant::now());
        let removed = std::mem::take(&mut self.removed);
        self.routes = routes;
        if rerouted || slept || removed {
            debug!(rerouted, slept, removed, routes = ?self.routes, "another network");
            Look::Changed
        } else {
            Look::Same
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The next sign of the kernel: whether an address went away.
async fn next_announcement(announcements: &mut Option<netlink::Announcements>) -> bool {
    let Some(open) = announcements else { return std::future::pending().await };
    match open.next().await {
        Ok(removed) => removed,
        Err(error) => {
            debug!(%error, "interfaces are polled only from now on");
            *announcements = None;
            false
        }
    }
}

/// Both clocks at the last look.
struct Clocks {
    wall: SystemTime,
    steady: Instant,
}

impl Clocks {
    /// Whether the wall clock ran ahead of the monotonic one since the last look.
    fn jumped(&mut self, wall: SystemTime, steady: Instant) -> bool {
        // A wall clock that was put back says nothing about the network.
        let by_wall = wall.duration_since(self.wall).unwrap_or_default();
        let by_steady = steady.saturating_duration_since(self.steady);
        *self = Self { wall, steady };
        by_wall > by_steady + JUMP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_told_from_time_and_from_corrections() {
        let (mut wall, mut steady) = (SystemTime::UNIX_EPOCH + JUMP * 100, Instant::now());
        let mut clocks = Clocks { wall, steady };
        let second = Duration::from_secs(1);
        for (by_wall, by_steady, jumped) in [
            (5, 5, false),
            (3600, 3600, false),
            (15, 5, false),
            (16, 5, true),
            (5, 5, false),
            (0, 5, false),
            (7200, 1, true),
        ] {
            wall += second * by_wall;
            steady += second * by_steady;
            assert_eq!(clocks.jumped(wall, steady), jumped, "{by_wall} s, {by_steady} s");
        }
        assert!(!clocks.jumped(wall - second * 500, steady + second), "put back");
        assert!(!clocks.jumped(wall - second * 499, steady + second * 2), "goes on from there");
    }

    #[tokio::test]
    async fn the_first_look_comes_at_once_and_finds_nothing() {
        let mut watcher = Watcher::new(Duration::from_secs(3600));
        assert_eq!(watcher.next().await, Look::Same);
    }
}
