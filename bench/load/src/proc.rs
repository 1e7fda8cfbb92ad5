//! What a process has used, from /proc.

use std::fs;
use std::path::{Path, PathBuf};

/// Ticks per second of utime and stime: USER_HZ, the same on every Linux that Rust supports.
const TICK_NS: u64 = 10_000_000;

const PAGE_KIB: u64 = 4;

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ProcError {
    #[error("there is no process {pid} to measure: --relay-pid is wrong, or the relay has ended")]
    Gone { pid: u32 },
    #[error("cannot make sense of {}", .0.display())]
    Malformed(PathBuf),
}

/// A process at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub rss_kib: u64,
    pub threads: Vec<Thread>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    pub id: u32,
    pub name: String,
    pub cpu_ns: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

impl Sample {
    pub fn take(pid: u32) -> Result<Sample, ProcError> {
        let root = PathBuf::from(format!("/proc/{pid}"));
        let gone = |_| ProcError::Gone { pid };
        let statm_path = root.join("statm");
        let statm = fs::read_to_string(&statm_path).map_err(gone)?;
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        let pages = pages.ok_or(ProcError::Malformed(statm_path))?;
        let mut threads = Vec::new();
        for entry in fs::read_dir(root.join("task")).map_err(gone)? {
            let path = entry.map_err(gone)?.path();
            // A thread that ends between listing and reading has nothing more to say.
            if let Some(thread) = read_thread(&path)? {
                threads.push(thread);
            }
        }
        // A zombie has its directory still.
        if threads.is_empty() || pages == 0 {
            return Err(ProcError::Gone { pid });
        }
        threads.sort_by_key(|thread| thread.id);
        Ok(Sample { rss_kib: pages * PAGE_KIB, threads })
    }

    /// What each thread has used since an earlier sample.
    pub fn since(&self, earlier: &Sample) -> Vec<Thread> {
        let used = |now: &Thread| {
            let before = earlier.threads.iter().find(|thread| thread.id == now.id);
            let before = before.cloned().unwrap_or_default();
            Thread {
                id: now.id,
                name: now.name.clone(),
                cpu_ns: now.cpu_ns.saturating_sub(before.cpu_ns),
                voluntary_switches: now
                    .voluntary_switches
                    .saturating_sub(before.voluntary_switches),
                involuntary_switches: now
                    .involuntary_switches
                    .saturating_sub(before.involuntary_switches),
            }
        };
        self.threads.iter().map(used).collect()
    }
}

fn read_thread(path: &Path) -> Result<Option<Thread>, ProcError> {
    let read = |name| fs::read_to_string(path.join(name)).ok();
    let (Some(stat), Some(status)) = (read("stat"), read("status")) else { return Ok(None) };
    let malformed = || ProcError::Malformed(path.to_owned());
    let id = path.file_name().and_then(|name| name.to_str()?.parse().ok()).ok_or_else(malformed)?;
    let thread = parse_thread(id, &stat, &status, read("schedstat").as_deref());
    thread.ok_or_else(malformed).map(Some)
}

fn parse_thread(id: u32, stat: &str, status: &str, schedstat: Option<&str>) -> Option<Thread> {
    // The name is in parentheses and may hold some itself.
    let (head, fields) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    // utime and stime are the 14th and 15th field; those from the 3rd on are left.
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // Exact where the kernel counts it.
    let exact = schedstat.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let counted = |key: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
    };
    Some(Thread {
        id,
        name: name.to_owned(),
        cpu_ns: exact.filter(|&ns| ns > 0).unwrap_or(ticks * TICK_NS),
        voluntary_switches: counted("voluntary_ctxt_switches:")?,
        involuntary_switches: counted("nonvoluntary_ctxt_switches:")?,
    })
}

/// CPU time of this process.
pub fn own_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that outlives the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "Linux counts the CPU time of processes");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tshard-0\nState:\tS (sleeping)\n\
                          voluntary_ctxt_switches:\t1234\nnonvoluntary_ctxt_switches:\t56\n";
    const STAT: &str = "77 (a) b (c)) S 1 77 77 0 -1 4194304 101 0 1 0 250 50 0 0 20 0 1 0 133 31";

    #[test]
    fn a_thread_is_read() {
        let thread = parse_thread(77, STAT, STATUS, Some("902362 2001533 2\n")).unwrap();
        let expect = Thread {
            id: 77,
            name: "a) b (c)".to_owned(),
            cpu_ns: 902_362,
            voluntary_switches: 1234,
            involuntary_switches: 56,
        };
        assert_eq!(thread, expect);
    }

    #[test]
    fn ticks_are_taken_where_there_is_nothing_better() {
        for schedstat in [None, Some("0 0 0\n"), Some("")] {
            let thread = parse_thread(77, STAT, STATUS, schedstat).unwrap();
            assert_eq!(thread.cpu_ns, 3_000_000_000);
        }
        assert_eq!(parse_thread(77, "77 (a) S 1", STATUS, None), None);
        assert_eq!(parse_thread(77, STAT, "Name: a", None), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let before = Sample::take(std::process::id()).unwrap();
        let begun = own_cpu_ns();
        while own_cpu_ns() < begun + 30_000_000 {}
        let after = Sample::take(std::process::id()).unwrap();
        assert!(after.rss_kib > 100);
        assert!(after.since(&before).iter().any(|thread| thread.cpu_ns >= 10_000_000));
    }

    #[test]
    fn a_process_that_is_not_there_is_said() {
        // Above the largest pid that Linux gives out.
        let pid = 4_194_305;
        assert_eq!(Sample::take(pid), Err(ProcError::Gone { pid }));
    }
}
