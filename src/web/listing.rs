//! What is announced, read from one shard page by page. However many ask, no shard is asked by
//! more than one listing at a time, nor more often than a pause allows.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::mail::hand_in;
use crate::access::Grant;
use crate::limits::{LISTING_CHUNK_PATHS, LISTING_PAUSE, SHARD_ANSWER_MAX};
use crate::mailbox::Outside;
use crate::shard::guest::{Announced, PageLine};
use crate::shard::message::ToShard;
use crate::text::moves_a_cursor;
use crate::wire::Path;

/// All announced paths, in order.
pub type Listing = Arc<Vec<Announced>>;

pub type Asker = oneshot::Sender<Listing>;

/// Answers those who ask, together: each with a listing that began after it asked.
pub async fn answer(shards: Vec<Outside<ToShard>>, mut asked: mpsc::UnboundedReceiver<Asker>) {
    let mut next_start = Instant::now();
    // In turns, so that no shard has all of the work.
    let mut shards = shards.iter().cycle();
    while let Some(first) = asked.recv().await {
        sleep_until(next_start).await;
        next_start = Instant::now() + LISTING_PAUSE;
        let mut askers = vec![first];
        while let Ok(asker) = asked.try_recv() {
            askers.push(asker);
        }
        let shard = shards.next().expect("a relay has shards");
        // Where there is none, those who ask are dropped, and so told.
        let Some(listing) = list(shard).await else { continue };
        for asker in askers {
            // One that has hung up needs none.
            let _ = asker.send(listing.clone());
        }
    }
}

/// None where the shard has ended, or does not answer: each page has the time of one answer, however many there are.
async fn list(shard: &Outside<ToShard>) -> Option<Listing> {
    let mut all: Vec<Announced> = Vec::new();
    loop {
        let (line, page) = PageLine::new();
        let after = all.last().map(|announced| announced.path.clone());
        let asked = async {
            hand_in(shard, ToShard::List { after, page: line }).await;
            page.await.ok()
        };
        let page = timeout(SHARD_ANSWER_MAX, asked).await.ok()??;
        all.extend(page.announced);
        if page.is_last {
            return Some(Arc::new(all));
        }
    }
}

/// The part of a listing that one client is shown, as text, a bounded piece at a time.
pub struct Lines {
    listing: Listing,
    /// How much of it is done.
    next: usize,
    prefix: Path,
    grant: Grant,
    /// Something is announced at the prefix itself, or covers it.
    is_covered: bool,
}

impl Lines {
    /// One line per path below `prefix`, relative to it, as the wire has it (spec §4.5).
    pub fn new(listing: Listing, prefix: Path, grant: Grant) -> Lines {
        let at = |path: Path| listing.binary_search_by(|other| other.path.cmp(&path)).ok();
        // Of those that cover it, requests go to the longest.
        let cover = prefix.ancestors().find_map(at).map(|at| &listing[at]);
        let is_covered = cover.is_some_and(|cover| match cover.path == prefix {
            true => grant.may_subscribe(&prefix),
            false => cover.is_whole && grant.may_hear_of_cover(&cover.path, &prefix, false),
        });
        Lines { listing, next: 0, prefix, grant, is_covered }
    }
}

impl Iterator for Lines {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut text = String::new();
        if std::mem::take(&mut self.is_covered) {
            text.push('\n');
        }
        while text.is_empty() && self.next < self.listing.len() {
            let rest = &self.listing[self.next..];
            let chunk = &rest[..rest.len().min(LISTING_CHUNK_PATHS)];
            self.next += chunk.len();
            for announced in chunk {
                if let Some(suffix) = shown(&announced.path, &self.prefix, &self.grant) {
                    text.push_str(suffix.as_str());
                    text.push('\n');
                }
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

pub(super) fn shown(path: &Path, prefix: &Path, grant: &Grant) -> Option<Path> {
    let suffix = path.strip_prefix(prefix)?;
    // A line break in a path would be read as another path, and so may be what turns the direction of text.
    let is_one_line = !suffix.as_str().contains(moves_a_cursor);
    let is_shown = is_one_line && !suffix.is_root() && grant.may_hear_of(path, prefix, false);
    is_shown.then_some(suffix)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::*;
    use crate::access::rule;
    use crate::limits::LISTING_PAGE_PATHS;
    use crate::mailbox::{Post, mesh};

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn announced(text: &str) -> Announced {
        Announced { path: path(text), is_whole: true }
    }

    #[track_caller]
    fn check(listing: &[&str], prefix: &str, rules: &[&str], expect: &str) {
        // A publisher has all below what it announces, but not below what ends like this.
        let listing = listing.iter().map(|text| match text.strip_suffix(" only") {
            Some(text) => Announced { path: path(text), is_whole: false },
            None => announced(text),
        });
        let listing = Arc::new(listing.collect::<Vec<_>>());
        let rules: Vec<_> = rules.iter().map(|text| rule(text).unwrap()).collect();
        let grant = Grant::public(&[], &rules, &[]).at(&path(prefix)).unwrap();
        let text: String = Lines::new(listing, path(prefix), grant).collect();
        assert_eq!(text, expect, "below {prefix:?}");
    }

    #[test]
    fn lines_are_what_the_wire_shows() {
        let all = ["a", "a-b", "a/.b/c", "a/.d", "a/b", "a/b/.c", "b"];
        check(&all, "", &["**"], "a\na-b\na/b\nb\n");
        check(&all, "a", &["**"], "\nb\n");
        check(&all, "a/.b", &["**"], "\nc\n");
        check(&all, "a/b/c/d", &["**"], "\n");
        check(&all, "c", &["**"], "");
        check(&all, "", &["a/b/**", "b/**"], "a/b\nb\n");
        check(&all, "", &["a/*", "b*"], "a/b\nb\n");
        check(&all, "a", &["a/b/**"], "b\n");
        check(&["", "x"], "", &["**"], "\nx\n");
        // Who may not watch what is above does not hear of it, and nobody of what its publisher may not have.
        check(&["a"], "a/b", &["a/*"], "");
        check(&["a"], "a/b", &["a/**"], "\n");
        check(&["a only"], "a/b", &["**"], "");
        check(&["a only"], "a", &["**"], "\n");
        check(&["a", "a/b only"], "a/b/c", &["**"], "");
        check(&["a\nb", "a\u{202e}b", "c"], "", &["**"], "c\n");
    }

    #[test]
    fn long_listings_come_in_pieces() {
        let listing = (0..2500).map(|n| announced(&format!("b/{n:04}"))).collect::<Vec<_>>();
        let lines = Lines::new(Arc::new(listing), path("b"), Grant::everything());
        let pieces: Vec<usize> = lines.map(|text| text.lines().count()).collect();
        assert_eq!(pieces, [1024, 1024, 452]);
    }

    /// A shard that has announced some paths, answers after a while, and notes when it was asked.
    struct Shard {
        post: Post<ToShard>,
        paths: Vec<Announced>,
        takes: Duration,
        asked: Vec<(Instant, Option<Path>)>,
    }

    impl Shard {
        fn new(paths: usize, takes: Duration) -> Shard {
            let post = mesh(1, 16).pop().unwrap();
            let paths = (0..paths).map(|n| announced(&format!("b/{n:05}"))).collect();
            Shard { post, paths, takes, asked: Vec::new() }
        }

        /// Answers until nobody has asked for a second.
        async fn run(mut self) -> Vec<(Instant, Option<Path>)> {
            let mut idle = Duration::ZERO;
            while idle < Duration::from_secs(1) {
                let mut inbox = VecDeque::new();
                self.post.take(16, &mut inbox);
                for (_, mail) in inbox {
                    let ToShard::List { after, page } = mail else { panic!("{mail:?}") };
                    self.asked.push((Instant::now(), after.clone()));
                    tokio::time::sleep(self.takes).await;
                    let from = after
                        .map_or(0, |after| self.paths.partition_point(|one| one.path <= after));
                    page.answer(self.paths[from..].iter().cloned());
                    idle = Duration::ZERO;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                idle += Duration::from_millis(1);
            }
            self.asked
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_goes_on_after_the_last_path() {
        let shard = Shard::new(2048 + 5, Duration::ZERO);
        let (askers, asked) = mpsc::unbounded_channel();
        tokio::spawn(answer(vec![shard.post.outside()], asked));
        let shard = tokio::spawn(shard.run());
        let (asker, listing) = oneshot::channel();
        askers.send(asker).unwrap();
        let listing = listing.await.unwrap();
        assert_eq!((listing.len(), listing[2052].path.as_str()), (2053, "b/02052"));
        let pages: Vec<_> = shard.await.unwrap().into_iter().map(|(_, after)| after).collect();
        assert_eq!(pages, [None, Some(path("b/01023")), Some(path("b/02047"))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_listing_has_time_for_each_page() {
        let takes = SHARD_ANSWER_MAX / 4;
        let paths = 6 * LISTING_PAGE_PATHS;
        let shard = Shard::new(paths, takes);
        let (askers, asked) = mpsc::unbounded_channel();
        tokio::spawn(answer(vec![shard.post.outside()], asked));
        tokio::spawn(shard.run());
        let begun = Instant::now();
        let (asker, listing) = oneshot::channel();
        askers.send(asker).unwrap();
        assert_eq!(listing.await.unwrap().len(), paths);
        assert!(begun.elapsed() > SHARD_ANSWER_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_hangs_keeps_nobody_waiting_for_good() {
        let posts = mesh(2, 16);
        let shards = posts.iter().map(Post::outside).collect();
        let (askers, asked) = mpsc::unbounded_channel();
        tokio::spawn(answer(shards, asked));
        for _ in 0..3 {
            let begun = Instant::now();
            let (asker, listing) = oneshot::channel();
            askers.send(asker).unwrap();
            listing.await.unwrap_err();
            assert!(begun.elapsed() <= SHARD_ANSWER_MAX + LISTING_PAUSE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_share_a_listing_that_begins_after_they_asked() {
        let takes = Duration::from_millis(50);
        let shard = Shard::new(1, takes);
        let (askers, asked) = mpsc::unbounded_channel();
        tokio::spawn(answer(vec![shard.post.outside()], asked));
        let shard = tokio::spawn(shard.run());
        let began = Instant::now();
        let mut waiting = Vec::new();
        // One every 10 ms for a second.
        for _ in 0..100 {
            let (asker, listing) = oneshot::channel();
            askers.send(asker).unwrap();
            let asked = Instant::now();
            waiting.push(tokio::spawn(async move {
                listing.await.unwrap();
                (asked, Instant::now())
            }));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut answers = Vec::new();
        for answer in waiting {
            answers.push(answer.await.unwrap());
        }
        let starts: Vec<Instant> = shard.await.unwrap().into_iter().map(|(at, _)| at).collect();
        assert!((5..=7).contains(&starts.len()), "{} listings in {:?}", starts.len(), began);
        for pair in starts.windows(2) {
            assert!(pair[1] - pair[0] >= LISTING_PAUSE);
        }
        for (asked, answered) in answers {
            let listing = starts.iter().rev().find(|start| **start + takes <= answered).unwrap();
            assert!(*listing >= asked, "the answer is older than the question");
        }
    }
}
