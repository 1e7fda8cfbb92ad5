//! Patterns of grants, and what clients dial. The input is text of five lines: two patterns, a root, a
//! path, and an address.
//!
//! * A pattern matches what a matcher finds that knows nothing but the grammar.
//! * A session at a root may do what the grant says of whole paths, below its root.
//! * What covers another grant allows all that the other one does.
//! * What is shown of an address has no secret in it.

use moq_pattern::{Pattern, Patterns};
use shardcast::access::{Grant, is_hidden, rule, shown, token_in};
use shardcast::wire::Path;

use crate::trace::Trace;

/// A pattern with `**` becomes as many as it has segments at a root that is as deep.
pub const BYTES_PER_BYTE: usize = 256;

pub fn run(input: &[u8], trace: &mut Trace) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(5, '\n');
    let [one, other, root, path, address] = [(); 5].map(|()| lines.next().unwrap_or_default());
    if let Err(error) = rule(one) {
        trace.note((0, std::mem::discriminant(&error)));
    }
    if let (Ok(root), Ok(path)) = (Path::parse(root), Path::parse(path)) {
        let patterns = (one.parse(), other.parse());
        trace.note((1, patterns.0.is_ok(), patterns.1.is_ok()));
        if let (Ok(one), Ok(other)) = patterns {
            grants(&one, &other, (&root, &path), trace);
        }
        hidden(&path, &root);
    }
    spoken(address, trace);
}

fn grants(one: &Pattern, other: &Pattern, (root, path): (&Path, &Path), trace: &mut Trace) {
    let grant = Grant::public(&[], std::slice::from_ref(one), std::slice::from_ref(other));
    assert_eq!(grant.may_subscribe(path), matches(one, path), "{one} {path}");
    assert_eq!(grant.may_publish(path), matches(other, path), "{other} {path}");
    match grant.at(root) {
        Ok(session) => {
            trace.note((2, session.publish().len().min(4), session.subscribe().len().min(4)));
            let is_below = path.has_prefix(root);
            assert_eq!(session.may_publish(path), is_below && grant.may_publish(path));
            assert_eq!(session.may_subscribe(path), is_below && grant.may_subscribe(path));
            // A path with a `*` in it, or a pattern that would be too deep, cannot be put below another root,
            // and counts as more than was granted.
            let has_place = |patterns: &Patterns| patterns.rooted(root.as_str()).is_ok();
            let can_tell = has_place(session.publish()) && has_place(session.subscribe());
            assert!(!can_tell || grant.covers(&session), "{one} {other} at {root}");
            let is_asked_for = session.publish_heads().iter().any(|head| path.has_prefix(head));
            assert!(is_asked_for || !session.may_publish(path));
        }
        Err(refusal) => {
            trace.note((3, std::mem::discriminant(&refusal)));
            let may = grant.may_publish(path) || grant.may_subscribe(path);
            assert!(!may || !path.has_prefix(root), "{one} {other} at {root}: {path}");
        }
    }
    let both = [one, other].map(|pattern| {
        Grant::new(root.clone(), [pattern.clone()].into_iter().collect(), Default::default())
    });
    let covers = both[0].covers(&both[1]);
    trace.note((4, covers, both[1].may_publish(path)));
    assert!(!covers || both[0].may_publish(path) || !both[1].may_publish(path));
    assert!(both[0].covers(&both[0]));
}

/// By the grammar alone: segment by segment, `**` being any number of them.
fn matches(pattern: &Pattern, path: &Path) -> bool {
    let segments = |text: &str| -> Vec<String> {
        text.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    };
    fn rest(pattern: &[String], path: &[String]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((first, more)), _) if first == "**" => {
                (0..=path.len()).any(|skipped| rest(more, &path[skipped..]))
            }
            (Some(_), None) => false,
            (Some((first, more)), Some((segment, others))) => {
                let is_alike = match first.split_once('*') {
                    None => first == segment,
                    Some((start, end)) => {
                        segment.strip_prefix(start).is_some_and(|middle| middle.ends_with(end))
                    }
                };
                is_alike && rest(more, others)
            }
        }
    }
    rest(&segments(pattern.as_str()), &segments(path.as_str()))
}

fn hidden(path: &Path, prefix: &Path) {
    let below = path.strip_prefix(prefix);
    let expect = below.is_some_and(|rest| rest.segments().any(|segment| segment.starts_with('.')));
    assert_eq!(is_hidden(path, prefix), expect);
}

fn spoken(address: &str, trace: &mut Trace) {
    let line = shown(address);
    assert!(!line.contains(['?', '#']), "{line}");
    if let Some((_, rest)) = line.split_once("://") {
        assert!(!rest.split('/').next().unwrap_or_default().contains('@'), "{line}");
    }
    let token = token_in(address);
    trace.note((5, token.is_some(), line.len() == address.len()));
    assert!(token.is_none_or(|token| !token.is_empty() && !token.contains(['&', '#'])));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "anon/**\n**\nanon\nanon/cam\nhttps://me:pw@relay.example/a?jwt=x.y.z&b#c",
        "*/chat\na*b/**/c\nrooms\nrooms/chat\n/demo?jwt=a.b.c",
        "**/a/*/b\n**/a\na/x\na/x/b\na://?#@/",
        "rooms/*/.stats\n\n\nrooms/1/.stats\n?jwt=&jwt=a&jwt=",
        "a*a\na\n\na\nhttps://relay.example/x@y",
        "a/b/c/d/e/f/g\na/b/**\na/b\na/b/c\n",
        "**/*\n*/*/**\nx/y/z\nx/y/z/w/v\n",
        "a/a/**/a/a/a/a/a/a/a/a\n**/a/a/a/a/a/a/a/a\na/a/a/a/a/a/a/a/a/a/a/a\na/a/a/a/a/a/a/a/a/a/a/a/a/a/a\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
