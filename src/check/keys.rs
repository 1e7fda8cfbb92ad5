//! Files of keys, each by itself, so that all that are bad are told, and then all together.

use std::path::{Path, PathBuf};

use super::Findings;
use crate::access::{KeyError, KeyFile, KeySet, Place, find_key_files, read_key_file, shown_name};

pub fn look(findings: &mut Findings<'_>, files: &[PathBuf], directory: Option<&Path>) {
    let mut found = find_key_files(files, None).expect("these are as they were given");
    match directory.map(|directory| find_key_files(&[], Some(directory))) {
        None => {}
        Some(Ok(named)) if named.is_empty() => {
            let directory = directory.expect("it was looked at").display();
            findings.note(format!("no key is in {directory} yet, where they are called NAME.jwk"));
        }
        Some(Ok(named)) => found.extend(named),
        Some(Err(error)) => fault(findings, error),
    }
    let count = found.len();
    let mut good = Vec::new();
    for (path, place) in found {
        match read_key_file(path, place).and_then(|file| describe(findings, &file).map(|()| file)) {
            Ok(file) => good.push(file),
            Err(error) => fault(findings, error),
        }
    }
    // What is wrong with the rest would be wrong with other keys than these.
    if good.len() == count
        && let Err(error) = KeySet::new(&good)
    {
        fault(findings, error);
    }
}

fn describe(findings: &mut Findings<'_>, file: &KeyFile) -> Result<(), KeyError> {
    let set = KeySet::new(std::slice::from_ref(file))?;
    let path = file.path.display();
    let mut keys: Vec<_> = set.keys().collect();
    keys.sort_by_key(|key| key.label());
    for key in keys {
        let (label, algorithm) = (key.label(), key.algorithm());
        let may = match key.scope() {
            None => "may grant anything".to_owned(),
            Some(scope) => format!("may grant to {} at most", scope.words()),
        };
        findings.fact("key", format!("{path}: {label} ({algorithm}), {may}"));
    }
    set.remarks().iter().for_each(|remark| findings.note(remark));
    Ok(())
}

fn fault(findings: &mut Findings<'_>, mut error: KeyError) {
    let path = PathBuf::from(shown_name(&error.path.to_string_lossy()));
    error.path = path;
    let key = match error.place {
        Place::File => "auth.key",
        Place::Directory => "auth.key_dir",
    };
    findings.fault(key, error);
}
