//! The end that sends message 1.

use rand::RngCore;
use snow::HandshakeState;

use super::{
    EarlyOffer, Established, HandshakeError, NOISE_OVERHEAD_MAX, ReplyInfo, Responder, Suites,
    read, write,
};
use crate::id::{Address, Boot, Epoch, NetworkId, PeerKey, ReceiverId};
use crate::session::init::{self, HEAD_LEN, Init, NOISE_AT, Pattern};
use crate::session::key::StaticKey;
use crate::session::noise::{self, Recipe, Seed};
use crate::session::payload::{FirstPayload, LastPayload};
use crate::session::seal::Side;
use crate::wire::codec::{Reader, Writer as _};
use crate::wire::{HANDSHAKE_INIT_LEN, VERSION, kind};

/// What an initiator says and expects.
pub struct InitConfig<'a> {
    /// Our key.
    pub local: &'a StaticKey,
    /// IK when known, XX when not.
    pub remote: Option<PeerKey>,
    /// What is at the other end.
    pub responder: Responder,
    /// All zero towards a server.
    pub network: NetworkId,
    /// What we can do.
    pub suites: Suites,
    /// Our id for packets of the new session.
    pub receiver: ReceiverId,
    /// Lineage of the sequence numbers we send.
    pub epoch: Epoch,
    /// Our boot value.
    pub boot: Boot,
    /// Early data, only with IK; at most [`super::EARLY_LEN_MAX`] bytes of frames.
    pub early: Option<EarlyOffer>,
    /// Pad to [`HANDSHAKE_INIT_LEN`] (sent to an address) or not (inside relay or OPEN).
    pub padding: Padding,
}

/// Whether an init is filled up with zero bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// To [`HANDSHAKE_INIT_LEN`], so that no answer is larger.
    Full,
    /// Not at all: inside RELAY and OPEN.
    None,
}

/// Waiting for the second message.
pub struct Initiator {
    /// `None` once the reply was read.
    noise: Option<HandshakeState>,
    recipe: Recipe,
    seed: Seed,
    datagram: Vec<u8>,
    suites: Suites,
    responder: Responder,
    receiver: ReceiverId,
    own: LastPayload,
}

impl Initiator {
    /// Writes the init (two curve operations with XX, four with IK).
    ///
    /// # Errors
    /// [`HandshakeError::WeakKey`] when the responder's key is of low order,
    /// [`HandshakeError::Malformed`] when the early data is too long or cannot be sent.
    pub fn new(config: InitConfig<'_>, rng: &mut impl RngCore) -> Result<Self, HandshakeError> {
        let pattern = if config.remote.is_some() { Pattern::Ik } else { Pattern::Xx };
        let own = LastPayload { epoch: config.epoch, boot: config.boot };
        let payload = match pattern {
            Pattern::Ik => FirstPayload { own, early: config.early.clone() }.encode()?,
            Pattern::Xx if config.early.is_some() => return Err(HandshakeError::Malformed),
            Pattern::Xx => Vec::new(),
        };
        let head = head(&config, pattern, payload.len())?;
        let recipe = Recipe {
            side: Side::Initiator,
            pattern,
            local: config.local.clone(),
            remote: config.remote,
            prologue: noise::prologue(&head, &config.network),
        };
        let seed = Seed::draw(rng);
        let mut noise = recipe.start(&seed)?;
        let message = write(&mut noise, &payload)?;
        Ok(Self {
            noise: Some(noise),
            datagram: datagram(&config, pattern, &head, &message),
            recipe,
            seed,
            suites: config.suites,
            responder: config.responder,
            receiver: config.receiver,
            own,
        })
    }

    /// The init to send, and to send again unchanged until answered.
    pub fn datagram(&self) -> &[u8] {
        &self.datagram
    }

    /// Our id, by which answers name this handshake.
    pub const fn receiver(&self) -> ReceiverId {
        self.receiver
    }

    /// Takes in a RETRY; afterwards [`Self::datagram`] carries the cookie. False when it is not
    /// for our init.
    pub fn handle_retry(&mut self, datagram: &[u8]) -> bool {
        let Ok(init) = Init::parse(&self.datagram) else { return false };
        let Some(cookie) = retry_cookie(datagram, &init) else { return false };
        self.datagram[init::COOKIE_AT..NOISE_AT].copy_from_slice(&cookie);
        true
    }

    /// Reads the reply (two more curve operations, three with XX). After an error the state is as
    /// it was: drop the datagram and keep waiting.
    ///
    /// # Errors
    /// [`HandshakeError`] when this is not the true reply, or one was read before.
    pub fn read_reply(&mut self, datagram: &[u8]) -> Result<Completed, HandshakeError> {
        let mut reader = Reader::new(datagram);
        if reader.u8() != Ok(kind::HANDSHAKE_REPLY) || reader.u32() != Ok(self.receiver.0) {
            return Err(HandshakeError::Malformed);
        }
        let mut noise = self.noise.take().ok_or(HandshakeError::Unauthentic)?;
        match self.advance(&mut noise, reader.rest()) {
            Ok((info, finish)) => Ok(self.complete(noise, info, finish)?),
            Err(error) => {
                self.noise = Some(self.recover(noise)?);
                Err(error)
            }
        }
    }

    fn advance(
        &self,
        noise: &mut HandshakeState,
        message: &[u8],
    ) -> Result<(ReplyInfo, Option<Vec<u8>>), HandshakeError> {
        let payload = read(noise, message)?;
        let info = ReplyInfo::decode(&payload, self.responder)?;
        if !self.suites.contains(info.suite) {
            return Err(HandshakeError::Malformed);
        }
        let finish = match self.recipe.pattern {
            Pattern::Ik => None,
            Pattern::Xx => Some(write_finish(noise, info.address, self.own)?),
        };
        Ok((info, finish))
    }

    fn complete(
        &self,
        noise: HandshakeState,
        info: ReplyInfo,
        finish: Option<Vec<u8>>,
    ) -> Result<Completed, HandshakeError> {
        let said = LastPayload { epoch: info.epoch, boot: info.boot };
        let established = Established::new(noise, said, info.suite)?;
        Ok(Completed { established, info, finish })
    }

    /// Anybody can write a second message of XX that snow accepts and we do not: then the state
    /// is made again. Otherwise snow has put itself back.
    fn recover(&self, noise: HandshakeState) -> Result<HandshakeState, HandshakeError> {
        let is_waiting = !noise.is_my_turn() && !noise.is_handshake_finished();
        if is_waiting || self.recipe.pattern == Pattern::Ik {
            return Ok(noise);
        }
        let mut noise = self.recipe.start(&self.seed)?;
        write(&mut noise, &[])?;
        Ok(noise)
    }
}

/// The initiator's end: keys, what the responder said and, with XX, the datagram to send before
/// any data.
pub struct Completed {
    /// For [`crate::session::Session::new`].
    pub established: Established,
    /// What the responder said.
    pub info: ReplyInfo,
    /// HANDSHAKE_FINISH, with XX.
    pub finish: Option<Vec<u8>>,
}

fn head(
    config: &InitConfig<'_>,
    pattern: Pattern,
    payload_len: usize,
) -> Result<[u8; HEAD_LEN], HandshakeError> {
    let (number, len) = match pattern {
        Pattern::Ik => (0, payload_len + NOISE_OVERHEAD_MAX),
        Pattern::Xx => (1, init::XX_LEN),
    };
    if NOISE_AT + len > HANDSHAKE_INIT_LEN {
        return Err(HandshakeError::Malformed);
    }
    let len = u16::try_from(len).map_err(|_| HandshakeError::Malformed)?;
    let mut head = Vec::with_capacity(HEAD_LEN);
    head.put(&[kind::HANDSHAKE_INIT, VERSION, number]);
    head.put(&[config.responder.to_wire(), config.suites.to_wire(), 0]);
    head.put_u16(len);
    head.put_u32(config.receiver.0);
    head.try_into().map_err(|_| HandshakeError::Malformed)
}

fn datagram(config: &InitConfig<'_>, pattern: Pattern, head: &[u8], noise: &[u8]) -> Vec<u8> {
    // With XX the responder's key is unknown, and not part of mac1.
    let responder = config.remote.unwrap_or(PeerKey::from_bytes([0; 32]));
    let mut out = Vec::with_capacity(HANDSHAKE_INIT_LEN);
    out.put(head);
    out.put(&init::mac1(pattern, &responder, head, noise));
    out.put(&[0; 16]);
    out.put(noise);
    if config.padding == Padding::Full {
        out.resize(HANDSHAKE_INIT_LEN, 0);
    }
    out
}

fn retry_cookie(datagram: &[u8], init: &Init<'_>) -> Option<[u8; 16]> {
    let mut reader = Reader::new(datagram);
    let is_ours = reader.u8().ok()? == kind::RETRY
        && reader.u32().ok()? == init.receiver.0
        && reader.array::<16>().ok()? == init.mac1;
    let cookie = reader.array().ok()?;
    (is_ours && reader.is_empty()).then_some(cookie)
}

fn write_finish(
    noise: &mut HandshakeState,
    address: Address,
    own: LastPayload,
) -> Result<Vec<u8>, HandshakeError> {
    let message = write(noise, &own.encode())?;
    let mut out = Vec::with_capacity(9 + message.len());
    out.put_u8(kind::HANDSHAKE_FINISH);
    match address {
        Address::Peer(id) => out.put_u32(id.0),
        Address::Server(token) => out.put_u64(token.0),
    }
    out.put(&message);
    Ok(out)
}
