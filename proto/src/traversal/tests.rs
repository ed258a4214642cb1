use super::checks::Purpose;
use super::*;
use crate::time::origin;
use crate::wire::frame::CandidateKind;

mod guess;
mod network;
mod single;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn cand(kind: CandidateKind, text: &str) -> Candidate {
    Candidate { kind, address: addr(text) }
}

/// What the side with `role` of one introduction knows.
fn config(role: Role, seed: u8) -> Config {
    let (one, two) = ([1; 32], [2; 32]);
    let (keys, own_tag, their_tag) = match role {
        Role::Controlling => ((one, two), CheckTag([0xA; 8]), CheckTag([0xB; 8])),
        Role::Controlled => ((two, one), CheckTag([0xB; 8]), CheckTag([0xA; 8])),
    };
    Config { role, keys, own_tag, their_tag, seed: [seed; 32] }
}

fn agent(role: Role, seed: u8, now: Instant) -> Agent {
    Agent::new(config(role, seed), now)
}

const fn other_role(role: Role) -> Role {
    match role {
        Role::Controlling => Role::Controlled,
        Role::Controlled => Role::Controlling,
    }
}
