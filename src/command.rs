//! What this program does besides being a relay, by its first argument.

use std::ffi::OsString;
use std::path::Path;

use crate::text::nearest;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    Check,
    Doctor,
    Token,
    Top,
    Upgrade,
}

/// What each is called, and what it is for.
const COMMANDS: &[(Command, &str, &str)] = &[
    (
        Command::Check,
        "check",
        "Show what a relay would be told and by whom, and whether its files are good",
    ),
    (
        Command::Doctor,
        "doctor",
        "Say what is wrong with this host, its network and certificates, and what mends it",
    ),
    (Command::Token, "token", "Make keys, sign tokens, and show what a token allows"),
    (Command::Top, "top", "Watch what a relay does: tracks, viewers, rates, latency and shards"),
    (
        Command::Upgrade,
        "upgrade",
        "Have a new process take over from the relay that runs, and nobody loses anything",
    ),
];

/// None: the arguments are those of a relay.
pub fn meant(args: &[OsString]) -> Option<Command> {
    let first = args.get(1)?;
    COMMANDS.iter().find(|(_, name, _)| first == name).map(|(command, ..)| *command)
}

/// What else is said in the place of a command, and what does it.
const ELSE: [(&str, &str); 2] = [("help", "--help"), ("version", "--version")];

/// What to say where the first argument is a word that is neither a command nor a file.
pub fn slip(args: &[OsString]) -> Option<String> {
    let word = args.get(1)?.to_str()?;
    let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    if !is_word || meant(args).is_some() || Path::new(word).exists() {
        return None;
    }
    let known = COMMANDS.iter().map(|(_, name, _)| *name);
    let meant = nearest(word, known.chain(ELSE.map(|(said, _)| said)));
    let remedy = match meant {
        Some(meant) => {
            let other = ELSE.iter().find(|(said, _)| *said == meant);
            format!("write shardcast {} instead", other.map_or(meant, |(_, does)| does))
        }
        None => format!("commands are {}", names()),
    };
    Some(format!(
        "there is no command {word}, and no file of that name; {remedy}, and see shardcast --help"
    ))
}

pub fn names() -> String {
    let names: Vec<&str> = COMMANDS.iter().map(|(_, name, _)| *name).collect();
    names.join(", ")
}

/// As the help of the program lists them.
pub fn help() -> String {
    let lines = COMMANDS.iter().map(|(_, name, about)| format!("  {name:8}{about}\n"));
    let lines: String = lines.collect();
    format!("Commands, in the place of FILE; each has a --help of its own:\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &[&str], expect: Option<&str>) {
        let args: Vec<OsString> = ["shardcast"].iter().chain(args).map(OsString::from).collect();
        match (slip(&args), expect) {
            (None, None) => {}
            (Some(says), Some(words)) => assert!(says.contains(words), "{says}"),
            (says, _) => panic!("{args:?}: {says:?}"),
        }
    }

    #[test]
    fn words_that_are_no_commands() {
        check(
            &["chekc"],
            Some("no command chekc, and no file of that name; write shardcast check instead"),
        );
        check(&["tokn", "generate"], Some("write shardcast token instead"));
        check(&["help"], Some("write shardcast --help instead"));
        check(&["version"], Some("write shardcast --version instead"));
        check(&["serve"], Some("commands are check, doctor, token, top, upgrade"));
    }

    #[test]
    fn what_is_something_else_is_no_slip() {
        for args in
            [&[][..], &["check"], &["--shards"], &["-V"], &["relay.toml"], &["./relay"], &["src"]]
        {
            check(args, None);
        }
    }
}
