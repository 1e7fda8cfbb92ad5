//! How much memory is left, as the kernel counts it: of what this process may use, and of its cgroup's limit,
//! which counts what the kernel holds for it too, and whoever else is in there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[derive(Debug)]
pub struct Meter {
    own: File,
    page: u64,
    cgroup: Option<Cgroup>,
}

#[derive(Debug)]
struct Cgroup {
    limit: u64,
    usage: File,
    stat: File,
}

impl Meter {
    /// `limit` is the cgroup's, and the file that it is in.
    pub(super) fn open(limit: Option<(u64, &Path)>) -> io::Result<Meter> {
        // SAFETY: no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let cgroup = limit.map(|(limit, file)| Cgroup::open(limit, file)).transpose()?;
        Ok(Meter { own: File::open("/proc/self/statm")?, page: page.max(1) as u64, cgroup })
    }

    /// Bytes that are used of so many; what the kernel can take back at once, as pages of files, is not.
    pub fn used(&self, max: u64) -> Option<u64> {
        let text = read(&self.own)?;
        let mut pages = text.split(' ').skip(1).map(|pages| pages.parse::<u64>().ok());
        let (resident, of_files) = (pages.next()??, pages.next()??);
        let left = max.saturating_sub(resident.saturating_sub(of_files) * self.page);
        let left_there = self.cgroup.as_ref().and_then(|cgroup| cgroup.left(left));
        Some(max - left_there.map_or(left, |there| there.min(left)))
    }
}

impl Cgroup {
    fn open(limit: u64, file: &Path) -> io::Result<Cgroup> {
        let usage = match file.ends_with("memory.max") {
            true => "memory.current",
            false => "memory.usage_in_bytes",
        };
        let usage = File::open(file.with_file_name(usage))?;
        Ok(Cgroup { limit, usage, stat: File::open(file.with_file_name("memory.stat"))? })
    }

    /// What is left of the limit. It is looked for pages of files only where less seems to be than `enough`.
    fn left(&self, enough: u64) -> Option<u64> {
        let usage: u64 = read(&self.usage)?.trim().parse().ok()?;
        let left = self.limit.saturating_sub(usage);
        if left >= enough {
            return Some(left);
        }
        Some(self.limit.saturating_sub(usage.saturating_sub(of_files(&read(&self.stat)?))))
    }
}

/// Bytes of files in the text of memory.stat: in version 1 those of the cgroup and all below it have a prefix.
fn of_files(stat: &str) -> u64 {
    let of = |prefix: &str| {
        let lines = stat.lines().filter_map(|line| line.strip_prefix(prefix)?.split_once(' '));
        let files = lines.filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"));
        files.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum::<u64>()
    };
    of("total_").max(of(""))
}

/// These files are small, and written anew with each reading.
fn read(file: &File) -> Option<String> {
    let mut text = [0; 8 << 10];
    let length = file.read_at(&mut text, 0).ok()?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_takes_is_seen() {
        const BYTES: usize = 32 << 20;
        const MAX: u64 = 1 << 40;
        let meter = Meter::open(None).unwrap();
        let before = meter.used(MAX).unwrap();
        let taken = std::hint::black_box(vec![1u8; BYTES]);
        let after = meter.used(MAX).unwrap();
        // Other tests of this process take and give back some meanwhile.
        assert!(after >= before + BYTES as u64 / 2, "{before} {after} with {} bytes", taken.len());
        assert_eq!(meter.used(1), Some(1), "all of too little");
    }

    #[test]
    fn a_cgroup_counts_without_its_files() {
        let directory =
            std::env::temp_dir().join(format!("shardcast-meter-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
        write("memory.current", "900\n");
        write("memory.stat", "anon 500\nfile 350\ninactive_file 200\nactive_file 100\nslab 7\n");
        let cgroup = Cgroup::open(1000, &directory.join("memory.max")).unwrap();
        assert_eq!(cgroup.left(100), Some(100), "more is not asked");
        assert_eq!(cgroup.left(1000), Some(400));
        write("memory.usage_in_bytes", "800\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 10\n");
        let cgroup = Cgroup::open(1000, &directory.join("memory.limit_in_bytes")).unwrap();
        assert_eq!(cgroup.left(1000), Some(240));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
