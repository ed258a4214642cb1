//! HMAC and HKDF (RFC 5869) with SHA-256, for outputs of one block, which cannot fail.

use ring::{digest, hmac};
use zeroize::Zeroizing;

/// A secret of 32 bytes that is wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// HMAC-SHA256 over the parts, one after the other.
pub(super) fn mac(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

/// The first 16 bytes of [`mac`].
pub(super) fn mac16(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 16] {
    let tag = mac(key, parts);
    let mut out = [0; 16];
    out.copy_from_slice(&tag.as_ref()[..16]);
    out
}

/// An HMAC-SHA256 key.
pub(super) fn mac_key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

/// HKDF-Expand to 32 bytes: one block, so it is `HMAC(prk, info ‖ 1)`.
pub(super) fn expand(prk: &[u8], info: &[&[u8]]) -> Secret {
    let mut context = hmac::Context::with_key(&mac_key(prk));
    for part in info {
        context.update(part);
    }
    context.update(&[1]);
    secret_of(&context.sign())
}

/// HKDF-Extract and HKDF-Expand to 32 bytes.
pub(super) fn hkdf(salt: &[u8], ikm: &[&[u8]], info: &[&[u8]]) -> Secret {
    let prk = secret_of(&mac(&mac_key(salt), ikm));
    expand(&*prk, info)
}

/// SHA-256 over the parts, one after the other.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn secret_of(tag: &hmac::Tag) -> Secret {
    let mut out = Zeroizing::new([0; 32]);
    out.copy_from_slice(tag.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::hkdf::{HKDF_SHA256, Salt};

    #[test]
    fn it_is_the_hkdf_of_rfc_5869() {
        let mut expected = [0; 32];
        let prk = Salt::new(HKDF_SHA256, b"salt").extract(b"input key");
        prk.expand(&[b"a", b"b"], HKDF_SHA256).and_then(|okm| okm.fill(&mut expected)).unwrap();
        assert_eq!(*hkdf(b"salt", &[b"input", b" key"], &[b"ab"]), expected);
    }
}
