//! The thread that hands a process over: it hears who asks for that, the process before this one and the one
//! after it.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::heir::{self, Heir, HeirError};
use super::line::{FORM, Line, Offer, Word, is_readable};
use super::link::{self, Link};
use super::place;
use crate::estate::{Before, Estate};
use crate::limits::{
    ACCEPT_PAUSE, UPGRADE_COMMIT_MAX, UPGRADE_LINK_PAUSE, UPGRADE_PROVEN_AFTER,
    UPGRADE_REQUEST_MAX, UPGRADE_STEP_MAX,
};
use crate::notify;
use crate::shard::links::HeirKey;
use crate::signals::Notice;
use crate::text::in_one_line;

/// What is asked for, and how answers begin.
pub(super) const REQUEST: &str = "upgrade";
pub(super) const BEGUN: &str = "begun ";
pub(super) const DONE: &str = "done ";
pub(super) const FAILED: &str = "failed ";

const ENDING: &str = "the relay is ending";

/// Nothing has to be looked at before something comes.
const LONG: Duration = Duration::from_secs(3600);

/// How this program was started, and is started again.
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

impl Program {
    /// By the name that it was called by: after it is replaced the file itself has none.
    pub fn this() -> io::Result<Program> {
        let mut args = std::env::args_os();
        let named = args.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let path = match named {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        Ok(Program { path, args: args.collect() })
    }
}

/// What the main thread has of it.
pub struct Desk {
    lines: Arc<Lines>,
    is_ending: Arc<AtomicBool>,
}

/// To other processes, while they are there.
#[derive(Default)]
struct Lines {
    before: Mutex<Option<Line>>,
    after: Mutex<Option<Line>>,
}

impl Lines {
    /// To one that is gone, or does not hear, nothing is said.
    fn say(line: &Mutex<Option<Line>>, word: &Word) {
        if let Some(line) = &*line.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = line.say(word);
        }
    }

    fn set(line: &Mutex<Option<Line>>, to: Option<Line>) {
        *line.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }
}

impl Desk {
    /// Takes over first, if this process is to. `directory` is where requests come to, if anywhere.
    pub fn open(
        heir: Option<&Heir>,
        estate: Estate,
        directory: Option<PathBuf>,
        program: Program,
        notices: mpsc::Sender<Notice>,
    ) -> Result<Desk, HeirError> {
        // All that can fail comes before: what takes over cannot be taken back by who has.
        let (clerks, clerk) = mpsc::channel::<Clerk>();
        let body = move || clerk.recv().into_iter().for_each(Clerk::work);
        std::thread::Builder::new().name("upgrade".to_owned()).spawn(body)?;
        let before = heir.map(Heir::line).transpose()?;
        let lines = Arc::<Lines>::default();
        Lines::set(&lines.before, before.as_ref().map(Line::try_clone).transpose()?);
        let link = heir.map(|heir| heir.take_over(&estate)).transpose()?.map(Box::new);
        let is_ending = Arc::new(AtomicBool::new(false));
        let desk = Desk { lines: lines.clone(), is_ending: is_ending.clone() };
        let stage = before.zip(link).map_or(Stage::Alone, |(line, link)| Stage::Beside(line, link));
        let listener = directory.as_deref().and_then(listen);
        if listener.is_some() || matches!(stage, Stage::Beside(..)) {
            let clerk =
                Clerk { stage, listener, directory, program, estate, notices, lines, is_ending };
            // It waits for this and nothing else.
            let _ = clerks.send(clerk);
        }
        Ok(desk)
    }

    /// The process was told to end: nobody is told any more to take over from it, and the one before it ends too.
    pub fn leave(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        Lines::say(&self.lines.before, &Word::Leaving);
    }

    /// Whether the process before this one is still there.
    pub fn is_beside(&self) -> bool {
        self.lines.before.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The process that has taken over is told what is left here, and until when.
    pub fn say_left(&self, sessions: usize, until: Instant) {
        let seconds = until.saturating_duration_since(Instant::now()).as_secs();
        let left = Before { process: std::process::id(), sessions, seconds };
        Lines::say(&self.lines.after, &Word::Left(left));
    }
}

fn listen(directory: &Path) -> Option<UnixListener> {
    match place::listen(directory) {
        Ok(listener) => Some(listener),
        Err(error) => {
            let directory = directory.display();
            tracing::warn!(%directory, %error, "there is no upgrade without a restart: cannot make a socket there");
            None
        }
    }
}

enum Stage {
    Alone,
    /// The process before this one is still there.
    Beside(Line, Box<Link>),
    /// One was started that is to take over.
    Asked(Asked),
    /// It has taken over.
    After(After),
}

struct Asked {
    line: Line,
    child: Child,
    asker: UnixStream,
    /// It was told to take over.
    is_going: bool,
    /// How long the step that it is at may take, and until when.
    within: Duration,
    until: Instant,
}

struct After {
    line: Line,
    child: Child,
    /// It has said that it was told to end.
    is_leaving: bool,
}

struct Clerk {
    stage: Stage,
    listener: Option<UnixListener>,
    directory: Option<PathBuf>,
    program: Program,
    estate: Estate,
    notices: mpsc::Sender<Notice>,
    lines: Arc<Lines>,
    is_ending: Arc<AtomicBool>,
}

impl Clerk {
    fn work(mut self) {
        loop {
            let (line, until) = match &self.stage {
                Stage::Alone => (None, None),
                Stage::Beside(line, _) => (Some(line), Some(Instant::now() + UPGRADE_LINK_PAUSE)),
                Stage::Asked(asked) => (Some(&asked.line), Some(asked.until)),
                Stage::After(after) => (Some(&after.line), None),
            };
            let within = until.map_or(LONG, |at| at.saturating_duration_since(Instant::now()));
            let has_line = line.is_some();
            let sockets = line.map(AsFd::as_fd).into_iter();
            let sockets: Vec<_> = sockets.chain(self.listener.as_ref().map(AsFd::as_fd)).collect();
            let Ok(mut readable) = is_readable(&sockets, within) else { return };
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            if has_line && (readable.remove(0) || is_late) {
                self.hear();
            }
            if readable.first() == Some(&true) {
                self.answer();
            }
        }
    }

    fn hear(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Alone) {
            Stage::Alone => Stage::Alone,
            Stage::Beside(line, link) => self.hear_before(line, link),
            Stage::Asked(asked) => self.hear_heir(asked),
            Stage::After(after) => self.hear_after(after),
        };
    }

    /// The process before this one.
    fn hear_before(&mut self, line: Line, mut link: Box<Link>) -> Stage {
        link.look(&self.estate);
        match line.hear(Instant::now()) {
            Ok(Some(Word::Main)) => {
                let _ = self.notices.send(Notice::Main);
                // It has taken over, and neither clients nor the service manager wait for a slow disk.
                self.estate.keep_or_say();
                Stage::Beside(line, link)
            }
            Ok(Some(Word::Left(left))) => {
                self.estate.before.send_replace(Some(left));
                Stage::Beside(line, link)
            }
            Ok(Some(_)) => Stage::Beside(line, link),
            Err(error) if error.kind() == ErrorKind::TimedOut => Stage::Beside(line, link),
            Ok(None) | Err(_) => {
                Lines::set(&self.lines.before, None);
                self.estate.before.send_replace(None);
                self.be_alone();
                // It may have ended before it could say so.
                let _ = self.notices.send(Notice::Main);
                tracing::info!("the process before this one is gone");
                Stage::Alone
            }
        }
    }

    fn hear_heir(&mut self, mut asked: Asked) -> Stage {
        let id = asked.child.id();
        let reason = match asked.line.hear(Instant::now()) {
            Ok(Some(Word::Ready | Word::Serving)) if self.is_ending.load(Ordering::Relaxed) => {
                ENDING.to_owned()
            }
            Ok(Some(Word::Ready)) if !asked.is_going => {
                asked.is_going = true;
                asked.within = UPGRADE_COMMIT_MAX;
                asked.until = Instant::now() + asked.within;
                // Its end is heard next.
                let _ = asked.line.say(&Word::Go);
                return Stage::Asked(asked);
            }
            Ok(Some(Word::Serving)) if asked.is_going => return self.hand_over(asked),
            Ok(Some(Word::Refused(reason))) => reason,
            Err(error) if error.kind() == ErrorKind::TimedOut => match Instant::now() < asked.until
            {
                true => return Stage::Asked(asked),
                false => format!("process {id} does not take over within {:?}", asked.within),
            },
            Ok(None) => ended(&mut asked.child),
            Ok(Some(_)) | Err(_) => format!("process {id} is not understood"),
        };
        // SIGKILL to a child that is ours until it is waited for.
        let _ = asked.child.kill();
        // A disk may keep it from its end, and that may keep clients from nothing; before its end it may steer still.
        self.steer_back();
        let _ = asked.child.wait();
        self.be_alone();
        tracing::warn!(reason, "no other process takes over, and nothing has changed");
        tell(&mut asked.asker, FAILED, &reason);
        Stage::Alone
    }

    fn hand_over(&mut self, asked: Asked) -> Stage {
        let Asked { line, child, mut asker, .. } = asked;
        let id = child.id();
        self.estate.make_way();
        Lines::set(&self.lines.after, line.try_clone().ok());
        notify::hand_over(id);
        let _ = line.say(&Word::Main);
        let _ = self.notices.send(Notice::HandedOver);
        tracing::info!(process = id, "another process has taken over");
        tell(&mut asker, DONE, &format!("process {id} has taken over"));
        Stage::After(After { line, child, is_leaving: false })
    }

    fn hear_after(&mut self, mut after: After) -> Stage {
        match after.line.hear(Instant::now()) {
            Ok(Some(Word::Leaving)) => {
                let _ = self.notices.send(Notice::EndWithNext);
                Stage::After(After { is_leaving: true, ..after })
            }
            Ok(Some(_)) => Stage::After(after),
            Err(error) if error.kind() == ErrorKind::TimedOut => Stage::After(after),
            Ok(None) | Err(_) => {
                let status =
                    after.child.wait().map_or_else(|error| error.to_string(), |s| s.to_string());
                Lines::set(&self.lines.after, None);
                if after.is_leaving {
                    return Stage::Alone;
                }
                self.be_alone();
                self.listener = self.directory.as_deref().and_then(listen);
                notify::take_back();
                let _ = self.notices.send(Notice::TakenBack);
                tracing::warn!(status, "the process that had taken over is gone: this one goes on");
                Stage::Alone
            }
        }
    }

    fn be_alone(&self) {
        self.steer_back();
        self.estate.keep_or_say();
    }

    fn steer_back(&self) {
        if let Err(error) = self.estate.be_alone() {
            tracing::warn!(%error, "the other process is gone, and its clients are not told");
        }
    }

    fn answer(&mut self) {
        let mut asker = match self.listener.as_ref().map(UnixListener::accept) {
            Some(Ok((asker, _))) => asker,
            // Where descriptors are used up whoever asks is still there.
            Some(Err(_)) => return std::thread::sleep(ACCEPT_PAUSE),
            None => return,
        };
        if !place::may_ask(&asker) || !has_asked(&asker) {
            return;
        }
        let refusal = match &self.stage {
            Stage::Alone if self.is_ending.load(Ordering::Relaxed) => ENDING,
            Stage::Alone if std::process::id() == 1 => {
                "this process is the first of its container, which ends with it: start another container"
            }
            Stage::Alone => {
                self.start(asker);
                return;
            }
            Stage::Beside(..) => &self.what_is_before(),
            Stage::Asked(_) => "another upgrade is under way",
            Stage::After(_) => "another process has taken over from this one: ask again",
        };
        tell(&mut asker, FAILED, refusal);
    }

    /// Why it is too early.
    fn what_is_before(&self) -> String {
        match *self.estate.before.borrow() {
            Some(Before { sessions: 1.., seconds, .. }) => format!(
                "the process before this one still has sessions: wait until they have moved, or for its \
                 --upgrade-timeout, which is over in {seconds} s"
            ),
            _ => format!(
                "this process is new, and the one before it stays for {UPGRADE_PROVEN_AFTER:?} in case it fails: ask \
                 again then"
            ),
        }
    }

    fn start(&mut self, mut asker: UnixStream) {
        match self.spawn() {
            Ok((line, child)) => {
                let id = child.id();
                tell(&mut asker, BEGUN, &format!("process {id} is to take over"));
                tracing::info!(process = id, "another process is to take over");
                let within = UPGRADE_STEP_MAX;
                let until = Instant::now() + within;
                let asked = Asked { line, child, asker, is_going: false, within, until };
                self.stage = Stage::Asked(asked);
            }
            Err(error) => {
                self.be_alone();
                let reason = format!("cannot start {}: {error}", self.program.path.display());
                tracing::warn!(reason, "no other process takes over, and nothing has changed");
                tell(&mut asker, FAILED, &reason);
            }
        }
    }

    fn spawn(&self) -> io::Result<(Line, Child)> {
        let (line, end) = Line::open()?;
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.args).env(heir::VARIABLE, std::process::id().to_string());
        // Those are of this process, by its id.
        for variable in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(variable);
        }
        let estate = &self.estate;
        let key = HeirKey::random();
        estate.share(&key).map_err(io::Error::other)?;
        let child = command.stdin(end).spawn()?;
        // With it our copy of the other end: the line has to end with the process there.
        drop(command);
        let offer = Word::Offer(offer(estate, &key));
        // A process that is gone already is heard as such.
        let _ = line.say(&offer).and_then(|()| line.give(&heir::descriptors(estate)));
        Ok((line, child))
    }
}

fn offer(estate: &Estate, key: &HeirKey) -> Offer {
    Offer {
        form: FORM,
        secrets: estate.secrets.to_bytes(),
        sockets: estate.rows.sockets().count(),
        listeners: estate.listeners.iter().map(|(name, _)| name.clone()).collect(),
        hop: estate.hop,
        key: key.as_str().to_owned(),
        certificates: vec![link::shown(estate)],
    }
}

/// How the new process has ended, which writes to the same log.
fn ended(child: &mut Child) -> String {
    // Where it is about to, this changes nothing.
    let _ = child.kill();
    let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    let id = child.id();
    format!(
        "process {id} ended before it took over ({how}); what it said is in the log of the relay that runs"
    )
}

/// Whether somebody says what he wants, and it is that.
/// The whole of it in time, however little comes at once.
fn has_asked(mut asker: &UnixStream) -> bool {
    let until = Instant::now() + UPGRADE_REQUEST_MAX;
    let is_set = asker.set_nonblocking(false).is_ok()
        && asker.set_write_timeout(Some(UPGRADE_REQUEST_MAX)).is_ok();
    let mut request = Vec::new();
    while is_set && !request.ends_with(b"\n") && request.len() <= REQUEST.len() {
        let left = until.saturating_duration_since(Instant::now());
        let mut byte = [0];
        // No time at all would be for ever.
        let is_read = !left.is_zero()
            && asker.set_read_timeout(Some(left)).is_ok()
            && asker.read(&mut byte).is_ok_and(|read| read == 1);
        if !is_read {
            return false;
        }
        request.push(byte[0]);
    }
    request.trim_ascii_end() == REQUEST.as_bytes()
}

fn tell(asker: &mut UnixStream, kind: &str, words: &str) {
    // Who does not listen any more is not told.
    let _ = asker.write_all(format!("{kind}{}\n", in_one_line(words)).as_bytes());
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::config::IdentitySource;
    use crate::net::Rows;
    use crate::quic::CongestionControl;
    use crate::state::Secrets;
    use crate::tls::{Certificates, Identity, Pair};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn pair(host: &'static str) -> Pair {
        let hosts = vec![host.try_into().unwrap()];
        let made = Identity::load(&IdentitySource::Generated { hosts }, &[], &[]).unwrap();
        made.certificates.now()[0].clone()
    }

    /// Of a relay with these certificates, and nobody to tell.
    fn estate(pairs: Vec<Pair>) -> Estate {
        Estate {
            rows: Arc::new(Rows::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap()),
            secrets: Secrets::random(),
            listeners: Arc::default(),
            shards: Vec::new(),
            gate: watch::channel(true).0,
            before: watch::channel(None).0,
            state_dir: None,
            hop: 1,
            certificates: Arc::new(Certificates::new(pairs)),
            congestion_control: CongestionControl::default(),
        }
    }

    /// A process that was asked for another one and has started it; the line of that one, and who has asked.
    fn asked() -> (Clerk, Line, UnixStream) {
        let (line, heir) = Line::open().unwrap();
        let (asker, asks) = UnixStream::pair().unwrap();
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let within = UPGRADE_STEP_MAX;
        let until = Instant::now() + within;
        let clerk = Clerk {
            stage: Stage::Asked(Asked { line, child, asker, is_going: false, within, until }),
            listener: None,
            directory: None,
            program: Program { path: PathBuf::new(), args: Vec::new() },
            estate: estate(vec![pair("relay.example")]),
            notices: mpsc::channel().0,
            lines: Arc::default(),
            is_ending: Arc::default(),
        };
        (clerk, Line::from(heir).unwrap(), asks)
    }

    #[test]
    fn one_that_is_ready_is_told_to_take_over() {
        let (mut clerk, heir, _asks) = asked();
        heir.say(&Word::Ready).unwrap();
        clerk.hear();
        assert!(matches!(heir.hear(soon()).unwrap(), Some(Word::Go)));
        let Stage::Asked(mut asked) = clerk.stage else { panic!("it has not taken over yet") };
        assert!(asked.is_going);
        asked.child.kill().unwrap();
        asked.child.wait().unwrap();
    }

    /// Else the relay that somebody has ended would run on as another process.
    #[test]
    fn nobody_is_told_to_take_over_from_one_that_is_ending() {
        let (mut clerk, heir, mut asks) = asked();
        let desk = Desk { lines: clerk.lines.clone(), is_ending: clerk.is_ending.clone() };
        desk.leave();
        heir.say(&Word::Ready).unwrap();
        clerk.hear();
        assert!(heir.hear(soon()).unwrap().is_none(), "the line has ended");
        assert!(matches!(clerk.stage, Stage::Alone));
        let mut told = String::new();
        asks.read_to_string(&mut told).unwrap();
        assert_eq!(told, "failed the relay is ending\n");
    }

    #[test]
    fn an_offer_fits_however_many_certificates_there_are() {
        let mut pairs = vec![pair("relay.example"); 1000];
        for name in ["relay.example", "localhost"] {
            pairs.push(pair(name));
            let shown = if name == "localhost" { pairs.last() } else { pairs.first() };
            let shown = shown.unwrap().fingerprint;
            let (old, new) = Line::open().unwrap();
            let offer = offer(&estate(pairs.clone()), &HeirKey::random());
            old.say(&Word::Offer(offer)).unwrap();
            let heard = Line::from(new).unwrap().hear(soon()).unwrap();
            let Some(Word::Offer(offer)) = heard else { panic!("an offer") };
            assert_eq!(offer.certificates, [shown]);
        }
    }
}
