//! Arguments over variables over the file over defaults, setting by setting.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use super::Request;
use super::arguments::Args;
use super::error::{ConfigError, slip, usage_line};
use super::file::{self, Entry};
use super::names::{self, SETTINGS, Setting};
use crate::access;
use crate::text::in_one_line;

/// What is said of one setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Stated {
    pub key: &'static str,
    /// None: it is not set. Without what is secret in them.
    pub values: Vec<String>,
    pub is_list: bool,
    pub source: Source,
}

/// Who said it.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    Argument(String),
    Variable(String),
    File { path: PathBuf, line: usize },
    Default,
}

/// What arguments, variables and the file say together.
#[derive(Debug)]
pub(super) struct Merged {
    pub args: Args,
    pub stated: Vec<Stated>,
    /// What is wrong in the file, without which the rest stands here.
    pub fault: Option<ConfigError>,
}

/// Reads the file that the arguments name, if any, and lets what it says be the defaults of the rest.
pub(super) fn merge(args: Vec<OsString>) -> Result<Request<Merged>, ConfigError> {
    let command = Args::command();
    let usage =
        |error: clap::Error| slip(&error).unwrap_or_else(|| ConfigError::Usage(usage_line(&error)));
    let given = match command.clone().try_get_matches_from(&args) {
        Err(shown) if !shown.use_stderr() => return Ok(Request::Show(shown)),
        given => given.map_err(usage)?,
    };
    let path = given.get_one::<PathBuf>("file");
    let (entries, faults) = path.map_or(Ok(Default::default()), |path| file::read(path))?;
    let command = entries.iter().fold(command, |command, Entry { setting, values, .. }| {
        command.mut_arg(setting.id, |argument| argument.default_values(values.clone()))
    });
    let merged = command.clone().try_get_matches_from(args).map_err(usage)?;
    let from_file = |setting: &Setting| {
        let entry = entries.iter().find(|entry| entry.setting == setting);
        entry.map(|entry| (path.expect("it has entries").as_path(), entry.line))
    };
    let stated =
        SETTINGS.iter().map(|setting| stated(setting, &command, &merged, from_file(setting)));
    let stated = stated.collect();
    let args = Args::from_arg_matches(&merged).map_err(usage)?;
    let fault = path.filter(|_| !faults.is_empty());
    let fault = fault.map(|path| ConfigError::File { path: path.clone(), faults });
    Ok(Request::Run(Merged { args, stated, fault }))
}

fn stated(
    setting: &Setting,
    command: &Command,
    merged: &ArgMatches,
    from_file: Option<(&Path, usize)>,
) -> Stated {
    let argument = setting.argument(command);
    let values = merged.get_raw(setting.id).into_iter().flatten();
    let values = values.map(|value| value.to_string_lossy());
    // What help does not show of variables may hold a password.
    let shown = |value: Cow<'_, str>| match argument.is_hide_env_values_set() {
        true => access::shown(&value),
        false => access::shown_name(&value).to_owned(),
    };
    let source = match (merged.value_source(setting.id), from_file) {
        (Some(ValueSource::CommandLine), _) => Source::Argument(names::flag(argument)),
        (Some(ValueSource::EnvVariable), _) => Source::Variable(names::variable(argument)),
        (_, Some((path, line))) => Source::File { path: path.to_owned(), line },
        (_, None) => Source::Default,
    };
    Stated {
        key: setting.key,
        values: values.map(shown).collect(),
        is_list: names::is_list(argument),
        source,
    }
}

/// As a line of a file that says the same, with who said it behind.
impl fmt::Display for Stated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, values, is_list, source } = self;
        let words: Vec<String> = values.iter().map(|value| literal(value)).collect();
        let line = match words.as_slice() {
            [] => format!("# {key} is not set"),
            [word] if !is_list => format!("{key} = {word}"),
            words => format!("{key} = [{}]", words.join(", ")),
        };
        write!(f, "{line:<48} # {source}")
    }
}

fn literal(value: &str) -> String {
    let is_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    match value {
        "true" | "false" => value.to_owned(),
        _ if is_number => value.to_owned(),
        text => toml::Value::String(text.to_owned()).to_string(),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(flag) => write!(f, "argument {flag}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File { path, line } => {
                // It is a comment, which ends with the line.
                let path = in_one_line(&path.to_string_lossy());
                write!(f, "{path}:{line}")
            }
            Self::Default => f.write_str("default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of its own for a test, removed at the end.
    struct TestFile(PathBuf);

    impl TestFile {
        #[track_caller]
        fn new(text: &str) -> TestFile {
            let at = std::panic::Location::caller();
            let name = format!("shardcast-merge-{}-{}.toml", std::process::id(), at.line());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).expect("a file");
            TestFile(path)
        }

        /// What comes of it with more arguments.
        fn with(&self, args: &str) -> (Args, Vec<Stated>) {
            let program = [OsString::from("shardcast"), self.0.clone().into()];
            let args = program.into_iter().chain(args.split_whitespace().map(OsString::from));
            match merge(args.collect()) {
                Ok(Request::Run(Merged { args, stated, fault: None })) => (args, stated),
                other => panic!("{other:?}"),
            }
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn one<'a>(stated: &'a [Stated], key: &str) -> &'a Stated {
        stated.iter().find(|stated| stated.key == key).expect("a setting")
    }

    #[test]
    fn each_setting_by_itself() {
        let file = TestFile::new(
            "linger = '7s'\nallow_takeover = true\nauth.public = ['a/**', 'b/**']\n[cache]\nduration = '1m'\n",
        );
        let line = |line| Source::File { path: file.0.clone(), line };
        let (args, stated) = file.with("");
        assert_eq!(args.linger.as_secs(), 7);
        assert_eq!(args.cache_duration.as_secs(), 60);
        assert!(args.allow_takeover);
        assert_eq!(args.auth_public.len(), 2);
        for (key, source) in [
            ("linger", line(1)),
            ("allow_takeover", line(2)),
            ("auth.public", line(3)),
            ("cache.duration", line(5)),
            ("cache.capacity", Source::Default),
            ("shards", Source::Default),
        ] {
            assert_eq!(one(&stated, key).source, source, "{key}");
        }
        assert_eq!(one(&stated, "auth.public").values, ["a/**", "b/**"]);
        assert_eq!(one(&stated, "shards").values, [""; 0]);

        // A list takes the place of a list, and what is false of what is true.
        let (args, stated) =
            file.with("--auth-public c/** --allow-takeover=false --linger 7s --shards 2");
        assert!(!args.allow_takeover);
        assert_eq!(args.auth_public.len(), 1);
        let argument = |flag: &str| Source::Argument(flag.to_owned());
        assert_eq!(one(&stated, "auth.public").source, argument("--auth-public"));
        assert_eq!(one(&stated, "allow_takeover").source, argument("--allow-takeover"));
        // The same value, said by somebody else.
        assert_eq!(one(&stated, "linger").source, argument("--linger"));
        assert_eq!(one(&stated, "shards").values, ["2"]);
        assert_eq!(one(&stated, "cache.duration").source, line(5));
        assert!(file.with("--allow-takeover").0.allow_takeover);
    }

    #[test]
    fn passwords_are_not_shown() {
        let file = TestFile::new("auth.url = 'https://me:pw@auth.example/ask?key=hush'\n");
        let (args, stated) = file.with("");
        assert!(args.auth_url.is_some_and(|url| url.contains("hush")));
        let shown = one(&stated, "auth.url").to_string();
        assert!(shown.starts_with("auth.url = \"https://auth.example/ask\""), "{shown}");
        assert!(!format!("{stated:?}").contains("hush"), "{stated:?}");
    }

    #[test]
    fn what_is_shown_says_the_same_as_a_file() {
        let file = TestFile::new(
            "shards = 3\nstate_dir = 'a \"b\"\\n#c'\nallow_origin = ['https://a.example', 'null']\n",
        );
        let (_, before) = file.with("--auth-key k.jwk --quic-congestion-control delay");
        let shown = before.iter().map(|stated| format!("{stated}\n")).collect::<String>();
        let again = TestFile::new(&shown);
        let (_, after) = again.with("");
        let values = |stated: &[Stated]| {
            stated.iter().map(|stated| (stated.key, stated.values.clone())).collect::<Vec<_>>()
        };
        assert_eq!(values(&before), values(&after), "{shown}");
        assert!(shown.contains("shards = 3 "), "{shown}");
        assert!(shown.contains("auth.key = [\"k.jwk\"]"), "{shown}");
        assert!(shown.contains("# argument --auth-key\n"), "{shown}");
        assert!(shown.contains(".toml:3\n"), "{shown}");
        assert!(shown.contains("# web.http.listen is not set"), "{shown}");
    }
}
