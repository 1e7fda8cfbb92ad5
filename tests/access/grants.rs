//! Grants against a matcher of their own: all patterns, roots and paths of a small alphabet.

use moq_pattern::{Pattern, Patterns};
use shardcast::access::{Grant, Refusal, RuleError, is_hidden, rule};
use shardcast::wire::Path;

use crate::support::path;

/// `ab` and `b` so that comparing bytes instead of segments shows.
const LITERALS: [&str; 3] = ["a", "ab", "b"];
const WILDCARDS: [&str; 3] = ["*", "a*", "**"];

/// All lists of so many of these.
fn lists(of: &[&'static str], lengths: std::ops::RangeInclusive<usize>) -> Vec<Vec<&'static str>> {
    let mut all = Vec::new();
    for length in lengths {
        let mut lists = vec![vec![]];
        for _ in 0..length {
            let longer = |list: &Vec<&'static str>, next| [&list[..], &[next]].concat();
            lists = lists
                .iter()
                .flat_map(|list| of.iter().map(move |next| longer(list, *next)))
                .collect();
        }
        all.extend(lists);
    }
    all
}

fn patterns(lengths: std::ops::RangeInclusive<usize>) -> Vec<(Vec<&'static str>, Pattern)> {
    let segments: Vec<_> = LITERALS.into_iter().chain(WILDCARDS).collect();
    let parsed =
        |list: Vec<&'static str>| list.join("/").parse().ok().map(|pattern| (list, pattern));
    lists(&segments, lengths).into_iter().filter_map(parsed).collect()
}

fn paths(lengths: std::ops::RangeInclusive<usize>) -> Vec<(Vec<&'static str>, Path)> {
    lists(&LITERALS, lengths)
        .into_iter()
        .map(|list| (list.clone(), path(&list.join("/"))))
        .collect()
}

/// By trying everything.
fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((&"**", rest)) => (0..=path.len()).any(|skipped| matches(rest, &path[skipped..])),
        Some((first, rest)) => path.split_first().is_some_and(|(segment, below)| {
            let is_match = match first.split_once('*') {
                Some((start, end)) => {
                    segment.len() >= start.len() + end.len()
                        && segment.starts_with(start)
                        && segment.ends_with(end)
                }
                None => first == segment,
            };
            is_match && matches(rest, below)
        }),
    }
}

fn both(root: &Path, publish: &[&Pattern], subscribe: &[&Pattern]) -> Grant {
    let set = |patterns: &[&Pattern]| patterns.iter().copied().cloned().collect();
    Grant::new(root.clone(), set(publish), set(subscribe))
}

/// Whatever the root and whatever is dialled: exactly what the pattern says below the one, as far as it is
/// below the other.
#[test]
fn a_grant_shows_what_it_says_and_nothing_else() {
    let (patterns, paths) = (patterns(0..=3), paths(0..=4));
    let places: Vec<_> = paths.iter().filter(|(list, _)| list.len() <= 2).collect();
    let roots: Vec<_> = places.iter().filter(|(list, _)| !list.contains(&"b")).collect();
    let mut admitted = 0;
    for (pattern, parsed) in &patterns {
        for (root, root_path) in &roots {
            let whole = [&root[..], &pattern[..]].concat();
            let grant = both(root_path, &[parsed], &[]);
            for (dialled, dialled_path) in &places {
                let is_granted = |path: &[&str]| path.starts_with(dialled) && matches(&whole, path);
                let case = || format!("{pattern:?} at {root:?}, dialled {dialled:?}");
                match grant.at(dialled_path) {
                    Ok(session) => {
                        admitted += 1;
                        assert_eq!(session.root(), dialled_path);
                        let heads = session.publish_heads();
                        assert!(!heads.is_empty() && session.subscribe().is_empty(), "{}", case());
                        for (path, parsed) in &paths {
                            let may = is_granted(path);
                            assert_eq!(session.may_publish(parsed), may, "{}: {path:?}", case());
                            assert!(!session.may_subscribe(parsed));
                            assert!(!may || heads.iter().any(|head| parsed.has_prefix(head)));
                        }
                        assert!(heads.iter().all(|head| head.has_prefix(dialled_path)));
                    }
                    Err(Refusal::RootMismatch) => {
                        let overlap = dialled.starts_with(root) || root.starts_with(dialled);
                        assert!(!overlap, "{}", case());
                    }
                    Err(Refusal::NoAccess) => {
                        assert!(!paths.iter().any(|(path, _)| is_granted(path)), "{}", case());
                    }
                    Err(refusal) => panic!("{}: {refusal}", case()),
                }
            }
        }
    }
    assert!(admitted > 5000, "{admitted}");
}

/// The two directions are apart, and members of a union add up.
#[test]
fn directions_and_members_do_not_mix() {
    let (patterns, paths) = (patterns(0..=2), paths(0..=3));
    for (one, one_parsed) in &patterns {
        for (two, two_parsed) in &patterns {
            let grant = both(&Path::root(), &[one_parsed, two_parsed], &[two_parsed]);
            for (path, parsed) in &paths {
                let (first, second) = (matches(one, path), matches(two, path));
                assert_eq!(grant.may_publish(parsed), first || second, "{one:?} {two:?} {path:?}");
                assert_eq!(grant.may_subscribe(parsed), second, "{one:?} {two:?} {path:?}");
            }
        }
    }
}

/// What one grant is said to cover, it does grant; and of single patterns it covers what it grants.
#[test]
fn a_grant_covers_what_it_grants() {
    let (patterns, paths) = (patterns(0..=2), paths(0..=5));
    let roots = ["", "a", "ab/a"].map(path);
    let granted = |grant: &Grant| -> Vec<bool> {
        paths.iter().map(|(_, path)| grant.may_publish(path)).collect()
    };
    let mut grants = Vec::new();
    for (_, pattern) in &patterns {
        for root in &roots {
            let grant = both(root, &[pattern], &[]);
            let granted = granted(&grant);
            grants.push((grant, granted));
        }
    }
    let mut covered = 0;
    for (scope, allowed) in &grants {
        for (claims, wanted) in &grants {
            let is_within = wanted.iter().zip(allowed).all(|(wanted, allowed)| !wanted || *allowed);
            assert_eq!(scope.covers(claims), is_within, "{scope:?} {claims:?}");
            covered += usize::from(is_within);
            // A right to publish is none to watch.
            let other =
                Grant::new(claims.root().clone(), Patterns::new(), claims.publish().clone());
            assert!(!scope.covers(&other));
        }
    }
    assert!(covered > 500, "{covered}");
}

#[test]
fn publishers_are_asked_for_literal_heads() {
    for (root, publish, expect) in [
        ("", &["**"][..], &[""][..]),
        ("x", &["**"], &["x"]),
        ("x", &["a/**", "a/b/*", "ab", "*/c/d"], &["x"]),
        ("x", &["a/**", "a/b/*", "ab", "c/d*"], &["x/a", "x/ab", "x/c"]),
        ("", &["a/b/**", "a/*"], &["a"]),
        ("", &["a/b", "a/c/d"], &["a/b", "a/c/d"]),
        ("x", &[""], &["x"]),
        ("x", &[], &[]),
    ] {
        let publish = publish.iter().map(|text| text.parse().unwrap()).collect();
        let grant = Grant::new(path(root), publish, Patterns::from(Pattern::all()));
        let mut heads: Vec<String> = grant.publish_heads().iter().map(Path::to_string).collect();
        heads.sort();
        assert_eq!(heads, expect, "{grant:?}");
    }
    // One that can match no path is not asked for.
    let publish: Patterns = Pattern::literal(&"x/".repeat(31)).into_iter().collect();
    assert!(Grant::new(path("a/b"), publish, Patterns::new()).publish_heads().is_empty());
}

#[test]
fn hidden_paths_are_for_relays_and_for_those_who_know_them() {
    for (hidden, prefix, expect) in [
        ("a/.b", "a", true),
        ("a/.b/c", "a", true),
        ("a/b/.c", "", true),
        (".a", "", true),
        (".a/b", ".a", false),
        ("a/.b", "a/.b", false),
        ("a/.b/.c", "a/.b", true),
        ("a/b.c", "a", false),
        ("a/b./c", "a", false),
        ("a", "a", false),
        ("", "", false),
        ("ab/.c", "a", false),
    ] {
        let (full, asked) = (path(hidden), path(prefix));
        assert_eq!(is_hidden(&full, &asked), expect, "{hidden} {prefix}");
        let grant = Grant::everything();
        assert!(grant.may_subscribe(&full));
        let is_below = full.has_prefix(&asked);
        assert_eq!(grant.may_hear_of(&full, &asked, true), is_below);
        assert_eq!(grant.may_hear_of(&full, &asked, false), is_below && !expect);
    }
    let narrow = Grant::public(&[], &["a/**".parse().unwrap()], &[]);
    assert!(narrow.may_hear_of(&path("a/b"), &path(""), false));
    assert!(!narrow.may_hear_of(&path("b"), &path(""), true));
}

#[test]
fn the_rules_for_everybody_add_up() {
    let rules =
        |texts: &[&str]| -> Vec<Pattern> { texts.iter().map(|text| rule(text).unwrap()).collect() };
    let grant =
        Grant::public(&rules(&["anon/**"]), &rules(&["live/**", "*/chat"]), &rules(&["drop/*"]));
    for (at, publish, subscribe) in [
        ("anon/x", true, true),
        ("live/x", false, true),
        ("x/chat", false, true),
        ("drop/x", true, false),
        ("drop/x/y", false, false),
        ("other", false, false),
    ] {
        assert_eq!(
            (grant.may_publish(&path(at)), grant.may_subscribe(&path(at))),
            (publish, subscribe),
            "{at}"
        );
    }
    assert!(Grant::public(&[], &[], &[]).is_empty());
    let subtree: Pattern = "anon/room/**".parse().unwrap();
    assert_eq!(rule("anon/room"), Err(RuleError::NoWildcard(subtree)));
    assert!(rule("anon").unwrap_err().to_string().contains("write anon/**"));
    assert_eq!(rule(""), Err(RuleError::Empty));
    for text in ["/anon/**", "anon/", "a//**", "**/a/**", "a***"] {
        assert!(matches!(rule(text), Err(RuleError::Invalid(_))), "{text}");
    }
}
