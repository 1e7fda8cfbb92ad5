//! What of the machine under the relay makes it slower, and no refusal: its clock, its memory's nodes, and the
//! share of its time that a cgroup grants. Pure functions of what the kernel writes.

use std::collections::BTreeSet;

use super::finding::Finding;

/// Clocks that are read without a system call.
const CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

/// `current` and `available` are files of /sys/devices/system/clocksource.
pub fn clock(current: Option<&str>, available: Option<&str>) -> Finding {
    const SUBJECT: &str = "clock";
    let Some(current) = current.map(str::trim) else {
        return Finding::ok(SUBJECT, "not told by this kernel");
    };
    if CLOCKS.contains(&current) {
        return Finding::ok(SUBJECT, format!("{current}, read without a system call"));
    }
    let mut available = available.unwrap_or_default().split_whitespace();
    let mend = match available.find(|name| CLOCKS.contains(name)) {
        Some(better) => format!(
            "`echo {better} > /sys/devices/system/clocksource/clocksource0/current_clocksource`, and \
             clocksource={better} on the kernel's command line"
        ),
        None => "look in `dmesg` why the kernel does not trust its tsc".to_owned(),
    };
    Finding::warn(
        SUBJECT,
        format!("{current}, each reading of which is a system call"),
        "a turn of a shard reads it several times, and so does QUIC: more CPU and later frames",
        mend,
    )
}

/// `nodes` are the numbers of nodes with their cores, as in /sys/devices/system/node/node*/cpulist.
pub fn memory_nodes(nodes: &[(usize, String)], cores: &[usize]) -> Finding {
    const SUBJECT: &str = "memory nodes";
    let used: BTreeSet<usize> = nodes
        .iter()
        .filter(|(_, list)| cores.iter().any(|core| has_core(list, *core)))
        .map(|(node, _)| *node)
        .collect();
    let Some(first) = used.first().filter(|_| used.len() > 1) else {
        return Finding::ok(SUBJECT, "all shards are on one");
    };
    Finding::warn(
        SUBJECT,
        format!("shards are on {} of them", used.len()),
        "mail between shards and what they read of one group cross from one to another, which is slower",
        format!(
            "one relay for each node: `numactl --cpunodebind={first} --membind={first} shardcast`"
        ),
    )
}

/// Whether the core is in a list like `0-3,8`.
fn has_core(list: &str, core: usize) -> bool {
    list.trim().split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&core),
            _ => false,
        }
    })
}

/// `limits` are the texts of cpu.max of the process's cgroup and all above it.
pub fn core_share(limits: &[String], shards: usize) -> Finding {
    const SUBJECT: &str = "share of cores";
    let least = limits.iter().filter_map(|text| share(text)).min_by(f64::total_cmp);
    match least {
        Some(least) if least < shards as f64 => Finding::warn(
            SUBJECT,
            format!("its cgroup grants {least:.1} cores to {shards} shards"),
            "when that is used up all shards stand still for up to a tenth of a second, and frames with them",
            format!(
                "--shards {}, or CPUQuota= and cpu limits away: pinned shards need none",
                (least as usize).max(1)
            ),
        ),
        Some(least) => Finding::ok(SUBJECT, format!("its cgroup grants {least:.1} cores")),
        None => Finding::ok(SUBJECT, "no cgroup limits it"),
    }
}

/// `50000 100000` is half a core; `max 100000` is no limit.
fn share(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    #[track_caller]
    fn check(finding: Finding, grade: Grade, words: &[&str]) {
        assert_eq!(finding.grade, grade, "{finding}");
        let line = finding.to_string();
        assert!(words.iter().all(|word| line.contains(word)), "{line:?} lacks one of {words:?}");
        let is_helped = finding.costs.is_some() && finding.mend.is_some();
        assert_eq!(is_helped, grade != Grade::Ok, "{finding:?}");
    }

    #[test]
    fn clocks() {
        check(clock(Some("tsc\n"), None), Grade::Ok, &["tsc, "]);
        check(clock(Some("kvm-clock"), Some("kvm-clock tsc\n")), Grade::Ok, &["kvm-clock"]);
        check(clock(None, None), Grade::Ok, &[]);
        let better = ["hpet, ", "system call", "echo tsc >", "clocksource=tsc"];
        check(clock(Some("hpet\n"), Some("tsc hpet acpi_pm\n")), Grade::Warn, &better);
        check(clock(Some("xen\n"), Some("xen hpet\n")), Grade::Warn, &["dmesg"]);
    }

    #[test]
    fn nodes_of_memory() {
        let two = [(0, "0-3,8-11\n".to_owned()), (1, "4-7,12-15\n".to_owned())];
        check(memory_nodes(&two, &[0, 3, 8, 11]), Grade::Ok, &[]);
        check(memory_nodes(&two, &[4, 5]), Grade::Ok, &[]);
        check(memory_nodes(&two, &[3, 4]), Grade::Warn, &["on 2 of", "--cpunodebind=0"]);
        check(memory_nodes(&two, &[12, 11]), Grade::Warn, &["on 2 of"]);
        check(memory_nodes(&[], &[0, 1]), Grade::Ok, &[]);
        check(memory_nodes(&[(0, String::new())], &[0, 1]), Grade::Ok, &[]);
    }

    #[test]
    fn shares_of_cores() {
        let texts =
            |limits: &[&str]| limits.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        check(core_share(&[], 2), Grade::Ok, &["no cgroup"]);
        check(core_share(&texts(&["max 100000\n", "garbage", ""]), 2), Grade::Ok, &["no cgroup"]);
        check(core_share(&texts(&["200000 100000\n"]), 2), Grade::Ok, &["2.0 cores"]);
        let limited = texts(&["max 100000\n", "150000 100000\n", "400000 100000\n"]);
        check(core_share(&limited, 2), Grade::Warn, &["1.5 cores to 2 shards", "--shards 1,"]);
        check(core_share(&texts(&["50000 100000\n"]), 1), Grade::Warn, &["0.5", "--shards 1,"]);
    }
}
