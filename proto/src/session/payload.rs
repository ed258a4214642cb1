//! What the handshake's messages carry under encryption (SPEC sections 4.2 to 4.4).

use super::cookie::InitRefusal;
use super::handshake::{
    EARLY_LEN_MAX, EarlyOffer, EarlyVerdict, HandshakeError, ReplyInfo, Responder, Suite,
};
use crate::id::{Address, Boot, Epoch, ReceiverId, Token};
use crate::wire::codec::{DecodeError, Reader, Writer as _};

/// What an initiator says of itself: all of message 3 of XX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastPayload {
    pub(super) epoch: Epoch,
    pub(super) boot: Boot,
}

impl LastPayload {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.put_u64(self.epoch.0);
        out.put_u64(self.boot.0);
        out
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new(payload);
        let said = Self::take(&mut reader)?;
        if reader.is_empty() { Ok(said) } else { Err(HandshakeError::Malformed) }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { epoch: Epoch(reader.u64()?), boot: Boot(reader.u64()?) })
    }
}

/// Payload of message 1 of IK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FirstPayload {
    pub(super) own: LastPayload,
    pub(super) early: Option<EarlyOffer>,
}

impl FirstPayload {
    pub(super) fn encode(&self) -> Result<Vec<u8>, HandshakeError> {
        let mut out = self.own.encode();
        let Some(early) = &self.early else {
            out.put(&[0; 16]);
            return Ok(out);
        };
        if early.boot.0 == 0 || early.frames.len() > EARLY_LEN_MAX {
            return Err(HandshakeError::Malformed);
        }
        out.put_u64(early.boot.0);
        out.put_u64(early.counter);
        out.put(&early.frames);
        Ok(out)
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new(payload);
        let own = LastPayload::take(&mut reader)?;
        let boot = Boot(reader.u64()?);
        let counter = reader.u64()?;
        let frames = reader.rest();
        match boot.0 {
            0 if frames.is_empty() => Ok(Self { own, early: None }),
            0 => Err(HandshakeError::Malformed),
            _ => {
                Ok(Self { own, early: Some(EarlyOffer { boot, counter, frames: frames.to_vec() }) })
            }
        }
    }
}

impl EarlyVerdict {
    const fn from_wire(verdict: u8) -> Option<Self> {
        match verdict {
            0 => Some(Self::None),
            1 => Some(Self::Accepted),
            2 => Some(Self::Rejected),
            _ => None,
        }
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Accepted => 1,
            Self::Rejected => 2,
        }
    }
}

impl ReplyInfo {
    /// Refuses what a responder of this kind does not say.
    pub(super) fn encode(&self, responder: Responder) -> Result<Vec<u8>, HandshakeError> {
        let mut out = Vec::with_capacity(61);
        out.put(&[self.suite.to_wire(), self.early.to_wire()]);
        out.put_u64(self.epoch.0);
        out.put_u64(self.boot.0);
        match (responder, self.address, self.reset, self.observed) {
            (Responder::Server, Address::Server(token), Some(reset), Some(observed)) => {
                out.put_u64(token.0);
                out.put(&reset);
                out.put_address(observed);
            }
            (Responder::Peer, Address::Peer(id), None, None) => out.put_u64(u64::from(id.0)),
            (Responder::Server | Responder::Peer, _, _, _) => {
                return Err(HandshakeError::Malformed);
            }
        }
        Ok(out)
    }

    pub(super) fn decode(payload: &[u8], responder: Responder) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new(payload);
        let suite = Suite::from_wire(reader.u8()?).ok_or(HandshakeError::Malformed)?;
        let early = EarlyVerdict::from_wire(reader.u8()?).ok_or(HandshakeError::Malformed)?;
        let said = LastPayload::take(&mut reader)?;
        let id = reader.u64()?;
        let (address, reset, observed) = match responder {
            Responder::Server => {
                let reset = reader.array()?;
                (Address::Server(Token(id)), Some(reset), Some(reader.address()?))
            }
            Responder::Peer => {
                let id = u32::try_from(id).map_err(|_| HandshakeError::Malformed)?;
                (Address::Peer(ReceiverId(id)), None, None)
            }
        };
        if !reader.is_empty() {
            return Err(HandshakeError::Malformed);
        }
        let LastPayload { epoch, boot } = said;
        Ok(Self { address, suite, epoch, boot, early, observed, reset })
    }
}

impl From<DecodeError> for HandshakeError {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

impl From<InitRefusal> for HandshakeError {
    fn from(refusal: InitRefusal) -> Self {
        match refusal {
            InitRefusal::Malformed | InitRefusal::UnknownVersion => Self::Malformed,
            InitRefusal::BadMac => Self::Unauthentic,
        }
    }
}
