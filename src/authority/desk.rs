//! All leases of the relay: what there is to ask, how much of it at once, and what follows from the answers.
//!
//! A lease begins with a connect. While its session lives it is asked again as often as the server said, and
//! its end is told. Of what waits to be asked, connects, checks and ends have their turn one after the other,
//! so that none of them waits for a flood of the others.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::News;
use super::contract::{self, Answer, Event, Facts, Moved, Terms};
use crate::access::{Admission, Refusal};
use crate::limits::{
    AUTHORITY_ANSWER_MAX, AUTHORITY_ENDS_BYTES_MAX, AUTHORITY_ENDS_WAITING_MAX,
    AUTHORITY_REQUESTS_MAX, AUTHORITY_RETRY_MAX, AUTHORITY_RETRY_MIN, AUTHORITY_WAITING_MAX,
};

/// A number that the server and operators know a session by, for nobody to guess. It is aligned as all else that
/// is mailed, so that no mail is larger for its sake.
#[repr(Rust, packed(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u128);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", { self.0 })
    }
}

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    Connect(LeaseId),
    Check(LeaseId),
    End,
}

/// Status and body, or why there is none.
pub type Outcome = Result<(u16, Vec<u8>), String>;

/// Something to be sent to the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Post {
    pub ticket: Ticket,
    pub body: Vec<u8>,
    pub timeout: Duration,
}

#[derive(Default)]
pub struct Desk {
    leases: FxHashMap<LeaseId, Lease>,
    /// Connects, checks and ends that wait. A lease may be gone by the time of its turn.
    connects: VecDeque<LeaseId>,
    checks: VecDeque<LeaseId>,
    ends: VecDeque<Vec<u8>>,
    ends_bytes: usize,
    next_kind: usize,
    in_flight: usize,
    /// Checks that are due some time.
    due: BTreeSet<(Instant, LeaseId)>,
    news: VecDeque<(LeaseId, News)>,
    trouble: Option<String>,
    lost_ends: u64,
}

struct Lease {
    facts: Box<Facts>,
    state: State,
}

enum State {
    Waiting {
        until: Instant,
    },
    Asked {
        /// The session is over meanwhile.
        left: Option<(Cow<'static, str>, Moved)>,
        /// What is answered may be from before somebody wanted to know.
        again: bool,
    },
    Held(Held),
    /// The session has been told to end, for this reason.
    Over {
        reason: &'static str,
        since: Instant,
    },
}

struct Held {
    since: Instant,
    /// As they were when the session was let in.
    terms: Terms,
    /// The second of the last answer.
    expires: Option<i64>,
    every: Option<Duration>,
    failures: u32,
    check: Check,
}

/// When the server is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Never,
    Due(Instant),
    /// In its turn.
    Waits,
    /// It is being asked, and `again` when it has answered.
    Asked {
        again: bool,
    },
}

const KINDS: usize = 3;

impl Desk {
    /// Somebody wants to come in.
    pub fn ask(&mut self, now: Instant, id: LeaseId, facts: Box<Facts>) {
        if self.connects.len() >= AUTHORITY_WAITING_MAX {
            self.trouble = Some("too many wait for its answers".to_owned());
            self.news.push_back((id, News::Over(Refusal::ServerAway)));
            return;
        }
        let state = State::Waiting { until: now + AUTHORITY_ANSWER_MAX };
        self.leases.insert(id, Lease { facts, state });
        self.connects.push_back(id);
    }

    /// The session of a lease is over, for a reason of its own if it has not been told to end.
    pub fn end(&mut self, now: Instant, id: LeaseId, reason: Cow<'static, str>, moved: Moved) {
        let Some(mut lease) = self.leases.remove(&id) else { return };
        match &lease.state {
            // The server has not heard of it.
            State::Waiting { .. } => {}
            State::Asked { .. } => {
                lease.state = State::Asked { left: Some((reason, moved)), again: false };
                self.leases.insert(id, lease);
            }
            State::Held(Held { since, check, .. }) => {
                if let Check::Due(at) = check {
                    self.due.remove(&(*at, id));
                }
                self.tell_end(id, &lease, &reason, now - *since, moved);
            }
            State::Over { reason, since } => self.tell_end(id, &lease, reason, now - *since, moved),
        }
    }

    /// Somebody wants to know whether a session may go on. What is asked already may be answered from before.
    pub fn check(&mut self, id: LeaseId) {
        match self.leases.get_mut(&id).map(|lease| &mut lease.state) {
            Some(State::Asked { again, .. }) => *again = true,
            Some(State::Held(held)) => match &mut held.check {
                Check::Asked { again } => *again = true,
                Check::Waits => {}
                check => {
                    if let Check::Due(at) = *check {
                        self.due.remove(&(at, id));
                    }
                    *check = Check::Waits;
                    self.checks.push_back(id);
                }
            },
            Some(State::Waiting { .. } | State::Over { .. }) | None => {}
        }
    }

    /// The relay ends, and every session with it.
    pub fn end_all(&mut self, now: Instant) {
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in leases {
            self.end(now, id, "shutdown".into(), Moved::default());
        }
        self.connects.clear();
        self.checks.clear();
    }

    /// What is to be sent now, if there is something and not too much under way.
    pub fn next_post(&mut self, now: Instant) -> Option<Post> {
        if self.in_flight == AUTHORITY_REQUESTS_MAX {
            return None;
        }
        for _ in 0..KINDS {
            let kind = self.next_kind;
            self.next_kind = (kind + 1) % KINDS;
            let post = match kind {
                0 => self.next_connect(now),
                1 => self.next_check(),
                _ => self.next_end(),
            };
            if post.is_some() {
                self.in_flight += 1;
                return post;
            }
        }
        None
    }

    fn next_connect(&mut self, now: Instant) -> Option<Post> {
        loop {
            let id = self.connects.pop_front()?;
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            let State::Waiting { until } = lease.state else { continue };
            let timeout = until.saturating_duration_since(now);
            lease.state = State::Asked { left: None, again: false };
            let body = contract::question(&id.to_string(), &Event::Connect, &lease.facts);
            return Some(Post { ticket: Ticket::Connect(id), body, timeout });
        }
    }

    fn next_check(&mut self) -> Option<Post> {
        loop {
            let id = self.checks.pop_front()?;
            let Some(Lease { facts, state: State::Held(held) }) = self.leases.get_mut(&id) else {
                continue;
            };
            held.check = Check::Asked { again: false };
            let body = contract::question(&id.to_string(), &Event::Revalidate, facts);
            return Some(Post { ticket: Ticket::Check(id), body, timeout: AUTHORITY_ANSWER_MAX });
        }
    }

    fn next_end(&mut self) -> Option<Post> {
        let body = self.ends.pop_front()?;
        self.ends_bytes -= body.len();
        Some(Post { ticket: Ticket::End, body, timeout: AUTHORITY_ANSWER_MAX })
    }

    /// The server has answered, or not. `unix` is the second in which it has, and `jitter` a random number
    /// from 0 to 1.
    pub fn answered(
        &mut self,
        (now, unix): (Instant, i64),
        ticket: Ticket,
        outcome: Outcome,
        jitter: f64,
    ) {
        self.in_flight -= 1;
        let (Ticket::Connect(id) | Ticket::Check(id)) = ticket else {
            match outcome {
                Ok((200..300, _)) => {}
                Ok((status, _)) => self.trouble = Some(format!("it answers an end with {status}")),
                Err(error) => self.trouble = Some(error),
            }
            return;
        };
        // Of an end that came meanwhile the server hears when its turn comes.
        let Some(lease) = self.leases.get(&id) else { return };
        let answer = match outcome {
            Ok((status, body)) => contract::answer(status, &body, &lease.facts.dialled.path, unix),
            Err(error) => Answer::Unavailable(error),
        };
        match ticket {
            Ticket::Connect(_) => self.connected(now, id, answer),
            _ => self.checked(now, id, answer, jitter),
        }
    }

    fn connected(&mut self, now: Instant, id: LeaseId, answer: Answer) {
        let Some(mut lease) = self.leases.remove(&id) else { return };
        let State::Asked { left, again } = &mut lease.state else { return };
        let (left, again) = (left.take(), *again);
        let refusal = match answer {
            Answer::Granted(terms) => {
                if let Some((reason, moved)) = left {
                    return self.tell_end(id, &lease, &reason, Duration::ZERO, moved);
                }
                let (expires, every) = (terms.expires, terms.revalidate);
                let admission =
                    Admission { grant: terms.grant.clone(), expires, ..Admission::default() };
                self.news.push_back((id, News::Admitted(admission)));
                let check = Check::Asked { again };
                let held = Held { since: now, terms, expires, every, failures: 0, check };
                lease.state = State::Held(held);
                self.leases.insert(id, lease);
                return self.check_after(now, id, every);
            }
            Answer::Refused(reason) => Refusal::ByServer(reason),
            Answer::Invalid(fault) => {
                self.trouble = Some(format!("its grant cannot be honoured: {fault}"));
                Refusal::ServerAway
            }
            Answer::Unavailable(reason) => {
                self.trouble = Some(reason);
                Refusal::ServerAway
            }
        };
        if left.is_none() {
            self.news.push_back((id, News::Over(refusal)));
        }
    }

    fn checked(&mut self, now: Instant, id: LeaseId, answer: Answer, jitter: f64) {
        let Some(Lease { state, .. }) = self.leases.get_mut(&id) else { return };
        let State::Held(held) = state else { return };
        let (refusal, reason) = match answer {
            // One that grants more changes nothing: what was asked for under the old one stays as it is.
            Answer::Granted(terms) if is_as_much(&terms, &held.terms) => {
                held.failures = 0;
                held.every = terms.revalidate;
                if terms.expires != held.expires {
                    held.expires = terms.expires;
                    self.news.push_back((id, News::Until(terms.expires)));
                }
                return self.check_after(now, id, terms.revalidate);
            }
            Answer::Granted(_) => (Refusal::Narrowed, "grant narrowed"),
            Answer::Refused(reason) => (Refusal::ByServer(reason), "refused"),
            Answer::Invalid(fault) => {
                self.trouble = Some(format!("its grant cannot be honoured: {fault}"));
                (Refusal::ServerErrs, "invalid")
            }
            // That says nothing about the session, which lives on until the second it was told.
            Answer::Unavailable(reason) => {
                held.failures += 1;
                let after = retry_after(held.failures, held.every, jitter);
                self.trouble = Some(reason);
                return self.check_after(now, id, Some(after));
            }
        };
        *state = State::Over { reason, since: held.since };
        self.news.push_back((id, News::Over(refusal)));
    }

    /// The server has answered, and is asked again after so long, or at once where somebody wants that.
    fn check_after(&mut self, now: Instant, id: LeaseId, after: Option<Duration>) {
        // What lies beyond the clock's range never comes.
        let at = after.and_then(|after| now.checked_add(after));
        if let Some(Lease { state: State::Held(held), .. }) = self.leases.get_mut(&id) {
            let is_wanted = held.check == Check::Asked { again: true };
            held.check = at.map_or(Check::Never, Check::Due);
            self.due.extend(at.map(|at| (at, id)));
            if is_wanted {
                self.check(id);
            }
        }
    }

    fn tell_end(
        &mut self,
        id: LeaseId,
        lease: &Lease,
        reason: &str,
        duration: Duration,
        moved: Moved,
    ) {
        let end = Event::End { reason: reason.to_owned(), duration, moved };
        let body = contract::question(&id.to_string(), &end, &lease.facts);
        let bytes = self.ends_bytes + body.len();
        // What is no larger than its share does not suffer from what is.
        let is_large = body.len() > AUTHORITY_ENDS_BYTES_MAX / AUTHORITY_ENDS_WAITING_MAX;
        let is_full = self.ends.len() == AUTHORITY_ENDS_WAITING_MAX;
        if is_full || is_large && bytes > AUTHORITY_ENDS_BYTES_MAX {
            self.lost_ends += 1;
            return;
        }
        self.ends_bytes = bytes;
        self.ends.push_back(body);
    }

    /// When [`Desk::expire`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let front = self.connects.iter().find_map(|id| match self.leases.get(id)?.state {
            State::Waiting { until } => Some(until),
            _ => None,
        });
        front.into_iter().chain(self.due.first().map(|(at, _)| *at)).min()
    }

    pub fn expire(&mut self, now: Instant) {
        while let Some((at, id)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            if let Some(Lease { state: State::Held(held), .. }) = self.leases.get_mut(&id) {
                held.check = Check::Waits;
                self.checks.push_back(id);
            }
        }
        while let Some(id) = self.connects.front().copied() {
            match self.leases.get(&id).map(|lease| &lease.state) {
                Some(State::Waiting { until }) if *until > now => return,
                Some(State::Waiting { .. }) => {
                    self.leases.remove(&id);
                    self.trouble = Some("it is too slow for all who wait".to_owned());
                    self.news.push_back((id, News::Over(Refusal::ServerAway)));
                }
                _ => {}
            }
            self.connects.pop_front();
        }
    }

    /// What somebody who asked is to be told.
    pub fn next_news(&mut self) -> Option<(LeaseId, News)> {
        self.news.pop_front()
    }

    /// What is wrong with the server, if something new is.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Ends of which the server never hears, since the last time.
    pub fn take_lost_ends(&mut self) -> u64 {
        std::mem::take(&mut self.lost_ends)
    }

    /// Nothing is under way and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0
            && self.ends.is_empty()
            && self.connects.is_empty()
            && self.checks.is_empty()
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

fn is_as_much(now: &Terms, before: &Terms) -> bool {
    now.grant.root() == before.grant.root() && now.grant.covers(&before.grant)
}

/// Twice as long after each failure, less than the server wants to be asked, and not for all at once.
fn retry_after(failures: u32, every: Option<Duration>, jitter: f64) -> Duration {
    let after = AUTHORITY_RETRY_MIN * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let most = every.unwrap_or(AUTHORITY_RETRY_MAX).min(AUTHORITY_RETRY_MAX);
    after.min(most).mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Target;
    use crate::authority::contract::Transport;
    use crate::wire::Role;

    const UNIX: i64 = 1_795_748_116;
    const UNTIL: i64 = 1_795_748_716;
    const A: LeaseId = LeaseId(7);

    fn second(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    /// A desk, its clock, and a server that answers by hand.
    struct Play {
        desk: Desk,
        start: Instant,
        now: Instant,
    }

    impl Play {
        fn new() -> Play {
            let start = Instant::now();
            Play { desk: Desk::default(), start, now: start }
        }

        fn ask(&mut self, id: LeaseId) {
            let facts = Facts {
                transport: Transport::Quic,
                remote: "203.0.113.9:4433".parse().unwrap(),
                local: "[::1]:443".parse().unwrap(),
                server_name: None,
                alpn: None,
                tls: None,
                dialled: Target::parse("/room?jwt=x").unwrap(),
                role: Role::Both,
            };
            self.desk.ask(self.now, id, Box::new(facts));
        }

        /// What is sent, and as what event of which session.
        #[track_caller]
        fn sent(&mut self) -> (Ticket, moq_auth::Request) {
            let post = self.desk.next_post(self.now).expect("something to send");
            (post.ticket, serde_json::from_slice(&post.body).unwrap())
        }

        #[track_caller]
        fn expect_sent(&mut self, ticket: Ticket, event: &moq_auth::Event) {
            let (sent, request) = self.sent();
            let (Ticket::Connect(id) | Ticket::Check(id)) = ticket else { panic!() };
            assert_eq!((sent, &request.event), (ticket, event));
            assert_eq!((request.id.len(), request.id), (32, id.to_string()));
        }

        fn answer(&mut self, ticket: Ticket, status: u16, body: &str) {
            let outcome = Ok((status, body.as_bytes().to_vec()));
            self.desk.answered((self.now, UNIX), ticket, outcome, 0.5);
        }

        fn fail(&mut self, ticket: Ticket, jitter: f64) {
            let outcome = Err("no route".to_owned());
            self.desk.answered((self.now, UNIX), ticket, outcome, jitter);
        }

        fn end(&mut self, id: LeaseId) {
            let moved = Moved { sent: 1, received: 2 };
            self.desk.end(self.now, id, "closed".into(), moved);
        }

        #[track_caller]
        fn expect_end(&mut self, reason: &str, duration: f64, bytes: (u64, u64)) {
            let (ticket, request) = self.sent();
            let event = moq_auth::Event::End {
                reason: reason.into(),
                duration: second(duration),
                bytes: moq_auth::Bytes { sent: bytes.0, received: bytes.1 },
            };
            assert_eq!((ticket, request.event), (Ticket::End, event));
            self.answer(ticket, 204, "");
        }

        #[track_caller]
        fn expect_news(&mut self, expect: News) {
            assert_eq!(self.desk.next_news(), Some((A, expect)));
        }

        /// Nothing to say, nothing to send, and at this time from the start there will be.
        #[track_caller]
        fn expect_quiet(&mut self, until: Option<f64>) {
            assert_eq!(self.desk.next_news(), None);
            assert_eq!(self.desk.next_post(self.now), None);
            let deadline = self.desk.deadline().map(|at| (at - self.start).as_secs_f64());
            assert_eq!(deadline, until);
        }

        #[track_caller]
        fn expect_over(&mut self) {
            self.expect_quiet(None);
            assert!(self.desk.is_empty() && self.desk.is_idle());
        }

        /// To this time from the start.
        fn go_to(&mut self, at: f64) {
            self.now = self.start + second(at);
            self.desk.expire(self.now);
        }

        /// One that is admitted with this grant.
        #[track_caller]
        fn admitted(grant: &str) -> Play {
            let mut play = Play::new();
            play.ask(A);
            play.expect_sent(Ticket::Connect(A), &moq_auth::Event::Connect);
            play.answer(Ticket::Connect(A), 200, grant);
            let Some((A, News::Admitted(admission))) = play.desk.next_news() else { panic!() };
            assert_eq!(admission.key, None);
            play
        }
    }

    const MINUTE: &str =
        r#"{"publish":["a/**"],"subscribe":["**"],"expires":1795748716,"revalidate":60}"#;

    #[test]
    fn who_is_granted_something_comes_in_and_its_end_is_told() {
        let mut play = Play::new();
        play.ask(A);
        play.expect_sent(Ticket::Connect(A), &moq_auth::Event::Connect);
        play.expect_quiet(None);
        play.answer(Ticket::Connect(A), 200, r#"{"publish":["a/**"],"expires":1795748716}"#);
        let grant = crate::access::Grant::new(
            crate::wire::Path::parse("room").unwrap(),
            ["a/**".parse().unwrap()].into_iter().collect(),
            Default::default(),
        );
        let expires = Some(UNTIL);
        play.expect_news(News::Admitted(Admission { grant, expires, ..Admission::default() }));
        play.expect_quiet(None);
        play.go_to(100.0);
        play.end(A);
        play.expect_end("closed", 100.0, (1, 2));
        play.end(A);
        play.expect_over();
        assert_eq!(play.desk.take_trouble(), None);
    }

    #[test]
    fn who_is_not_granted_anything_hears_why() {
        let away = || Refusal::ServerAway;
        let by_server = |words: &str| Refusal::ByServer(words.to_owned());
        for (status, body, refusal, trouble) in [
            (403, "no such room", by_server("no such room"), None),
            (401, "", by_server("it says no more"), None),
            (200, "{}", by_server("nothing is granted"), None),
            (200, "?", away(), Some("its answer is not a grant in JSON")),
            (503, "", away(), Some("it answers with status 503")),
            (
                200,
                r#"{"publish":["a"],"revalidate":1}"#,
                away(),
                Some("its grant cannot be honoured: `revalidate` without `expires`"),
            ),
        ] {
            let mut play = Play::new();
            play.ask(A);
            let (ticket, _) = play.sent();
            play.answer(ticket, status, body);
            play.expect_news(News::Over(refusal));
            play.end(A);
            play.expect_over();
            assert_eq!(play.desk.take_trouble().as_deref(), trouble);
        }
        let mut play = Play::new();
        play.ask(A);
        let (ticket, _) = play.sent();
        play.fail(ticket, 0.0);
        play.expect_news(News::Over(away()));
        play.expect_over();
        assert_eq!(play.desk.take_trouble().as_deref(), Some("no route"));
    }

    #[test]
    fn who_leaves_before_the_answer_is_told_of_only_where_it_was_let_in() {
        // Not asked yet.
        let mut play = Play::new();
        play.ask(A);
        play.end(A);
        play.expect_over();
        // Asked.
        for (status, body, is_told) in [(200, MINUTE, true), (403, "", false), (500, "", false)] {
            let mut play = Play::new();
            play.ask(A);
            let (ticket, _) = play.sent();
            play.end(A);
            play.answer(ticket, status, body);
            if is_told {
                play.expect_end("closed", 0.0, (1, 2));
            }
            play.expect_over();
        }
    }

    #[test]
    fn the_server_is_asked_again_as_often_as_it_says() {
        let mut play = Play::admitted(MINUTE);
        play.expect_quiet(Some(60.0));
        play.go_to(59.9);
        play.expect_quiet(Some(60.0));
        play.go_to(60.0);
        play.expect_sent(Ticket::Check(A), &moq_auth::Event::Revalidate);
        play.expect_quiet(None);
        // Its answer takes a while, says another time, more patterns and another pace.
        play.go_to(63.0);
        let wider = r#"{"publish":["**"],"subscribe":["**"],"expires":1795749999,"revalidate":10}"#;
        play.answer(Ticket::Check(A), 200, wider);
        play.expect_news(News::Until(Some(1_795_749_999)));
        play.expect_quiet(Some(73.0));
        play.go_to(73.0);
        play.expect_sent(Ticket::Check(A), &moq_auth::Event::Revalidate);
        // What was granted at first is enough, also later.
        play.answer(Ticket::Check(A), 200, MINUTE);
        play.expect_news(News::Until(Some(UNTIL)));
        play.go_to(133.0);
        play.expect_sent(Ticket::Check(A), &moq_auth::Event::Revalidate);
        let for_good = r#"{"publish":["a/**"],"subscribe":["**"]}"#;
        play.answer(Ticket::Check(A), 200, for_good);
        play.expect_news(News::Until(None));
        play.expect_quiet(None);
    }

    #[test]
    fn the_server_is_asked_when_somebody_wants_to_know() {
        let for_good = r#"{"publish":["a/**"],"subscribe":["**"]}"#;
        for (grant, pace) in [(MINUTE, Some(60.0)), (for_good, None)] {
            let mut play = Play::admitted(grant);
            play.go_to(7.0);
            // Once, however often they ask before its turn.
            play.desk.check(A);
            play.desk.check(A);
            play.expect_sent(Ticket::Check(A), &moq_auth::Event::Revalidate);
            play.expect_quiet(None);
            play.answer(Ticket::Check(A), 200, grant);
            play.expect_quiet(pace.map(|pace| 7.0 + pace));
            // Once more where the server may have decided before.
            play.desk.check(A);
            play.sent();
            play.desk.check(A);
            play.desk.check(A);
            play.expect_quiet(None);
            play.answer(Ticket::Check(A), 200, grant);
            play.expect_sent(Ticket::Check(A), &moq_auth::Event::Revalidate);
            // A server that is away is asked again.
            play.fail(Ticket::Check(A), 0.5);
            play.expect_quiet(Some(8.0));
            play.desk.check(A);
            let (ticket, _) = play.sent();
            play.answer(ticket, 403, "gone");
            play.expect_news(News::Over(Refusal::ByServer("gone".to_owned())));
            play.desk.check(A);
            play.expect_quiet(None);
            play.end(A);
            play.expect_end("refused", 7.0, (1, 2));
            play.desk.check(A);
            play.expect_over();
        }
        // While it is asked whether somebody may come in.
        let mut play = Play::new();
        play.ask(A);
        play.desk.check(A);
        let (ticket, _) = play.sent();
        play.desk.check(A);
        play.answer(ticket, 200, MINUTE);
        assert!(matches!(play.desk.next_news(), Some((A, News::Admitted(_)))));
        play.expect_sent(Ticket::Check(A), &moq_auth::Event::Revalidate);
        play.answer(Ticket::Check(A), 200, MINUTE);
        play.expect_quiet(Some(60.0));
    }

    #[test]
    fn less_than_before_ends_the_session() {
        let grant = |more: &str| format!(r#"{{"expires":1795748716,"revalidate":60,{more}}}"#);
        for (status, body, refusal, reason) in [
            (
                200,
                grant(r#""publish":["a/b/**"],"subscribe":["**"]"#),
                Refusal::Narrowed,
                "grant narrowed",
            ),
            (200, grant(r#""publish":["a/**"]"#), Refusal::Narrowed, "grant narrowed"),
            (
                200,
                grant(r#""publish":["**"],"subscribe":["**"],"root":"other""#),
                Refusal::Narrowed,
                "grant narrowed",
            ),
            (403, "gone".to_owned(), Refusal::ByServer("gone".to_owned()), "refused"),
            (200, "{}".to_owned(), Refusal::ByServer("nothing is granted".to_owned()), "refused"),
            (
                200,
                r#"{"publish":["**"],"expires":1795748116}"#.to_owned(),
                Refusal::ServerErrs,
                "invalid",
            ),
        ] {
            let mut play = Play::admitted(MINUTE);
            play.go_to(60.0);
            let (ticket, _) = play.sent();
            play.answer(ticket, status, &body);
            play.expect_news(News::Over(refusal));
            play.expect_quiet(None);
            play.go_to(61.0);
            play.end(A);
            play.expect_end(reason, 61.0, (1, 2));
            play.expect_over();
        }
    }

    #[test]
    fn a_server_that_is_away_says_nothing_about_a_session() {
        let mut play = Play::admitted(r#"{"publish":["a"],"expires":1795748716,"revalidate":5}"#);
        let mut at = 5.0;
        // A second, two, four, and then as often as it wants to be asked.
        for wait in [1.0, 2.0, 4.0, 5.0, 5.0] {
            play.go_to(at);
            let (ticket, request) = play.sent();
            assert_eq!(request.event, moq_auth::Event::Revalidate);
            play.fail(ticket, 0.5);
            at += wait;
            play.expect_quiet(Some(at));
        }
        play.go_to(at);
        let (ticket, _) = play.sent();
        play.answer(ticket, 200, r#"{"publish":["a"],"expires":1795748716,"revalidate":5}"#);
        play.expect_quiet(Some(at + 5.0));
        // The next failure is the first again.
        play.go_to(at + 5.0);
        let (ticket, _) = play.sent();
        play.answer(ticket, 502, "");
        play.expect_quiet(Some(at + 6.0));
        play.end(A);
        play.expect_end("closed", at + 5.0, (1, 2));
        play.expect_over();
        // A check that waits for its turn finds nobody.
        let mut play = Play::admitted(MINUTE);
        play.go_to(60.0);
        play.end(A);
        play.expect_end("closed", 60.0, (1, 2));
        play.expect_over();
    }

    #[test]
    fn retries_are_a_quarter_sooner_or_later() {
        let retry = |failures, every: u64, jitter| {
            retry_after(failures, Some(Duration::from_secs(every)), jitter).as_secs_f64()
        };
        for (failures, every, middle) in [
            (1, 3600, 1.0),
            (2, 3600, 2.0),
            (6, 3600, 32.0),
            (7, 3600, 60.0),
            (u32::MAX, 3600, 60.0),
            (3, 1, 1.0),
        ] {
            for (jitter, times) in [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)] {
                assert_eq!(retry(failures, every, jitter), middle * times, "{failures} {every}");
            }
        }
        assert_eq!(retry_after(9, None, 0.5), AUTHORITY_RETRY_MAX);
    }

    #[test]
    fn so_much_is_asked_at_once_and_the_rest_waits_for_ten_seconds() {
        let mut play = Play::new();
        let all = AUTHORITY_REQUESTS_MAX as u128 + 3;
        (0..all).for_each(|id| play.ask(LeaseId(id)));
        let mut tickets = VecDeque::new();
        for _ in 0..AUTHORITY_REQUESTS_MAX {
            tickets.push_back(play.sent().0);
        }
        play.expect_quiet(Some(10.0));
        play.go_to(4.0);
        play.answer(tickets.pop_front().unwrap(), 200, MINUTE);
        assert!(matches!(play.desk.next_news(), Some((LeaseId(0), News::Admitted(_)))));
        let post = play.desk.next_post(play.now).unwrap();
        assert_eq!((post.ticket, post.timeout), (Ticket::Connect(LeaseId(all - 3)), second(6.0)));
        // One of the two that wait leaves, and the other is told in time.
        play.end(LeaseId(all - 2));
        play.go_to(9.9);
        assert_eq!(play.desk.next_news(), None);
        play.go_to(10.0);
        let told = play.desk.next_news();
        assert_eq!(told, Some((LeaseId(all - 1), News::Over(Refusal::ServerAway))));
        assert_eq!(play.desk.take_trouble().as_deref(), Some("it is too slow for all who wait"));
        // And as many as that wait at most.
        let first = 1000;
        let most = AUTHORITY_WAITING_MAX as u128;
        (first..=first + most).for_each(|id| play.ask(LeaseId(id)));
        let told = play.desk.next_news();
        assert_eq!(told, Some((LeaseId(first + most), News::Over(Refusal::ServerAway))));
        assert_eq!(play.desk.next_news(), None);
    }

    #[test]
    fn checks_and_ends_do_not_wait_for_a_flood_of_connects() {
        let mut play = Play::admitted(MINUTE);
        play.ask(LeaseId(8));
        let (ticket, _) = play.sent();
        play.answer(ticket, 200, r#"{"publish":["a"]}"#);
        play.desk.next_news().unwrap();
        (100..200).for_each(|id| play.ask(LeaseId(id)));
        play.now += second(1.0);
        play.end(LeaseId(8));
        play.go_to(60.0);
        (200..300).for_each(|id| play.ask(LeaseId(id)));
        let first: Vec<Ticket> = (0..3).map(|_| play.sent().0).collect();
        assert!(first.contains(&Ticket::Check(A)) && first.contains(&Ticket::End), "{first:?}");
    }

    #[test]
    fn ends_that_are_too_many_are_counted() {
        let mut play = Play::new();
        play.desk.in_flight = AUTHORITY_REQUESTS_MAX;
        let lease = |id: u128| {
            let mut other = Play::new();
            other.ask(LeaseId(id));
            let (_, mut lease) = other.desk.leases.drain().next().unwrap();
            let terms = Terms {
                grant: crate::access::Grant::everything(),
                expires: None,
                revalidate: None,
            };
            lease.state = State::Held(Held {
                since: other.start,
                terms,
                expires: None,
                every: None,
                failures: 0,
                check: Check::Never,
            });
            lease
        };
        for id in 0..AUTHORITY_ENDS_WAITING_MAX as u128 + 5 {
            play.desk.leases.insert(LeaseId(id), lease(id));
        }
        play.now += second(1.0);
        play.desk.end_all(play.now);
        assert_eq!((play.desk.take_lost_ends(), play.desk.take_lost_ends()), (5, 0));
        assert!(play.desk.is_empty());
        play.desk.in_flight = 0;
        let (_, request) = play.sent();
        let moq_auth::Event::End { reason, .. } = request.event else { panic!() };
        assert_eq!(reason.as_str(), "shutdown");
    }
}
