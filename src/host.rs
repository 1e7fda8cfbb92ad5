//! What the relay needs of its host, checked before anything starts: a clear refusal here
//! instead of a panic in the executor later. Knows the kernel's limits and no other module.

pub mod finding;
mod machine;
mod meter;

use std::path::{Path, PathBuf};
use std::{fs, io, thread};

use finding::Finding;
pub use meter::Meter;

use crate::limits::WEB_CONNECTIONS_MAX;

/// Ring entries of the trial; the smallest ring shows whether rings are allowed at all.
const TRIAL_RING_ENTRIES: u32 = 1;

/// Of `struct io_uring_params`: where the kernel says what its rings can do.
const RING_FEATURES: usize = 5;

/// A wait on a ring takes arguments, a time among them; and one may say that it is not to end too soon.
const FEATURE_TIMED_WAIT: u32 = 1 << 8;
const FEATURE_SHORTEST_WAIT: u32 = 1 << 15;

/// What glommio insists on, whatever the privileges of the process.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// One executor of an unprivileged process: three io_uring rings and 64 KiB registered with each
/// (measured on Linux 6.18: 250 KiB in all). Where registration does not fit glommio does without,
/// but an earlier shard's may leave no room for a later one's rings, and then that one fails.
const MEMLOCK_BYTES_PER_SHARD: u64 = 256 << 10;

/// The kernel takes up to a second to give back what a relay that just ended had locked, so that
/// one started in its place needs room for both.
const MEMLOCK_GENERATIONS: u64 = 2;

/// CAP_IPC_LOCK: the kernel counts no locked memory against its holder.
const IPC_LOCK_CAPABILITY: u32 = 14;

/// One shard: three rings, the executor's eventfd, the ring in which it sleeps, the bell that mail rings, the
/// poll of its TCP sockets, its UDP socket with two duplicates, and that of the process to come; three to spare.
const FILES_PER_SHARD: u64 = 14;

/// Everything else: standard streams, certificates, log, HTTP and its connections.
const FILES_BASE: u64 = 64 + WEB_CONNECTIONS_MAX as u64;

/// Addresses that the allocators of all threads set aside, and stacks: what a relay that just started was
/// seen to have with one to eight shards, and some more. Little of it is memory.
const ADDRESS_SPACE_BASE: u64 = 320 << 20;
const ADDRESS_SPACE_PER_SHARD: u64 = 160 << 20;

/// What is to be left for the cache and for sessions.
const ADDRESS_SPACE_LEAST: u64 = 64 << 20;

const IO_URING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// The path of this process in each hierarchy of cgroups.
const OWN_CGROUPS: &str = "/proc/self/cgroup";

const CGROUPS: &str = "/sys/fs/cgroup";
const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0";
const MEMORY_NODES: &str = "/sys/devices/system/node";

/// What the check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostReport {
    /// Memory that the process may use: the machine's, its cgroup's limit or its own.
    pub memory_bytes: u64,
    pub findings: Vec<Finding>,
}

/// Why this host cannot run the relay as asked, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("this kernel has no io_uring: use Linux 5.11 or later, built with CONFIG_IO_URING")]
    RingsMissing,
    #[error("a wait on a ring of this kernel cannot end by time: use Linux 5.11 or later")]
    RingsOld,
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {0}): set it to 0 with \
         `sysctl -w kernel.io_uring_disabled=0`"
    )]
    RingsDisabled(u32),
    #[error(
        "io_uring is forbidden to this process, although the kernel has it on: allow the \
         io_uring_* calls in its seccomp profile (Docker: `--security-opt seccomp=...`)"
    )]
    RingsForbidden,
    #[error("io_uring_setup failed: {0}")]
    Rings(io::Error),
    #[error(
        "the limit of locked memory is {granted} bytes and {shards} shards need {needed}: raise \
         it (`ulimit -l {}`, LimitMEMLOCK={needed}, Docker `--ulimit memlock={needed}`)",
        .needed.div_ceil(1024)
    )]
    LockedMemory { granted: u64, needed: u64, shards: usize },
    #[error(
        "the limit of open files is {granted} and {shards} shards need {needed}: raise it \
         (`ulimit -Hn {needed}`, LimitNOFILE={needed})"
    )]
    OpenFiles { granted: u64, needed: u64, shards: usize },
    #[error(
        "the limit of address space is {granted} bytes and {shards} shards need {needed}, and more for \
         a cache above 16 MiB: raise it (`ulimit -v {}`, LimitAS={needed}) or limit memory by a cgroup (MemoryMax=)",
        .needed.div_ceil(1024)
    )]
    AddressSpace { granted: u64, needed: u64, shards: usize },
    #[error("cannot read the limit of {what}: {error}")]
    Limit { what: &'static str, error: io::Error },
    #[error(
        "the process may run on no core that it can find: mount /sys and /proc, check `taskset -p`"
    )]
    NoCores,
    #[error(
        "the process may not pin a thread to core {core}: allow sched_setaffinity (a unit's SystemCallFilter= that \
         takes @resources away forbids it)"
    )]
    Pinning { core: usize },
    #[error("{asked} shards asked for: choose from 1 to {max}")]
    ShardCount { asked: usize, max: usize },
}

/// Checks that the host can run `shards` shards, raising what may be raised.
pub fn check(shards: usize) -> Result<HostReport, HostError> {
    let findings = findings(shards).into_iter().map(|(_, finding)| finding);
    let findings = findings.collect::<Result<_, _>>()?;
    Ok(HostReport { memory_bytes: allowed_memory(shards)?, findings })
}

/// The same one by one, under its subject: what is so, or why the relay does not start.
pub fn findings(shards: usize) -> Vec<(&'static str, Result<Finding, HostError>)> {
    vec![
        ("io_uring", rings()),
        ("cores", cores(shards)),
        ("share of cores", Ok(machine::core_share(&core_limits(), shards))),
        ("memory nodes", Ok(memory_nodes(shards))),
        ("clock", Ok(clock())),
        ("locked memory", locked_memory(shards)),
        ("open files", open_files(shards)),
        ("memory", memory(shards)),
    ]
}

/// The cores of the process's affinity mask, in order.
pub fn allowed_cores() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}

/// The core of each shard: by default one shard on every allowed core. More shards than cores
/// take the cores round and round.
pub fn choose_cores(shards: Option<usize>) -> Result<Vec<usize>, HostError> {
    assign_cores(&allowed_cores(), shards)
}

fn assign_cores(allowed: &[usize], shards: Option<usize>) -> Result<Vec<usize>, HostError> {
    const MAX: usize = crate::limits::SHARDS_MAX;
    if allowed.is_empty() {
        return Err(HostError::NoCores);
    }
    let shards = shards.unwrap_or(allowed.len().min(MAX));
    if !(1..=MAX).contains(&shards) {
        return Err(HostError::ShardCount { asked: shards, max: MAX });
    }
    Ok(allowed.iter().copied().cycle().take(shards).collect())
}

fn rings() -> Result<Finding, HostError> {
    judge_ring(try_ring()?)
}

/// Says what the rings of this kernel can do.
fn try_ring() -> Result<u32, HostError> {
    // The kernel reads and fills a struct io_uring_params, which is 120 bytes.
    let mut parameters = [0u32; 30];
    // SAFETY: the pointer is to writable memory of that structure's size, zeroed as asked.
    let ring = unsafe {
        libc::syscall(libc::SYS_io_uring_setup, TRIAL_RING_ENTRIES, parameters.as_mut_ptr())
    };
    if ring >= 0 {
        // SAFETY: the descriptor is ours and used nowhere else.
        unsafe { libc::close(ring as libc::c_int) };
        return Ok(parameters[RING_FEATURES]);
    }
    let error = io::Error::last_os_error();
    let disabled = fs::read_to_string(IO_URING_DISABLED);
    Err(explain_ring(error, disabled.ok().and_then(|value| value.trim().parse().ok())))
}

fn judge_ring(features: u32) -> Result<Finding, HostError> {
    if features & FEATURE_TIMED_WAIT == 0 {
        return Err(HostError::RingsOld);
    }
    Ok(match features & FEATURE_SHORTEST_WAIT {
        0 => Finding::warn(
            "io_uring",
            "allowed, but a wait cannot be told not to end too soon",
            "more turns for the same datagrams, a tenth more CPU",
            "Linux 6.12 or later",
        ),
        _ => Finding::ok("io_uring", "allowed, with all that this relay uses of it"),
    })
}

fn explain_ring(error: io::Error, disabled: Option<u32>) -> HostError {
    match (error.raw_os_error(), disabled) {
        (Some(libc::ENOSYS), None) => HostError::RingsMissing,
        (Some(libc::EPERM), Some(disabled @ 1..)) => HostError::RingsDisabled(disabled),
        // A filter may answer with either; the kernel itself has the sysctl and is willing.
        (Some(libc::EPERM | libc::EACCES | libc::ENOSYS), _) => HostError::RingsForbidden,
        _ => HostError::Rings(error),
    }
}

/// Whether each shard has a core, and may be pinned to it.
fn cores(shards: usize) -> Result<Finding, HostError> {
    let cores = allowed_cores();
    let pinned = cores.iter().copied().take(shards);
    // On a thread of its own, which ends pinned.
    let refused = thread::scope(|scope| {
        let pin = |id| core_affinity::set_for_current(core_affinity::CoreId { id });
        let tried = scope.spawn(move || pinned.clone().find(|core| !pin(*core)));
        tried.join().expect("setting an affinity does not panic")
    });
    match refused {
        _ if cores.is_empty() => Err(HostError::NoCores),
        Some(core) => Err(HostError::Pinning { core }),
        None if shards > cores.len() => Ok(Finding::warn(
            "cores",
            format!("{shards} shards share cores {cores:?}"),
            "they wait for each other",
            "for throughput run one shard per core",
        )),
        None => Ok(Finding::ok("cores", format!("{shards} of {cores:?}, and pinning is allowed"))),
    }
}

fn clock() -> Finding {
    let read = |name| fs::read_to_string(Path::new(CLOCKS).join(name)).ok();
    let (current, available) = (read("current_clocksource"), read("available_clocksource"));
    machine::clock(current.as_deref(), available.as_deref())
}

fn memory_nodes(shards: usize) -> Finding {
    let entries = fs::read_dir(MEMORY_NODES).into_iter().flatten().flatten();
    let nodes = entries.filter_map(|entry| {
        let node = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((node, fs::read_to_string(entry.path().join("cpulist")).ok()?))
    });
    let cores: Vec<usize> = allowed_cores().into_iter().take(shards).collect();
    machine::memory_nodes(&nodes.collect::<Vec<_>>(), &cores)
}

/// What cgroups of version 2 say.
fn core_limits() -> Vec<String> {
    let own = fs::read_to_string(OWN_CGROUPS).unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let cgroups = Path::new(path.unwrap_or_default()).ancestors();
    let files = cgroups.map(|cgroup| Path::new(CGROUPS).join(cgroup).join("cpu.max"));
    files.filter_map(|file| fs::read_to_string(file).ok()).collect()
}

/// The kernel counts per user, so two relays of one user need the sum; that cannot be seen here.
fn locked_memory(shards: usize) -> Result<Finding, HostError> {
    let counted = if is_exempt_from_memlock() { 0 } else { shards as u64 };
    let needed = MEMLOCK_BYTES_MIN.max(counted * MEMLOCK_BYTES_PER_SHARD);
    let wanted = MEMLOCK_BYTES_MIN.max(counted * MEMLOCK_BYTES_PER_SHARD * MEMLOCK_GENERATIONS);
    let granted = raise(libc::RLIMIT_MEMLOCK, wanted)
        .map_err(|error| HostError::Limit { what: "locked memory", error })?;
    if granted < needed {
        return Err(HostError::LockedMemory { granted, needed, shards });
    }
    Ok(match granted < wanted {
        true => Finding::warn(
            "locked memory",
            format!("{granted} bytes, and a relay that just ended needs {needed} of them"),
            "a restart within a second of the end may fail",
            format!("`ulimit -l {}`, LimitMEMLOCK={wanted}", wanted.div_ceil(1024)),
        ),
        false => Finding::ok(
            "locked memory",
            format!("{} may be locked, {needed} bytes are needed", amount(granted)),
        ),
    })
}

fn amount(limit: u64) -> String {
    match limit {
        libc::RLIM_INFINITY => "any amount".to_owned(),
        limit => format!("{limit} bytes"),
    }
}

fn is_exempt_from_memlock() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set & 1 << IPC_LOCK_CAPABILITY != 0)
}

fn open_files(shards: usize) -> Result<Finding, HostError> {
    let needed = FILES_BASE + shards as u64 * FILES_PER_SHARD;
    let granted = raise(libc::RLIMIT_NOFILE, needed)
        .map_err(|error| HostError::Limit { what: "open files", error })?;
    if granted < needed {
        return Err(HostError::OpenFiles { granted, needed, shards });
    }
    Ok(Finding::ok("open files", format!("{granted} may be open, {needed} are needed")))
}

fn memory(shards: usize) -> Result<Finding, HostError> {
    check_address_space(shards)?;
    let mib = allowed_memory(shards)? >> 20;
    Ok(Finding::ok("memory", format!("{mib} MiB may be used")))
}

/// Memory that the process may use: the machine's, its cgroup's limit or its own.
pub fn allowed_memory(shards: usize) -> Result<u64, HostError> {
    let machine = machine_memory().map_err(|error| HostError::Limit { what: "memory", error })?;
    let cgroup = own_cgroup_limit().map(|(limit, _)| limit);
    let space = address_space()?;
    // Most of what is needed there beside is never used, but counts.
    let space = space.saturating_sub(needed_address_space(shards) - ADDRESS_SPACE_LEAST);
    Ok(cgroup.map_or(machine, |limit| limit.min(machine)).min(space))
}

fn address_space() -> Result<u64, HostError> {
    let limit = read_limit(libc::RLIMIT_AS);
    limit.map(|limit| limit.rlim_cur).map_err(|error| HostError::Limit { what: "memory", error })
}

/// Before anything is cached but the least.
fn needed_address_space(shards: usize) -> u64 {
    ADDRESS_SPACE_BASE + shards as u64 * ADDRESS_SPACE_PER_SHARD + ADDRESS_SPACE_LEAST
}

/// With less some allocators of this process work and some threads start, and others do not.
fn check_address_space(shards: usize) -> Result<(), HostError> {
    let granted = address_space()?;
    let needed = needed_address_space(shards);
    if granted < needed {
        return Err(HostError::AddressSpace { granted, needed, shards });
    }
    Ok(())
}

/// What says how much of that is used.
pub fn meter() -> io::Result<Meter> {
    let machine = machine_memory()?;
    let cgroup = own_cgroup_limit().filter(|(limit, _)| *limit < machine);
    Meter::open(cgroup.as_ref().map(|(limit, file)| (*limit, file.as_path())))
}

fn own_cgroup_limit() -> Option<(u64, PathBuf)> {
    let own = fs::read_to_string(OWN_CGROUPS).unwrap_or_default();
    cgroup_limit(&own, |file| fs::read_to_string(file).ok())
}

fn machine_memory() -> io::Result<u64> {
    // SAFETY: no preconditions.
    let (pages, page) =
        unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    match (u64::try_from(pages), u64::try_from(page)) {
        (Ok(pages @ 1..), Ok(page @ 1..)) => Ok(pages * page),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The least limit among the cgroups of `own`, the text of [`OWN_CGROUPS`], and its file. What cannot be read
/// does not limit: the root has no such file, and a container may see the host's path although
/// only its own cgroup is mounted, then at the top.
fn cgroup_limit(own: &str, read: impl Fn(&Path) -> Option<String>) -> Option<(u64, PathBuf)> {
    let files = own.lines().flat_map(limit_files);
    // v2 writes no limit as "max", v1 as more than any machine has.
    files.filter_map(|file| Some((read(&file)?.trim().parse().ok()?, file))).min()
}

/// Where the memory limits of one line `hierarchy:controllers:path` are: its cgroup's, then those
/// of all above it.
fn limit_files(line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (mount, name) = match controllers {
        "" => (CGROUPS, "memory.max"),
        list if list.split(',').any(|controller| controller == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let cgroups = Path::new(path.trim_start_matches('/')).ancestors();
    cgroups.map(|cgroup| Path::new(mount).join(cgroup).join(name)).collect()
}

/// Raises the soft limit to the hard one, and both to `wanted` where the privileges allow it.
/// Returns the soft limit then in force.
fn raise(resource: libc::__rlimit_resource_t, wanted: u64) -> io::Result<u64> {
    let mut limit = read_limit(resource)?;
    if limit.rlim_max < wanted {
        set_limit(resource, libc::rlimit { rlim_cur: wanted, rlim_max: wanted });
        limit = read_limit(resource)?;
    }
    if limit.rlim_cur < limit.rlim_max {
        set_limit(resource, libc::rlimit { rlim_cur: limit.rlim_max, ..limit });
    }
    Ok(read_limit(resource)?.rlim_cur)
}

fn read_limit(resource: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills in a structure that outlives the call.
    let status = unsafe { libc::getrlimit(resource, &mut limit) };
    if status == 0 { Ok(limit) } else { Err(io::Error::last_os_error()) }
}

/// A refusal shows in the limit that is read afterwards.
fn set_limit(resource: libc::__rlimit_resource_t, limit: libc::rlimit) {
    // SAFETY: the kernel reads a structure that outlives the call.
    unsafe { libc::setrlimit(resource, &limit) };
}

#[cfg(test)]
mod tests {
    use super::finding::Grade;
    use super::*;

    #[test]
    fn this_host_passes() {
        let report = check(2).unwrap();
        assert!(report.findings.iter().all(|finding| finding.grade != Grade::Fail), "{report:?}");
        let machine = machine_memory().unwrap();
        assert!((1..=machine).contains(&report.memory_bytes), "{report:?} of {machine}");
    }

    #[test]
    fn more_shards_than_cores_is_said() {
        let cores = allowed_cores().len();
        assert_eq!(super::cores(cores).unwrap().grade, Grade::Ok);
        let shared = super::cores(cores + 1).unwrap();
        assert!(shared.grade == Grade::Warn && shared.says.contains("share"), "{shared}");
    }

    #[test]
    fn shards_take_the_cores_round_and_round() {
        assert_eq!(assign_cores(&[1, 3], None).unwrap(), [1, 3]);
        assert_eq!(assign_cores(&[1, 3], Some(1)).unwrap(), [1]);
        assert_eq!(assign_cores(&[1, 3], Some(5)).unwrap(), [1, 3, 1, 3, 1]);
        assert!(matches!(assign_cores(&[], None), Err(HostError::NoCores)));
        for asked in [0, 257] {
            let refused = assign_cores(&[0], Some(asked)).unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("{asked} shards asked for: choose from 1 to 256")
            );
        }
    }

    #[test]
    fn cores_follow_the_affinity_mask() {
        let last = *allowed_cores().last().unwrap();
        std::thread::spawn(move || {
            assert!(core_affinity::set_for_current(core_affinity::CoreId { id: last }));
            assert_eq!(allowed_cores(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn limits_are_read_from_the_own_cgroup_up_to_the_root() {
        #[track_caller]
        fn check(line: &str, expected: &[&str]) {
            assert_eq!(limit_files(line), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
        check(
            "0::/system.slice/shardcast.service",
            &[
                "/sys/fs/cgroup/system.slice/shardcast.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ],
        );
        check("0::/", &["/sys/fs/cgroup/memory.max"]);
        check(
            "4:memory:/docker/a:b",
            &[
                "/sys/fs/cgroup/memory/docker/a:b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ],
        );
        check("9:hugetlb,memory:/", &["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
        for other in ["1:cpu:/", "2:name=memory:/", "3:memoryless:/", "memory", "0:", ""] {
            check(other, &[]);
        }
    }

    #[test]
    fn the_least_limit_counts() {
        #[track_caller]
        fn check(own: &str, files: &[(&str, &str)], expected: Option<u64>) {
            let read = |path: &Path| {
                let found = files.iter().find(|(name, _)| path == Path::new(name));
                found.map(|(_, text)| text.to_string())
            };
            let found = cgroup_limit(own, read);
            assert_eq!(found.map(|(limit, _)| limit), expected, "{own:?} {files:?}");
        }
        const UNIT: &str = "/sys/fs/cgroup/a.slice/b.service/memory.max";
        const SLICE: &str = "/sys/fs/cgroup/a.slice/memory.max";
        const TOP: &str = "/sys/fs/cgroup/memory.max";
        const OLD: &str = "/sys/fs/cgroup/memory/memory.limit_in_bytes";

        let v2 = "0::/a.slice/b.service\n";
        check(v2, &[], None);
        check(v2, &[(UNIT, "max\n"), (SLICE, "max\n")], None);
        check(v2, &[(UNIT, "1073741824\n"), (SLICE, "max\n")], Some(1 << 30));
        check(v2, &[(UNIT, "max\n"), (SLICE, "1073741824\n")], Some(1 << 30));
        check(v2, &[(UNIT, "4096\n"), (SLICE, "8192\n")], Some(4096));
        check(v2, &[(UNIT, "8192\n"), (SLICE, "4096\n")], Some(4096));
        check(v2, &[(TOP, "4096\n")], Some(4096));
        check(v2, &[(UNIT, "garbage\n"), (SLICE, "")], None);

        let v1 = "4:memory:/docker/c\n1:cpu:/docker/c\n0::/\n";
        check(v1, &[(OLD, "536870912\n")], Some(512 << 20));
        check(v1, &[(OLD, "9223372036854771712\n")], Some(9_223_372_036_854_771_712));
        check(v1, &[(OLD, "8192\n"), (TOP, "4096\n")], Some(4096));
        check("", &[(OLD, "8192\n"), (TOP, "4096\n")], None);
    }

    #[test]
    fn what_a_ring_can_do() {
        assert!(matches!(judge_ring(FEATURE_SHORTEST_WAIT), Err(HostError::RingsOld)));
        let before = judge_ring(FEATURE_TIMED_WAIT).unwrap();
        assert!(before.grade == Grade::Warn && before.to_string().contains("6.12"), "{before}");
        let all = judge_ring(FEATURE_TIMED_WAIT | FEATURE_SHORTEST_WAIT).unwrap();
        assert_eq!(all.grade, Grade::Ok);
    }

    #[test]
    fn a_refused_ring_is_explained() {
        #[track_caller]
        fn check(code: i32, disabled: Option<u32>, expected: &str) {
            let message = explain_ring(io::Error::from_raw_os_error(code), disabled).to_string();
            assert!(message.contains(expected), "{message}");
        }
        check(libc::ENOSYS, None, "CONFIG_IO_URING");
        check(libc::EPERM, Some(2), "kernel.io_uring_disabled = 2");
        check(libc::EPERM, Some(1), "kernel.io_uring_disabled = 1");
        check(libc::EPERM, Some(0), "seccomp");
        check(libc::ENOSYS, Some(0), "seccomp");
        check(libc::ENOMEM, Some(0), "io_uring_setup failed");
    }
}
