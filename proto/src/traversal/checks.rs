//! Connectivity checks: authenticated Binding requests and their answers, built and read with
//! stun-rs (SPEC section 9).
//!
//! stun-rs neither insists on an integrity attribute nor compares in constant time, so presence
//! and value are checked here, before stun-rs sees the message.

use std::net::SocketAddr;

use data_encoding::HEXLOWER;
use ring::hmac;
use stun_rs::attributes::ice::{IceControlled, IceControlling, Priority, UseCandidate};
use stun_rs::attributes::stun::{Fingerprint, MessageIntegritySha256, UserName, XorMappedAddress};
use stun_rs::{HMACKey, MessageClass, StunMessage, StunMessageBuilder, TransactionId, methods};

use super::{Config, Role};
use crate::wire::stun::{self, BINDING_REQUEST, BINDING_SUCCESS, Message, kind};

/// 96 bits that tie an answer to its request.
pub(super) type Transaction = [u8; 12];

/// What a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Does this route work?
    Probe,
    /// Use this route (USE-CANDIDATE); the controlled side asks for it so.
    Nominate,
}

/// An authentic message of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Request {
        transaction: Transaction,
        purpose: Purpose,
    },
    /// `observed` is where the request of ours came from.
    Response {
        transaction: Transaction,
        observed: SocketAddr,
    },
}

/// Signs what we send and verifies what arrives.
pub(super) struct Signer {
    role: Role,
    own_tag: String,
    their_tag: String,
    send: HMACKey,
    receive: hmac::Key,
}

impl Signer {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            role: config.role,
            own_tag: HEXLOWER.encode(&config.own_tag.0),
            their_tag: HEXLOWER.encode(&config.their_tag.0),
            send: HMACKey::new_short_term(HEXLOWER.encode(&config.keys.0))
                .expect("hexadecimal digits are an opaque string"),
            receive: hmac::Key::new(hmac::HMAC_SHA256, HEXLOWER.encode(&config.keys.1).as_bytes()),
        }
    }

    pub(super) fn request(
        &self,
        transaction: Transaction,
        purpose: Purpose,
        priority: u32,
    ) -> Vec<u8> {
        let user = UserName::new(&self.their_tag).expect("hexadecimal digits are a username");
        let builder = builder(MessageClass::Request, transaction)
            .with_attribute(user)
            .with_attribute(Priority::new(priority));
        // Roles are fixed by the keys, so that the tie-breaker has nothing to decide.
        let builder = match self.role {
            Role::Controlling => builder.with_attribute(IceControlling::new(0)),
            Role::Controlled => builder.with_attribute(IceControlled::new(0)),
        };
        let builder = match purpose {
            Purpose::Probe => builder,
            Purpose::Nominate => builder.with_attribute(UseCandidate::default()),
        };
        self.seal(builder)
    }

    /// The success response: tells `observed`, the source of the request.
    pub(super) fn response(&self, transaction: Transaction, observed: SocketAddr) -> Vec<u8> {
        let builder = builder(MessageClass::SuccessResponse, transaction)
            .with_attribute(XorMappedAddress::from(observed));
        self.seal(builder)
    }

    /// Verifies and reads a datagram; `None` when it is not an authentic check for us.
    pub(super) fn read(&self, datagram: &[u8]) -> Option<Incoming> {
        let message = Message::parse(datagram)?;
        let transaction = message.transaction();
        let ours = match message.kind {
            BINDING_REQUEST => message.has_username(self.own_tag.as_bytes()),
            BINDING_SUCCESS => true,
            _ => false,
        };
        if !ours || !message.is_modern() || !self.is_authentic(&message) {
            return None;
        }
        let decoded = stun::decode(datagram)?;
        if message.kind == BINDING_SUCCESS {
            let observed = stun::mapped_address(&decoded)?;
            return Some(Incoming::Response { transaction, observed });
        }
        Some(Incoming::Request { transaction, purpose: self.purpose(&decoded)? })
    }

    fn seal(&self, builder: StunMessageBuilder) -> Vec<u8> {
        let message = builder
            .with_attribute(MessageIntegritySha256::new(self.send.clone()))
            .with_attribute(Fingerprint::default())
            .build();
        stun::encode(&message)
    }

    /// MESSAGE-INTEGRITY-SHA256 in full length, then FINGERPRINT, both right, nothing behind.
    fn is_authentic(&self, message: &Message<'_>) -> bool {
        let Some(integrity) = message.find(kind::MESSAGE_INTEGRITY_SHA256) else { return false };
        let Some(fingerprint) = message.find(kind::FINGERPRINT) else { return false };
        let adjacent = integrity.at + INTEGRITY_LEN == fingerprint.at;
        if !adjacent || !message.is_fingerprint(&fingerprint) {
            return false;
        }
        let (header, body) = message.integrity_input(integrity.at, INTEGRITY_LEN);
        let input = [header.as_slice(), body].concat();
        hmac::verify(&self.receive, &input, integrity.value).is_ok()
    }

    /// What an authentic request asks; `None` when its sender has our own role or it names
    /// another receiver inside the part that integrity covers.
    fn purpose(&self, request: &StunMessage) -> Option<Purpose> {
        let user = request.get::<UserName>()?.as_user_name().ok()?;
        let other_role = match self.role {
            Role::Controlling => request.get::<IceControlled>().is_some(),
            Role::Controlled => request.get::<IceControlling>().is_some(),
        };
        if user.as_str() != self.own_tag || !other_role {
            return None;
        }
        Some(match request.get::<UseCandidate>() {
            Some(_) => Purpose::Nominate,
            None => Purpose::Probe,
        })
    }
}

fn builder(class: MessageClass, transaction: Transaction) -> StunMessageBuilder {
    StunMessageBuilder::new(methods::BINDING, class)
        .with_transaction_id(TransactionId::from(transaction))
}

/// Bytes of MESSAGE-INTEGRITY-SHA256 with its header; a truncated one is not accepted.
const INTEGRITY_LEN: usize = 36;
