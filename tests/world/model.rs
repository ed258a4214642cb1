//! Which messages must have arrived, and which may be missing.
//!
//! Messages are told apart by their text, which a scenario makes unique. A *stream* is (sender,
//! sender's incarnation, receiver, channel); an incarnation ends with a crash. The rules, for
//! peers without a state folder:
//!
//! 1. What arrives was sent, to this receiver.
//! 2. Within one incarnation of the receiver nothing arrives twice.
//! 3. Within one incarnation of the receiver the messages of a stream arrive in order.
//! 4. What has a receipt was delivered before the receipt came.
//! 5. After the receipt a message does not arrive again, not even at a new incarnation.
//! 6. Once everything is quiet, every accepted message whose sender lives and did not give it up
//!    was delivered and has a receipt.
//! 7. A message that arrives has no accepted predecessor missing in its stream, unless that was
//!    given up or went to an earlier incarnation of the receiver.

use std::collections::BTreeMap;

/// What the scenario calls the parties: a peer's name.
pub type Name = String;

/// The two kinds of message, each a channel of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// To one.
    Private,
    /// To everybody.
    Everybody,
}

/// Whether a run has come to rest, so that rule 6 holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Messages may still be under way.
    Running,
    /// Nothing waits and no line is cut.
    Quiet,
}

/// Everything that was sent, delivered and receipted.
#[derive(Debug, Default)]
pub struct Model {
    messages: Vec<Message>,
    /// (receiver, text) names a message.
    index: BTreeMap<(Name, String), usize>,
    incarnations: BTreeMap<Name, u32>,
    broken: Vec<String>,
}

#[derive(Debug)]
struct Message {
    from: Name,
    from_incarnation: u32,
    to: Name,
    channel: Channel,
    text: String,
    state: State,
    /// Incarnations of the receiver it was delivered to.
    delivered: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Receipted,
    GivenUp,
}

/// How a run went, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Accepted for sending.
    pub accepted: usize,
    /// Delivered at least once.
    pub delivered: usize,
    /// With a receipt.
    pub receipted: usize,
    /// Given up: reported as failed.
    pub given_up: usize,
}

impl Model {
    /// A run before its first message.
    pub fn new() -> Self {
        Self::default()
    }

    /// `from` accepted a message for `to`.
    pub fn accepted(&mut self, from: &str, to: &str, channel: Channel, text: &str) {
        let message = Message {
            from: from.to_owned(),
            from_incarnation: self.incarnation(from),
            to: to.to_owned(),
            channel,
            text: text.to_owned(),
            state: State::Waiting,
            delivered: Vec::new(),
        };
        let key = (to.to_owned(), text.to_owned());
        if self.index.insert(key, self.messages.len()).is_some() {
            self.broken.push(format!("the scenario sent {text:?} to {to} twice"));
        }
        self.messages.push(message);
    }

    /// `to`'s application took a message that claims to come from `from`.
    pub fn delivered(&mut self, from: &str, to: &str, channel: Channel, text: &str) {
        let incarnation = self.incarnation(to);
        let Some(index) = self.find(to, text) else {
            self.broken.push(format!("{to} got {text:?} from {from}, which nobody sent"));
            return;
        };
        self.check_origin(index, from, channel);
        self.check_repetition(index, incarnation);
        self.check_order(index, incarnation);
        self.messages[index].delivered.push(incarnation);
    }

    /// The sender learned that `to` has the message.
    pub fn receipted(&mut self, to: &str, text: &str) {
        let Some(index) = self.find(to, text) else {
            self.broken.push(format!("a receipt from {to} for {text:?}, which nobody sent"));
            return;
        };
        let message = &mut self.messages[index];
        if message.delivered.is_empty() {
            let from = &message.from;
            self.broken.push(format!("{from} has a receipt for {text:?}, which {to} did not get"));
        }
        message.state = State::Receipted;
    }

    /// The sender was told that the message failed.
    pub fn given_up(&mut self, to: &str, text: &str) {
        if let Some(index) = self.find(to, text) {
            self.messages[index].state = State::GivenUp;
        }
    }

    /// `name` lost its memory and begins anew.
    pub fn crashed(&mut self, name: &str) {
        *self.incarnations.entry(name.to_owned()).or_default() += 1;
    }

    /// The present incarnation of `name`, from 0.
    pub fn incarnation(&self, name: &str) -> u32 {
        self.incarnations.get(name).copied().unwrap_or(0)
    }

    /// Whether rule 6 is satisfied: nothing that must arrive is under way.
    pub fn is_settled(&self) -> bool {
        self.messages.iter().all(|message| !self.is_due(message))
    }

    /// Messages that must still get a receipt.
    pub fn pending(&self) -> usize {
        self.messages.iter().filter(|message| self.is_due(message)).count()
    }

    /// The violations, one sentence each.
    pub fn check(&self, phase: Phase) -> Vec<String> {
        let mut broken = self.broken.clone();
        if phase == Phase::Quiet {
            broken.extend(self.messages.iter().filter(|m| self.is_due(m)).map(Message::complain));
            broken.extend(self.gaps());
        }
        broken
    }

    /// The run in numbers.
    pub fn tally(&self) -> Tally {
        let count = |test: fn(&Message) -> bool| self.messages.iter().filter(|m| test(m)).count();
        Tally {
            accepted: self.messages.len(),
            delivered: count(|m| !m.delivered.is_empty()),
            receipted: count(|m| m.state == State::Receipted),
            given_up: count(|m| m.state == State::GivenUp),
        }
    }

    fn find(&self, to: &str, text: &str) -> Option<usize> {
        self.index.get(&(to.to_owned(), text.to_owned())).copied()
    }

    fn is_due(&self, message: &Message) -> bool {
        let sender_lives = message.from_incarnation == self.incarnation(&message.from);
        message.state == State::Waiting && sender_lives
    }

    fn check_origin(&mut self, index: usize, from: &str, channel: Channel) {
        let message = &self.messages[index];
        if message.from != from || message.channel != channel {
            let Message { from: true_from, text, channel: true_channel, .. } = message;
            self.broken.push(format!(
                "{text:?} came from {from} on {channel:?}, but {true_from} sent it on {true_channel:?}"
            ));
        }
    }

    fn check_repetition(&mut self, index: usize, incarnation: u32) {
        let Message { to, text, state, delivered, .. } = &self.messages[index];
        if delivered.contains(&incarnation) {
            self.broken.push(format!("{to} got {text:?} twice"));
        } else if *state == State::Receipted {
            self.broken.push(format!("{to} got {text:?} again after its receipt"));
        }
    }

    fn check_order(&mut self, index: usize, incarnation: u32) {
        let message = &self.messages[index];
        let later = self.messages[index + 1..]
            .iter()
            .find(|other| other.is_same_stream(message) && other.delivered.contains(&incarnation));
        if let Some(later) = later {
            let Message { to, text, .. } = message;
            self.broken.push(format!("{to} got {text:?} after {:?}", later.text));
        }
    }

    /// Rule 7.
    fn gaps(&self) -> Vec<String> {
        let missing =
            |message: &&Message| message.state == State::Waiting && message.delivered.is_empty();
        let indexed = self.messages.iter().enumerate().filter(|(_, m)| missing(m));
        let overtaken = indexed.filter_map(|(index, message)| {
            let mut later = self.messages[index + 1..].iter();
            let later = later.find(|m| m.is_same_stream(message) && !m.delivered.is_empty())?;
            Some(format!("{:?} arrived, {:?} before it did not", later.text, message.text))
        });
        overtaken.collect()
    }
}

impl Message {
    fn is_same_stream(&self, other: &Self) -> bool {
        self.from == other.from
            && self.from_incarnation == other.from_incarnation
            && self.to == other.to
            && self.channel == other.channel
    }

    fn complain(&self) -> String {
        let Self { from, to, text, .. } = self;
        if self.delivered.is_empty() {
            format!("{text:?} from {from} never reached {to}")
        } else {
            format!("{text:?} reached {to}, but {from} has no receipt")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(texts: &[&str]) -> Model {
        let mut model = Model::new();
        for text in texts {
            model.accepted("alice", "bob", Channel::Private, text);
        }
        model
    }

    fn deliver(model: &mut Model, text: &str) {
        model.delivered("alice", "bob", Channel::Private, text);
    }

    #[test]
    fn a_good_run_has_no_violations() {
        let mut model = sent(&["1", "2"]);
        for text in ["1", "2"] {
            deliver(&mut model, text);
            model.receipted("bob", text);
        }
        assert_eq!(model.check(Phase::Quiet), Vec::<String>::new());
        assert!(model.is_settled());
    }

    #[test]
    fn inventions_repetitions_and_disorder_are_seen() {
        let mut model = sent(&["1", "2"]);
        deliver(&mut model, "2");
        deliver(&mut model, "1");
        deliver(&mut model, "1");
        deliver(&mut model, "3");
        model.delivered("eve", "bob", Channel::Everybody, "2");
        assert_eq!(
            model.check(Phase::Running),
            [
                "bob got \"1\" after \"2\"",
                "bob got \"1\" twice",
                "bob got \"1\" after \"2\"",
                "bob got \"3\" from alice, which nobody sent",
                "\"2\" came from eve on Everybody, but alice sent it on Private",
                "bob got \"2\" twice",
            ]
        );
    }

    #[test]
    fn what_is_missing_shows_when_all_is_quiet() {
        let mut model = sent(&["1", "2", "3"]);
        deliver(&mut model, "2");
        model.receipted("bob", "2");
        model.receipted("bob", "3");
        assert_eq!(model.pending(), 1);
        assert_eq!(
            model.check(Phase::Quiet),
            [
                "alice has a receipt for \"3\", which bob did not get",
                "\"1\" from alice never reached bob",
                "\"2\" arrived, \"1\" before it did not",
            ]
        );
    }

    #[test]
    fn a_crash_excuses_the_sender_and_resets_the_receiver() {
        let mut model = sent(&["1", "2"]);
        deliver(&mut model, "1");
        model.crashed("bob");
        deliver(&mut model, "1");
        model.receipted("bob", "1");
        model.crashed("alice");
        assert_eq!(model.check(Phase::Quiet), Vec::<String>::new());
        model.crashed("bob");
        deliver(&mut model, "1");
        assert_eq!(model.check(Phase::Quiet), ["bob got \"1\" again after its receipt"]);
    }

    #[test]
    fn what_was_given_up_may_be_missing() {
        let mut model = sent(&["1", "2"]);
        model.given_up("bob", "1");
        deliver(&mut model, "2");
        model.receipted("bob", "2");
        assert_eq!(model.check(Phase::Quiet), Vec::<String>::new());
        assert_eq!(model.tally().given_up, 1);
    }
}
