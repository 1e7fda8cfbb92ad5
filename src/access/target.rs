//! What clients dial: the token in it, and how much of it may be shown.

use std::fmt;

use crate::limits::{ROOT_BYTES_MAX, TARGET_BYTES_MAX};
use crate::wire::{Path, split_path_query};

/// What begins as a token does and is longer is taken for a piece of one.
const NAME_BYTES_MAX: usize = 40;

/// What is shown instead.
const HIDDEN_TOKEN: &str = "TOKEN?";

/// Where a client wants to be, and what it shows for that.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Target {
    pub path: Path,
    pub token: Option<Token>,
    /// As it was dialled, with what is secret in it.
    text: String,
}

/// A token as somebody shows it. Whoever reads it may use it, so nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// The same for equal tokens, and says nothing else of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TokenDigest([u8; 16]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("malformed path")]
    Malformed,
    #[error("the path or its query is too long")]
    TooLong,
}

impl Target {
    /// Of a path with its query, if it has one.
    pub fn parse(text: &str) -> Result<Target, BadTarget> {
        if text.len() > TARGET_BYTES_MAX {
            return Err(BadTarget::TooLong);
        }
        let path = Path::parse(split_path_query(text).0).map_err(|_| BadTarget::Malformed)?;
        if path.as_str().len() > ROOT_BYTES_MAX {
            return Err(BadTarget::TooLong);
        }
        Ok(Target { path, token: Token::find_in(text), text: text.to_owned() })
    }

    /// The path as it was dialled.
    pub fn path_text(&self) -> &str {
        split_path_query(&self.text).0
    }

    /// All of the query, which may be full of secrets.
    pub fn query(&self) -> Option<&str> {
        split_path_query(&self.text).1
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, token) = (&self.path, &self.token);
        f.debug_struct("Target").field("path", path).field("token", token).finish_non_exhaustive()
    }
}

impl Token {
    /// The one in the query of a path or URL.
    pub fn find_in(target: &str) -> Option<Token> {
        token_in(target).map(|token| Token(token.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it is known by to whoever may not keep it. Of some signatures anybody can make another one that
    /// is as good (ECDSA), so that of a JWT is left out. What an auth server takes may be anything.
    pub fn digest(&self) -> TokenDigest {
        let signed = match self.0.rsplit_once('.') {
            Some((signed, _)) if signed.starts_with("eyJ") => signed,
            _ => &self.0,
        };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signed.as_bytes());
        let half = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        TokenDigest(*half)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The token in the query of a path or URL: the last `jwt` that is not empty, as it stands. A JWT has no
/// character that would have to be escaped; the name may be, as whoever writes URLs may escape any sign.
pub fn token_in(target: &str) -> Option<&str> {
    let (_, query) = without_fragment(target).split_once('?')?;
    let is_token =
        |name: &str| form_urlencoded::parse(name.as_bytes()).any(|(name, _)| name == "jwt");
    let mut pairs = query.rsplit('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, token)| !token.is_empty() && is_token(name)).map(|(_, token)| token)
}

/// A path or URL without its secrets: no query, no fragment, no user and no password, and no token that was
/// put into the path by mistake.
pub fn shown(target: &str) -> String {
    let target = without_fragment(target);
    let target = target.split_once('?').map_or(target, |(path, _)| path);
    let target = without_misplaced(target);
    let Some((scheme, rest)) = target.split_once("://") else { return without_tokens(target) };
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", without_tokens(&rest[host..]))
}

/// What stands before a `jwt=` that is in no query, because what begins one was escaped or is another sign.
fn without_misplaced(path: &str) -> &str {
    let plain = path.to_ascii_lowercase();
    let begin = ["jwt=", "jwt%3d"].iter().filter_map(|name| plain.find(name)).min();
    &path[..begin.unwrap_or(path.len())]
}

/// A path in which no segment is a token, as far as tokens can be told from names.
fn without_tokens(path: &str) -> String {
    let segments = path.split('/');
    let shown = segments.map(|segment| if is_token(segment) { HIDDEN_TOKEN } else { segment });
    shown.collect::<Vec<_>>().join("/")
}

/// What somebody gives as a reason, as it was said but for URLs, which are as [`shown`], and for what may be a token
/// or a piece of one.
pub fn said(words: &str) -> String {
    let is_blank = |c: char| c.is_whitespace() || c.is_control();
    let mut said = String::new();
    for word in words.split_inclusive(is_blank) {
        let blank = word.rfind(is_blank).unwrap_or(word.len());
        let (word, blank) = word.split_at(blank);
        said += &without_pieces(&shown(word));
        said += blank;
    }
    said
}

/// A word in which nothing is a token, nor looks like a piece of one: long, and of letters of both cases and digits.
fn without_pieces(word: &str) -> String {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_piece = |run: &str| {
        let has = |is_it: fn(&u8) -> bool| run.as_bytes().iter().any(is_it);
        run.len() > NAME_BYTES_MAX
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_digit)
    };
    let mut shown = String::new();
    for run in word.split_inclusive(|c| !is_of_token(c)) {
        let (run, mark) = run.split_at(run.rfind(|c| !is_of_token(c)).unwrap_or(run.len()));
        shown += if is_token(run) || is_piece(run) { HIDDEN_TOKEN } else { run };
        shown += mark;
    }
    shown
}

fn is_token(segment: &str) -> bool {
    segment.starts_with("eyJ") && (segment.contains('.') || segment.len() > NAME_BYTES_MAX)
}

fn without_fragment(target: &str) -> &str {
    target.split_once('#').map_or(target, |(before, _)| before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_token_that_is_not_empty_counts() {
        for (target, expect) in [
            ("/demo?jwt=a.b.c", Some("a.b.c")),
            ("https://relay.example/demo?x=1&jwt=one&jwt=two&jwt=&y", Some("two")),
            ("?jwt=a%2Eb", Some("a%2Eb")),
            ("/demo?jwt=a=b", Some("a=b")),
            ("/demo?jwt=a?jwt=b", Some("a?jwt=b")),
            ("/demo?jwt=a#jwt=b", Some("a")),
            ("/demo?%6awt=a", Some("a")),
            ("/demo?x=1&%6A%77%74=a.b.c", Some("a.b.c")),
            ("/demo?%256awt=a&%6=b&%ff=c&jwt%=d", None),
            ("/demo?jwt=", None),
            ("/demo?jwt", None),
            ("/demo?JWT=a&xjwt=b", None),
            ("/demo#?jwt=a", None),
            ("/jwt=a", None),
            ("", None),
        ] {
            assert_eq!(token_in(target), expect, "{target}");
        }
    }

    #[test]
    fn a_target_is_a_path_and_a_token() {
        let target = Target::parse("/rooms//7/?x=1&jwt=a.b.c").unwrap();
        assert_eq!(target.path.as_str(), "rooms/7");
        assert_eq!(target.token.as_ref().map(Token::as_str), Some("a.b.c"));
        assert_eq!((target.path_text(), target.query()), ("/rooms//7/", Some("x=1&jwt=a.b.c")));
        assert!(!format!("{target:?}").contains("a.b"), "{target:?}");
        assert_eq!(Target::parse(""), Ok(Target::default()));
        assert_eq!(Target::parse("/a/**?jwt=a"), Err(BadTarget::Malformed));
        // The bound is for the path alone.
        let long = format!("{}?jwt={}", "x".repeat(ROOT_BYTES_MAX), "y".repeat(4 * ROOT_BYTES_MAX));
        assert!(Target::parse(&long).is_ok());
        assert_eq!(Target::parse(&format!("x{long}")), Err(BadTarget::TooLong));
        // The query has one of its own.
        let query = |bytes| format!("/a?{}", "y".repeat(bytes - "/a?".len()));
        assert!(Target::parse(&query(TARGET_BYTES_MAX)).is_ok());
        assert_eq!(Target::parse(&query(TARGET_BYTES_MAX + 1)), Err(BadTarget::TooLong));
    }

    #[test]
    fn equal_tokens_have_one_digest() {
        let digest = |target: &str| Token::find_in(target).unwrap().digest();
        assert_eq!(digest("/a?jwt=a.b.c"), digest("/b?x=1&jwt=a.b.c"));
        assert_ne!(digest("/a?jwt=a.b.c"), digest("/a?jwt=a.b.d"));
        // With another signature it says the same.
        assert_eq!(digest("/a?jwt=eyJ.b.c"), digest("/a?jwt=eyJ.b.d"));
        assert_ne!(digest("/a?jwt=eyJ.b.c"), digest("/a?jwt=eyJ.c.c"));
    }

    #[test]
    fn what_is_shown_has_no_secrets() {
        for (target, expect) in [
            ("/demo/x?jwt=a.b.c", "/demo/x"),
            ("https://relay.example:4443/demo?jwt=a#b", "https://relay.example:4443/demo"),
            ("https://me:secret@relay.example/a@b?jwt=a", "https://relay.example/a@b"),
            ("https://me:se@cret@relay.example", "https://relay.example"),
            ("https://relay.example#jwt=a", "https://relay.example"),
            ("https://relay.example?to=x://me@y", "https://relay.example"),
            // Where clients put it by mistake.
            ("/eyJa.b.c", "/TOKEN?"),
            ("/demo/eyJa.b.c/x", "/demo/TOKEN?/x"),
            ("https://me@relay.example/eyJa.b.c", "https://relay.example/TOKEN?"),
            (&format!("/demo/eyJ{}", "x".repeat(38)), "/demo/TOKEN?"),
            (&format!("/demo/eyJ{}", "x".repeat(37)), &format!("/demo/eyJ{}", "x".repeat(37))),
            ("/eyJ", "/eyJ"),
            ("/x%3fjwt=SECRET", "/x%3f"),
            ("/x%3Fjwt%3DSECRET", "/x%3F"),
            ("/x&JWT=SECRET/y", "/x&"),
            ("/x;jwt=SECRET", "/x;"),
            ("/x#jwt=SECRET", "/x"),
            ("", ""),
        ] {
            assert_eq!(shown(target), expect, "{target}");
        }
    }

    #[test]
    fn what_a_peer_says_has_no_secrets() {
        let piece = "k5mE2cCI6ImV2ZXJ5dGhpbmcifQ.c2VjcmV0c2VjcmV0c2VjcmV0";
        for (words, expect) in [
            ("closed by the client: application 3 (0x43): bye, see you", None),
            ("no relay-0.relay-headless.production.svc.cluster.local here", None),
            ("expected 3f785a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f", None),
            ("no: \u{1}\u{5}/x?jwt=opaque\u{2}\tmoq", Some("no: \u{1}\u{5}/x\u{2}\tmoq")),
            ("https://me:pw@b.example/a?x=1 is gone", Some("https://b.example/a is gone")),
            ("bad token: \"eyJa.b.c\", sorry", Some("bad token: \"TOKEN?\", sorry")),
            (&format!("no: {piece}"), Some("no: TOKEN?")),
            ("(jwt=opaque)", Some("(")),
        ] {
            assert_eq!(said(words), expect.unwrap_or(words));
        }
    }
}
