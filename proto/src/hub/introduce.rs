//! Introductions: both sides are told in the same moment.

use std::time::Instant;

use rand::RngCore as _;

use super::registration::sane;
use super::relay::NoChannel;
use super::requests::{Spend, encode, problem};
use super::sessions::Stage;
use super::{Hub, NOT_A_REQUEST};
use crate::control::{
    CandidateText, Connect, Event, Exposure, FromServer, Outcome, Problem, Reply, code,
};
use crate::id::{CheckTag, ConnectId, PeerKey, RelayChannel, Token};
use crate::wire::RelayHeader;

/// Where the other side of an introduction is reached.
pub(super) struct Introduced {
    token: Token,
    /// The asking side as the other numbers it.
    channel: RelayChannel,
}

impl Hub {
    /// Introduces the holder of `token` and the peer whose key is `target`.
    pub(super) fn connect(
        &mut self,
        token: Token,
        target: PeerKey,
        connect: ConnectId,
        candidates: Vec<CandidateText>,
        now: Instant,
    ) -> Result<Introduced, Problem> {
        let (network, key) = self.registered(token)?;
        if key == target {
            return Err(problem(code::BAD_REQUEST, "that is your own key; choose another peer"));
        }
        self.spend(token, Spend::Connect, now)?;
        let of = &self.networks[network];
        let (Some(asking), Some(asked)) = (of.member(&key), of.member(&target)) else {
            let text = "that peer is not here; list the members to see who is";
            return Err(problem(code::NOT_FOUND, text));
        };
        let (asking, asked) = (asking.clone(), asked.clone());
        let channels = self.channels([(key, token), (target, asked.token)], now)?;
        let tags = [self.tag(), self.tag()];
        let fresh = sane(candidates, asking.observed);
        let candidates = if fresh.is_empty() { asking.candidates.clone() } else { fresh };
        let mut to_asked = Event::Connect(Connect {
            member: asking.to_wire(key),
            connect,
            channel: channels.1,
            own_tag: tags[1],
            their_tag: tags[0],
            candidates,
        });
        let mut to_asking = Event::Connect(Connect {
            member: asked.to_wire(target),
            connect,
            channel: channels.0,
            own_tag: tags[0],
            their_tag: tags[1],
            candidates: asked.candidates.clone(),
        });
        // Addresses are of use to both or to nobody.
        if [asking.exposure, asked.exposure].contains(&Exposure::Hidden) {
            (to_asked, to_asking) = (to_asked.without_addresses(), to_asking.without_addresses());
        }
        self.push(asked.token, encode(&FromServer::Event(to_asked)), now);
        self.push(token, encode(&FromServer::Event(to_asking)), now);
        Ok(Introduced { token: asked.token, channel: channels.1 })
    }

    /// OPEN: an introduction whose first datagram comes with it.
    pub(super) fn open(
        &mut self,
        token: Token,
        target: PeerKey,
        connect: ConnectId,
        datagram: &[u8],
        now: Instant,
    ) {
        match self.connect(token, target, connect, Vec::new(), now) {
            Ok(Introduced { token: target, channel }) => {
                // The event leaves first: it tells the target what the datagram belongs to.
                self.settle(now);
                self.hand_over(token, target, channel, datagram, now);
            }
            Err(refused) => {
                let reply = Reply { id: NOT_A_REQUEST, outcome: Outcome::Error(refused) };
                self.push(token, encode(&FromServer::Reply(reply)), now);
            }
        }
    }

    /// Counts as relayed by `from`.
    fn hand_over(
        &mut self,
        from: Token,
        to: Token,
        channel: RelayChannel,
        datagram: &[u8],
        now: Instant,
    ) {
        // Relayed data goes to validated addresses alone (SPEC section 4.8).
        let Some(peer) = self.sessions.peer(to).filter(|peer| peer.stage == Stage::Live) else {
            return;
        };
        let route = peer.route;
        let mut frame = RelayHeader { channel, token: to }.encode().to_vec();
        frame.extend_from_slice(datagram);
        let now_ns = self.routes.now_ns(now);
        let within =
            self.routes.slots.quota(from).is_some_and(|quota| {
                self.routes.relay_rate.admit(quota, now_ns, frame.len() as u64)
            });
        if within {
            self.transmit(route, frame);
        }
    }

    fn channels(
        &mut self,
        pair: [(PeerKey, Token); 2],
        now: Instant,
    ) -> Result<(RelayChannel, RelayChannel), Problem> {
        let generation = self.rng.next_u32() as u8;
        let max = self.config.limits.relay_channels_max;
        let at = self.moment(now);
        let own = pair[0].0;
        let result = self.relay.connect(&self.routes.slots, pair, max, generation, at);
        result.map_err(|reason| {
            let text = match reason {
                NoChannel::Full(key) if key == own => {
                    format!("you talk to {max} peers already; try again in a minute")
                }
                NoChannel::Full(_) => "that peer talks to too many others; try later".to_owned(),
                NoChannel::Exhausted => {
                    "the server serves too many pairs at present; try later".to_owned()
                }
            };
            problem(code::TOO_MANY, text)
        })
    }

    fn tag(&mut self) -> CheckTag {
        CheckTag(self.rng.next_u64().to_be_bytes())
    }
}
