//! The end that answers.

use rand::RngCore;
use snow::HandshakeState;

use super::{
    EarlyOffer, Established, HandshakeError, ReplyInfo, Responder, Suite, Suites, read, remote_of,
    write,
};
use crate::id::{Address, Boot, Epoch, NetworkId, PeerKey, ReceiverId, Token};
use crate::session::cookie::screen_init;
use crate::session::init::{Init, Pattern};
use crate::session::key::StaticKey;
use crate::session::noise::{self, Recipe, Seed};
use crate::session::payload::{FirstPayload, LastPayload};
use crate::session::seal::Side;
use crate::wire::codec::{Reader, Writer as _};
use crate::wire::kind;

/// A first message that was read and authenticated as far as the pattern goes.
pub struct Accepted {
    noise: HandshakeState,
    recipe: Recipe,
    seed: Seed,
    message: Vec<u8>,
    responder: Responder,
    suites: Suites,
    receiver: ReceiverId,
    remote: Option<PeerKey>,
    payload: Option<FirstPayload>,
}

impl Accepted {
    /// Reads message 1 (two curve operations with IK, none with XX). `Send`: may run on another
    /// thread. Screens the init first.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`] when it is no init for a responder of this kind,
    /// [`HandshakeError::Unauthentic`] when it was not made for our key and network,
    /// [`HandshakeError::WeakKey`] when it brings a key of low order.
    pub fn read(
        local: &StaticKey,
        responder: Responder,
        network: NetworkId,
        init: &[u8],
    ) -> Result<Self, HandshakeError> {
        screen_init(init, &local.public())?;
        let init = Init::parse(init)?;
        if init.responder != responder {
            return Err(HandshakeError::Malformed);
        }
        let recipe = Recipe {
            side: Side::Responder,
            pattern: init.pattern,
            local: local.clone(),
            remote: None,
            prologue: noise::prologue(init.head, &network),
        };
        Self::authenticate(recipe, &init)
    }

    fn authenticate(recipe: Recipe, init: &Init<'_>) -> Result<Self, HandshakeError> {
        let seed = Seed::default();
        let mut noise = recipe.start(&seed)?;
        let payload = read(&mut noise, init.noise)?;
        let payload = match init.pattern {
            Pattern::Ik => Some(FirstPayload::decode(&payload)?),
            Pattern::Xx => None,
        };
        Ok(Self {
            remote: remote_of(&noise),
            noise,
            recipe,
            seed,
            message: init.noise.to_vec(),
            responder: init.responder,
            suites: init.suites,
            receiver: init.receiver,
            payload,
        })
    }

    /// The initiator's key; `None` with XX until the finish.
    pub const fn remote(&self) -> Option<PeerKey> {
        self.remote
    }

    /// What the initiator can do.
    pub const fn suites(&self) -> Suites {
        self.suites
    }

    /// The initiator's id for packets of this session.
    pub const fn receiver(&self) -> ReceiverId {
        self.receiver
    }

    /// `None` with XX until the finish.
    pub fn epoch(&self) -> Option<Epoch> {
        self.payload.as_ref().map(|payload| payload.own.epoch)
    }

    /// `None` with XX until the finish.
    pub fn boot(&self) -> Option<Boot> {
        self.payload.as_ref().map(|payload| payload.own.boot)
    }

    /// Early data, if the init brought any; whether it counts is the caller's to decide.
    pub fn early(&self) -> Option<&EarlyOffer> {
        self.payload.as_ref()?.early.as_ref()
    }

    /// Writes message 2 (three more curve operations).
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`] when `info` does not fit: a suite that was not offered, or
    /// not exactly what a responder of this kind says.
    pub fn reply(
        mut self,
        info: ReplyInfo,
        rng: &mut impl RngCore,
    ) -> Result<(Vec<u8>, Replied), HandshakeError> {
        if !self.suites.contains(info.suite) {
            return Err(HandshakeError::Malformed);
        }
        let payload = info.encode(self.responder)?;
        self.seed.fill(rng);
        let message = write(&mut self.noise, &payload)?;
        let mut out = Vec::with_capacity(5 + message.len());
        out.put_u8(kind::HANDSHAKE_REPLY);
        out.put_u32(self.receiver.0);
        out.put(&message);
        Ok((out, self.into_replied(&info, payload)?))
    }

    fn into_replied(self, info: &ReplyInfo, reply: Vec<u8>) -> Result<Replied, HandshakeError> {
        Ok(match self.payload {
            Some(payload) => {
                let established = Established::new(self.noise, payload.own, info.suite)?;
                Replied::Established(established)
            }
            None => Replied::AwaitFinish(PendingFinish {
                noise: Some(Box::new(self.noise)),
                recipe: self.recipe,
                seed: self.seed,
                message: self.message,
                reply,
                address: info.address,
                suite: info.suite,
            }),
        })
    }
}

/// Where the responder stands after its reply.
pub enum Replied {
    /// IK: done.
    Established(Established),
    /// XX: who calls is not known yet.
    AwaitFinish(PendingFinish),
}

/// XX: waits for message 3.
pub struct PendingFinish {
    /// `None` once the finish was read.
    noise: Option<Box<HandshakeState>>,
    recipe: Recipe,
    seed: Seed,
    message: Vec<u8>,
    reply: Vec<u8>,
    address: Address,
    suite: Suite,
}

impl PendingFinish {
    /// Reads message 3 (one curve operation). After an error the state is as it was.
    ///
    /// # Errors
    /// [`HandshakeError`] when this is not the true finish, or one was read before.
    pub fn read_finish(&mut self, datagram: &[u8]) -> Result<Established, HandshakeError> {
        let message = finish_message(datagram, self.address)?;
        let mut noise = self.noise.take().ok_or(HandshakeError::Unauthentic)?;
        let said = read(&mut noise, message).and_then(|payload| LastPayload::decode(&payload));
        match said {
            Ok(said) => Established::new(*noise, said, self.suite),
            Err(error) => {
                self.noise = Some(Box::new(self.recover(*noise)?));
                Err(error)
            }
        }
    }

    /// A finish whose first half is true and whose second is not leaves snow with the wrong key:
    /// then the state is made again.
    fn recover(&self, noise: HandshakeState) -> Result<HandshakeState, HandshakeError> {
        if remote_of(&noise).is_none() {
            return Ok(noise);
        }
        let mut noise = self.recipe.start(&self.seed)?;
        read(&mut noise, &self.message)?;
        write(&mut noise, &self.reply)?;
        Ok(noise)
    }
}

fn finish_message(datagram: &[u8], own: Address) -> Result<&[u8], HandshakeError> {
    let mut reader = Reader::new(datagram);
    if reader.u8()? != kind::HANDSHAKE_FINISH {
        return Err(HandshakeError::Malformed);
    }
    let named = match own {
        Address::Peer(_) => Address::Peer(ReceiverId(reader.u32()?)),
        Address::Server(_) => Address::Server(Token(reader.u64()?)),
    };
    if named == own { Ok(reader.rest()) } else { Err(HandshakeError::Malformed) }
}
