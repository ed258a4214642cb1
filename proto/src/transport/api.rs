//! What owners see of a transport besides its methods.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{StreamEvent, StreamKey, StreamSide};
use crate::id::{Channel, ConnectId, PathId, PeerKey, Sequence};
use crate::wire::frame::{Candidates, MESSAGE_LEN_MAX, Punch, Rekey};

/// Bounds of one conversation.
#[derive(Clone, Debug)]
pub struct Config {
    /// Highest channel number accepted plus one.
    pub channels: u16,
    /// Longest message either way, bytes.
    pub message_len_max: usize,
    /// Memory for messages not yet handed to the application, bytes. At least
    /// `channels * channel_window` plus one longest message is always committed; what this has
    /// beyond lets the windows of busy channels grow.
    pub receive_memory_max: usize,
    /// Bytes a channel may hold before the application takes them, without asking for more.
    /// Both ends must agree on it.
    pub channel_window: u64,
    /// Messages accepted for sending and not yet receipted.
    pub send_queue_messages_max: usize,
    /// Bytes accepted for sending and not yet receipted.
    pub send_queue_bytes_max: usize,
    /// Which streams this end opens; `None`: there are neither streams nor datagrams.
    pub streams: Option<StreamSide>,
}

impl Config {
    /// Between peers: 256 channels, 16 MiB messages, 40 MiB: 16 MiB of windows, 16 MiB for an
    /// incomplete message, 8 MiB for larger windows. Streams come on
    /// top of that, where `streams` says so: 16 KiB to 64 KiB each and 16 MiB for larger windows.
    pub fn peer() -> Self {
        Self {
            channels: 256,
            message_len_max: MESSAGE_LEN_MAX as usize,
            receive_memory_max: 40 << 20,
            channel_window: 64 << 10,
            send_queue_messages_max: 16 << 10,
            send_queue_bytes_max: 64 << 20,
            streams: None,
        }
    }

    /// Between peer and server: control channel only, 64 KiB a message, 128 KiB a session.
    pub fn control() -> Self {
        Self {
            channels: 1,
            message_len_max: 64 << 10,
            receive_memory_max: 128 << 10,
            channel_window: 64 << 10,
            send_queue_messages_max: 1024,
            send_queue_bytes_max: 1 << 20,
            streams: None,
        }
    }
}

/// What kind of path: decides preference, duplication and keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// The path to the server itself.
    Server,
    /// To a peer, through the server.
    Relay,
    /// To a peer.
    Direct,
}

/// Frames that belong to others but travel in our packets. Reliable ones are sent again when
/// lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlFrame {
    /// Unreliable, not ack-eliciting.
    Ping,
    /// Unreliable, not ack-eliciting.
    Observed(SocketAddr),
    /// Unreliable, ack-eliciting.
    PathChallenge([u8; 8]),
    /// Unreliable, ack-eliciting.
    PathResponse([u8; 8]),
    /// Reliable; a newer generation replaces an unsent older one.
    Candidates(Candidates),
    /// Reliable.
    Rekey(Rekey),
    /// Reliable.
    PathRetire(PathId),
    /// Reliable until acknowledged once (bounded by the caller's closing state).
    Close(u16, String),
    /// OPEN for the server: target, connect id, datagram. Reliable.
    Open(PeerKey, ConnectId, Bytes),
    /// What is known of the own NAT: a generation and the profile. Reliable; a newer generation
    /// replaces an unsent older one.
    Nat(u64, Bytes),
    /// Reliable.
    Punch(Punch),
}

/// A message that is whole and in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its channel.
    pub channel: Channel,
    /// Its place in the channel.
    pub sequence: Sequence,
    /// Its bytes.
    pub payload: Bytes,
}

/// What the owner has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every message of the channel below `below` was delivered or given up; `path` is the path
    /// on which the last part of the newest of them was acknowledged, or on which the receipt
    /// came where that is not known.
    Delivered {
        /// The channel.
        channel: Channel,
        /// The first message that is not settled.
        below: Sequence,
        /// How the newest settled message got there.
        path: PathId,
    },
    /// There is something for `poll_message`.
    Readable,
    /// A full queue has room again.
    Writable,
    /// Something happened to a stream.
    Stream(StreamKey, StreamEvent),
    /// A datagram came.
    Datagram(Bytes),
    /// Two unanswered probe timeouts: traffic also goes elsewhere.
    PathSuspect(PathId),
    /// The same, for the third time without payload in between: small packets or checks may
    /// pass there, payload does not.
    PathFailed(PathId),
    /// A suspect path acknowledged again.
    PathRecovered(PathId),
    /// A frame for the owner, from a packet on `path`.
    Control {
        /// Where it came.
        path: PathId,
        /// The frame.
        frame: ControlFrame,
    },
}

/// Figures of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStats {
    /// As it was opened.
    pub kind: PathKind,
    /// Smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
    /// Probe timeout without backoff.
    pub probe_timeout: Duration,
    /// Bytes that may be in flight.
    pub congestion_window: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Packets lost.
    pub lost: u64,
    /// Packets sent.
    pub sent: u64,
    /// When something new was acknowledged last.
    pub last_ack: Option<Instant>,
    /// Bytes of frames that a packet may hold, as far as the path is known.
    pub payload_max: u16,
}

/// Why a message was not accepted for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Longer than `Config::message_len_max`.
    #[error("the message is longer than the limit")]
    TooLong,
    /// The queue is full; `Event::Writable` follows.
    #[error("too many messages are waiting")]
    Full,
    /// `Config::channels` or above.
    #[error("no such channel")]
    NoChannel,
}

/// The other end broke the rules: close the session with this code and sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{1}")]
pub struct FrameError(pub u16, pub &'static str);
