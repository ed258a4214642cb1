//! What peers of the world are told.

use p2sp_proto::node::{Event, Finality, PathView};

use crate::model::Channel;

/// Something a peer was told, in the world's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Registered; `again` after a reconnect.
    Registered {
        /// Not for the first time.
        again: bool,
    },
    /// The receipt for a message came.
    Delivered {
        /// That of the command.
        handle: u64,
        /// To whom.
        to: String,
        /// Whether the node says it went directly.
        direct: bool,
    },
    /// A message to everybody was split up.
    Spread {
        /// That of the command.
        handle: u64,
        /// Into so many.
        members: u32,
    },
    /// A message, or its command, failed.
    Failed {
        /// That of the command.
        handle: u64,
        /// One of the recipients, or the whole command.
        to: Option<String>,
        /// Numeric code.
        code: u16,
        /// Sentence.
        text: String,
    },
    /// The path to a peer changed.
    Path {
        /// Which peer.
        name: String,
        /// Whether the node says it is direct.
        direct: bool,
    },
    /// The list that was asked for.
    Listing {
        /// That of the command.
        handle: u64,
        /// Names in the server's order.
        names: Vec<String>,
    },
    /// A message arrived and was taken.
    Message {
        /// The sender's name.
        from: String,
        /// To one or to everybody.
        channel: Channel,
        /// Its text.
        text: String,
    },
    /// The server refused.
    Refused {
        /// Numeric code.
        code: u16,
        /// Whether the node gave up.
        fatal: bool,
    },
    /// Anything else, for people.
    Other(String),
}
impl From<Event> for Seen {
    fn from(event: Event) -> Self {
        match event {
            Event::Registered(registration) => Self::Registered { again: registration.again },
            Event::Delivered { handle, to, path } => {
                Self::Delivered { handle: handle.0, to: to.to_string(), direct: is_direct(&path) }
            }
            Event::Spread { handle, members } => Self::Spread { handle: handle.0, members },
            Event::Failed { handle, to, problem } => Self::Failed {
                handle: handle.0,
                to: to.map(|to| to.to_string()),
                code: problem.code,
                text: problem.text,
            },
            Event::Path { name, path } => {
                Self::Path { name: name.to_string(), direct: is_direct(&path) }
            }
            Event::Listing { handle, page, .. } => {
                let names = page.members.iter().map(|member| member.name.to_string()).collect();
                Self::Listing { handle: handle.0, names }
            }
            Event::Refused { problem, finality } => {
                Self::Refused { code: problem.code, fatal: finality == Finality::Final }
            }
            Event::Observed(_)
            | Event::Nat(_)
            | Event::ServerSilent
            | Event::ServerClosed { .. }
            | Event::ServerKeyChanged { .. }
            | Event::PeerKeyChanged { .. }
            | Event::Joined(_)
            | Event::Left { .. }
            | Event::Renamed { .. }
            | Event::Near(_)
            | Event::Readable
            | Event::StreamOpened { .. }
            | Event::Stream { .. }
            | Event::Datagram { .. }
            | Event::Notice { .. }
            | Event::Closed => Self::Other(format!("{event:?}")),
        }
    }
}

fn is_direct(path: &PathView) -> bool {
    match path {
        PathView::Direct { .. } => true,
        PathView::Relay { .. } | PathView::None => false,
    }
}
