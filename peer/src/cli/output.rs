//! Reports as lines: for people, or as JSON.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p2sp_proto::control::LeaveReason;
use p2sp_proto::time::span;
use p2sp_proto::traversal::nat::Profile;

use super::netcheck;
use crate::report::{
    Answered, Explained, Kind, ListScope, Listed, Path, PathKind, Report, To, Tried,
};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// The lines to print for a report, without the last line end.
pub(super) fn render(report: &Report, format: Format) -> String {
    match format {
        Format::Text => text(report),
        Format::Json => json(report),
    }
}

fn json(report: &Report) -> String {
    let line = serde_json::to_string(report).unwrap_or_default();
    let mut safe = String::with_capacity(line.len());
    for c in line.chars() {
        if is_unsafe(c) {
            // Only inside strings, where the escape means the same. All are below U+10000.
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn text(report: &Report) -> String {
    match report {
        Report::Registered { .. } => greeting(report),
        Report::Observed { address } => format!("* the server now sees you at {address}"),
        Report::Silent { server } => format!("* no answer from {}, still trying", clean(server)),
        Report::Joined { name, address, .. } => {
            format!("* {name} is here ({})", address_text(*address))
        }
        Report::Near { name, address, .. } => {
            format!("* {name} is on this network ({})", address_text(*address))
        }
        Report::Left { name, reason } => format!("* {name} {}", left(*reason)),
        Report::Renamed { from, to } => format!("* {from} is now {to}"),
        Report::Message { from, to: To::Everybody, text, .. } => format!("{from}: {}", clean(text)),
        Report::Message { from, to: To::Me, text, .. } => {
            format!("{from} (to you): {}", clean(text))
        }
        Report::Delivered { to, path, .. } => format!("* delivered to {to} {}", path_text(path)),
        Report::Spread { delivered: 0, failed: 0 } => "* nobody else is here".to_owned(),
        Report::Spread { delivered, failed: 0 } => format!("* delivered to {delivered}"),
        Report::Spread { delivered, failed } => {
            format!("* delivered to {delivered}, not to {failed}")
        }
        Report::Path { name, path: Path { kind: PathKind::None, .. } } => {
            format!("* there is no way to {name} now")
        }
        Report::Path { name, path } => format!("* the way to {name} is now {}", path_text(path)),
        Report::Notice { text, everybody: true } => {
            format!("* operator to everybody: {}", clean(text))
        }
        Report::Notice { text, everybody: false } => format!("* operator to you: {}", clean(text)),
        Report::List { members, scope } => list(members, *scope),
        Report::Whoami { .. } => whoami(report),
        Report::Why(explained) => why(explained),
        Report::Netcheck(checked) => netcheck::text(checked),
        Report::Trusted { who } => format!("* the new key of {} is accepted", clean(who)),
        Report::Missed { count } => format!("* {count} lines were too many to show"),
        Report::Error { to: Some(to), text, .. } => format!("! {}: {}", clean(to), clean(text)),
        Report::Error { to: None, text, .. } => format!("! {}", clean(text)),
        Report::Bye { server, reason } => bye(server, reason),
    }
}

fn greeting(report: &Report) -> String {
    let Report::Registered {
        name,
        address,
        network,
        server,
        server_key,
        again,
        first_contact,
        greeting,
    } = report
    else {
        return String::new();
    };
    let server = clean(server);
    let hello = if *again { "welcome back" } else { "hello" };
    let mut text =
        format!("* {hello} {name}: {server} sees you at {address} (network {})", clean(network));
    if *first_contact {
        text.push_str(&format!(
            "\n* first contact with {server}: its key {} is remembered",
            server_key.fingerprint()
        ));
    }
    if let Some(greeting) = greeting {
        text.push_str(&format!("\n* {}", clean(greeting)));
    }
    text
}

fn whoami(report: &Report) -> String {
    let Report::Whoami { name, key, address, mapped, network, server, server_key, registered } =
        report
    else {
        return String::new();
    };
    let forwarded = mapped.iter().map(|address| format!(", forwarded at {address}"));
    let forwarded: String = forwarded.collect();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let state = if *registered { "registered" } else { "not registered" };
    format!(
        "* name {}, {state} at {}\n* key {key}\n* seen at {}{forwarded}, network {}\n* server key {}",
        or_none(name.as_ref().map(ToString::to_string)),
        clean(server),
        or_none(address.map(|a| a.to_string())),
        or_none(network.as_deref().map(clean)),
        or_none(server_key.map(|k| k.to_string())),
    )
}

fn list(members: &[Listed], scope: ListScope) -> String {
    let mut text = match scope {
        ListScope::Network => format!("* {} here", members.len()),
        ListScope::Lan => format!("* no answer from the server; {} on this network", members.len()),
    };
    for Listed { name, key, address, since } in members {
        let here = for_how_long(*since);
        let (address, key) = (address_text(*address), key.fingerprint());
        text.push_str(&format!("\n    {name}  {address}  {key}  for {here}"));
    }
    text
}

fn why(explained: &Explained) -> String {
    let Explained { name, path, since, reason, candidates, mapped, nat, their_nat, .. } = explained;
    let mut text = format!("* {name}: {}", path_text(path));
    if path.kind != PathKind::None {
        text.push_str(&format!(" for {}", for_how_long(*since)));
    }
    text.push_str(&format!("; {}", clean(reason)));
    for candidate in candidates {
        text.push_str(&format!("\n    {}", tried(candidate)));
    }
    for address in mapped {
        text.push_str(&format!("\n    a router forwards {address} to you"));
    }
    let theirs = their_nat.as_ref().map(|nat| (format!("{name}'s NAT"), nat));
    for (whose, nat) in [("your NAT".to_owned(), nat)].into_iter().chain(theirs) {
        if *nat != Profile::default() {
            text.push_str(&format!("\n    {whose}: {}", nat.to_string().replace('\n', "; ")));
        }
    }
    text
}

fn tried(candidate: &Tried) -> String {
    let Tried { local, remote, kind, checks, result, rtt_ms } = candidate;
    let kind = match kind {
        Kind::Host => "its own",
        Kind::Observed => "observed by the server",
        Kind::PeerReflexive => "seen here",
        Kind::Mapped => "mapped",
        Kind::Predicted => "guessed",
    };
    let result = match (result, rtt_ms) {
        (Answered::Now, Some(rtt)) => format!("answers in {rtt:.1} ms"),
        (Answered::Now, None) => "answers".to_owned(),
        (Answered::Before, _) => "answered before, silent now".to_owned(),
        (Answered::Never, _) => "no answer".to_owned(),
    };
    let checks = if *checks == 1 { "1 check".to_owned() } else { format!("{checks} checks") };
    format!("{remote} ({kind}) from {local}, {checks}: {result}")
}

/// The time since a moment in unix seconds.
fn for_how_long(since: u64) -> String {
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    span(unix_now.saturating_sub(Duration::from_secs(since)))
}

fn address_text(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "hidden".to_owned(), |address| address.to_string())
}

fn left(reason: LeaveReason) -> &'static str {
    match reason {
        LeaveReason::Bye => "left",
        LeaveReason::Expired => "fell silent",
        LeaveReason::Blocked => "was blocked",
        LeaveReason::Replaced => "came back from elsewhere",
    }
}

fn bye(server: &str, reason: &str) -> String {
    let server = clean(server);
    if reason.is_empty() {
        format!("* good bye: the session with {server} is over")
    } else {
        format!("* the session with {server} is over: {}", clean(reason))
    }
}

fn path_text(path: &Path) -> String {
    let rtt = path.rtt_ms.map(|ms| format!(", {ms:.1} ms")).unwrap_or_default();
    match (path.kind, path.address) {
        (PathKind::Direct, Some(address)) => format!("directly ({address}{rtt})"),
        (PathKind::Direct, None) => format!("directly{rtt}"),
        (PathKind::Relay, _) => format!("through the relay{rtt}"),
        (PathKind::None, _) => "not open yet".to_owned(),
    }
}

/// Text from outside, made harmless: a terminal obeys none of it, further lines are indented so
/// that they do not pass for lines of ours.
pub(super) fn clean(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\n' => safe.push_str("\n    "),
            '\t' => safe.push(' '),
            c if c.is_control() || is_unsafe(c) => safe.push('\u{FFFD}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Controls beyond ASCII's first 32, and what turns the direction of writing around or breaks
/// lines: JSON leaves them as they are.
fn is_unsafe(c: char) -> bool {
    matches!(c, '\u{7F}'..='\u{9F}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2sp_proto::id::{PeerKey, PeerName};
    use p2sp_proto::traversal::nat::{Field, Hairpin};

    fn message(text: &str) -> Report {
        let from = PeerName::new("bob").unwrap();
        Report::Message {
            from,
            key: PeerKey::from_bytes([1; 32]),
            to: To::Me,
            id: (1, 0, 2),
            text: text.to_owned(),
        }
    }

    #[test]
    fn nothing_received_reaches_the_terminal_as_a_command() {
        for (text, shown) in [
            ("hi 你好 🙂", "hi 你好 🙂"),
            ("\u{1b}[2Jx", "\u{FFFD}[2Jx"),
            ("a\u{7}b\u{8}c\u{7f}", "a\u{FFFD}b\u{FFFD}c\u{FFFD}"),
            ("\u{9b}31mred", "\u{FFFD}31mred"),
            ("x\ry", "x\u{FFFD}y"),
            ("x\r\n* bob left", "x\n    * bob left"),
            ("a\tb", "a b"),
            ("abc\u{202e}cba", "abc\u{FFFD}cba"),
        ] {
            assert_eq!(clean(text), shown);
            assert_eq!(render(&message(text), Format::Text), format!("bob (to you): {shown}"));
        }
    }

    #[test]
    fn json_is_one_harmless_line_that_says_the_same() {
        for text in ["hi", "a\nb", "\u{1b}[2J", "\u{9b}31m", "\u{202e}", "\u{2028}", "\"\\", "你好"]
        {
            let line = render(&message(text), Format::Json);
            assert!(!line.chars().any(|c| c.is_control() || is_unsafe(c)), "{line}");
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), message(text));
        }
    }

    #[test]
    fn json_has_the_documented_fields() {
        let line = render(&message("hi"), Format::Json);
        let key = PeerKey::from_bytes([1; 32]);
        let expected = serde_json::json!({
            "event": "message", "from": "bob", "key": key, "to": "me", "id": [1, 0, 2], "text": "hi",
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
        let to = PeerName::new("bob").unwrap();
        let address = Some("192.0.2.1:9".parse().unwrap());
        let path = Path { kind: PathKind::Direct, address, rtt_ms: Some(1.25) };
        let line = render(&Report::Delivered { to, path, handle: Some(3) }, Format::Json);
        let expected = serde_json::json!({
            "event": "delivered", "to": "bob", "handle": 3,
            "path": { "kind": "direct", "address": "192.0.2.1:9", "rtt_ms": 1.25 },
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
    }

    #[test]
    fn why_is_told_with_every_pair() {
        let pair = |remote: &str, kind, checks, result, rtt_ms| Tried {
            local: "0.0.0.0:9".parse().unwrap(),
            remote: remote.parse().unwrap(),
            kind,
            checks,
            result,
            rtt_ms,
        };
        let report = Report::Why(Box::new(Explained {
            name: PeerName::new("bob").unwrap(),
            key: PeerKey::from_bytes([1; 32]),
            path: Path { kind: PathKind::Relay, address: None, rtt_ms: Some(20.0) },
            since: u64::MAX,
            cause: "silent".into(),
            reason: "relayed: so it is".into(),
            candidates: vec![
                pair("192.0.2.1:5", Kind::Observed, 10, Answered::Never, None),
                pair("10.0.0.1:5", Kind::Host, 1, Answered::Now, Some(1.25)),
            ],
            mapped: vec!["198.51.100.1:4001".parse().unwrap()],
            nat: Profile::default(),
            their_nat: Some(Profile {
                hairpin: Field::Known { value: Hairpin::Works, samples: 1 },
                ..Profile::default()
            }),
        }));
        assert_eq!(
            render(&report, Format::Text),
            "* bob: through the relay, 20.0 ms for 0 s; relayed: so it is\n    \
             192.0.2.1:5 (observed by the server) from 0.0.0.0:9, 10 checks: no answer\n    \
             10.0.0.1:5 (its own) from 0.0.0.0:9, 1 check: answers in 1.2 ms\n    \
             a router forwards 198.51.100.1:4001 to you\n    \
             bob's NAT: mapping: not known; filtering: not known; external ports: not known; \
             hairpin: works (1 sample); unsolicited datagrams: not known; idle mappings: not known"
        );
        let line = render(&report, Format::Json);
        let nat = |hairpin| {
            serde_json::json!({
                "mapping": null, "filtering": null, "allocation": null, "hairpin": hairpin,
                "unsolicited": null, "lifetime": null,
            })
        };
        let expected = serde_json::json!({
            "event": "why", "name": "bob", "key": PeerKey::from_bytes([1; 32]),
            "path": { "kind": "relay", "rtt_ms": 20.0 }, "since": u64::MAX,
            "cause": "silent", "reason": "relayed: so it is",
            "candidates": [
                { "local": "0.0.0.0:9", "remote": "192.0.2.1:5", "kind": "observed", "checks": 10,
                  "result": "never" },
                { "local": "0.0.0.0:9", "remote": "10.0.0.1:5", "kind": "host", "checks": 1,
                  "result": "now", "rtt_ms": 1.25 },
            ],
            "mapped": ["198.51.100.1:4001"],
            "nat": nat(serde_json::Value::Null),
            "their_nat": nat(serde_json::json!({ "value": "works", "samples": 1 })),
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
    }

    #[test]
    fn people_read_sentences() {
        let to = PeerName::new("bob").unwrap();
        let path = Path {
            kind: PathKind::Direct,
            address: Some("192.0.2.1:9".parse().unwrap()),
            rtt_ms: Some(1.25),
        };
        let report = Report::Delivered { to: to.clone(), path, handle: None };
        assert_eq!(
            render(&report, Format::Text),
            "* delivered to bob directly (192.0.2.1:9, 1.2 ms)"
        );
        let path = Path { kind: PathKind::Relay, address: None, rtt_ms: None };
        let report = Report::Delivered { to, path, handle: None };
        assert_eq!(render(&report, Format::Text), "* delivered to bob through the relay");
        let report = Report::Bye { server: "s:1".into(), reason: String::new() };
        assert_eq!(render(&report, Format::Text), "* good bye: the session with s:1 is over");
        let report = Report::Silent { server: "s:1".into() };
        assert_eq!(render(&report, Format::Text), "* no answer from s:1, still trying");
    }
}
