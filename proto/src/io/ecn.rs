//! Congestion marks of datagrams.

/// The two bits of an IP header that tell of congestion (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// Routers drop it when their queues are long.
    #[default]
    NotEct,
    /// Of a transport that heeds marks; this one sends none.
    Ect1,
    /// Of a transport that heeds marks.
    Ect0,
    /// It was marked by a router whose queue is long.
    Ce,
}

impl Ecn {
    /// As they stand in the IP header; higher bits do not count.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// As they stand in the IP header.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0,
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }
}
