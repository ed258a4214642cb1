//! Requests of the session and the registration.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::{Asked, Proof, REFUSED_RETRY, ServerLink};
use crate::control::{Operation, Register, Request, TokenProof};
use crate::conversation::Conversation;
use crate::id::Channel;
use crate::session::token_proof_session;
use crate::transport;

impl ServerLink {
    /// Ids count from 1: a reply to 0 is the refusal of an OPEN.
    pub(super) fn draw_request_id(&mut self) -> u32 {
        let id = self.next_request;
        self.next_request = id.checked_add(1).unwrap_or(1);
        id
    }

    /// Sends a request; nothing is sent where no session stands.
    pub(in crate::node) fn ask(&mut self, operation: Operation, asked: Asked, now: Instant) {
        let id = self.draw_request_id();
        let Some(up) = &mut self.up else { return };
        if queue_request(&mut up.conversation, id, operation, now).is_ok() {
            up.requests.insert(id, asked);
        }
    }

    /// Registers in the session that stands.
    pub(in crate::node) fn ask_register(&mut self, now: Instant) {
        self.ask_register_as(Asked::Register(Proof::Session), now);
    }

    /// Tells the server, with which a registration stands, of candidates that it does not know.
    pub(in crate::node) fn tell_candidates(&mut self, now: Instant) {
        if self.wanted.as_ref().is_some_and(|wanted| wanted.candidates != self.told) {
            self.refresh(now);
        }
    }

    /// Says the registration that stands again.
    pub(in crate::node) fn refresh(&mut self, now: Instant) {
        self.ask_register_as(Asked::Refresh, now);
    }

    fn ask_register_as(&mut self, asked: Asked, now: Instant) {
        let Some(up) = &self.up else { return };
        let token = self.token.as_ref().map(|(id, secret)| TokenProof {
            id: id.clone(),
            proof: token_proof_session(secret, &up.handshake_hash),
        });
        if let Some(register) = self.register(token) {
            self.ask(Operation::Register(register), asked, now);
        }
    }

    /// The server refused for the moment: registers again a little later.
    pub(in crate::node) fn register_later(&mut self, now: Instant) {
        self.retry_at = Some(now + REFUSED_RETRY);
    }

    pub(super) fn register(&mut self, token: Option<TokenProof>) -> Option<Register> {
        let wanted = self.wanted.as_ref()?;
        self.told.clone_from(&wanted.candidates);
        Some(Register {
            name: wanted.name.clone(),
            token,
            keepalive: self.pulse.interval().as_secs() as u16,
            candidates: wanted.candidates.clone(),
            exposure: self.exposure,
        })
    }

    pub(super) fn queue_register(
        &mut self,
        token: Option<TokenProof>,
        proof: Proof,
        conversation: &mut Conversation,
        requests: &mut BTreeMap<u32, Asked>,
        now: Instant,
    ) {
        let Some(register) = self.register(token) else { return };
        let id = self.draw_request_id();
        if queue_request(conversation, id, Operation::Register(register), now).is_ok() {
            requests.insert(id, Asked::Register(proof));
        }
    }
}

fn queue_request(
    conversation: &mut Conversation,
    id: u32,
    operation: Operation,
    now: Instant,
) -> Result<(), transport::SendError> {
    let request = Request { id, operation };
    let json = serde_json::to_vec(&request).map_err(|_| transport::SendError::TooLong)?;
    conversation.transport().send(Channel(0), Bytes::from(json), now).map(|_| ())
}
