//! The file: which settings are in it, on which lines, and what is wrong with it.

use std::path::Path;

use clap::{Arg, Command, CommandFactory};
use toml::de::{DeTable, DeValue};

use super::arguments::Args;
use super::error::{ConfigError, Fault, usage_line};
use super::foreign;
use super::names::{self, SETTINGS, Setting};
use crate::files;
use crate::limits::{CONFIG_FILE_BYTES_MAX, CONFIG_FILE_WAIT_MAX};

/// A setting that the file states, with a value that is one.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub setting: &'static Setting,
    pub values: Vec<String>,
    pub line: usize,
}

/// What is good of it, and what is wrong.
pub(super) fn read(path: &Path) -> Result<(Vec<Entry>, Vec<Fault>), ConfigError> {
    let unreadable = |reason: String| ConfigError::FileUnreadable { path: path.to_owned(), reason };
    let bytes = files::read_in_time(path, CONFIG_FILE_BYTES_MAX, CONFIG_FILE_WAIT_MAX)
        .map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(unreadable(format!("more than {CONFIG_FILE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| unreadable("not UTF-8".to_owned()))?;
    Ok(parse(&text))
}

/// In the order of the file.
fn parse(text: &str) -> (Vec<Entry>, Vec<Fault>) {
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let line = line_at(text, error.span().map_or(0, |span| span.start));
            let reason = error.message().lines().collect::<Vec<_>>().join(", ");
            return (Vec::new(), vec![Fault { line, error: ConfigError::NotToml(reason) }]);
        }
    };
    let mut command = Args::command();
    // Only then do its arguments know how they are written.
    command.build();
    let mut reader = Reader { text, command: &command, entries: Vec::new(), faults: Vec::new() };
    reader.table("", table.get_ref());
    let Reader { mut entries, mut faults, .. } = reader;
    entries.sort_by_key(|entry| entry.line);
    faults.sort_by_key(|fault| fault.line);
    (entries, faults)
}

fn line_at(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

struct Reader<'a> {
    text: &'a str,
    command: &'a Command,
    entries: Vec<Entry>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn table(&mut self, name: &str, table: &DeTable<'_>) {
        for (word, value) in table {
            let line = line_at(self.text, word.span().start);
            let key = match name {
                "" => word.get_ref().to_string(),
                _ => format!("{name}.{}", word.get_ref()),
            };
            if let Err(error) = self.item(&key, value.get_ref(), line) {
                self.faults.push(Fault { line, error });
            }
        }
    }

    fn item(&mut self, key: &str, value: &DeValue<'_>, line: usize) -> Result<(), ConfigError> {
        if let Some(setting) = Setting::of(key) {
            let argument = setting.argument(self.command);
            let values = values(key, value, names::is_list(argument))?;
            self.refuse_values(key, argument, &values)?;
            self.entries.push(Entry { setting, values, line });
            return Ok(());
        }
        match value.as_table() {
            Some(table) if names::is_table(key) || foreign::is_table(key) => {
                self.table(key, table);
                Ok(())
            }
            None if names::is_table(key) => {
                let inside = SETTINGS.iter().find(|setting| setting.key.starts_with(key));
                let inside = inside.expect("it is a table of settings").key;
                let reason = format!("is a table and no setting; write {inside} or another of it");
                Err(ConfigError::WrongKind { key: key.to_owned(), reason })
            }
            _ => {
                foreign::refuse_key(key)?;
                // What is appended to a file is in its last table.
                let last = key.rsplit_once('.').map(|(_, last)| last);
                let is_misplaced = last.is_some_and(|last| Setting::of(last).is_some());
                let nearest = names::nearest_key(key).filter(|_| !is_misplaced);
                Err(ConfigError::Unknown {
                    name: key.to_owned(),
                    nearest: nearest.map(str::to_owned),
                    remedy: match is_misplaced {
                        true => "move it above the first [table]",
                        false => "remove it",
                    },
                })
            }
        }
    }

    /// What an argument would refuse is refused in the file too, by the name that it has there, even where an
    /// argument takes its place.
    fn refuse_values(
        &self,
        key: &str,
        argument: &Arg,
        values: &[String],
    ) -> Result<(), ConfigError> {
        let flag = names::flag(argument);
        let flags = values.iter().map(|value| format!("{flag}={value}"));
        let given = ["shardcast".to_owned()].into_iter().chain(flags);
        match self.command.clone().try_get_matches_from(given) {
            Ok(_) => Ok(()),
            Err(error) => {
                let line =
                    usage_line(&error).replace(&format!("'{argument}'"), &format!("'{key}'"));
                Err(ConfigError::Usage(line))
            }
        }
    }
}

/// A relay to dial, as a table: a URL that says the same.
fn peer(key: &str, table: &DeTable<'_>) -> Result<String, ConfigError> {
    let wrong = |reason: &str| {
        let reason =
            format!("{reason}; write {{ url = \"moqt://HOST\", cost = 1, token = \"...\" }}");
        ConfigError::WrongKind { key: key.to_owned(), reason }
    };
    let (mut url, mut query) = (None, Vec::new());
    for (word, value) in table {
        match (&**word.get_ref(), value.get_ref()) {
            ("url", DeValue::String(text)) => url = Some(text.to_string()),
            (name @ ("cost" | "egress"), DeValue::Integer(number)) => {
                query.push((name, number.as_str().to_owned()));
            }
            ("token", DeValue::String(text)) => query.push(("jwt", text.to_string())),
            _ => return Err(wrong("has a word that is none of url, cost and token")),
        }
    }
    let url = url.ok_or_else(|| wrong("has a table without url"))?;
    let written = |name: &str| url.contains(&format!("{name}="));
    if query.iter().any(|(name, _)| written(name)) {
        return Err(wrong("says something in a URL and beside it"));
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let mark = match (query.is_empty(), url.contains('?')) {
        (true, _) => "",
        (false, true) => "&",
        (false, false) => "?",
    };
    Ok(format!("{url}{mark}{query}"))
}

/// As they would be written in arguments.
fn values(key: &str, value: &DeValue<'_>, is_list: bool) -> Result<Vec<String>, ConfigError> {
    let wrong = |reason: String| ConfigError::WrongKind { key: key.to_owned(), reason };
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| wrong("is a number out of range".to_owned())),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Datetime(_) => Err(wrong("is a date, which no setting is".to_owned())),
        DeValue::Array(_) => Err(wrong("is a list in a list; write one list".to_owned())),
        DeValue::Table(table) if key == "cluster.connect" => peer(key, table),
        DeValue::Table(_) => Err(wrong("is a table; write a value".to_owned())),
    };
    let DeValue::Array(items) = value else { return Ok(vec![one(value)?]) };
    match items.len() {
        // Nothing named may mean that nothing is open or that all is.
        0 => Err(wrong("is an empty list; leave it out".to_owned())),
        1 => Ok(vec![one(items[0].get_ref())?]),
        _ if is_list => items.iter().map(|item| one(item.get_ref())).collect(),
        count => Err(wrong(format!("is a list of {count}; write one value"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(&'static str, String, usize)> {
        let (entries, faults) = parse(text);
        assert!(faults.is_empty(), "{text:?}: {faults:?}");
        let row = |entry: Entry| (entry.setting.key, entry.values.join("|"), entry.line);
        entries.into_iter().map(row).collect()
    }

    #[test]
    fn settings_and_their_lines() {
        let text = "\
shards = 4 # not one per core
linger = '1500ms'

[listen]
bind = \"[::]:4443\"
tls.generate = ['a.example',
                'b.example']

[cache]
capacity = 1_000_000
duration = \"5m\"
[auth]
public = \"anon/**\"
";
        let expect = [
            ("shards", "4", 1),
            ("linger", "1500ms", 2),
            ("listen.bind", "[::]:4443", 5),
            ("listen.tls.generate", "a.example|b.example", 6),
            ("cache.capacity", "1000000", 10),
            ("cache.duration", "5m", 11),
            ("auth.public", "anon/**", 13),
        ];
        let expect = expect.map(|(key, value, line)| (key, value.to_owned(), line));
        assert_eq!(read(text), expect);
        assert_eq!(read("shards = 0x10"), [("shards", "16".to_owned(), 1)]);
        // One of a list is what the existing relay's files have for pairs of certificates.
        assert_eq!(read("listen.tls.cert = ['c']"), [("listen.tls.cert", "c".to_owned(), 1)]);
        assert_eq!(read("allow_takeover = true"), [("allow_takeover", "true".to_owned(), 1)]);
        assert_eq!(read(""), []);
    }

    #[track_caller]
    fn refuses(text: &str, lines: &[(usize, &[&str])]) {
        let (_, faults) = parse(text);
        let got: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
        let expect: Vec<usize> = lines.iter().map(|(line, _)| *line).collect();
        assert_eq!(got, expect, "{faults:?}");
        for (fault, (_, words)) in faults.iter().zip(lines) {
            let said = fault.error.to_string();
            assert!(!said.contains('\n'), "{said:?}");
            for word in *words {
                assert!(said.contains(word), "{said:?} lacks {word:?}");
            }
        }
    }

    #[test]
    fn faults_are_all_told() {
        refuses(
            "linger = 5\n[listen]\nbnd = 'x'\nbind = 'localhost:1'\n[log]\nlevel = 'loud'\n[xyz]\na = 1\n",
            &[
                (1, &["'5'", "'linger'", "write 5s or 5ms"]),
                (3, &["as listen.bnd; write listen.bind instead, or remove it"]),
                (4, &["'localhost:1'", "'listen.bind'", "127.0.0.1:4443"]),
                (6, &["'loud'", "'log.level'", "debug"]),
                (7, &["no such setting as xyz; remove it"]),
            ],
        );
    }

    #[test]
    fn what_is_right_beside_faults_counts() {
        let (entries, faults) =
            parse("linger = 5\nshards = 2\n[cache]\nsize = 1\nduration = '5m'\n");
        let keys: Vec<&str> = entries.iter().map(|entry| entry.setting.key).collect();
        assert_eq!((keys.as_slice(), faults.len()), (&["shards", "cache.duration"][..], 2));
        let size = faults[1].error.to_string();
        assert!(size.contains("the nearest is the table cache; remove it"), "{size}");
        let (_, faults) = parse("[cache]\nshards = 2\n");
        let shards = faults[0].error.to_string();
        assert!(shards.contains("cache.shards; move it above the first [table]"), "{shards}");
    }

    #[test]
    fn values_of_a_wrong_kind() {
        refuses("listen = '[::]:1'", &[(1, &["listen is a table", "write listen.bind"])]);
        refuses("[listen.bind]\na = 1", &[(1, &["listen.bind is a table"])]);
        refuses("auth.public = []", &[(1, &["auth.public is an empty list", "leave it out"])]);
        refuses("auth.public = [['**']]", &[(1, &["list in a list"])]);
        refuses("state_dir = ['a', 'b']", &[(1, &["a list of 2; write one value"])]);
        refuses("linger = 1979-05-27", &[(1, &["a date"])]);
        refuses("shards = 99999999999999999999", &[(1, &["out of range"])]);
        refuses("allow_takeover = 'maybe'", &[(1, &["'maybe'", "'allow_takeover'"])]);
        refuses("state_dir = ''", &[(1, &["state_dir"])]);
    }

    #[test]
    fn what_is_not_toml() {
        refuses("a = 1\n[listen\n", &[(2, &["not TOML"])]);
        refuses("shards = 1\nshards = 2\n", &[(2, &["not TOML", "duplicate key"])]);
        refuses("shards = four\n", &[(1, &["not TOML"])]);
    }

    #[test]
    fn tables_of_the_existing_relay() {
        refuses(
            "[server]\nbind = '[::]:443'\n[stats]\nenabled = true\nnode = 'a'\n[web]\nws = true\n\
             [cluster]\nmesh = true\n[web.https]\ncert = 'c.pem'\n[tls]\ncert = 'c'\n",
            &[
                (2, &["server.bind", "write listen.bind instead"]),
                (3, &["stats asks for", "remove it"]),
                (9, &["cluster.mesh", "--cluster-connect URL"]),
                (11, &["web.https.cert", "--listen-tls-cert"]),
                (13, &["tls.cert", "write listen.tls.cert instead"]),
            ],
        );
    }

    #[test]
    fn relays_as_urls_and_as_tables() {
        let all = "https://b:1/|moqt://c?cost=5|moqt://d/?x=1&cost=7&jwt=a.b";
        for text in [
            "cluster.connect = ['https://b:1/', { url = 'moqt://c', cost = 5 }, \
             { url = 'moqt://d/?x=1', cost = 7, token = 'a.b' }]",
            "[[cluster.connect]]\nurl = 'https://b:1/'\n[[cluster.connect]]\nurl = 'moqt://c'\ncost = 5\n\
             [[cluster.connect]]\nurl = 'moqt://d/?x=1'\ncost = 7\ntoken = 'a.b'\n",
        ] {
            assert_eq!(read(text), [("cluster.connect", all.to_owned(), 1)], "{text}");
        }
        for (table, word) in [
            ("{ cost = 5 }", "without url"),
            ("{ url = 'moqt://c', weight = 5 }", "none of url, cost and token"),
            ("{ url = 'moqt://c?cost=1', cost = 5 }", "beside it"),
        ] {
            refuses(&format!("cluster.connect = [{table}]"), &[(1, &["cluster.connect", word])]);
        }
    }

    const SAMPLE: &str = include_str!("../../packaging/shardcast.toml");

    #[test]
    fn the_sample_changes_nothing() {
        assert_eq!(read(SAMPLE), []);
    }

    #[test]
    fn the_sample_has_every_setting_with_its_default() {
        // What is said begins with a space, what could be set does not.
        let is_setting = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase());
        let line = |line: &'static str| match line.strip_prefix('#') {
            Some(rest) if is_setting(rest) => rest,
            _ => line,
        };
        let lines: Vec<&str> = SAMPLE.lines().map(line).collect();
        let stated = read(&lines.join("\n"));
        let command = Args::command();
        for setting in SETTINGS {
            let Some((_, value, _)) = stated.iter().find(|(key, ..)| *key == setting.key) else {
                panic!("{} is not in the sample", setting.key);
            };
            let argument = setting.argument(&command);
            if let [default] = argument.get_default_values() {
                assert_eq!(value.as_str(), default, "{}", setting.key);
            }
        }
        assert_eq!(stated.len(), SETTINGS.len());
    }
}
