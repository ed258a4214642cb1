//! Small messages to and fro, whoever carries them.

use crate::Failure;

/// Bytes of a small message.
pub(crate) const SMALL: usize = 64;

/// One way to send small messages and to get them back.
pub(crate) trait Line {
    /// Hands one message over.
    async fn send(&mut self) -> Result<(), Failure>;
    /// Waits for the next message that came back.
    async fn echo(&mut self) -> Result<(), Failure>;
}
