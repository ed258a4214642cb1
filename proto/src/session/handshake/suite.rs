//! What kind of machine answers, and which ciphers both ends can do.

/// Which kind of machine answers a handshake; bound by the prologue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responder {
    /// A rendezvous server.
    Server,
    /// A peer.
    Peer,
}

impl Responder {
    pub(in crate::session) const fn from_wire(role: u8) -> Option<Self> {
        match role {
            0 => Some(Self::Server),
            1 => Some(Self::Peer),
            _ => None,
        }
    }

    pub(in crate::session) const fn to_wire(self) -> u8 {
        match self {
            Self::Server => 0,
            Self::Peer => 1,
        }
    }
}

/// How the packets of a session are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// RFC 8439.
    ChaCha20Poly1305,
    /// AES-256 in GCM, for ends that both have it in hardware.
    Aes256Gcm,
}

impl Suite {
    pub(in crate::session) const fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::ChaCha20Poly1305),
            1 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    pub(in crate::session) const fn to_wire(self) -> u8 {
        match self {
            Self::ChaCha20Poly1305 => 0,
            Self::Aes256Gcm => 1,
        }
    }
}

/// Suites one end offers. ChaCha20Poly1305 is always in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suites {
    aes: bool,
}

impl Suites {
    /// `aes` says whether the machine has AES hardware.
    pub const fn new(aes: bool) -> Self {
        Self { aes }
    }

    /// AES where both have it, else ChaCha.
    pub const fn choose(self, other: Self) -> Suite {
        if self.aes && other.aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 }
    }

    /// Whether `suite` is among these.
    pub const fn contains(self, suite: Suite) -> bool {
        match suite {
            Suite::ChaCha20Poly1305 => true,
            Suite::Aes256Gcm => self.aes,
        }
    }

    /// Bit 0 must be set; bits above 1 are for suites to come and mean nothing yet.
    pub(in crate::session) const fn from_wire(bits: u8) -> Option<Self> {
        if bits & 1 == 1 { Some(Self { aes: bits & 2 != 0 }) } else { None }
    }

    pub(in crate::session) const fn to_wire(self) -> u8 {
        if self.aes { 3 } else { 1 }
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
/// Whether this processor has AES and carry-less multiplication: what shells tell a machine's
/// configuration. The machines themselves never ask.
pub fn has_aes_hardware() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
/// Whether this processor has AES and carry-less multiplication: what shells tell a machine's
/// configuration. The machines themselves never ask.
pub fn has_aes_hardware() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
/// Whether this processor has AES and carry-less multiplication: what shells tell a machine's
/// configuration. The machines themselves never ask.
pub fn has_aes_hardware() -> bool {
    false
}
