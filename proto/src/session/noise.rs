//! How snow is used: which primitives, where its chance comes from, and what its errors mean.

use std::sync::{Arc, OnceLock};

use rand::{RngCore, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::handshake::HandshakeError;
use super::init::Pattern;
use super::kdf::{self, Secret};
use super::key::{self, StaticKey};
use super::seal::Side;
use crate::id::{NetworkId, PeerKey};

/// Everything a handshake state is made from. The same recipe and seed make the same state, so a
/// state that a forged message has spoilt can be made again.
pub(super) struct Recipe {
    pub(super) side: Side,
    pub(super) pattern: Pattern,
    pub(super) local: StaticKey,
    pub(super) remote: Option<PeerKey>,
    pub(super) prologue: Vec<u8>,
}

impl Recipe {
    /// A state before its first message, with `seed` for its ephemeral key.
    pub(super) fn start(&self, seed: &Seed) -> Result<HandshakeState, HandshakeError> {
        let resolver = Resolver { local: self.local.clone(), seed: seed.clone() };
        let mut builder = Builder::with_resolver(params(self.pattern)?, Box::new(resolver))
            .prologue(&self.prologue)?
            .local_private_key(self.local.secret())?;
        if let Some(remote) = &self.remote {
            builder = builder.remote_public_key(remote.as_bytes())?;
        }
        Ok(match self.side {
            Side::Initiator => builder.build_initiator()?,
            Side::Responder => builder.build_responder()?,
        })
    }
}

/// Binds the clear header of the init and the network (SPEC section 4).
pub(super) fn prologue(head: &[u8], network: &NetworkId) -> Vec<u8> {
    [b"p2sp", head, &network.0].concat()
}

/// The root key and the handshake hash of a finished handshake (SPEC section 5.1).
pub(super) fn finish(mut noise: HandshakeState) -> (Secret, [u8; 32]) {
    let (k1, k2) = noise.dangerously_get_raw_split();
    let (k1, k2) = (Zeroizing::new(k1), Zeroizing::new(k2));
    let mut hash = [0; 32];
    hash.copy_from_slice(noise.get_handshake_hash());
    (root(&hash, &k1, &k2), hash)
}

/// The root key of generation 0.
pub(super) fn root(hash: &[u8; 32], k1: &[u8; 32], k2: &[u8; 32]) -> Secret {
    kdf::hkdf(hash, &[k1, k2], &[b"p2sp root"])
}

fn params(pattern: Pattern) -> Result<NoiseParams, snow::Error> {
    match pattern {
        Pattern::Ik => "Noise_IK_25519_ChaChaPoly_SHA256",
        Pattern::Xx => "Noise_XX_25519_ChaChaPoly_SHA256",
    }
    .parse()
}

/// The seed of a state's generator. A responder's is given when it writes: reading needs no
/// chance, and an init that does not authenticate takes nothing from the caller's generator.
#[derive(Clone, Default)]
pub(super) struct Seed(Arc<OnceLock<Secret>>);

impl Seed {
    /// 32 bytes of `rng`.
    pub(super) fn draw(rng: &mut impl RngCore) -> Self {
        let seed = Self::default();
        seed.fill(rng);
        seed
    }

    /// Draws 32 bytes of `rng`, once.
    pub(super) fn fill(&self, rng: &mut impl RngCore) {
        self.0.get_or_init(|| {
            let mut bytes = Zeroizing::new([0; 32]);
            rng.fill_bytes(&mut *bytes);
            bytes
        });
    }
}

struct Resolver {
    local: StaticKey,
    seed: Seed,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom { seed: self.seed.clone(), generator: None }))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(Curve::new(&self.local)) as _)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

/// ChaCha20 from the seed; an error, never weak numbers, while there is no seed.
struct SeededRandom {
    seed: Seed,
    generator: Option<ChaCha20Rng>,
}

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        let seed = self.seed.0.get().ok_or(snow::Error::Rng)?;
        self.generator.get_or_insert_with(|| ChaCha20Rng::from_seed(**seed)).fill_bytes(out);
        Ok(())
    }
}

/// X25519 that refuses points of low order and wipes its secret.
struct Curve {
    /// Spares the curve operation that finds the public half of the static key.
    known: StaticKey,
    secret: Secret,
    public: [u8; 32],
}

impl Curve {
    fn new(known: &StaticKey) -> Self {
        Self { known: known.clone(), secret: Secret::default(), public: [0; 32] }
    }
}

impl Dh for Curve {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        // Only our own static key is ever set, and it has 32 bytes.
        self.secret.copy_from_slice(secret);
        let is_known = bool::from(self.known.secret().ct_eq(&*self.secret));
        self.public = match is_known {
            true => *self.known.public().as_bytes(),
            false => key::public_of(&self.secret),
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        rng.try_fill_bytes(&mut *self.secret)?;
        self.public = key::public_of(&self.secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public = public.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = key::agree(&self.secret, public).ok_or(snow::Error::Dh)?;
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&*shared);
        Ok(())
    }
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "snow's errors, and they may grow")]
        match error {
            snow::Error::Dh => Self::WeakKey,
            snow::Error::Input => Self::Malformed,
            _ => Self::Unauthentic,
        }
    }
}
