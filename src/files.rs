//! Files of the operator's that are looked at again and again: whether something new is in them, and when it
//! is said that what is there cannot be used.

use std::fmt::Display;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;

use crate::limits::FILES_TOLD_AGAIN;

/// The same for the same files with the same bytes.
pub type Sum = [u8; 32];

pub fn sum<'a>(files: impl IntoIterator<Item = (&'a Path, &'a [u8])>) -> Sum {
    let mut context = digest::Context::new(&digest::SHA256);
    for (path, bytes) in files {
        for part in [path.as_os_str().as_encoded_bytes(), bytes] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    context.finish().as_ref().try_into().expect("SHA-256 is 32 bytes")
}

/// Why nothing is read of a directory, or of a FIFO.
pub const NOT_REGULAR: &str = "not a regular file";

/// What is in a file, one byte more than the most at most. Of a FIFO even opening it would wait for somebody
/// who writes, perhaps for ever.
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(NOT_REGULAR));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is in a file, or comes out of a pipe, one byte more than the most at most. A pipe that has not come to
/// its end in time is an error: nobody writes.
pub fn read_in_time(path: &Path, bytes_max: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let is_pipe = file.metadata()?.file_type().is_fifo();
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut file = file.take(bytes_max + 1);
    loop {
        let more = match file.read_to_end(&mut bytes) {
            // A pipe that has given nothing may have had nobody who writes yet.
            Ok(_) => is_pipe && bytes.is_empty(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) => return Err(error),
        };
        if !more {
            return Ok(bytes);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut wanted =
            libc::pollfd { fd: file.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one description, which is ours.
        let ready = unsafe { libc::poll(&mut wanted, 1, left.as_millis() as libc::c_int) };
        match ready {
            0 => return Err(io::Error::other("it is a pipe into which nobody writes")),
            // Whoever wrote has left, and there is no more of it.
            1.. if wanted.revents & libc::POLLIN == 0 => return Ok(bytes),
            _ => {}
        }
    }
}

/// One look at all files.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub now: Instant,
    /// Somebody waits for what comes of it.
    pub is_asked: bool,
}

/// What was there at the last look. What is in the files may be secret and is not kept.
pub struct Seen {
    in_use: Sum,
    bad: Option<Bad>,
}

/// What could not be used.
struct Bad {
    seen: Result<Sum, String>,
    told_at: Option<Instant>,
}

impl Seen {
    pub fn new(in_use: Sum) -> Seen {
        Seen { in_use, bad: None }
    }

    /// What is in use is not what was in the files.
    pub fn forget(&mut self) {
        self.in_use = Sum::default();
    }

    /// Whether what was there at the last look could not be used.
    pub fn is_bad(&self) -> bool {
        self.bad.is_some()
    }

    /// What is made of the files where they are others than those in use, or why there is nothing. A file may
    /// be looked at while somebody writes it, so what is bad is told when it was so at two looks, and, while
    /// it stays so, every [`FILES_TOLD_AGAIN`]; at once to whoever asks.
    pub fn look<R, T, E: Display>(
        &mut self,
        read: Result<(Sum, R), E>,
        make: impl FnOnce(R) -> Result<T, E>,
        look: Look,
    ) -> Option<Result<T, E>> {
        let (seen, made) = match read {
            Ok((sum, _)) if sum == self.in_use => {
                self.bad = None;
                return None;
            }
            Ok((sum, read)) => match make(read) {
                Ok(made) => {
                    *self = Seen::new(sum);
                    return Some(Ok(made));
                }
                Err(error) => (Ok(sum), error),
            },
            Err(error) => (Err(error.to_string()), error),
        };
        let before = self.bad.take().filter(|bad| bad.seen == seen);
        let is_due = match &before {
            None => false,
            Some(Bad { told_at: None, .. }) => true,
            Some(Bad { told_at: Some(at), .. }) => look.now >= *at + FILES_TOLD_AGAIN,
        };
        let told_at = match is_due || look.is_asked {
            true => Some(look.now),
            false => before.and_then(|bad| bad.told_at),
        };
        self.bad = Some(Bad { seen, told_at });
        (is_due || look.is_asked).then_some(Err(made))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_pipe_is_read_to_its_end_and_not_for_ever() {
        let path = std::env::temp_dir().join(format!("shardcast-pipe-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: a string that ends.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let begun = Instant::now();
        let nobody = read_in_time(&path, 100, Duration::from_millis(50));
        assert!(nobody.unwrap_err().to_string().contains("nobody writes"));
        assert!(begun.elapsed() < Duration::from_secs(5));
        let to = path.clone();
        let writer = std::thread::spawn(move || {
            let mut pipe = std::fs::File::options().write(true).open(to).unwrap();
            for part in ["shards", " = 2\n"] {
                pipe.write_all(part.as_bytes()).unwrap();
                std::thread::yield_now();
            }
        });
        let read = read_in_time(&path, 100, Duration::from_secs(30)).unwrap();
        assert_eq!(read, b"shards = 2\n");
        writer.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_in_time(&path, 3, Duration::ZERO).unwrap(), b"1234");
        std::fs::write(&path, "").unwrap();
        assert_eq!(read_in_time(&path, 3, Duration::ZERO).unwrap(), b"");
        std::fs::remove_file(&path).unwrap();
    }

    /// Files that cannot be read, that hold what is no use, or something that is.
    type Found = Result<(Sum, u8), &'static str>;

    /// When it is looked, whether somebody asked, what is found, and what that is to give.
    type Line = (Duration, bool, Found, Option<Result<u8, &'static str>>);

    fn make(value: u8) -> Result<u8, &'static str> {
        if value < 100 { Ok(value) } else { Err("too much") }
    }

    #[test]
    fn what_is_bad_is_told_when_it_stays_so() {
        let begin = Instant::now();
        let holds = |value: u8| Ok(([value; 32], value));
        let second = Duration::from_secs(1);
        let hour = second + FILES_TOLD_AGAIN;
        let table: &[Line] = &[
            (Duration::ZERO, false, holds(1), None),
            (second, false, holds(2), Some(Ok(2))),
            (second, false, holds(2), None),
            // Somebody is writing.
            (second, false, holds(200), None),
            (second, false, holds(201), None),
            (second, false, Err("gone"), None),
            (second, false, holds(3), Some(Ok(3))),
            // It stays so.
            (second, false, holds(200), None),
            (second, false, holds(200), Some(Err("too much"))),
            (second, false, holds(200), None),
            (second, false, Err("gone"), None),
            (second, false, Err("gone"), Some(Err("gone"))),
            (second, false, Err("gone"), None),
            (hour - second, false, Err("gone"), None),
            (hour, false, Err("gone"), Some(Err("gone"))),
            (hour, false, Err("gone"), None),
            // Somebody asks, and that counts as told.
            (hour, true, Err("gone"), Some(Err("gone"))),
            (hour, true, holds(200), Some(Err("too much"))),
            (hour, false, holds(200), None),
            (hour, true, holds(3), None),
            // What is good was there between.
            (hour, false, holds(200), None),
            (hour, false, holds(200), Some(Err("too much"))),
        ];
        let mut seen = Seen::new([1; 32]);
        for (line, (after, is_asked, found, expect)) in table.iter().enumerate() {
            let look = Look { now: begin + *after, is_asked: *is_asked };
            assert_eq!(seen.look(*found, make, look), *expect, "line {line}");
        }
    }
}
