//! How much room the system keeps for a socket's datagrams, and whether that is enough.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Below this share of what was asked for a buffer is short: sizes are rounded by systems.
const ENOUGH_PERCENT: usize = 75;

/// The kernel's buffers of one socket, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketBuffers {
    /// What the shell asked for, each way.
    pub asked: usize,
    /// What it got for datagrams that arrive.
    pub receive: usize,
    /// What it got for those that leave.
    pub send: usize,
}

impl SocketBuffers {
    /// What the system tells of a socket after `asked` was asked for. Linux clamps silently and
    /// tells the double of what counts, for its own bookkeeping comes on top.
    pub const fn told(asked: usize, receive: usize, send: usize) -> Self {
        let share = if LINUX { 2 } else { 1 };
        Self { asked, receive: receive / share, send: send / share }
    }

    /// What is clearly smaller than asked for, as a sentence with its remedy.
    pub fn shortage(self) -> Option<Shortage> {
        let is_short = |got: usize| got / ENOUGH_PERCENT < self.asked / 100;
        (is_short(self.receive) || is_short(self.send)).then_some(Shortage(self))
    }
}

/// Buffers that are clearly smaller than asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage(SocketBuffers);

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SocketBuffers { asked, receive, send } = self.0;
        write!(
            f,
            "the system keeps {} KiB for datagrams that arrive at a socket and {} KiB for those \
             that leave, where {} KiB were asked for: bursts may get lost until ",
            receive >> 10,
            send >> 10,
            asked >> 10
        )?;
        if LINUX {
            write!(f, "sysctl -w net.core.rmem_max={asked} net.core.wmem_max={asked} allows more")
        } else {
            f.write_str("its settings allow more")
        }
    }
}

const LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: usize = 2 << 20;

    fn got(receive: usize, send: usize) -> SocketBuffers {
        SocketBuffers { asked: ASKED, receive, send }
    }

    #[test]
    fn a_buffer_is_short_below_three_quarters_of_what_was_asked_for() {
        let limit = ASKED / 4 * 3;
        for (receive, send, is_short) in [
            (ASKED, ASKED, false),
            (2 * ASKED, 2 * ASKED, false),
            (limit + 1024, limit + 1024, false),
            (limit - 1024, ASKED, true),
            (ASKED, limit - 1024, true),
            (212_992, 212_992, true),
            (0, ASKED, true),
        ] {
            assert_eq!(got(receive, send).shortage().is_some(), is_short, "{receive} {send}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_the_double() {
        let told = SocketBuffers::told(ASKED, 2 * 212_992, 2 * ASKED);
        assert_eq!(told, got(212_992, ASKED));
        assert_eq!(
            told.shortage().unwrap().to_string(),
            "the system keeps 208 KiB for datagrams that arrive at a socket and 2048 KiB for those \
             that leave, where 2048 KiB were asked for: bursts may get lost until sysctl -w \
             net.core.rmem_max=2097152 net.core.wmem_max=2097152 allows more"
        );
    }
}
