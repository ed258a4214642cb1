//! What the peers of a network derive from its LAN secret: the seal of their beacons, and the
//! introduction that two of them make on their own (SPEC section 15).

use std::time::Duration;

use rand::RngCore;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::kdf;
use crate::id::{CheckTag, ConnectId, LanSecret, NetworkId, PeerKey};
use crate::wire::beacon::BEACON_CONTENT_LEN;
use crate::wire::kind;

/// Bytes of every beacon: type, nonce, content, tag.
pub const BEACON_LEN: usize = HEADER_LEN + BEACON_CONTENT_LEN + TAG_LEN;

const NONCE_LEN: usize = 12;
const HEADER_LEN: usize = 1 + NONCE_LEN;
const TAG_LEN: usize = 16;
/// How long a key seals: random nonces of 96 bits stay apart for all that a network says in it.
const PERIOD: Duration = Duration::from_secs(3600);

/// The LAN secret of a network, from the secret that a server keeps on disk.
pub fn lan_secret(server_secret: &[u8; 32], network: &NetworkId) -> LanSecret {
    LanSecret(*kdf::hkdf(&[], &[server_secret], &[b"p2sp lan network", &network.0]))
}

/// Seals what a beacon says, [`BEACON_CONTENT_LEN`] bytes, under the key of this time.
pub fn seal_beacon(
    secret: &LanSecret,
    content: &[u8],
    unix: Duration,
    rng: &mut impl RngCore,
) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    rng.fill_bytes(&mut nonce);
    seal_with(nonce, secret, content, unix)
}

fn seal_with(
    nonce: [u8; NONCE_LEN],
    secret: &LanSecret,
    content: &[u8],
    unix: Duration,
) -> Vec<u8> {
    let mut sealed = content.to_vec();
    sealed.resize(BEACON_CONTENT_LEN, 0);
    let tag = key_of(secret, period(unix))
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from([kind::BEACON]),
            &mut sealed,
        )
        .expect("a beacon is far below the longest text of the cipher");
    [&[kind::BEACON][..], &nonce, &sealed, tag.as_ref()].concat()
}

/// What a beacon says, if it was sealed under the key of this time, of the period before or of
/// the one after: clocks differ.
pub fn open_beacon(secret: &LanSecret, datagram: &[u8], unix: Duration) -> Option<Vec<u8>> {
    if datagram.len() != BEACON_LEN || datagram[0] != kind::BEACON {
        return None;
    }
    let now = period(unix);
    [now, now.saturating_sub(1), now.saturating_add(1)].into_iter().find_map(|period| {
        let nonce = Nonce::try_assume_unique_for_key(&datagram[1..HEADER_LEN]).ok()?;
        let mut sealed = datagram[HEADER_LEN..].to_vec();
        let aad = Aad::from([kind::BEACON]);
        key_of(secret, period).open_in_place(nonce, aad, &mut sealed).ok()?;
        sealed.truncate(BEACON_CONTENT_LEN);
        Some(sealed)
    })
}

/// An introduction that nobody made: both sides derive the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// Names it, as a server's connect id would.
    pub connect: ConnectId,
    /// USERNAME of checks sent to us.
    pub own_tag: CheckTag,
    /// USERNAME of checks sent to them.
    pub their_tag: CheckTag,
}

/// What two peers derive from each other's key and beacon nonce, each given as (key, nonce).
pub fn meeting(own: (&PeerKey, &[u8; 16]), their: (&PeerKey, &[u8; 16])) -> Meeting {
    let (small, large) = if own.0 < their.0 { (own.1, their.1) } else { (their.1, own.1) };
    let hash = kdf::sha256(&[b"p2sp lan", small, large]);
    let mut connect = [0; 16];
    connect.copy_from_slice(&hash[..16]);
    let tag = |side: u8| {
        let out = kdf::hkdf(&connect, &[small, large], &[b"p2sp lan tag", &[side]]);
        let mut tag = [0; 8];
        tag.copy_from_slice(&out[..8]);
        CheckTag(tag)
    };
    let (of_small, of_large) = (tag(0), tag(1));
    let (own_tag, their_tag) =
        if own.0 < their.0 { (of_small, of_large) } else { (of_large, of_small) };
    Meeting { connect: ConnectId(connect), own_tag, their_tag }
}

fn period(unix: Duration) -> u64 {
    unix.as_secs() / PERIOD.as_secs()
}

fn key_of(secret: &LanSecret, period: u64) -> LessSafeKey {
    let key = kdf::hkdf(&[], &[&secret.0], &[b"p2sp lan beacon", &period.to_be_bytes()]);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &*key).expect("the key has 32 bytes");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha12Rng;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn rng() -> ChaCha12Rng {
        ChaCha12Rng::from_seed([5; 32])
    }

    fn sealed() -> (LanSecret, Vec<u8>) {
        let secret = LanSecret([1; 32]);
        let datagram = seal_beacon(&secret, &[7; BEACON_CONTENT_LEN], NOW, &mut rng());
        (secret, datagram)
    }

    #[test]
    fn keys_rotate_and_clocks_may_differ_by_a_period() {
        let (secret, datagram) = sealed();
        assert_eq!(datagram.len(), BEACON_LEN);
        let opens = |unix| open_beacon(&secret, &datagram, unix).is_some();
        assert!(opens(NOW) && opens(NOW + PERIOD) && opens(NOW - PERIOD));
        assert!(!opens(NOW + 2 * PERIOD) && !opens(NOW - 2 * PERIOD));
        assert_eq!(open_beacon(&secret, &datagram, NOW).unwrap(), [7; BEACON_CONTENT_LEN]);
    }

    #[test]
    fn only_the_secret_opens_and_every_byte_counts() {
        let (secret, datagram) = sealed();
        assert_eq!(open_beacon(&LanSecret([2; 32]), &datagram, NOW), None);
        for at in 0..datagram.len() {
            let mut altered = datagram.clone();
            altered[at] ^= 1;
            assert_eq!(open_beacon(&secret, &altered, NOW), None, "byte {at}");
        }
        assert_eq!(open_beacon(&secret, &datagram[..BEACON_LEN - 1], NOW), None);
    }

    #[test]
    fn the_same_words_never_look_the_same() {
        let (secret, mut rng) = (LanSecret([1; 32]), rng());
        let content = [7; BEACON_CONTENT_LEN];
        let first = seal_beacon(&secret, &content, NOW, &mut rng);
        assert_ne!(first, seal_beacon(&secret, &content, NOW, &mut rng));
    }

    #[test]
    fn networks_and_servers_have_secrets_of_their_own() {
        let (a, b) = (NetworkId([1; 16]), NetworkId([2; 16]));
        assert_eq!(lan_secret(&[1; 32], &a), lan_secret(&[1; 32], &a));
        assert_ne!(lan_secret(&[1; 32], &a), lan_secret(&[1; 32], &b));
        assert_ne!(lan_secret(&[1; 32], &a), lan_secret(&[2; 32], &a));
    }

    #[test]
    fn both_sides_make_the_same_introduction() {
        let (a, b) = (PeerKey::from_bytes([1; 32]), PeerKey::from_bytes([2; 32]));
        let of_a = meeting((&a, &[3; 16]), (&b, &[4; 16]));
        let of_b = meeting((&b, &[4; 16]), (&a, &[3; 16]));
        assert_eq!(of_a.connect, of_b.connect);
        assert_eq!((of_a.own_tag, of_a.their_tag), (of_b.their_tag, of_b.own_tag));
        assert_ne!(of_a.own_tag, of_a.their_tag);
        assert_ne!(of_a.connect, meeting((&a, &[5; 16]), (&b, &[4; 16])).connect);
    }

    #[test]
    fn the_vectors_of_the_specification_hold() {
        let spec = include_str!("../../SPEC.md");
        let section = spec.split_once("### 15.5 Test vectors").expect("section 15.5").1;
        let secret = lan_secret(&[0x77; 32], &crate::session::network_id("open"));
        let content = [0x0C; BEACON_CONTENT_LEN];
        let datagram = seal_with([0; NONCE_LEN], &secret, &content, NOW);
        let (small, large) = (PeerKey::from_bytes([1; 32]), PeerKey::from_bytes([2; 32]));
        let met = meeting((&small, &[0x0A; 16]), (&large, &[0x0B; 16]));
        let hash = kdf::sha256(&[&datagram]);
        for (name, value) in [
            ("lan secret", &secret.0[..]),
            ("beacon hash", &hash),
            ("connect id", &met.connect.0),
            ("tag 0", &met.own_tag.0),
            ("tag 1", &met.their_tag.0),
        ] {
            let line = format!("{name} = {}", data_encoding::HEXLOWER.encode(value));
            assert!(section.contains(&line), "{line}");
        }
    }

    proptest! {
        #[test]
        fn garbage_opens_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..2 * BEACON_LEN),
        ) {
            let mut bytes = bytes;
            prop_assert_eq!(open_beacon(&LanSecret([1; 32]), &bytes, NOW), None);
            bytes.resize(BEACON_LEN, 0);
            bytes[0] = kind::BEACON;
            prop_assert_eq!(open_beacon(&LanSecret([1; 32]), &bytes, NOW), None);
        }
    }
}
