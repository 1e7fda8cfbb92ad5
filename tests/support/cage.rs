//! A cgroup with a limit of memory, for one process that is started in it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, thread};

/// Where version 1 and version 2 have them, with the names of the limit and of the most that was used.
const PLACES: [(&str, &str, &str); 2] = [
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    ("/sys/fs/cgroup", "memory.max", "memory.peak"),
];

pub struct Cage {
    directory: PathBuf,
    peak: &'static str,
}

impl Cage {
    /// None where this machine does not let us make one.
    pub fn new(bytes: u64) -> Option<Cage> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardcast-drill-{}-{number}", std::process::id());
        PLACES.iter().find_map(|(place, limit, peak)| {
            let cage = Cage { directory: Path::new(place).join(&name), peak };
            fs::create_dir(&cage.directory).ok()?;
            fs::write(cage.directory.join(limit), bytes.to_string()).ok()?;
            Some(cage)
        })
    }

    /// Has the process begin in it.
    pub fn keeps(&self, command: &mut Command) {
        let members = self.directory.join("cgroup.procs");
        let mut members =
            fs::OpenOptions::new().write(true).open(members).expect("a cgroup of ours");
        // SAFETY: a write is all that happens between fork and exec.
        unsafe { command.pre_exec(move || members.write_all(b"0")) };
    }

    /// The most that all in it have used, pages of files and what the kernel holds for them included.
    pub fn peak(&self) -> u64 {
        let text = fs::read_to_string(self.directory.join(self.peak)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // A process that has just ended is in it for a moment more.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
