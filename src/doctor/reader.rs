//! Whether the user of the package's unit may read the files that settings name: mostly it is root who asks, and
//! root may.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, IdentitySource};
use crate::host::finding::Finding;

/// As whom the unit runs the relay, and as what its group is named.
const NAME: &str = "shardcast";

const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

struct User {
    id: u32,
    groups: Vec<u32>,
}

/// One for each file; none where there is no such user, or where somebody else asks.
pub fn findings(config: &Config) -> Vec<Finding> {
    // SAFETY: no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let user = User::of(NAME, &read("/etc/passwd"), &read("/etc/group"));
    let Some(user) = user.filter(|_| is_root) else { return Vec::new() };
    let closed = files(config).into_iter().filter(|path| user.may_read(path) == Some(false));
    let tell = |path: PathBuf| {
        let path = path.display();
        Finding::warn(
            "rights",
            format!("user {NAME}, as whom the unit of the package runs, may not read {path}"),
            "a relay that systemd starts does not start",
            format!(
                "`chgrp {NAME} {path} && chmod 640 {path}`, and for folders above it that are closed `chmod o+x`"
            ),
        )
    };
    closed.map(tell).collect()
}

/// Those that are there.
fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = match &config.identity {
        IdentitySource::Files(pairs) => {
            pairs.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]).collect()
        }
        IdentitySource::Acme(acme) => {
            let key = acme.external.iter().map(|external| external.key.clone());
            acme.root.iter().cloned().chain(key).collect()
        }
        IdentitySource::Generated { .. } => Vec::new(),
    };
    files.extend(config.access.client_roots.iter().cloned());
    files.extend(config.access.keys.iter().cloned());
    files.dedup();
    files.retain(|path| path.is_file());
    files
}

impl User {
    /// As the files of the system have it.
    fn of(name: &str, passwd: &str, group: &str) -> Option<User> {
        let rows = |text: &str| -> Vec<Vec<String>> {
            text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
        };
        let row = rows(passwd).into_iter().find(|row| row[0] == name)?;
        let (id, own) = (row.get(2)?.parse().ok()?, row.get(3)?.parse().ok()?);
        let is_in = |row: &Vec<String>| {
            row.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
        };
        let others = rows(group).into_iter().filter(is_in);
        let others = others.filter_map(|row| row[2].parse().ok());
        Some(User { id, groups: others.chain([own]).collect() })
    }

    /// None if that cannot be told.
    fn may_read(&self, path: &Path) -> Option<bool> {
        let path = fs::canonicalize(path).ok()?;
        let mut above = path.ancestors().skip(1);
        let may = self.may(&path, READ)?;
        Some(may && above.all(|folder| self.may(folder, SEARCH).unwrap_or(true)))
    }

    fn may(&self, path: &Path, what: u32) -> Option<bool> {
        let about = fs::metadata(path).ok()?;
        let mode = match () {
            () if about.uid() == self.id => about.mode() >> 6,
            () if self.groups.contains(&about.gid()) => about.mode() >> 3,
            () => about.mode(),
        };
        Some(mode & what != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn users_as_the_system_has_them() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nshardcast:x:997:996::/:/bin/false\n";
        let group = "root:x:0:\nshardcast:x:996:\nssl-cert:x:110:www,shardcast\nwww:x:33:\n";
        let user = User::of(NAME, passwd, group).expect("it is there");
        assert_eq!((user.id, user.groups), (997, vec![110, 996]));
        assert!(User::of("nobody", passwd, group).is_none());
    }

    #[test]
    fn rights_are_those_of_owner_group_and_others_and_of_folders() {
        let root = std::env::temp_dir().join(format!("shardcast-reader-{}", std::process::id()));
        let path = root.join("key.pem");
        fs::create_dir_all(&root).unwrap();
        fs::write(&path, "").unwrap();
        let about = fs::metadata(&path).unwrap();
        let stranger = User { id: about.uid() + 1, groups: vec![about.gid() + 1] };
        let member = User { id: about.uid() + 1, groups: vec![about.gid()] };
        let owner = User { id: about.uid(), groups: vec![] };
        for (folder, file, expect) in [
            (0o755, 0o600, [true, false, false]),
            (0o755, 0o640, [true, true, false]),
            (0o755, 0o644, [true, true, true]),
            (0o700, 0o644, [true, false, false]),
            (0o755, 0o044, [false, true, true]),
        ] {
            for (path, mode) in [(&root, folder), (&path, file)] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            let may = [&owner, &member, &stranger].map(|user| user.may_read(&path).unwrap());
            assert_eq!(may, expect, "{folder:o} {file:o}");
        }
        fs::remove_dir_all(root).unwrap();
    }
}
