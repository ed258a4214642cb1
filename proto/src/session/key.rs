//! Static keys, and the keys that two peers derive from them for connectivity checks.

use std::fmt;

use rand::RngCore;
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret, x25519};
use zeroize::Zeroizing;

use super::kdf::{self, Secret};
use crate::id::{ConnectId, PeerKey};

/// An X25519 static secret key and its public half. Wiped on drop; `Debug` shows only the
/// public half.
#[derive(Clone)]
pub struct StaticKey {
    secret: Secret,
    public: PeerKey,
}

impl StaticKey {
    /// A fresh key from 32 bytes of `rng`.
    pub fn generate(rng: &mut impl RngCore) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self::from_bytes(*secret)
    }

    /// The key with these secret bytes; any 32 bytes are one.
    pub fn from_bytes(secret: [u8; 32]) -> Self {
        let public = PeerKey::from_bytes(public_of(&secret));
        Self { secret: Zeroizing::new(secret), public }
    }

    /// The secret bytes, for the key file.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.secret.clone()
    }

    /// The public half.
    pub const fn public(&self) -> PeerKey {
        self.public
    }

    /// The X25519 shared secret (RFC 7748 section 6.1); `None` for a point of low order, whose
    /// result is zero whatever the secret.
    pub fn diffie_hellman(&self, remote: &PeerKey) -> Option<Zeroizing<[u8; 32]>> {
        agree(&self.secret, remote.as_bytes())
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StaticKey").field(&self.public).finish()
    }
}

/// The public key of a secret one.
pub(super) fn public_of(secret: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*secret)).to_bytes()
}

/// X25519, refusing points of low order.
pub(super) fn agree(secret: &[u8; 32], public: &[u8; 32]) -> Option<Secret> {
    let shared = Zeroizing::new(x25519(*secret, *public));
    let is_zero = shared.ct_eq(&[0; 32]);
    (!bool::from(is_zero)).then_some(shared)
}

/// The two directional keys that authenticate the checks of a pair (SPEC section 9): `.0` signs
/// what `mine` sends, `.1` verifies what it receives. `None` for a key of low order.
pub fn check_keys(
    mine: &StaticKey,
    theirs: &PeerKey,
    connect: &ConnectId,
) -> Option<([u8; 32], [u8; 32])> {
    let shared = mine.diffie_hellman(theirs)?;
    let key = |direction: u8| *kdf::hkdf(&connect.0, &[&*shared], &[b"p2sp check", &[direction]]);
    Some(if mine.public < *theirs { (key(0), key(1)) } else { (key(1), key(0)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All points of order 1, 2, 4 and 8 in their canonical encodings, and one that is not.
    const LOW_ORDER: [&str; 5] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    fn hex(text: &str) -> [u8; 32] {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_example_of_rfc_7748_section_6_1_holds() {
        let alice = StaticKey::from_bytes(hex(
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        ));
        let bob = StaticKey::from_bytes(hex(
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ));
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(alice.diffie_hellman(&bob.public()).as_deref(), Some(&shared));
        assert_eq!(bob.diffie_hellman(&alice.public()).as_deref(), Some(&shared));
    }

    #[test]
    fn points_of_low_order_are_refused() {
        let key = StaticKey::from_bytes([7; 32]);
        for text in LOW_ORDER {
            let point = PeerKey::from_bytes(hex(text));
            assert!(key.diffie_hellman(&point).is_none(), "{text}");
            assert!(check_keys(&key, &point, &ConnectId([0; 16])).is_none(), "{text}");
        }
    }

    #[test]
    fn what_one_side_signs_the_other_verifies() {
        let (a, b) = (StaticKey::from_bytes([1; 32]), StaticKey::from_bytes([2; 32]));
        let connect = ConnectId([9; 16]);
        let (a_signs, a_verifies) = check_keys(&a, &b.public(), &connect).unwrap();
        let (b_signs, b_verifies) = check_keys(&b, &a.public(), &connect).unwrap();
        assert_eq!((a_signs, a_verifies), (b_verifies, b_signs));
        assert_ne!(a_signs, b_signs);
        let other = check_keys(&a, &b.public(), &ConnectId([8; 16])).unwrap();
        assert_ne!(other.0, a_signs);
    }

    #[test]
    fn debug_shows_nothing_secret() {
        let key = StaticKey::from_bytes([1; 32]);
        assert_eq!(format!("{key:?}"), format!("StaticKey({})", key.public().fingerprint()));
    }
}
