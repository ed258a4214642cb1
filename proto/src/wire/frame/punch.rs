//! Finding each other's ports.

use super::number;
use crate::wire::codec::{DecodeError, Reader, Writer};

/// One step of a punch (SPEC section 9.9). Only ports are told: the address they belong to is the
/// one that the server shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punch {
    /// Numbers the rounds of the side that began this one.
    pub round: u64,
    /// What is told.
    pub step: PunchStep,
}

impl Punch {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let round = reader.varint()?;
        let step = match reader.u8()? {
            0 => PunchStep::Open(OpenPorts {
                first: reader.u16()?,
                step: reader.u16()? as i16,
                count: reader.u16()?,
                open: reader.u16()?,
            }),
            1 => PunchStep::Base { port: reader.u16()?, step: reader.u16()? as i16 },
            _ => return Err(DecodeError::Malformed),
        };
        Ok(Self { round, step })
    }

    pub(super) fn encode(self, out: &mut impl Writer) {
        out.put_u8(number::PUNCH);
        out.put_varint(self.round);
        match self.step {
            PunchStep::Open(ports) => {
                out.put_u8(0);
                out.put_u16(ports.first);
                out.put_u16(ports.step as u16);
                out.put_u16(ports.count);
                out.put_u16(ports.open);
            }
            PunchStep::Base { port, step } => {
                out.put_u8(1);
                out.put_u16(port);
                out.put_u16(step as u16);
            }
        }
    }
}

/// What a [`Punch`] tells of the sender's own NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PunchStep {
    /// Some of these ports are open towards the receiver, who is asked to probe them.
    Open(OpenPorts),
    /// The port that the last fresh socket got, and how far the next ones follow each other.
    Base {
        /// The port.
        port: u16,
        /// Distance from one allocation to the next.
        step: i16,
    },
}

/// `count` ports from `first` on, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPorts {
    /// The first one.
    pub first: u16,
    /// Distance from one to the next.
    pub step: i16,
    /// How many.
    pub count: u16,
    /// How many of them are open, at least.
    pub open: u16,
}
