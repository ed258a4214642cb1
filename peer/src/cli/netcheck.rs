//! The network and what to expect from it, for people.

use p2sp_proto::io::SocketBuffers;
use p2sp_proto::traversal::nat::{Allocation, Dependence, Field, Hairpin, Profile, Unsolicited};

use super::output::clean;
use crate::report::{Checked, Lan, Measured, Reached};

/// The lines of a check.
pub(super) fn text(checked: &Checked) -> String {
    let Checked {
        server,
        registered,
        ways,
        ipv6,
        hidden,
        mapped,
        nat,
        measured,
        lan,
        buffers,
        outlook: _,
        verdict,
    } = checked;
    let mut lines = vec![format!(
        "* {}: {}",
        clean(server),
        if *registered { "registered" } else { "no answer" }
    )];
    lines.extend(ways.iter().map(way));
    if !ipv6 {
        lines.push("    IPv6: no way to the server".to_owned());
    }
    if *hidden {
        lines.push("    hidden: peers are not told where this one is".to_owned());
    }
    lines.extend(mapped.iter().map(|address| format!("    a router forwards {address} to you")));
    match measured {
        Measured::Done => lines.extend(profile(nat)),
        Measured::UnderWay => lines.push("    NAT: still being measured".to_owned()),
        Measured::Impossible => lines.push("    NAT: cannot be measured here".to_owned()),
    }
    lines.push(match lan {
        Lan::On => "    LAN: members of the network are looked for".to_owned(),
        Lan::Off => "    LAN: members of the network are not looked for".to_owned(),
        Lan::Open => "    LAN: nobody is looked for, because the network has no token".to_owned(),
    });
    lines.extend(buffers.map(room));
    lines.push(format!("* {verdict}"));
    lines.join("\n")
}

fn way(way: &Reached) -> String {
    let family = if way.server.is_ipv6() { "IPv6" } else { "IPv4" };
    let rtt = way.rtt_ms.map(|ms| format!(" in {ms:.1} ms")).unwrap_or_default();
    format!("    {family}: {} answers{rtt} and sees you at {}", way.server, way.address)
}

fn room(buffers: SocketBuffers) -> String {
    match buffers.shortage() {
        Some(shortage) => format!("    socket buffers: {shortage}"),
        None => format!("    socket buffers: {} KiB each way, as asked for", buffers.asked >> 10),
    }
}

/// A line for each property: what it is, and what that means for direct paths.
fn profile(nat: &Profile) -> Vec<String> {
    let line = |name: &str, is: String, means: Option<&str>| {
        let means = means.map(|means| format!(": {means}")).unwrap_or_default();
        format!("    {name}: {is}{means}")
    };
    let lifetime = match nat.lifetime {
        Field::Unknown => "not known".to_owned(),
        Field::Known { value, .. } => format!("{} s or more", value.as_secs()),
    };
    vec![
        line("mapping", nat.mapping.to_string(), nat.mapping.value().map(mapping)),
        line("filtering", nat.filtering.to_string(), nat.filtering.value().map(filtering)),
        line("external ports", nat.allocation.to_string(), nat.allocation.value().map(allocation)),
        line("hairpin", nat.hairpin.to_string(), nat.hairpin.value().map(hairpin)),
        line(
            "unsolicited datagrams",
            nat.unsolicited.to_string(),
            nat.unsolicited.value().map(unsolicited),
        ),
        line("idle mappings live", lifetime, None),
    ]
}

const fn mapping(value: Dependence) -> &'static str {
    match value {
        Dependence::Endpoint | Dependence::NotPort => "all peers can be told one address",
        Dependence::Address | Dependence::AddressAndPort => {
            "every peer sees another port, which it cannot be told"
        }
    }
}

const fn filtering(value: Dependence) -> &'static str {
    match value {
        Dependence::Endpoint => "anybody gets in, nobody has to be expected",
        Dependence::Address | Dependence::NotPort => "peers get in from any port once expected",
        Dependence::AddressAndPort => "peers get in from the expected port alone",
    }
}

const fn allocation(value: Allocation) -> &'static str {
    match value {
        Allocation::Preserving => "the next one is known",
        Allocation::Sequential { .. } => "the next ones can be counted",
        Allocation::Block { .. } => "the next one is among few",
        Allocation::Random => "the next one is anybody's guess",
    }
}

const fn hairpin(value: Hairpin) -> &'static str {
    match value {
        Hairpin::Works => "peers behind the same router reach each other",
        Hairpin::Fails => "peers behind the same router need local addresses",
    }
}

const fn unsolicited(value: Unsolicited) -> &'static str {
    match value {
        Unsolicited::Forgotten => "early checks do no harm",
        Unsolicited::Remembered => "early checks may move the port",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked() -> Checked {
        let known = |value| Field::Known { value, samples: 2 };
        Checked {
            server: "s:1".into(),
            registered: true,
            ways: vec![Reached {
                server: "192.0.2.1:1".parse().unwrap(),
                address: "198.51.100.1:4000".parse().unwrap(),
                rtt_ms: Some(12.34),
            }],
            ipv6: false,
            hidden: false,
            mapped: vec!["198.51.100.1:4001".parse().unwrap()],
            nat: Profile {
                mapping: known(Dependence::Endpoint),
                filtering: known(Dependence::AddressAndPort),
                ..Profile::default()
            },
            measured: Measured::Done,
            lan: Lan::On,
            buffers: Some(SocketBuffers { asked: 2 << 20, receive: 2 << 20, send: 4 << 20 }),
            outlook: "most".into(),
            verdict: "so it is".into(),
        }
    }

    #[test]
    fn people_read_what_each_property_means() {
        assert_eq!(
            text(&checked()),
            "* s:1: registered\n    \
             IPv4: 192.0.2.1:1 answers in 12.3 ms and sees you at 198.51.100.1:4000\n    \
             IPv6: no way to the server\n    \
             a router forwards 198.51.100.1:4001 to you\n    \
             mapping: endpoint-independent (2 samples): all peers can be told one address\n    \
             filtering: address and port-dependent (2 samples): peers get in from the expected port alone\n    \
             external ports: not known\n    \
             hairpin: not known\n    \
             unsolicited datagrams: not known\n    \
             idle mappings live: not known\n    \
             LAN: members of the network are looked for\n    \
             socket buffers: 2048 KiB each way, as asked for\n\
             * so it is"
        );
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let dark = Checked {
            registered: false,
            ways: Vec::new(),
            ipv6: true,
            hidden: true,
            mapped: Vec::new(),
            measured: Measured::Impossible,
            lan: Lan::Off,
            buffers: None,
            ..checked()
        };
        assert_eq!(
            text(&dark),
            "* s:1: no answer\n    hidden: peers are not told where this one is\n    \
             NAT: cannot be measured here\n    \
             LAN: members of the network are not looked for\n* so it is"
        );
    }

    #[test]
    fn small_socket_buffers_are_told_with_their_remedy() {
        let small = SocketBuffers { asked: 2 << 20, receive: 208 << 10, send: 2 << 20 };
        let said = text(&Checked { buffers: Some(small), ..checked() });
        let line = said.lines().find(|line| line.starts_with("    socket buffers: ")).unwrap();
        for part in ["208 KiB", "2048 KiB were asked for", &small.shortage().unwrap().to_string()] {
            assert!(line.contains(part), "{part:?} is missing: {line}");
        }
    }
}
