//! The members of a JSON object, read one by one, so that none is overlooked and none counts twice.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Members of one object. A private RSA key has fourteen; strangers write as many as fit.
const MEMBERS_MAX: usize = 32;

/// Characters of a name that are shown: strangers choose it.
const NAME_SHOWN_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("not a JSON object of at most {MEMBERS_MAX} members")]
    NotAnObject,
    #[error("`{0}` is there twice")]
    Repeated(String),
    #[error("`{0}` is null")]
    Null(&'static str),
    #[error("`{name}` is not {wanted}")]
    Kind { name: &'static str, wanted: &'static str },
}

pub struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    pub fn parse(json: &'a [u8]) -> Result<Members<'a>, Fault> {
        let Members(members) = serde_json::from_slice(json).map_err(|_| Fault::NotAnObject)?;
        for (at, (name, _)) in members.iter().enumerate() {
            if members[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Fault::Repeated(shown(name)));
            }
        }
        Ok(Members(members))
    }

    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(member, _)| member == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The name of a member that nobody has taken.
    pub fn rest(&self) -> Option<String> {
        self.0.first().map(|(name, _)| shown(name))
    }

    pub fn string(&mut self, name: &'static str) -> Result<Option<String>, Fault> {
        self.take(name).map(|value| read(value, name, "a string")).transpose()
    }

    pub fn strings(&mut self, name: &'static str) -> Result<Option<Vec<String>>, Fault> {
        let Some(value) = self.take(name) else { return Ok(None) };
        if value.get() == "null" {
            return Err(Fault::Null(name));
        }
        read(value, name, "a list of strings").map(Some)
    }

    /// The same where one that is not in a list counts as a list of it.
    pub fn string_or_strings(&mut self, name: &'static str) -> Result<Option<Vec<String>>, Fault> {
        let one = self.0.iter().find(|(member, _)| member == name);
        match one.and_then(|(_, value)| serde_json::from_str(value.get()).ok()) {
            Some(one) => {
                self.take(name);
                Ok(Some(vec![one]))
            }
            None => self.strings(name),
        }
    }

    /// A whole number; null counts as absent.
    pub fn seconds(&mut self, name: &'static str) -> Result<Option<i64>, Fault> {
        let value = self.take(name);
        Ok(value.map(|value| read(value, name, "a whole number of seconds")).transpose()?.flatten())
    }
}

/// The library's own message would show the value, which may be a secret.
pub fn read<'a, T: Deserialize<'a>>(
    value: &'a RawValue,
    name: &'static str,
    wanted: &'static str,
) -> Result<T, Fault> {
    serde_json::from_str(value.get()).map_err(|_| Fault::Kind { name, wanted })
}

pub fn shown(name: &str) -> String {
    name.chars().take(NAME_SHOWN_MAX).flat_map(char::escape_debug).collect()
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(A::Error::custom("too many members"));
                    }
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expect: Result<usize, Fault>) {
        let got = Members::parse(json.as_bytes()).map(|members| members.0.len());
        assert_eq!(got, expect, "{json}");
    }

    #[test]
    fn an_object_has_each_member_once() {
        check("{}", Ok(0));
        check(r#" {"a":1,"b":{"a":[2]}} "#, Ok(2));
        check(r#"{"a":1,"\u0061":2}"#, Err(Fault::Repeated("a".to_owned())));
        let long = "x\n".repeat(40);
        let json = format!("{{{0}:1,{0}:2}}", serde_json::to_string(&long).unwrap());
        check(&json, Err(Fault::Repeated("x\\n".repeat(16))));
        for json in ["", "1", "[]", "null", "{\"a\":1", "{\"a\":1} x", "{a:1}", "{\"a\":\"\u{1}\"}"]
        {
            check(json, Err(Fault::NotAnObject));
        }
        let many = |count: usize| {
            let members: Vec<String> = (0..count).map(|at| format!("\"{at}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        check(&many(MEMBERS_MAX), Ok(MEMBERS_MAX));
        check(&many(MEMBERS_MAX + 1), Err(Fault::NotAnObject));
    }

    #[test]
    fn a_member_has_its_kind() {
        let mut members = Members::parse(
            br#"{"s":"x","one":"a","many":["a","b"],"n":7,"null":null,"nothing": null ,"other":"a","f":7.0}"#,
        )
        .unwrap();
        assert_eq!(members.string_or_strings("one"), Ok(Some(vec!["a".to_owned()])));
        assert_eq!(members.string_or_strings("absent"), Ok(None));
        assert_eq!(
            members.string_or_strings("many"),
            Ok(Some(vec!["a".to_owned(), "b".to_owned()]))
        );
        assert_eq!(members.strings("absent"), Ok(None));
        assert_eq!(members.strings("nothing"), Err(Fault::Null("nothing")));
        assert_eq!(members.seconds("n"), Ok(Some(7)));
        assert_eq!(members.seconds("null"), Ok(None));
        let wanted = "a whole number of seconds";
        assert_eq!(members.seconds("f"), Err(Fault::Kind { name: "f", wanted }));
        let wanted = "a list of strings";
        assert_eq!(members.strings("other"), Err(Fault::Kind { name: "other", wanted }));
        assert_eq!(members.rest(), Some("s".to_owned()));
        assert_eq!(members.string("s"), Ok(Some("x".to_owned())));
        assert_eq!(members.rest(), None);
    }
}
