//! Proof of an access token, and the network a name stands for (SPEC section 8.2).

use data_encoding::HEXLOWER;
use ring::hmac;

use super::kdf;
use crate::id::{Boot, NetworkId, PeerKey};

/// Proves, over the hash of a finished handshake, that the peer knows `secret`. Lower-case hex.
pub fn token_proof_session(secret: &str, handshake_hash: &[u8; 32]) -> String {
    prove(secret, &session_context(handshake_hash))
}

/// Proves in early data that the peer knows `secret`: bound to both keys and to values that the
/// server accepts once. Lower-case hex.
pub fn token_proof_early(
    secret: &str,
    server: &PeerKey,
    peer: &PeerKey,
    boot: Boot,
    counter: u64,
) -> String {
    prove(secret, &early_context(server, peer, boot, counter))
}

/// Whether `proof` is that of [`token_proof_session`]. Constant time.
pub fn verify_token_session(secret: &str, handshake_hash: &[u8; 32], proof: &str) -> bool {
    verify(secret, &session_context(handshake_hash), proof)
}

/// Whether `proof` is that of [`token_proof_early`]. Constant time.
pub fn verify_token_early(
    secret: &str,
    server: &PeerKey,
    peer: &PeerKey,
    boot: Boot,
    counter: u64,
    proof: &str,
) -> bool {
    verify(secret, &early_context(server, peer, boot, counter), proof)
}

/// The network with this name; the one of a server without tokens is named `open`.
pub fn network_id(name: &str) -> NetworkId {
    let hash = kdf::sha256(&[b"p2sp network", name.as_bytes()]);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    NetworkId(id)
}

fn session_context(handshake_hash: &[u8; 32]) -> Vec<u8> {
    [&b"p2sp session"[..], handshake_hash].concat()
}

fn early_context(server: &PeerKey, peer: &PeerKey, boot: Boot, counter: u64) -> Vec<u8> {
    let (boot, counter) = (boot.0.to_be_bytes(), counter.to_be_bytes());
    [&b"p2sp early"[..], server.as_bytes(), peer.as_bytes(), &boot, &counter].concat()
}

fn key(secret: &str) -> hmac::Key {
    kdf::mac_key(&*kdf::hkdf(&[], &[secret.as_bytes()], &[b"p2sp token"]))
}

fn prove(secret: &str, context: &[u8]) -> String {
    HEXLOWER.encode(hmac::sign(&key(secret), context).as_ref())
}

fn verify(secret: &str, context: &[u8], proof: &str) -> bool {
    let Ok(proof) = HEXLOWER.decode(proof.as_bytes()) else { return false };
    hmac::verify(&key(secret), context, &proof).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_secret_and_handshake_only() {
        let proof = token_proof_session("secret", &[1; 32]);
        assert_eq!(proof.len(), 64);
        assert!(verify_token_session("secret", &[1; 32], &proof));
        assert!(!verify_token_session("secret", &[2; 32], &proof));
        assert!(!verify_token_session("Secret", &[1; 32], &proof));
        assert!(!verify_token_session("secret", &[1; 32], &proof[..32]));
        assert!(!verify_token_session("secret", &[1; 32], "no hex"));
    }

    #[test]
    fn an_early_proof_is_bound_to_keys_boot_and_counter() {
        let (server, peer) = (PeerKey::from_bytes([1; 32]), PeerKey::from_bytes([2; 32]));
        let proof = token_proof_early("secret", &server, &peer, Boot(3), 4);
        let holds = |server, peer, boot, counter| {
            verify_token_early("secret", server, peer, Boot(boot), counter, &proof)
        };
        assert!(holds(&server, &peer, 3, 4));
        assert!(!holds(&peer, &server, 3, 4));
        assert!(!holds(&server, &server, 3, 4));
        assert!(!holds(&server, &peer, 4, 4));
        assert!(!holds(&server, &peer, 3, 5));
    }

    #[test]
    fn networks_differ_by_name() {
        assert_ne!(network_id("open"), network_id("Open"));
    }
}
