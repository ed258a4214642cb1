//! What the operator asks for and says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::counters::Counters;
use super::requests::encode;
use super::{Hub, NOTICE_LEN_MAX};
use crate::control::{self, Exposure, FromServer, LeaveReason, code};
use crate::id::{PeerKey, PeerName, Token};

/// Peers that a broadcast reaches in one step, and the time between two: 10 000 a second, so
/// that it does not push other traffic aside.
const BROADCAST_STEP: usize = 100;
const BROADCAST_PAUSE: Duration = Duration::from_millis(10);
/// Broadcasts under way at once; the operator's next ones are refused until one is through.
const BROADCASTS_MAX: usize = 64;

/// How the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Time since start.
    pub uptime: Duration,
    /// Registered peers, all networks.
    pub peers: u32,
    /// Networks with at least one peer.
    pub networks: u32,
    /// Blocked names, all networks.
    pub blocked: u32,
    /// Sessions, unregistered ones included.
    pub sessions: u32,
    /// What happened since start.
    pub counters: Counters,
}

/// A present peer, as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// The network's name.
    pub network: String,
    /// Its name.
    pub name: PeerName,
    /// Its key.
    pub key: PeerKey,
    /// Where it is seen; of those that hide as well.
    pub address: SocketAddr,
    /// Whether other peers may see that.
    pub exposure: Exposure,
    /// Unix seconds of its registration.
    pub since: u64,
}

/// Why the operator's wish was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// Nobody has, or had, the name.
    #[error("there is no peer named {0:?}; /userlist shows who is here")]
    UnknownName(String),
    /// Several networks know the name.
    #[error("{0:?} is present in several networks: write NETWORK/NAME")]
    Ambiguous(String),
    /// There is no such block.
    #[error("{0:?} is not blocked")]
    NotBlocked(String),
    /// More than the limit, in bytes.
    #[error("the text is longer than {0} bytes")]
    TooLong(usize),
    /// Earlier broadcasts are still on their way.
    #[error("earlier broadcasts are still on their way; try again in a moment")]
    Busy,
}

/// A broadcast on its way: where it stands.
pub(super) struct Broadcast {
    message: Bytes,
    network: usize,
    cursor: Option<PeerName>,
    /// Whom the walk passes by, since it was told apart from it: members at most.
    told: BTreeSet<PeerKey>,
}

impl Broadcast {
    /// Whether the walk still comes to this place.
    fn is_before(&self, network: usize, name: &PeerName) -> bool {
        match network.cmp(&self.network) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => self.cursor.as_ref().is_none_or(|at| name > at),
            std::cmp::Ordering::Greater => true,
        }
    }
}

impl Hub {
    /// How the server is.
    pub fn status(&self, now: Instant) -> Status {
        Status {
            uptime: now.saturating_duration_since(self.start),
            peers: self.networks.iter().map(|network| network.len()).sum(),
            networks: self.networks.iter().filter(|network| network.len() > 0).count() as u32,
            blocked: self.networks.iter().map(|network| network.blocked_len()).sum(),
            sessions: self.sessions.len(),
            counters: self.routes.counters(),
        }
    }

    /// All members in order of network and name.
    pub fn members(&self) -> Vec<Present> {
        let of = |network: &super::registry::Network| {
            let present = |(key, member): (PeerKey, &super::registry::Member)| Present {
                network: network.name.clone(),
                name: member.name.clone(),
                key,
                address: member.observed,
                exposure: member.exposure,
                since: member.since,
            };
            network.after(None).map(present).collect::<Vec<_>>()
        };
        self.networks.iter().flat_map(of).collect()
    }

    /// Says `text` to everybody, paced; answers to how many.
    ///
    /// # Errors
    /// [`OperatorError::TooLong`] above [`NOTICE_LEN_MAX`] bytes, [`OperatorError::Busy`] while
    /// many others are on their way.
    pub fn broadcast(&mut self, text: &str, now: Instant) -> Result<u32, OperatorError> {
        check_len(text)?;
        if self.broadcasts.len() >= BROADCASTS_MAX {
            return Err(OperatorError::Busy);
        }
        let message = notice(text, true);
        let told = BTreeSet::new();
        self.broadcasts.push_back(Broadcast { message, network: 0, cursor: None, told });
        self.broadcast_due.get_or_insert(now);
        self.go_on_broadcasting(now);
        self.settle(now);
        Ok(self.networks.iter().map(|network| network.len()).sum())
    }

    /// Says `text` to one peer, `NAME` or `NETWORK/NAME`.
    ///
    /// # Errors
    /// [`OperatorError`] says why it cannot be.
    pub fn send(&mut self, name: &str, text: &str, now: Instant) -> Result<(), OperatorError> {
        check_len(text)?;
        let (network, _, key) = self.one(name, |network, name| network.by_name(name))?;
        let token = self.networks[network].member(&key).map(|member| member.token);
        if let Some(token) = token {
            self.catch_up(token, now);
            self.push(token, notice(text, false), now);
        }
        self.settle(now);
        Ok(())
    }

    /// Disconnects at once; refuses the key and the name from now on.
    ///
    /// # Errors
    /// [`OperatorError`] says why it cannot be.
    pub fn block(&mut self, name: &str, now: Instant) -> Result<(), OperatorError> {
        let (network, name, key) = self.one(name, |network, name| network.owner(name))?;
        self.networks[network].block(name, key);
        let token = self.networks[network].member(&key).map(|member| member.token);
        if let Some(token) = token {
            self.catch_up(token, now);
            self.withdraw(token, LeaveReason::Blocked, now);
            self.close(token, code::FORBIDDEN, "blocked by the operator of this server", now);
        }
        self.settle(now);
        Ok(())
    }

    /// Lets a blocked name and its key in again.
    ///
    /// # Errors
    /// [`OperatorError::NotBlocked`] when there is no such block.
    pub fn unblock(&mut self, name: &str, _now: Instant) -> Result<(), OperatorError> {
        let (network, plain) = split(name);
        let wanted = PeerName::new(plain).map_err(|_| OperatorError::NotBlocked(name.into()))?;
        let mut found = false;
        for candidate in &mut self.networks {
            if network.is_none_or(|network| network == candidate.name) {
                found |= candidate.unblock(&wanted);
            }
        }
        if found { Ok(()) } else { Err(OperatorError::NotBlocked(name.into())) }
    }

    /// Tells every peer CLOSE(503); drain the outputs, then stop.
    pub fn shutdown(&mut self, now: Instant) {
        for token in self.sessions.tokens() {
            self.close(token, code::GOING_AWAY, "the server stops; try again later", now);
        }
        self.presence_due.clear();
        self.broadcasts.clear();
        self.settle(now);
    }

    /// Takes the oldest broadcast one step further.
    pub(super) fn go_on_broadcasting(&mut self, now: Instant) {
        if self.broadcast_due.is_none_or(|due| due > now) {
            return;
        }
        let Some(mut broadcast) = self.broadcasts.pop_front() else {
            self.broadcast_due = None;
            return;
        };
        let members = self.networks.get(broadcast.network).map(|network| {
            let step = network.after(broadcast.cursor.as_ref()).take(BROADCAST_STEP);
            step.map(|(key, member)| (key, member.name.clone(), member.token)).collect::<Vec<_>>()
        });
        if let Some(members) = members {
            for (key, _, token) in &members {
                if !broadcast.told.contains(key) {
                    self.push(*token, broadcast.message.clone(), now);
                }
            }
            broadcast.cursor = members.into_iter().next_back().map(|(_, name, _)| name);
            if broadcast.cursor.is_none() {
                broadcast.network += 1;
            }
            self.broadcasts.push_front(broadcast);
        }
        self.broadcast_due = (!self.broadcasts.is_empty()).then_some(now + BROADCAST_PAUSE);
    }

    /// Sends what broadcasts still hold for one session, before anything else is said to it; they
    /// pass it by from then on, under another name too.
    pub(super) fn catch_up(&mut self, token: Token, now: Instant) {
        let Some((network, key)) =
            self.sessions.peer(token).and_then(|peer| Some((peer.network?, peer.key)))
        else {
            return;
        };
        let Some(name) = self.networks[network].member(&key).map(|member| member.name.clone())
        else {
            return;
        };
        let mut messages = Vec::new();
        for broadcast in &mut self.broadcasts {
            if broadcast.told.insert(key) && broadcast.is_before(network, &name) {
                messages.push(broadcast.message.clone());
            }
        }
        for message in messages {
            self.push(token, message, now);
        }
    }

    /// The one network, name and key that the operator means.
    fn one(
        &self,
        text: &str,
        find: impl Fn(&super::registry::Network, &PeerName) -> Option<PeerKey>,
    ) -> Result<(usize, PeerName, PeerKey), OperatorError> {
        let (network, plain) = split(text);
        let unknown = || OperatorError::UnknownName(text.to_owned());
        let name = PeerName::new(plain).map_err(|_| unknown())?;
        let mut found = self
            .networks
            .iter()
            .enumerate()
            .filter(|(_, candidate)| network.is_none_or(|network| network == candidate.name))
            .filter_map(|(index, candidate)| Some((index, find(candidate, &name)?)));
        let (index, key) = found.next().ok_or_else(unknown)?;
        match found.next() {
            Some(_) => Err(OperatorError::Ambiguous(text.to_owned())),
            None => Ok((index, name, key)),
        }
    }
}

/// `NETWORK/NAME` or `NAME`; a name holds no slash, a network may.
fn split(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('/') {
        Some((network, name)) => (Some(network), name),
        None => (None, text),
    }
}

fn check_len(text: &str) -> Result<(), OperatorError> {
    if text.len() > NOTICE_LEN_MAX {
        return Err(OperatorError::TooLong(NOTICE_LEN_MAX));
    }
    Ok(())
}

fn notice(text: &str, everybody: bool) -> Bytes {
    encode(&FromServer::Event(control::Event::Notice { text: text.to_owned(), everybody }))
}
