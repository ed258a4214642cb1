//! Small messages to and fro, whoever carries them.

use crate::Failure;

/// Bytes of a small message.
pub(crate) const SMALL: usize = 64;

/// One way to send small messages and to get them back.
pub(crate) trait Line: Send {
    /// Hands one message over.
    fn send(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Waits for the next message that came back.
    fn echo(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}
