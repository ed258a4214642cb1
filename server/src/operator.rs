//! What the operator reads: answers to commands, and the log of what peers do.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use p2sp_proto::control::Exposure;
use p2sp_proto::hub::{self, Event, Hub, OperatorError};
use p2sp_proto::time::span;

use crate::console::{Command, HELP};

/// What the shell itself lost or could not do, since its start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) receive_errors: u64,
    pub(crate) send_errors: u64,
    /// The kernel's buffer had no room.
    pub(crate) send_full: u64,
    /// More strangers than there was time for.
    pub(crate) rest_shed: u64,
}

/// Carries out a command; answers what to show, or nothing where the server is to stop.
pub(crate) fn execute(
    hub: &mut Hub,
    shell: &Counters,
    command: Command,
    now: Instant,
) -> Option<String> {
    let done = |result: Result<(), OperatorError>, text: String| {
        result.map_or_else(|error| error.to_string(), |()| text)
    };
    Some(match command {
        Command::UserList => user_list(hub),
        Command::Status => status(hub, shell, now),
        Command::Broadcast(text) => match hub.broadcast(&text, now) {
            Ok(count) => format!("On its way to {}.", counted(count, "peer")),
            Err(error) => error.to_string(),
        },
        Command::Send { name, text } => {
            done(hub.send(&name, &text, now), format!("On its way to {name}."))
        }
        Command::Block(name) => {
            done(hub.block(&name, now), format!("{name} is blocked: its key and its name."))
        }
        Command::Unblock(name) => {
            done(hub.unblock(&name, now), format!("{name} is no longer blocked."))
        }
        Command::Help => HELP.to_owned(),
        Command::Version => format!("rendezvous {}", env!("CARGO_PKG_VERSION")),
        Command::Quit => return None,
    })
}

/// What changed. Texts that strangers chose are quoted, so that no line can pretend to be two.
pub(crate) fn log(event: &Event) {
    match event {
        Event::Joined { name, key, address, network } => {
            tracing::info!(%name, %address, %network, key = %key.fingerprint(), "joined");
        }
        Event::Left { name, key, address, network, reason } => {
            let key = key.fingerprint();
            tracing::info!(%name, %address, %network, %key, ?reason, "left");
        }
        Event::Renamed { from, to, network } => tracing::info!(%from, %to, %network, "renamed"),
        Event::Moved { name, from, to } => tracing::info!(%name, %from, %to, "moved"),
        Event::Refused { name, address, code, text } => {
            tracing::info!(?name, %address, code, ?text, "refused");
        }
        Event::Notice { from, text } => tracing::info!(name = %from, ?text, "says"),
    }
}

fn user_list(hub: &Hub) -> String {
    let members = hub.members();
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let width = members.iter().map(|member| member.name.as_str().chars().count()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for member in &members {
        let since = Duration::from_secs(unix_now.saturating_sub(member.since));
        let hidden = match member.exposure {
            Exposure::Open => "",
            Exposure::Hidden => "  hidden from peers",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:width$}  {}  key {}  network {}  for {}{hidden}",
            member.name.as_str(),
            member.address,
            member.key.fingerprint(),
            member.network,
            span(since),
        );
    }
    text.push_str(&counted(u32::try_from(members.len()).unwrap_or(u32::MAX), "peer"));
    text
}

fn status(hub: &Hub, shell: &Counters, now: Instant) -> String {
    let status = hub.status(now);
    let counters = &status.counters;
    format!(
        "up {}, {} in {}, {} blocked, {}\n\
         relayed {} ({} bytes), handshakes {}, STUN answers {}\n\
         dropped {}{}",
        span(status.uptime),
        counted(status.peers, "peer"),
        counted(status.networks, "network"),
        status.blocked,
        counted(status.sessions, "session"),
        counters.relayed,
        counters.relayed_bytes,
        counters.handshakes,
        counters.stun,
        counters.dropped,
        reasons(counters, shell),
    )
}

/// Everything that was lost or went wrong, by reason.
fn reasons(hub: &hub::Counters, shell: &Counters) -> String {
    let reasons = [
        ("unknown kind", hub.dropped_other),
        ("malformed", hub.dropped_malformed),
        ("STUN", hub.dropped_stun),
        ("over the limit of an address", hub.dropped_limited),
        ("handshake for another server", hub.dropped_mac),
        ("false handshake", hub.dropped_handshake),
        ("unknown session", hub.dropped_token),
        ("relay from a foreign address", hub.dropped_address),
        ("relay without a channel", hub.dropped_channel),
        ("relay to an absent peer", hub.dropped_target),
        ("relay over quota", hub.dropped_quota),
        ("false or repeated packet", hub.dropped_packet),
        ("strangers in excess", shell.rest_shed),
        ("send buffer full", shell.send_full),
        ("send errors", shell.send_errors),
        ("receive errors", shell.receive_errors),
    ];
    let mut text = String::new();
    for (reason, count) in reasons.iter().filter(|(_, count)| *count > 0) {
        let _ = write!(text, "\n  {reason}: {count}");
    }
    text
}

fn counted(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_told_by_reason() {
        let hub = hub::Counters { dropped_stun: 3, ..hub::Counters::default() };
        let shell = Counters { send_errors: 1, ..Counters::default() };
        assert_eq!(reasons(&hub, &shell), "\n  STUN: 3\n  send errors: 1");
    }
}
