//! How a peer tells its NAT profile to another (SPEC section 9.8): each property is a byte that
//! says what it is, 0 for unknown, then the number of samples and what belongs to the value.

use std::time::Duration;

use super::nat::{Allocation, Dependence, Field, Hairpin, Profile, Unsolicited};
use crate::wire::codec::{DecodeError, Reader, Writer};

impl Profile {
    /// The profile as it travels in a NAT frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode_dependence(&self.mapping, &mut out);
        encode_dependence(&self.filtering, &mut out);
        encode_field(&self.allocation, &mut out, encode_allocation);
        encode_field(&self.hairpin, &mut out, |value, _| match value {
            Hairpin::Works => 1,
            Hairpin::Fails => 2,
        });
        encode_field(&self.unsolicited, &mut out, |value, _| match value {
            Unsolicited::Forgotten => 1,
            Unsolicited::Remembered => 2,
        });
        encode_field(&self.lifetime, &mut out, |value, rest| {
            rest.put_varint(value.as_secs());
            1
        });
        out
    }

    /// Reads a profile. Nothing is malformed: from the first thing on that has no meaning here,
    /// all is unknown, and what follows the last property is of a later version.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut profile = Self::default();
        // An error ends the reading; what was read before it stands.
        let _ = profile.read(&mut Reader::new(bytes));
        profile
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.mapping = decode_field(reader, decode_dependence)?;
        self.filtering = decode_field(reader, decode_dependence)?;
        self.allocation = decode_field(reader, decode_allocation)?;
        self.hairpin = decode_field(reader, |code, _| match code {
            1 => Ok(Hairpin::Works),
            2 => Ok(Hairpin::Fails),
            _ => Err(DecodeError::Malformed),
        })?;
        self.unsolicited = decode_field(reader, |code, _| match code {
            1 => Ok(Unsolicited::Forgotten),
            2 => Ok(Unsolicited::Remembered),
            _ => Err(DecodeError::Malformed),
        })?;
        self.lifetime = decode_field(reader, |code, reader| match code {
            1 => Ok(Duration::from_secs(reader.varint()?)),
            _ => Err(DecodeError::Malformed),
        })?;
        Ok(())
    }
}

/// `write` puts what belongs to the value and answers its code.
fn encode_field<T: Copy>(
    field: &Field<T>,
    out: &mut Vec<u8>,
    write: impl FnOnce(T, &mut Vec<u8>) -> u8,
) {
    let Field::Known { value, samples } = *field else { return out.put_u8(0) };
    let mut rest = Vec::new();
    let code = write(value, &mut rest);
    out.put_u8(code);
    out.put_u16(samples);
    out.put(&rest);
}

fn decode_field<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(u8, &mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Field<T>, DecodeError> {
    let code = reader.u8()?;
    if code == 0 {
        return Ok(Field::Unknown);
    }
    let samples = reader.u16()?;
    Ok(Field::Known { value: read(code, reader)?, samples })
}

fn encode_dependence(field: &Field<Dependence>, out: &mut Vec<u8>) {
    encode_field(field, out, |value, _| match value {
        Dependence::Endpoint => 1,
        Dependence::Address => 2,
        Dependence::AddressAndPort => 3,
        Dependence::NotPort => 4,
    });
}

fn decode_dependence(code: u8, _: &mut Reader<'_>) -> Result<Dependence, DecodeError> {
    Ok(match code {
        1 => Dependence::Endpoint,
        2 => Dependence::Address,
        3 => Dependence::AddressAndPort,
        4 => Dependence::NotPort,
        _ => return Err(DecodeError::Malformed),
    })
}

fn encode_allocation(value: Allocation, rest: &mut Vec<u8>) -> u8 {
    match value {
        Allocation::Preserving => 1,
        Allocation::Sequential { step } => {
            rest.put_u16(step as u16);
            2
        }
        Allocation::Block { first, last } => {
            rest.put_u16(first);
            rest.put_u16(last);
            3
        }
        Allocation::Random => 4,
    }
}

fn decode_allocation(code: u8, reader: &mut Reader<'_>) -> Result<Allocation, DecodeError> {
    let value = match code {
        1 => Allocation::Preserving,
        2 => Allocation::Sequential { step: reader.u16()? as i16 },
        3 => Allocation::Block { first: reader.u16()?, last: reader.u16()? },
        4 => Allocation::Random,
        _ => return Err(DecodeError::Malformed),
    };
    match value {
        Allocation::Sequential { step: 0 } => Err(DecodeError::Malformed),
        Allocation::Block { first, last } if first > last => Err(DecodeError::Malformed),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field<T: Copy + std::fmt::Debug + 'static>(
        values: impl Strategy<Value = T> + 'static,
    ) -> impl Strategy<Value = Field<T>> {
        prop_oneof![
            Just(Field::Unknown),
            (values, any::<u16>()).prop_map(|(value, samples)| Field::Known { value, samples }),
        ]
    }

    fn dependence() -> impl Strategy<Value = Dependence> {
        prop::sample::select(vec![
            Dependence::Endpoint,
            Dependence::Address,
            Dependence::AddressAndPort,
            Dependence::NotPort,
        ])
    }

    fn allocation() -> impl Strategy<Value = Allocation> {
        prop_oneof![
            Just(Allocation::Preserving),
            any::<i16>()
                .prop_filter("0", |step| *step != 0)
                .prop_map(|step| Allocation::Sequential { step }),
            any::<(u16, u16)>()
                .prop_map(|(a, b)| Allocation::Block { first: a.min(b), last: a.max(b) }),
            Just(Allocation::Random),
        ]
    }

    fn profile() -> impl Strategy<Value = Profile> {
        let hairpin = prop::sample::select(vec![Hairpin::Works, Hairpin::Fails]);
        let unsolicited =
            prop::sample::select(vec![Unsolicited::Forgotten, Unsolicited::Remembered]);
        let lifetime = (0u64..1 << 30).prop_map(Duration::from_secs);
        let fields = (
            field(dependence()),
            field(dependence()),
            field(allocation()),
            field(hairpin),
            field(unsolicited),
            field(lifetime),
        );
        fields.prop_map(|(mapping, filtering, allocation, hairpin, unsolicited, lifetime)| {
            Profile { mapping, filtering, allocation, hairpin, unsolicited, lifetime }
        })
    }

    proptest! {
        #[test]
        fn a_profile_is_read_as_it_was_written(profile in profile(), more in any::<Vec<u8>>()) {
            let bytes = profile.encode();
            prop_assert!(bytes.len() <= crate::wire::frame::PROFILE_LEN_MAX);
            prop_assert_eq!(Profile::decode(&bytes), profile);
            prop_assert_eq!(Profile::decode(&[bytes, more].concat()), profile);
        }

        #[test]
        fn whatever_comes_is_a_profile_that_can_be_told(bytes in any::<Vec<u8>>()) {
            let profile = Profile::decode(&bytes);
            prop_assert_eq!(Profile::decode(&profile.encode()), profile);
        }

        #[test]
        fn what_was_cut_off_is_unknown(profile in profile(), keep in any::<prop::sample::Index>()) {
            let bytes = profile.encode();
            let cut = Profile::decode(&bytes[..keep.index(bytes.len())]);
            prop_assert!(cut.mapping == profile.mapping || cut == Profile::default());
            prop_assert!(cut.lifetime == Field::Unknown);
        }
    }
}
