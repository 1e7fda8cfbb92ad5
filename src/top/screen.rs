//! The terminal: a page of its own, keys as they are pressed, and all of it as it was in the end.

use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

/// Another page than the shell's, without a cursor, where long lines are cut off.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Where nobody says how large a terminal is.
const SIZE_DEFAULT: (usize, usize) = (80, 24);

/// As control keys are read: Ctrl-C and Ctrl-D.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const ESCAPE: u8 = 0x1b;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// It is time.
    Due,
    /// Somebody wants to leave, or the terminal is gone.
    Quit,
    Resized,
}

pub struct Screen {
    /// How the terminal was, if somebody types there.
    before: Option<libc::termios>,
    signals: OwnedFd,
    has_keys: bool,
}

/// How many lines there are.
pub fn lines_of() -> usize {
    size().1
}

impl Screen {
    pub fn open() -> io::Result<Screen> {
        let signals = signals()?;
        let before = raw()?;
        // Where a panic ends the process, nothing is dropped.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore(before);
            hook(panic);
        }));
        let screen = Screen { before, signals, has_keys: before.is_some() };
        print(ENTER)?;
        Ok(screen)
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        size()
    }

    pub fn draw(&mut self, page: &[String]) -> io::Result<()> {
        // What was there is overwritten and not wiped first, which would flicker.
        let page = page.join("\x1b[K\r\n");
        print(&format!("\x1b[H{page}\x1b[K\x1b[J"))
    }

    /// Until then, or until something happens.
    pub fn wait(&mut self, until: Instant) -> io::Result<Woken> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let keys = if self.has_keys { libc::STDIN_FILENO } else { -1 };
            let ready = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut fds = [ready(keys), ready(self.signals.as_raw_fd())];
            // A part of a millisecond is one, so that it does not turn until the time has come.
            let millis = left.as_micros().div_ceil(1000).min(60_000) as libc::c_int;
            // SAFETY: two live entries.
            let count = unsafe { libc::poll(fds.as_mut_ptr(), 2, millis) };
            match count {
                0 if until <= Instant::now() => return Ok(Woken::Due),
                ..0 => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                _ if fds[1].revents != 0 => match self.signal()? {
                    libc::SIGWINCH => return Ok(Woken::Resized),
                    _ => return Ok(Woken::Quit),
                },
                _ if fds[0].revents != 0 => {
                    let mut typed = [0; 64];
                    let count = typed_at_once(&mut typed);
                    self.has_keys = count > 0;
                    if wants_to_leave(&typed[..count]) {
                        return Ok(Woken::Quit);
                    }
                }
                _ => {}
            }
        }
    }

    fn signal(&self) -> io::Result<libc::c_int> {
        // SAFETY: plain numbers, for which zero is a value.
        let mut signal: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = mem::size_of_val(&signal);
        // SAFETY: so many bytes are there to be written.
        let read = unsafe { libc::read(self.signals.as_raw_fd(), (&raw mut signal).cast(), size) };
        if read == size as isize {
            Ok(signal.ssi_signo as libc::c_int)
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore(self.before);
    }
}

fn restore(before: Option<libc::termios>) {
    // A terminal that is gone needs nothing.
    let _ = print(LEAVE);
    if let Some(before) = before {
        // SAFETY: it was filled by tcgetattr.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &before) };
    }
}

/// Keys as they are pressed, unseen, and Ctrl-C among them. None where nobody types.
fn raw() -> io::Result<Option<libc::termios>> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut termios: libc::termios = unsafe { mem::zeroed() };
    // SAFETY: a live structure.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, &mut termios) } != 0 {
        return Ok(None);
    }
    let before = termios;
    termios.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
    termios.c_cc[libc::VMIN] = 1;
    termios.c_cc[libc::VTIME] = 0;
    // SAFETY: a live structure that tcgetattr has filled.
    match unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &termios) } {
        0 => Ok(Some(before)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What would end the process, and word of another size, to be read in turn with keys.
fn signals() -> io::Result<OwnedFd> {
    // SAFETY: sigemptyset initialises the set before anything reads it.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGWINCH] {
            libc::sigaddset(&mut set, signal);
        }
        match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
            0 => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
        match libc::signalfd(-1, &set, libc::SFD_CLOEXEC) {
            ..0 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// How many bytes were typed since; 0 where nothing more comes.
fn typed_at_once(bytes: &mut [u8]) -> usize {
    // SAFETY: so many bytes are there to be written.
    let read = unsafe { libc::read(libc::STDIN_FILENO, bytes.as_mut_ptr().cast(), bytes.len()) };
    read.try_into().unwrap_or(0)
}

/// Whether one of these keys is for leaving. Arrows and the like are many bytes, none of them a key.
fn wants_to_leave(typed: &[u8]) -> bool {
    let mut bytes = typed.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'q' | b'Q' | &CTRL_C | &CTRL_D => return true,
            &ESCAPE => match bytes.next() {
                // Up to the letter that ends it.
                Some(b'[') => _ = bytes.find(|byte| matches!(byte, b'@'..=b'~')),
                Some(b'O') => _ = bytes.next(),
                _ => {}
            },
            _ => {}
        }
    }
    false
}

fn size() -> (usize, usize) {
    // SAFETY: plain numbers, for which zero is a value.
    let mut size: libc::winsize = unsafe { mem::zeroed() };
    // SAFETY: the request fills a live structure.
    let code = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    match (code, size.ws_col, size.ws_row) {
        (0, 1.., 1..) => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE_DEFAULT,
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_typed_at_once_are_read_one_by_one() {
        for leave in
            [&b"q"[..], b"Q", b"\x03", b"\x04", b"xq", b"x\x1b[Aq", b"\x1bOPq", b"\x1b[1;5Cq"]
        {
            assert!(wants_to_leave(leave), "{leave:?}");
        }
        for stay in
            [&b""[..], b"x", b"\x1b", b"\x1b[", b"\x1b[A", b"\x1bOQ", b"\x1b[1;5Q", b"\x1bq"]
        {
            assert!(!wants_to_leave(stay), "{stay:?}");
        }
    }
}
