//! Paths as peers, URLs and settings write them. The input is text of three lines: two paths, and
//! the query of a URL.
//!
//! * A path has one normal form, which reads as itself.
//! * What lies below a prefix, put below it again, is the path.
//! * What a URL asks for is below its path and nowhere else.

use shardcast::access::{Grant, rule};
use shardcast::limits::REQUEST_NAME_BYTES_MAX;
use shardcast::web::Wanted;
use shardcast::wire::{PATH_SEGMENTS_MAX, Path, VARINT_MAX, split_path_query};

use crate::trace::Trace;

pub fn run(input: &[u8], trace: &mut Trace) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(3, '\n');
    let [one, other, query] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let (path, below) = (Path::parse(one), Path::parse(other));
    trace.note((0, path.as_ref().err()));
    if let (Ok(path), Ok(below)) = (&path, &below) {
        normal(path);
        relation(path, below, trace);
        scope(path, below, trace);
    }
    target(one, trace);
    wanted(one, query, trace);
}

fn normal(path: &Path) {
    let text = path.as_str();
    assert_eq!(Path::parse(text).as_ref(), Ok(path));
    assert_eq!(path.segments().collect::<Vec<_>>().join("/"), text);
    assert!(path.segments().count() <= PATH_SEGMENTS_MAX);
    assert!(path.segments().all(|segment| !["", "*", "**"].contains(&segment)));
    assert_eq!(path.is_root(), text.is_empty());
    assert!(path.has_prefix(path) && path.has_prefix(&Path::root()));
}

fn relation(path: &Path, below: &Path, trace: &mut Trace) {
    let joined = path.join(below);
    trace.note((1, joined.as_ref().err(), path.has_prefix(below)));
    if let Ok(joined) = joined {
        normal(&joined);
        assert!(joined.has_prefix(path));
        assert_eq!(joined.strip_prefix(path).as_ref(), Some(below));
    }
    let rest = path.strip_prefix(below);
    assert_eq!(rest.is_some(), path.has_prefix(below));
    if let Some(rest) = rest {
        assert_eq!(below.join(&rest).as_ref(), Ok(path));
    }
    if path.has_prefix(below) && below.has_prefix(path) {
        assert_eq!(path, below);
    }
}

/// Nobody may use what is not public, wherever their session is rooted.
fn scope(public: &Path, root: &Path, trace: &mut Trace) {
    // As a pattern that is another one.
    if public.as_str().contains('*') {
        return;
    }
    let subtree = if public.is_root() { "**".to_owned() } else { format!("{public}/**") };
    let Ok(subtree) = rule(&subtree) else { return };
    let grant = Grant::public(&[subtree], &[], &[]).at(root);
    trace.note((2, grant.is_ok()));
    let Ok(grant) = grant else { return };
    for head in grant.publish_heads() {
        assert!(head.has_prefix(public) && head.has_prefix(root));
        assert!(grant.may_publish(&head) && grant.may_subscribe(&head));
    }
}

fn target(text: &str, trace: &mut Trace) {
    let (path, query) = split_path_query(text);
    trace.note((3, query.is_some()));
    let whole = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    assert!(whole == text && !path.contains('?'));
}

fn wanted(path: &str, query: &str, trace: &mut Trace) {
    let wanted = Wanted::parse(path, Some(query).filter(|query| !query.is_empty()));
    trace.note((4, wanted.as_ref().err()));
    let Ok(Wanted { broadcast, track, group }) = wanted else { return };
    normal(&broadcast);
    assert!(broadcast.as_str().len() + track.len() <= REQUEST_NAME_BYTES_MAX);
    assert!(!track.is_empty() && !track.contains('/') && path.ends_with(&*track));
    assert!(group.is_none_or(|group| group <= VARINT_MAX));
    trace.note((5, group.is_some()));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "room/cam/video\nroom\ngroup=7",
        "/room//cam/\nroom/cam/video\ngroup=latest",
        "\n\n",
        "a/*/b\n**\ngroup=1&group=4611686018427387903",
        "a/b?jwt=x?y\na\ngroup=4611686018427387904",
        "room\u{e9}/\u{1f3a5}/audio\nroom\u{e9}\ngroup=+7",
        "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a\na/a/a/a/a/a/a/a/a/a/a/a/a/a\ngroup=",
        "rooms/cam\nroom\ngroup=00&x=1",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
