//! What a typed line means.

use crate::report::Request;

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Nothing,
    Ask(Request),
    Help,
    Version,
    Leave,
    /// A command used wrongly: how it is used.
    Usage(&'static str),
}

/// What `/help` prints.
pub(super) const HELP: &str = "\
text                    say it to everybody in the network
/send NAME TEXT         say it to one peer; IP:PORT works too
/broadcast TEXT         say it to everybody
/userlist               who is there
/whoami                 your name, key and address
/why NAME               which path leads to a peer, and why
/netcheck               what your network allows
/trust NAME             accept a peer's changed key; /trust HOST:PORT the server's
/reg NAME               register, or take another name
/notice TEXT            a word to the operator of the server
/ver                    the version
/exit, /quit            leave
The words bc, send, userlist, exit and quit work without the slash too. To say such a
word, begin the line with a space; to say a slash, begin with two: //text says /text.";

/// Words that complete to commands.
pub(super) const COMMANDS: [&str; 13] = [
    "/broadcast",
    "/exit",
    "/help",
    "/netcheck",
    "/notice",
    "/quit",
    "/reg",
    "/send",
    "/trust",
    "/userlist",
    "/ver",
    "/whoami",
    "/why",
];

/// Understands a line without its line end.
pub(super) fn parse(line: &str) -> Line {
    if line.trim().is_empty() {
        return Line::Nothing;
    }
    if line.starts_with("//") {
        return say(&line[1..]);
    }
    if line.starts_with(char::is_whitespace) {
        return say(line.trim());
    }
    let (word, rest) = split_word(line);
    let command = word.to_ascii_lowercase();
    match command.strip_prefix('/') {
        Some(command) => {
            parse_command(command, rest).unwrap_or(Line::Usage("no such command; /help lists them"))
        }
        None => parse_bare(&command, rest).unwrap_or_else(|| say(line)),
    }
}

fn parse_command(command: &str, rest: &str) -> Option<Line> {
    Some(match command {
        "send" => send(rest),
        "broadcast" | "bc" => broadcast(rest),
        "userlist" => Line::Ask(Request::Userlist),
        "whoami" => Line::Ask(Request::Whoami),
        "why" => one(rest, "/why NAME", |name| Request::Why { name }),
        "netcheck" => Line::Ask(Request::Netcheck),
        "trust" => one(rest, "/trust NAME, or /trust HOST:PORT", |who| Request::Trust { who }),
        "reg" => one(rest, "/reg NAME", |name| Request::Register { name }),
        "notice" if rest.is_empty() => Line::Usage("/notice TEXT"),
        "notice" => Line::Ask(Request::Notice { text: rest.to_owned() }),
        "help" | "?" => Line::Help,
        "ver" | "version" => Line::Version,
        "exit" | "quit" => Line::Leave,
        _ => return None,
    })
}

/// The spellings without a slash; `None`: an ordinary line.
fn parse_bare(word: &str, rest: &str) -> Option<Line> {
    match (word, rest.is_empty()) {
        ("send", _) => Some(send(rest)),
        ("bc", _) => Some(broadcast(rest)),
        ("userlist", true) => Some(Line::Ask(Request::Userlist)),
        ("exit" | "quit", true) => Some(Line::Leave),
        _ => None,
    }
}

fn say(text: &str) -> Line {
    Line::Ask(Request::Broadcast { text: text.trim_end().to_owned() })
}

fn send(rest: &str) -> Line {
    match split_word(rest) {
        ("", _) | (_, "") => Line::Usage("/send NAME TEXT, or /send IP:PORT TEXT"),
        (to, text) => Line::Ask(Request::Send { to: to.to_owned(), text: text.to_owned() }),
    }
}

fn broadcast(rest: &str) -> Line {
    if rest.is_empty() { Line::Nothing } else { say(rest) }
}

fn one(rest: &str, usage: &'static str, request: impl FnOnce(String) -> Request) -> Line {
    match split_word(rest) {
        (word, "") if !word.is_empty() => Line::Ask(request(word.to_owned())),
        _ => Line::Usage(usage),
    }
}

/// The first word, and the rest without the space around it.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Line {
        Line::Ask(Request::Broadcast { text: text.to_owned() })
    }

    fn sent(to: &str, text: &str) -> Line {
        Line::Ask(Request::Send { to: to.to_owned(), text: text.to_owned() })
    }

    #[test]
    fn plain_lines_are_for_everybody() {
        for (line, text) in [
            ("hello", "hello"),
            ("大家好", "大家好"),
            ("//send bob hi", "/send bob hi"),
            ("//", "/"),
            (" send me a letter", "send me a letter"),
            ("　send 全角空格", "send 全角空格"),
            ("sender", "sender"),
            ("exit strategy", "exit strategy"),
            ("quit smoking", "quit smoking"),
            ("userlist please", "userlist please"),
            ("whoami", "whoami"),
            ("help", "help"),
        ] {
            assert_eq!(parse(line), said(text), "{line:?}");
        }
        for line in ["", "   ", "\t", "bc", "/bc", "/broadcast   "] {
            assert_eq!(parse(line), Line::Nothing, "{line:?}");
        }
    }

    #[test]
    fn commands_work_in_any_case_with_old_spellings() {
        for line in [
            "/send bob hi there",
            "send bob hi there",
            "SEND bob hi there",
            "/Send  bob   hi there ",
        ] {
            assert_eq!(parse(line), sent("bob", "hi there"), "{line:?}");
        }
        assert_eq!(parse("/send 小明 你好"), sent("小明", "你好"));
        assert_eq!(parse("/send [::1]:9 x"), sent("[::1]:9", "x"));
        assert_eq!(parse("/send Bob x"), sent("Bob", "x"), "only the command loses its case");
        for line in ["bc hi", "BC hi", "/bc hi", "/broadcast hi", "/BroadCast hi"] {
            assert_eq!(parse(line), said("hi"), "{line:?}");
        }
        for line in ["userlist", "UserList", "/userlist"] {
            assert_eq!(parse(line), Line::Ask(Request::Userlist), "{line:?}");
        }
        for line in ["exit", "quit", "EXIT", "/exit", "/Quit"] {
            assert_eq!(parse(line), Line::Leave, "{line:?}");
        }
        assert_eq!(parse("/whoami"), Line::Ask(Request::Whoami));
        assert_eq!(parse("/why bob"), Line::Ask(Request::Why { name: "bob".into() }));
        assert_eq!(parse("/netcheck"), Line::Ask(Request::Netcheck));
        assert_eq!(parse("/trust a:1"), Line::Ask(Request::Trust { who: "a:1".into() }));
        assert_eq!(parse("/reg bob"), Line::Ask(Request::Register { name: "bob".into() }));
        assert_eq!(
            parse("/notice it rains"),
            Line::Ask(Request::Notice { text: "it rains".into() })
        );
        assert_eq!(parse("/help"), Line::Help);
        assert_eq!(parse("/ver"), Line::Version);
    }

    #[test]
    fn wrong_use_is_explained() {
        for line in [
            "/send",
            "/send bob",
            "send",
            "/why",
            "/why a b",
            "/trust",
            "/reg",
            "/reg a b",
            "/notice",
            "/nonsense",
            "/",
        ] {
            assert!(matches!(parse(line), Line::Usage(_)), "{line:?}");
        }
    }

    #[test]
    fn every_command_that_completes_exists() {
        for command in COMMANDS {
            assert_ne!(
                parse(command),
                Line::Usage("no such command; /help lists them"),
                "{command}"
            );
        }
    }
}
