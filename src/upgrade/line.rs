//! What two processes say to each other of which one takes over from the other.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::pass;
use crate::estate::Before;
use crate::limits::{DESCRIPTORS_PER_MESSAGE, UPGRADE_MESSAGE_BYTES_MAX};

/// Of what is said here. A program that has another one begins anew instead.
pub const FORM: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// Old to new: all that there is. Descriptors follow.
    Offer(Offer),
    /// New to old: shards turn, and nothing comes to them.
    Ready,
    /// New to old: why it will not be.
    Refused(String),
    /// Old to new: take over.
    Go,
    /// New to old: clients come to it.
    Serving,
    /// Old to new: the service manager knows.
    Main,
    /// Old to new: what is left of it, from time to time.
    Left(Before),
    /// New to old: it was told to end. That is not a failure which somebody has to step in for.
    Leaving,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Offer {
    pub form: u32,
    /// As [`crate::state::Secrets`] has them as bytes.
    pub secrets: Vec<u8>,
    /// How many UDP sockets follow, and for what the listeners are behind them.
    pub sockets: usize,
    pub listeners: Vec<String>,
    pub hop: u64,
    /// What the new process shows when it dials the old one.
    pub key: String,
    /// What that has to show, as SHA-256: one of these. There is one, for all that a relay may have fit no message.
    pub certificates: Vec<[u8; 32]>,
}

/// One end of it.
pub struct Line(OwnedFd);

impl Line {
    /// Both ends. The other one goes to a program that is about to be started.
    pub fn open() -> io::Result<(Line, OwnedFd)> {
        let mut ends: [RawFd; 2] = [0; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: the array has room for both; the descriptors are ours.
        let [mine, other] = unsafe {
            if libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            ends.map(|end| OwnedFd::from_raw_fd(end))
        };
        Ok((Line(mine), other))
    }

    /// The end that this program was started with, if it is one.
    pub fn from(end: OwnedFd) -> Option<Line> {
        let kind = socket2::SockRef::from(&end).r#type().ok()?;
        (kind == socket2::Type::SEQPACKET).then_some(Line(end))
    }

    pub fn try_clone(&self) -> io::Result<Line> {
        Ok(Line(self.0.try_clone()?))
    }

    /// Nobody waits for a process that does not hear: there is room for hundreds of words.
    pub fn say(&self, word: &Word) -> io::Result<()> {
        pass::send(&self.0, &serde_json::to_vec(word)?, &[], libc::MSG_DONTWAIT)
    }

    /// Waits for the next word. None: the other process is gone.
    pub fn hear(&self, until: Instant) -> io::Result<Option<Word>> {
        let (bytes, _) = self.receive(until)?;
        match bytes.is_empty() {
            true => Ok(None),
            false => Ok(Some(serde_json::from_slice(&bytes)?)),
        }
    }

    pub fn give(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut messages = descriptors.chunks(DESCRIPTORS_PER_MESSAGE);
        messages.try_for_each(|some| pass::send(&self.0, b"descriptors", some, 0))
    }

    pub fn take(&self, count: usize, until: Instant) -> io::Result<Vec<OwnedFd>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let (bytes, some) = self.receive(until)?;
            if bytes.is_empty() || some.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            taken.extend(some);
        }
        Ok(taken)
    }

    fn receive(&self, until: Instant) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        if !is_readable(&[self.as_fd()], until.saturating_duration_since(Instant::now()))?[0] {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut bytes = vec![0; UPGRADE_MESSAGE_BYTES_MAX];
        let received = match pass::receive(&self.0, &mut bytes) {
            // It ended with something unread, which Linux says once and before what it had said itself.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                pass::receive(&self.0, &mut bytes)?
            }
            received => received?,
        };
        bytes.truncate(received.0);
        Ok((bytes, received.1))
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Which of these have something to read, or have ended; waits for one of them so long.
pub fn is_readable(sockets: &[BorrowedFd<'_>], within: Duration) -> io::Result<Vec<bool>> {
    let poll = |socket: &BorrowedFd<'_>| libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled: Vec<_> = sockets.iter().map(poll).collect();
    // Rounded up, so that a time that is almost over is not a busy loop.
    let within = i32::try_from(within.as_millis() + 1).unwrap_or(i32::MAX);
    // SAFETY: as many as it says, and they outlive the call.
    let status = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, within) };
    if status < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(polled.iter().map(|polled| polled.revents != 0).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn words_and_descriptors_come_as_they_were_sent() {
        let (old, new) = Line::open().unwrap();
        let new = Line::from(new).unwrap();
        let files: Vec<File> = (0..600)
            .map(|n| File::open(if n % 2 == 0 { "/dev/null" } else { "/dev/zero" }).unwrap())
            .collect();
        let offer = Offer {
            form: FORM,
            secrets: vec![7; 130],
            sockets: 600,
            listeners: Vec::new(),
            hop: 7,
            key: "shown".to_owned(),
            certificates: vec![[1; 32]],
        };
        old.say(&Word::Offer(offer)).unwrap();
        old.give(&files.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        old.say(&Word::Go).unwrap();
        let Some(Word::Offer(offer)) = new.hear(soon()).unwrap() else { panic!("an offer") };
        assert_eq!((offer.form, &offer.secrets[..]), (FORM, &[7; 130][..]));
        let taken = new.take(offer.sockets, soon()).unwrap();
        let device = |file: &File| file.metadata().unwrap().rdev();
        let taken: Vec<u64> = taken.into_iter().map(|taken| device(&File::from(taken))).collect();
        assert_eq!(taken, files.iter().map(device).collect::<Vec<_>>());
        assert!(matches!(new.hear(soon()).unwrap(), Some(Word::Go)));
    }

    #[test]
    fn the_end_of_a_line_is_heard() {
        let (old, new) = Line::open().unwrap();
        let late = old.hear(Instant::now()).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        old.say(&Word::Go).unwrap();
        drop(new);
        assert!(old.hear(soon()).unwrap().is_none());
    }

    /// As a process does that refuses before it has read the offer.
    #[test]
    fn who_ends_with_something_unread_is_heard_out() {
        let (old, new) = Line::open().unwrap();
        old.say(&Word::Go).unwrap();
        let new = Line::from(new).unwrap();
        new.say(&Word::Refused("too small".to_owned())).unwrap();
        drop(new);
        let heard = old.hear(soon()).unwrap();
        assert!(matches!(&heard, Some(Word::Refused(why)) if why == "too small"), "{heard:?}");
        assert!(old.hear(soon()).unwrap().is_none());
    }

    #[test]
    fn something_else_is_no_line() {
        assert!(Line::from(File::open("/dev/null").unwrap().into()).is_none());
    }
}
