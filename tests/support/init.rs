//! A systemd of its own, as the first process of namespaces, with the unit of the package and our binary: on what
//! this machine has, of which nothing is changed, and with its network.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const BOOTS_WITHIN: Duration = Duration::from_secs(60);

/// Its directory, the binary and the unit are said; it ends as systemd.
const BOOT: &str = r#"
place=$1 binary=$2 unit=$3 enter=$4
mount --make-rprivate /
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
cd "$place/root"
touch usr/bin/shardcast
mount --bind "$binary" usr/bin/shardcast
cp "$unit" etc/systemd/system/shardcast.service
mkdir -p etc/shardcast
exec bash "$enter" "$place/root" --unit=basic.target
"#;

pub struct Init {
    place: PathBuf,
    cgroup: PathBuf,
    outer: Child,
    init: libc::pid_t,
}

impl Init {
    /// None where this machine has no systemd, or does not let us have one.
    pub fn boot(name: &str) -> Option<Init> {
        // SAFETY: no preconditions.
        let is_root = unsafe { libc::geteuid() } == 0;
        let cgroups = fs::read_to_string("/proc/mounts").ok()?;
        let cgroups = cgroups.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let cgroups = cgroups.into_iter().find(|mount| mount.get(2) == Some(&"cgroup2"))?;
        if !is_root || !Path::new("/lib/systemd/systemd").exists() {
            return None;
        }
        let name = format!("shardcast-{name}-{}", std::process::id());
        let place = std::env::temp_dir().join(&name);
        let cgroup = Path::new(cgroups[1]).join(&name);
        fs::create_dir_all(&place).ok()?;
        fs::create_dir(&cgroup).ok()?;
        let mut members = OpenOptions::new().write(true).open(cgroup.join("cgroup.procs")).ok()?;
        let console = File::create(place.join("console")).ok()?;
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/shardcast.service");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--kill-child"]);
        command.args(["bash", "-euc", BOOT, "-"]).arg(&place);
        command.arg(env!("CARGO_BIN_EXE_shardcast")).arg(unit);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/enter-root.sh"));
        command.stdin(Stdio::null()).stdout(console.try_clone().ok()?).stderr(console);
        // SAFETY: a write is all that happens between fork and exec.
        unsafe { command.pre_exec(move || members.write_all(b"0")) };
        let outer = command.spawn().ok()?;
        let mut booted = Init { place, cgroup, outer, init: 0 };
        let children = format!("/proc/{0}/task/{0}/children", booted.outer.id());
        booted.init = booted.until("namespaces", || {
            let children = fs::read_to_string(&children).unwrap_or_default();
            children.split_whitespace().next().and_then(|id| id.parse().ok())
        });
        booted.until("systemd", || {
            let state = booted.runs(&["systemctl", "is-system-running"]);
            let state = String::from_utf8_lossy(&state.stdout).into_owned();
            ["running", "degraded"].contains(&state.trim()).then_some(())
        });
        Some(booted)
    }

    #[track_caller]
    fn until<T>(&self, what: &str, mut come: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(come) = come() {
                return come;
            }
            let console = || fs::read_to_string(self.place.join("console")).unwrap_or_default();
            assert!(begun.elapsed() < BOOTS_WITHIN, "no {what}: {}", console());
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn runs(&self, command: &[&str]) -> Output {
        let mut inside = Command::new("nsenter");
        inside.args(["-t", &self.init.to_string(), "-m", "-p", "-C", "-u", "-i"]);
        inside.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]).args(command);
        inside.stdin(Stdio::null()).output().expect("nsenter runs")
    }

    #[track_caller]
    pub fn succeeds(&self, command: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.runs(command);
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{command:?}: {stdout}{stderr}{}", self.journal());
        stdout.into_owned()
    }

    /// What systemd knows of the service.
    #[track_caller]
    pub fn property(&self, name: &str) -> String {
        self.succeeds(&["systemctl", "show", "shardcast", "-P", name]).trim().to_owned()
    }

    #[track_caller]
    pub fn has(&self, name: &str, value: &str, within: Duration) {
        let begun = Instant::now();
        while self.property(name) != value {
            let now = self.property(name);
            assert!(
                begun.elapsed() < within,
                "{name} is {now}, and not {value}: {}",
                self.journal()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn writes(&self, path: &str, text: &str) {
        self.succeeds(&[
            "sh",
            "-c",
            "mkdir -p \"$(dirname \"$1\")\" && printf %s \"$2\" >\"$1\"",
            "-",
            path,
            text,
        ]);
    }

    pub fn journal(&self) -> String {
        let journal =
            self.runs(&["journalctl", "--no-pager", "-o", "cat", "-u", "shardcast", "-n", "60"]);
        String::from_utf8_lossy(&journal.stdout).into_owned()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if std::thread::panicking() && self.init != 0 {
            eprintln!("{}", self.journal());
        }
        // The first process of the namespace goes with it, and all others with that one.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        for _ in 0..100 {
            if remove_groups(&self.cgroup).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// The innermost first. Files in them go by themselves.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_groups(&entry.path())?;
    }
    fs::remove_dir(group)
}
