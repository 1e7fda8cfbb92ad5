//! What the kernel knows of this process.

use std::fs;

/// As Prometheus names them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_files: u64,
}

impl Process {
    /// None where /proc is not to be read.
    pub fn look() -> Option<Process> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name may hold anything, and ends with the last parenthesis.
        let (_, fields) = stat.rsplit_once(") ")?;
        let field = |number: usize| fields.split(' ').nth(number - 3)?.parse::<u64>().ok();
        // SAFETY: no preconditions.
        let (ticks, page) =
            unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
        Some(Process {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks as f64,
            resident_bytes: field(24)? * page as u64,
            open_files: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let process = Process::look().expect("there is /proc");
        assert!(process.resident_bytes > 1 << 20, "{process:?}");
        assert!((3..100_000).contains(&process.open_files), "{process:?}");
        assert!((0.0..1e6).contains(&process.cpu_seconds), "{process:?}");
    }
}
