//! A profile for people and for programs.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::{Allocation, Dependence, Field, Hairpin, Profile, Unsolicited};

/// A line for each property.
impl Display for Profile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "mapping: {}", self.mapping)?;
        writeln!(f, "filtering: {}", self.filtering)?;
        writeln!(f, "external ports: {}", self.allocation)?;
        writeln!(f, "hairpin: {}", self.hairpin)?;
        writeln!(f, "unsolicited datagrams: {}", self.unsolicited)?;
        match self.lifetime {
            Field::Unknown => f.write_str("idle mappings: not known"),
            Field::Known { value, samples } => {
                let seconds = value.as_secs();
                write!(f, "idle mappings: live {seconds} s or more ({})", Samples(samples))
            }
        }
    }
}

impl<T: Display> Display for Field<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not known"),
            Self::Known { value, samples } => write!(f, "{value} ({})", Samples(*samples)),
        }
    }
}

struct Samples(u16);

impl Display for Samples {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 sample"),
            count => write!(f, "{count} samples"),
        }
    }
}

impl Display for Dependence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endpoint => "endpoint-independent",
            Self::Address => "address-dependent",
            Self::AddressAndPort => "address and port-dependent",
            Self::NotPort => "not port-dependent",
        })
    }
}

impl Display for Allocation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preserving => f.write_str("those of the host"),
            Self::Sequential { step } => write!(f, "counted by {step}"),
            Self::Block { first, last } => write!(f, "drawn from about {first} to {last}"),
            Self::Random => f.write_str("random"),
        }
    }
}

impl Display for Hairpin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Works => "works",
            Self::Fails => "fails",
        })
    }
}

impl Display for Unsolicited {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forgotten => "forgotten",
            Self::Remembered => "remembered, and in the way of later ones",
        })
    }
}

/// A duration in JSON: whole seconds.
pub(super) mod seconds {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{Duration, Field};

    pub(in super::super) fn serialize<S: Serializer>(
        lifetime: &Field<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        lifetime.map(|value| value.as_secs()).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Field<Duration>, D::Error> {
        Ok(Field::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}

impl<T: Copy> Field<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Unknown => Field::Unknown,
            Self::Known { value, samples } => Field::Known { value: change(value), samples },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known<T>(value: T, samples: u16) -> Field<T> {
        Field::Known { value, samples }
    }

    fn profile() -> Profile {
        Profile {
            mapping: known(Dependence::Endpoint, 4),
            filtering: known(Dependence::AddressAndPort, 1),
            allocation: known(Allocation::Block { first: 2048, last: 4095 }, 16),
            hairpin: Field::Unknown,
            unsolicited: known(Unsolicited::Forgotten, 2),
            lifetime: known(Duration::from_secs(45), 2),
        }
    }

    #[test]
    fn people_read_it() {
        let text = "mapping: endpoint-independent (4 samples)\n\
            filtering: address and port-dependent (1 sample)\n\
            external ports: drawn from about 2048 to 4095 (16 samples)\n\
            hairpin: not known\n\
            unsolicited datagrams: forgotten (2 samples)\n\
            idle mappings: live 45 s or more (2 samples)";
        assert_eq!(profile().to_string(), text);
    }

    #[test]
    fn programs_read_it() {
        let json = serde_json::to_value(profile()).unwrap();
        let expected = serde_json::json!({
            "mapping": {"value": "endpoint", "samples": 4},
            "filtering": {"value": "address_and_port", "samples": 1},
            "allocation": {"value": {"block": {"first": 2048, "last": 4095}}, "samples": 16},
            "hairpin": null,
            "unsolicited": {"value": "forgotten", "samples": 2},
            "lifetime": {"value": 45, "samples": 2},
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Profile>(json).unwrap(), profile());
    }

    #[test]
    fn what_is_not_known_any_more_is_as_before() {
        let new = Profile { hairpin: known(Hairpin::Works, 1), ..Profile::default() };
        let expected = Profile { hairpin: known(Hairpin::Works, 1), ..profile() };
        assert_eq!(new.or(profile()), expected);
    }
}
