//! The routers of the lab, by name.
//!
//! The kernel plays five of them: `none`, `fullcone`, `restricted`, `portrestricted` and `symmetric`; `firewall` is what
//! its IPv6 rules make. Every other kind is MAPPING-FILTERING-PORTS[-AGE], for example `adm-apdf-seq3`, and is played in
//! user space by the simulated internet's NAT box:
//!
//! - mapping `eim`, `adm` or `apdm`, filtering `eif`, `adf` or `apdf` (RFC 4787 sections 4.1 and 5);
//! - ports `pres` (the inner port where it is free), `seqN` (the last one plus N), `block` (from a subscriber's share of
//!   the ports, as carriers hand it out) or `rand` (any);
//! - `ageN`: a mapping ends at an age of N seconds, whatever goes through it.

use crate::Failure;
use std::str::FromStr;
use std::time::Duration;
use world::nat::{Dependence, NatConfig, Ports};

/// What a carrier hands to a subscriber: 2048 ports from here on.
const BLOCK: Ports = Ports::Block { first: 40_960, len: 2048 };

/// What a router does, in the terms of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) mapping: Mapping,
    pub(crate) filtering: Dependence,
    /// When a mapping ends, whatever goes through it.
    age: Option<Duration>,
}

/// Which outer endpoint an inner one gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Its own: there is no translation.
    Untranslated,
    /// One for each that [`Dependence`] tells apart.
    Translated(Dependence, Ports),
}

impl Kind {
    const NONE: Self = Self::new(Mapping::Untranslated, Dependence::Endpoint);
    const FIREWALL: Self = Self::new(Mapping::Untranslated, Dependence::AddressAndPort);

    const fn new(mapping: Mapping, filtering: Dependence) -> Self {
        Self { mapping, filtering, age: None }
    }

    /// The kernel's translations, which keep a port where nothing forbids it.
    const fn cone(filtering: Dependence) -> Self {
        Self::new(Mapping::Translated(Dependence::Endpoint, Ports::Preserving), filtering)
    }

    const fn symmetric() -> Self {
        let mapping = Mapping::Translated(Dependence::AddressAndPort, Ports::Random);
        Self::new(mapping, Dependence::AddressAndPort)
    }

    /// The box that plays it; `None` where nothing is translated.
    pub(crate) fn config(self) -> Option<NatConfig> {
        match self.mapping {
            Mapping::Untranslated => None,
            Mapping::Translated(mapping, ports) => {
                let config = NatConfig::SYMMETRIC.with_behaviour(mapping, self.filtering);
                Some(NatConfig { absolute: self.age, ..config.with_ports(ports) })
            }
        }
    }
}

impl FromStr for Kind {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text {
            "none" => Ok(Self::NONE),
            "firewall" => Ok(Self::FIREWALL),
            "fullcone" => Ok(Self::cone(Dependence::Endpoint)),
            "restricted" => Ok(Self::cone(Dependence::Address)),
            "portrestricted" => Ok(Self::cone(Dependence::AddressAndPort)),
            "symmetric" => Ok(Self::symmetric()),
            other => {
                composed(other).ok_or_else(|| format!("no such kind of router: {text}").into())
            }
        }
    }
}

fn composed(text: &str) -> Option<Kind> {
    let mut parts = text.split('-');
    let mapping = match parts.next()? {
        "eim" => Dependence::Endpoint,
        "adm" => Dependence::Address,
        "apdm" => Dependence::AddressAndPort,
        _ => return None,
    };
    let filtering = match parts.next()? {
        "eif" => Dependence::Endpoint,
        "adf" => Dependence::Address,
        "apdf" => Dependence::AddressAndPort,
        _ => return None,
    };
    let ports = match parts.next()? {
        "pres" => Ports::Preserving,
        "rand" => Ports::Random,
        "block" => BLOCK,
        counted => Ports::Sequential { step: counted.strip_prefix("seq")?.parse().ok()? },
    };
    let age = match parts.next() {
        Some(age) => Some(Duration::from_secs(age.strip_prefix("age")?.parse().ok()?)),
        None => None,
    };
    let mapping = Mapping::Translated(mapping, ports);
    parts.next().is_none().then_some(Kind { mapping, filtering, age })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_from_their_names() {
        let kind = |text: &str| text.parse::<Kind>().unwrap();
        assert_eq!(kind("none").config(), None);
        assert_eq!(kind("apdm-apdf-rand"), kind("symmetric"));
        assert_eq!(kind("eim-adf-pres"), kind("restricted"));
        let counting = kind("adm-eif-seq3");
        assert_eq!(counting.filtering, Dependence::Endpoint);
        let ports = Ports::Sequential { step: 3 };
        assert_eq!(counting.mapping, Mapping::Translated(Dependence::Address, ports));
        assert_eq!(kind("apdm-apdf-block").config().unwrap().ports, BLOCK);
        let short = kind("eim-apdf-rand-age25").config().unwrap();
        assert_eq!(short.absolute, Some(Duration::from_secs(25)));
        assert_eq!(kind("eim-apdf-rand").config().unwrap().absolute, None);
        for wrong in [
            "",
            "open",
            "eim-apdf-rand-age",
            "eim-apdf-rand-age25-1",
            "apdm-apdf",
            "apdm-apdf-seq",
            "eim-eif-pres-1",
        ] {
            assert!(wrong.parse::<Kind>().is_err(), "{wrong}");
        }
    }
}
