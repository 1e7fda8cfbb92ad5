//! What a token says, and what its key may let it say: JSON ⇄ values, in both forms.

use moq_pattern::{InvalidPattern, Pattern, Patterns};
use serde::Serialize;

use super::grant::Grant;
use super::json::{self, Members};
use super::refusal::{ClaimsFault, Refusal};
use crate::limits::PATTERNS_MAX;
use crate::wire::Path;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// At the token's own root.
    pub grant: Grant,
    pub expires: Option<i64>,
    pub issued: Option<i64>,
    pub not_before: Option<i64>,
}

/// How the grant of a token is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `put` and `get` where prefixes say it all, which every verifier reads; else as patterns.
    Prefixes,
    /// `publish` and `subscribe`.
    Patterns,
}

impl Claims {
    /// Of what a key vouches for: nobody else reads them.
    pub(super) fn parse(json: &[u8]) -> Result<Claims, ClaimsFault> {
        let mut members = Members::parse(json)?;
        let claims = Claims {
            grant: take_grant(&mut members)?,
            expires: members.seconds("exp")?,
            issued: members.seconds("iat")?,
            not_before: members.seconds("nbf")?,
        };
        // Who issued it to whom, and its number, are for the issuer's books.
        for name in ["iss", "sub", "jti"] {
            members.take(name);
        }
        nothing_else(&members)?;
        Ok(claims)
    }

    /// Exact to the second, without allowance for clocks that differ.
    pub(super) fn check_times(&self, now: i64) -> Result<(), Refusal> {
        match (self.expires, self.not_before) {
            (Some(at), _) if at <= now => Err(Refusal::Expired { at }),
            (_, Some(from)) if from > now => Err(Refusal::TooEarly { from }),
            _ => Ok(()),
        }
    }

    pub(super) fn to_json(&self, form: Form) -> Vec<u8> {
        #[derive(Serialize)]
        struct Written<'a> {
            #[serde(flatten)]
            grant: WrittenGrant<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            exp: Option<i64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            iat: Option<i64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            nbf: Option<i64>,
        }

        let grant = write_grant(&self.grant, form);
        let (exp, iat, nbf) = (self.expires, self.issued, self.not_before);
        serde_json::to_vec(&Written { grant, exp, iat, nbf }).expect("strings and numbers are JSON")
    }
}

/// A key's scope: a grant and nothing else.
pub(super) fn parse_scope(json: &[u8]) -> Result<Grant, ClaimsFault> {
    let mut members = Members::parse(json)?;
    let grant = take_grant(&mut members)?;
    nothing_else(&members)?;
    Ok(grant)
}

/// An unknown member may narrow the grant, and a misspelt `root` would widen it.
fn nothing_else(members: &Members<'_>) -> Result<(), ClaimsFault> {
    members.rest().map_or(Ok(()), |name| Err(ClaimsFault::Unknown(name)))
}

fn take_grant(members: &mut Members<'_>) -> Result<Grant, ClaimsFault> {
    let root = members.string("root")?.unwrap_or_default();
    // A pattern can be placed below it only if it has no wildcard of its own.
    Pattern::literal(&root).map_err(|_| ClaimsFault::Root)?;
    let root = Path::parse(&root).map_err(|_| ClaimsFault::Root)?;
    let put = patterns("put", members.string_or_strings("put"), Pattern::subtree)?;
    let get = patterns("get", members.string_or_strings("get"), Pattern::subtree)?;
    let publish = patterns("publish", members.strings("publish"), str::parse)?;
    let subscribe = patterns("subscribe", members.strings("subscribe"), str::parse)?;
    let is_old = put.is_some() || get.is_some();
    if is_old && (publish.is_some() || subscribe.is_some()) {
        return Err(ClaimsFault::Mixed);
    }
    let (publish, subscribe) = if is_old { (put, get) } else { (publish, subscribe) };
    Ok(Grant::new(root, publish.unwrap_or_default(), subscribe.unwrap_or_default()))
}

fn patterns(
    field: &'static str,
    texts: Result<Option<Vec<String>>, json::Fault>,
    parse: impl Fn(&str) -> Result<Pattern, InvalidPattern>,
) -> Result<Option<Patterns>, ClaimsFault> {
    let texts = texts.map_err(|fault| match fault {
        json::Fault::Null(_) => ClaimsFault::Null(field),
        fault => ClaimsFault::Json(fault),
    })?;
    let Some(texts) = texts else { return Ok(None) };
    if texts.len() > PATTERNS_MAX {
        return Err(ClaimsFault::Many(field));
    }
    let pattern = |text: &String| {
        parse(text).map_err(|invalid| {
            let (text, reason) = (json::shown(text), reason(&invalid));
            ClaimsFault::Pattern { field, text, reason }
        })
    };
    texts.iter().map(pattern).collect::<Result<_, _>>().map(Some)
}

#[derive(Serialize)]
pub(super) struct WrittenGrant<'a> {
    /// Also where it is empty: `@moq/token` misses it.
    root: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    put: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    get: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publish: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscribe: Vec<&'a str>,
}

pub(super) fn write_grant(grant: &Grant, form: Form) -> WrittenGrant<'_> {
    let root = grant.root().as_str();
    let (publish, subscribe) = (grant.publish(), grant.subscribe());
    let empty = WrittenGrant { root, put: vec![], get: vec![], publish: vec![], subscribe: vec![] };
    if form == Form::Prefixes
        && let (Some(put), Some(get)) = (prefixes(publish), prefixes(subscribe))
    {
        return WrittenGrant { put, get, ..empty };
    }
    WrittenGrant { publish: texts(publish), subscribe: texts(subscribe), ..empty }
}

fn texts(patterns: &Patterns) -> Vec<&str> {
    patterns.iter().map(Pattern::as_str).collect()
}

fn prefixes(patterns: &Patterns) -> Option<Vec<&str>> {
    patterns.iter().map(Pattern::as_prefix).collect()
}

/// The library's own message would show all that was written.
fn reason(invalid: &InvalidPattern) -> &'static str {
    match invalid {
        InvalidPattern::EmptySegment => "a segment is empty",
        InvalidPattern::InvalidSegment(_) => "a segment has a * too many, or a prefix has one",
        InvalidPattern::MultipleGlobstars => "more than one **",
        InvalidPattern::TooManySegments => "more segments than a path can have",
        _ => "not a pattern",
    }
}
