//! Credit: how far the other end may send on each channel (SPEC section 7).
//!
//! A channel's messages are laid end to end, each taking its length plus [`MESSAGE_COST`]. The
//! receiver commits itself to hold what lies between the position it has settled (`consumed`)
//! and the limit it has granted. Three sources back these commitments, none of them lent twice,
//! so memory is bounded and no two channels can wait for each other:
//!
//! * a *floor* for every channel, `Config::channel_window`, there from the start;
//! * the *reserve*, room for one message of the greatest length: an incomplete message at the
//!   head of its channel that exceeds the channel's window is granted the rest of itself from
//!   here, first come first served. It can then always be completed, and when it is taken its
//!   grant serves the next in line;
//! * the *growth pool*, whatever `Config::receive_memory_max` has beyond: channels that are
//!   read as fast as they arrive get larger windows from it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Config;
use crate::id::Channel;

/// What every message takes of a window besides its bytes, so that empty messages are bounded.
pub(super) const MESSAGE_COST: u64 = 32;

/// What a message of this length takes of a window.
pub(super) const fn cost(total: u64) -> u64 {
    total + MESSAGE_COST
}

/// What the channels share.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    floor: u64,
    reserve: u64,
    growth: u64,
    growth_each: u64,
    waiting: VecDeque<Channel>,
}

impl Pool {
    pub(super) fn new(config: &Config) -> Self {
        let floor = config.channel_window;
        let reserve = cost(config.message_len_max as u64);
        let fixed = floor * u64::from(config.channels) + reserve;
        let growth = (config.receive_memory_max as u64).saturating_sub(fixed);
        Self { floor, reserve, growth, growth_each: growth / 2, waiting: VecDeque::new() }
    }

    /// The channel whose turn it is to be granted its head message.
    pub(super) fn next_waiting(&self) -> Option<Channel> {
        self.waiting.front().copied()
    }

    /// Nobody waits for the reserve in front of this channel.
    pub(super) fn leave_queue(&mut self, channel: Channel) {
        self.waiting.retain(|other| *other != channel);
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }

    fn take_reserve(&mut self, channel: Channel, amount: u64) -> bool {
        let first = self.waiting.front().is_none_or(|front| *front == channel);
        if first && amount <= self.reserve {
            self.reserve -= amount;
            self.leave_queue(channel);
            return true;
        }
        if !self.waiting.contains(&channel) {
            self.waiting.push_back(channel);
        }
        false
    }
}

/// The credit of one channel, as its receiver keeps it. Starts anew with every session.
#[derive(Clone, Debug)]
pub(super) struct Credit {
    consumed: u64,
    limit: u64,
    grant: u64,
    growth: u64,
    raised: Option<Instant>,
}

impl Credit {
    pub(super) fn new(pool: &Pool) -> Self {
        Self { consumed: 0, limit: pool.floor, grant: 0, growth: 0, raised: None }
    }

    /// Up to where the other end may send.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// How many bytes beyond the settled ones the other end may have sent.
    pub(super) fn committed(&self) -> u64 {
        self.limit.saturating_sub(self.consumed)
    }

    /// A message was taken or skipped.
    pub(super) fn consume(&mut self, cost: u64, pool: &mut Pool) {
        self.settle(self.consumed + cost, None, pool);
    }

    /// The sender says that everything before this position is settled.
    pub(super) fn settle(&mut self, position: u64, head: Option<u64>, pool: &mut Pool) {
        self.consumed = self.consumed.max(position);
        let base = pool.floor + self.growth;
        // An incomplete head message, which takes `head`, needs as much from its new place on:
        // what it gave back it would have to wait for behind those who wait for it.
        let needed = head.map_or(0, |cost| cost.saturating_sub(base));
        let still = self.grant.min(self.committed().saturating_sub(base).max(needed));
        pool.reserve += self.grant - still;
        self.grant = still;
    }

    /// Lets the head message, which takes `cost`, be sent whole if the reserve allows.
    pub(super) fn admit(&mut self, channel: Channel, cost: u64, pool: &mut Pool) -> bool {
        let wanted = cost.saturating_sub(pool.floor + self.growth);
        if wanted <= self.grant {
            pool.leave_queue(channel);
            return self.consumed + cost > self.limit && self.raise(pool, 1);
        }
        pool.take_reserve(channel, wanted - self.grant) && {
            self.grant = wanted;
            self.raise(pool, 1)
        }
    }

    /// After reading: a new limit if a quarter of the window is used up, so that the sender never
    /// waits for one.
    pub(super) fn refresh(&mut self, pool: &mut Pool, rtt: Duration, now: Instant) -> bool {
        self.renew((pool.floor + self.growth) / 4, pool, rtt, now)
    }

    /// The sender stands at the limit: a new one if there is anything to give.
    pub(super) fn unblock(&mut self, pool: &mut Pool, rtt: Duration, now: Instant) -> bool {
        self.renew(1, pool, rtt, now)
    }

    /// Raises the limit by at least `step`, and the window too if the last one was used up within
    /// two round trips.
    fn renew(&mut self, step: u64, pool: &mut Pool, rtt: Duration, now: Instant) -> bool {
        if !self.raise(pool, step) {
            return false;
        }
        let fast = self.raised.is_some_and(|at| now.saturating_duration_since(at) < 2 * rtt);
        self.raised = Some(now);
        if fast {
            self.grow(pool);
            self.raise(pool, 1);
        }
        true
    }

    /// Doubles the window as far as the pool allows.
    pub(super) fn grow(&mut self, pool: &mut Pool) {
        let room = pool.growth_each.saturating_sub(self.growth);
        let more = (pool.floor + self.growth).min(pool.growth).min(room);
        pool.growth -= more;
        self.growth += more;
    }

    /// Raises the limit as far as the sources allow, if that is at least by `step`.
    fn raise(&mut self, pool: &Pool, step: u64) -> bool {
        let target = self.consumed + pool.floor + self.growth + self.grant;
        let worth = target >= self.limit + step;
        if worth {
            self.limit = target;
        }
        worth
    }
}
