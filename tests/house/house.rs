//! The rules of the house, read from the sources themselves: who may use whom, which crates are named where, and
//! how long things are. `table.txt` says them; where it is wrong, it or the code is changed.

mod source;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::{Module, Source};
use table::Table;

/// In the place of folders that name a crate.
const ANYWHERE: &str = "*";
/// What fits a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// What one remembers of a way, and its heading and a space are no lines of it.
const WAY_LINES_MAX: usize = 9;
/// What one reads in one go.
const FILE_LINES_MAX: usize = 700;

struct House {
    source: Source,
    table: Table,
    crates: BTreeSet<String>,
}

impl House {
    fn read() -> House {
        let root = root();
        let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest is there");
        let manifest: toml::Table = manifest.parse().expect("cargo reads it too");
        let dependencies = manifest["dependencies"].as_table().expect("there are some");
        let crates: BTreeSet<String> =
            dependencies.keys().map(|name| name.replace('-', "_")).collect();
        let source = Source::read(&root.join("src"), &crates);
        let table = fs::read_to_string(root.join("tests/house/table.txt")).expect("it is there");
        House { source, table: Table::parse(&table), crates }
    }

    /// What each folder uses of others: files by their folder, and by their own name.
    fn uses(&self) -> BTreeMap<&str, BTreeSet<(&str, String)>> {
        let mut uses: BTreeMap<&str, BTreeSet<(&str, String)>> = BTreeMap::new();
        for (module, file) in &self.source.files {
            let used = self.source.used(module);
            let used = used.into_iter().filter(|used| !used.is_empty()).filter_map(|used| {
                let folder = self.source.files[used].folder();
                (folder != file.folder()).then(|| (folder, used.join("/")))
            });
            if !module.is_empty() {
                uses.entry(file.folder()).or_default().extend(used);
            }
        }
        uses
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("it is in tests/house")
        .to_owned()
}

#[track_caller]
fn expect_none(what: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{what}\n  {}\n", faults.join("\n  "));
}

#[test]
fn folders_use_what_the_table_says_and_nothing_above_them() {
    let house = House::read();
    let mut faults = Vec::new();
    let uses = house.uses();
    let rows = &house.table.floors;
    let floor_of = |folder: &str| rows.iter().position(|row| row.name == folder);
    for (folder, used) in &uses {
        let Some(floor) = floor_of(folder) else {
            faults.push(format!("{folder} has no row"));
            continue;
        };
        for (other, file) in used {
            let is_named = rows[floor].has(other) || rows[floor].has(file);
            if !is_named {
                faults.push(format!("{folder} uses {file}"));
            }
            if is_named && floor_of(other).is_none_or(|other| other > floor) {
                faults.push(format!("{folder} uses {other}, whose row is not before its own"));
            }
        }
        let is_used = |name: &str| used.iter().any(|(other, file)| *other == name || file == name);
        for name in rows[floor].uses.iter().filter(|name| !is_used(name)) {
            faults.push(format!("{folder} does not use {name}, and its row has it"));
        }
    }
    let gone = rows.iter().filter(|row| !uses.contains_key(row.name.as_str()));
    faults.extend(gone.map(|row| format!("{} is not there, and has a row", row.name)));
    expect_none("imports and [floors] of tests/house/table.txt differ:", faults);
}

#[test]
fn crates_are_named_where_the_table_says() {
    let house = House::read();
    let mut named: BTreeMap<&str, BTreeSet<&str>> =
        house.crates.iter().map(|name| (name.as_str(), BTreeSet::new())).collect();
    for file in house.source.files.values() {
        for name in &file.crates {
            named.get_mut(name.as_str()).expect("only those are looked for").insert(file.folder());
        }
    }
    let mut faults = Vec::new();
    for (name, folders) in &named {
        let row = house.table.crates.iter().find(|row| row.name == *name);
        let said: BTreeSet<&str> =
            row.iter().flat_map(|row| row.uses.iter().map(String::as_str)).collect();
        if !said.contains(ANYWHERE) && said != *folders {
            let folders: Vec<&str> = folders.iter().copied().collect();
            faults.push(format!("{name}: {}", folders.join(" ")));
        }
    }
    let gone = house.table.crates.iter().filter(|row| !named.contains_key(row.name.as_str()));
    faults.extend(gone.map(|row| format!("{} is no dependency, and has a row", row.name)));
    expect_none(
        "[crates] of tests/house/table.txt is not what the sources name, which is:",
        faults,
    );
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let house = House::read();
    // What a piece of a module takes of the module itself is no arrow: they are one subject.
    let arrows = |module: &Module| -> Vec<&Module> {
        let used = house.source.used(module).into_iter();
        used.filter(|used| !module.starts_with(used)).collect()
    };
    let mut faults = Vec::new();
    let mut done: BTreeSet<&Module> = BTreeSet::new();
    for start in house.source.files.keys() {
        let mut way: Vec<(&Module, Vec<&Module>)> = vec![(start, arrows(start))];
        while let Some((module, rest)) = way.last_mut() {
            let Some(next) = rest.pop() else {
                done.insert(module);
                way.pop();
                continue;
            };
            if let Some(at) = way.iter().position(|(module, _)| *module == next) {
                let circle = way[at..].iter().map(|(module, _)| module.join("/"));
                faults.push(circle.collect::<Vec<_>>().join(" -> "));
            } else if !done.contains(next) {
                way.push((next, arrows(next)));
            }
        }
    }
    expect_none("these use each other:", faults);
}

#[test]
fn what_is_long_has_a_reason() {
    let house = House::read();
    let mut faults = Vec::new();
    let mut long: BTreeMap<String, usize> = BTreeMap::new();
    for file in house.source.files.values() {
        if file.lines > FILE_LINES_MAX {
            long.insert(file.name.clone(), file.lines);
        }
        for function in file.functions.iter().filter(|function| function.lines > FUNCTION_LINES_MAX)
        {
            long.insert(format!("{} {}", file.name, function.name), function.lines);
        }
    }
    for (what, lines) in &long {
        match house.table.long.iter().find(|row| row.what == *what) {
            None => faults.push(format!("{what} has {lines} lines; cut it, or say why not")),
            Some(row) if row.reason.is_empty() => faults.push(format!("{what} has no reason")),
            Some(row) if *lines > row.lines_max => {
                faults.push(format!("{what} has {lines} lines, and {} are allowed", row.lines_max));
            }
            Some(_) => {}
        }
    }
    let short = house.table.long.iter().filter(|row| !long.contains_key(&row.what));
    faults.extend(short.map(|row| format!("{} is not long any more; strike its row", row.what)));
    expect_none("[long] of tests/house/table.txt is not what there is:", faults);
}

#[test]
fn the_picture_has_every_room() {
    let house = House::read();
    let picture = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("it is there");
    let has = |folder: &str| {
        picture.contains(&format!("`{folder}/`")) || picture.contains(&format!("`{folder}.rs`"))
    };
    let uses = house.uses();
    let missing = uses.keys().filter(|folder| !has(folder)).map(|folder| (*folder).to_owned());
    expect_none("docs/ARCHITECTURE.md has no row for:", missing.collect());
}

#[test]
fn functions_that_the_picture_names_are_there() {
    let house = House::read();
    let mut known: BTreeSet<(String, &str)> = BTreeSet::new();
    for (module, file) in &house.source.files {
        for function in &file.functions {
            let place = module.last().map_or("shardcast", String::as_str);
            let of = function.of.clone().unwrap_or_else(|| place.to_owned());
            known.insert((of, &function.name));
        }
    }
    let picture = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("it is there");
    let ways = picture.split("\n## ").find(|section| section.starts_with("Four ways through"));
    let ways = ways.expect("the picture has a section of that name");
    // Of a heading and what is under it, every second piece stands between backticks.
    let named: Vec<&str> =
        ways.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    assert!(named.len() > 40, "the ways name {} functions", named.len());
    let is_there = |name: &str| {
        let mut words = name.rsplit("::");
        let (function, of) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        known.contains(&(of.to_owned(), function))
    };
    let gone = named.iter().filter(|name| !is_there(name)).map(|name| (*name).to_owned());
    expect_none("docs/ARCHITECTURE.md names functions that are not in src:", gone.collect());
    let long =
        ways.split("\n### ").skip(1).filter(|way| way.trim().lines().count() > WAY_LINES_MAX + 2);
    let long = long.map(|way| way.lines().next().unwrap_or_default().to_owned());
    expect_none("ways that are too long:", long.collect());
}

/// Files and scripts that documents name; what is built or given is none of them.
#[test]
fn documents_name_what_is_there() {
    let mut documents = vec![root().join("README.md")];
    documents
        .extend(["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name)));
    let docs = fs::read_dir(root().join("docs")).expect("they are there");
    documents.extend(docs.map(|entry| entry.expect("docs can be read").path()));
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut faults = Vec::new();
    for path in &documents {
        let text = fs::read_to_string(path).expect("documents are text");
        let shown = path.strip_prefix(root()).unwrap_or(path).display();
        let folder = path.parent().expect("a file is in a folder");
        let broken = links(&text).filter(|link| !folder.join(link).exists());
        faults.extend(broken.map(|link| format!("{shown} links to {link}")));
        let words = text.split(|c: char| c.is_whitespace() || "`(),;:|".contains(c));
        let places = ["src/", "tests/", "scripts/", "bench/", "fuzz/", "docs/", "packaging/"];
        let named = words.filter(|word| places.iter().any(|place| word.starts_with(place)));
        let named = named.map(|word| word.trim_end_matches(['.', '?', '*']));
        let gone =
            named.filter(|word| !word.contains(['*', '{', '<']) && !root().join(word).exists());
        faults.extend(gone.map(|word| format!("{shown} names {word}")));
    }
    expect_none("what is not there:", faults);
}

/// Where a document leads to within this folder.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    links.filter(|link| !link.is_empty() && !link.contains(':'))
}

/// Documents that a package has, to those that it has not: a link there leads nowhere.
#[test]
fn a_package_has_what_its_documents_link_to() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it is text");
    let assets = manifest.lines().filter_map(|line| {
        let (source, rest) = line.trim().strip_prefix("[\"")?.split_once("\", \"")?;
        let place = rest.strip_prefix("usr/share/doc/shardcast/")?.split('"').next()?;
        Some((source.to_owned(), place.to_owned()))
    });
    let assets: Vec<(String, String)> = assets.collect();
    let documents = assets.iter().filter(|(_, place)| place.ends_with(".md"));
    assert!(documents.clone().any(|(_, place)| place == "README.md"), "no documents in {assets:?}");
    let mut faults = Vec::new();
    for (source, place) in documents {
        let text = fs::read_to_string(root().join(source)).expect("documents are text");
        let folder = Path::new(place).parent().expect("a file is in a folder");
        for link in links(&text) {
            let path = folder.join(link).display().to_string();
            let wanted = path.split_once("docs/../").map_or(path.as_str(), |(_, outside)| outside);
            if !assets.iter().any(|(_, place)| place == wanted) {
                faults.push(format!("{place}: {link}"));
            }
        }
    }
    expect_none("what a package has not, and a document in it links to:", faults);
}
