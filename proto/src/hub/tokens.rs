//! Which network a peer may enter.

use super::Config;
use super::sessions::Peer;
use crate::control::{Problem, TokenProof, code};
use crate::id::PeerKey;
use crate::session::{verify_token_early, verify_token_session};

/// The network of a server without access tokens.
pub(super) const OPEN_NETWORK: &str = "open";

/// The name of the network that `proof` opens to `peer`.
pub(super) fn admit(
    config: &Config,
    server: PeerKey,
    proof: Option<&TokenProof>,
    peer: &Peer,
) -> Result<String, Problem> {
    if config.tokens.is_empty() {
        return Ok(OPEN_NETWORK.to_owned());
    }
    let refuse = |text: &str| Problem { code: code::UNAUTHORIZED, text: text.to_owned() };
    let Some(proof) = proof else {
        return Err(refuse("this server needs an access token: ask its operator for one"));
    };
    let token = config.tokens.iter().find(|token| token.id == proof.id);
    match token {
        Some(token) if is_proved(&token.secret, server, &proof.proof, peer) => {
            Ok(token.network.clone())
        }
        Some(_) | None => {
            Err(refuse("the access token is not valid here: ask the operator for another"))
        }
    }
}

/// A proof is made over the handshake, or over the early data it came in.
fn is_proved(secret: &str, server: PeerKey, proof: &str, peer: &Peer) -> bool {
    let context = &peer.proof;
    verify_token_session(secret, &context.hash, proof)
        || context.early.is_some_and(|(boot, counter)| {
            verify_token_early(secret, &server, &peer.key, boot, counter, proof)
        })
}
