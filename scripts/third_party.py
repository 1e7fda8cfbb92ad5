#!/usr/bin/env python3
"""What the relay is linked with, under which licences, and their texts, as one text on standard output.
Nothing is asked of the network: the texts are in the sources that cargo has built from. A crate whose licence
nobody has thought about ends it.

Example: scripts/third_party.py > THIRD-PARTY.txt"""

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent

# Of alternatives one is enough.
ACCEPTED = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    # Whoever passes the relay on says where the source of these files is: the list below does.
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
}

# Where a part of a crate may be had under another licence too, which is the one that is taken.
NOT_TAKEN = {"glommio/liburing/COPYING", "glommio/liburing/COPYING.GPL"}

TEXT_NAME = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)([-._].*)?", re.IGNORECASE)
NOT_TEXT = {".rs", ".toml", ".py", ".sh", ".json"}


def said(*command):
    return subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def linked():
    """The crates of the program for this machine, without those that only build or test it."""
    shape = ["--edges", "normal", "--prefix", "none", "--format", "{p}"]
    tree = said("cargo", "tree", "--locked", "--package", "shardcast", *shape)
    names = {tuple(line.split()[:2]) for line in tree.splitlines()}
    packages = json.loads(said("cargo", "metadata", "--locked", "--format-version", "1"))["packages"]
    known = {(package["name"], "v" + package["version"]): package for package in packages}
    crates = [known[name] for name in names if known[name]["source"]]
    return sorted(crates, key=lambda crate: (crate["name"], crate["version"]))


def is_accepted(expression):
    def judge(match):
        word = match[0]
        return {"AND": "and", "OR": "or"}.get(word) or str(word.removesuffix("+") in ACCEPTED)

    whole = re.sub(r" WITH [\w.-]+", "", expression.replace("/", " OR ").replace(" or ", " OR "))
    # Nothing is left in it but these words and brackets.
    return eval(re.sub(r"[\w.+-]+", judge, whole))


def texts(crate):
    root = Path(crate["manifest_path"]).parent
    for path in sorted(root.rglob("*")):
        name = f"{crate['name']}/{path.relative_to(root)}"
        is_text = TEXT_NAME.fullmatch(path.name) and path.suffix not in NOT_TEXT
        if is_text and path.is_file() and name not in NOT_TAKEN:
            yield path.read_text(errors="replace").strip()


def standard(crate):
    """For a crate that states its licence and brings no text of it."""
    if "Apache-2.0" in crate["license"]:
        return (HERE / "LICENSE-APACHE").read_text().strip()
    assert crate["license"] == "MIT", f"{crate['name']}: {crate['license']}, and no text"
    mit = (HERE / "LICENSE-MIT").read_text()
    return f"Copyright (c) {', '.join(crate['authors'])}\n\n{mit[mit.index('Permission') :].strip()}"


def parts():
    """Of each its name, its licence, where its source is, and texts."""
    docs = Path(said("rustc", "--print", "sysroot")) / "share/doc/cargo"
    rust = [path.read_text().strip() for path in sorted(docs.glob("LICENSE-[AM]*"))]
    # Cargo does not count the standard library.
    name = f"std {said('rustc', '--version').split()[1]}"
    yield name, "MIT OR Apache-2.0", "https://github.com/rust-lang/rust", rust
    for crate in linked():
        name, licence = f"{crate['name']} {crate['version']}", crate["license"] or "none"
        if not is_accepted(licence):
            sys.exit(f"third_party: {name} has licence {licence}, which nobody has accepted in {__file__}")
        source = f"https://crates.io/crates/{crate['name']}/{crate['version']}"
        yield name, licence, source, list(texts(crate)) or [standard(crate)]


def main():
    shape = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=shape).parse_args()
    users, shown = defaultdict(list), {}
    print("The program is linked with these, each under the licence that is named; the texts follow.\n")
    for name, licence, source, texts in parts():
        print(f"{name}  {licence}  {source}")
        for text in texts:
            # Lines are broken differently.
            key = " ".join(text.split())
            shown.setdefault(key, text)
            if name not in users[key]:
                users[key].append(name)
    for key, text in shown.items():
        print(f"\n{'=' * 78}\n{', '.join(users[key])}\n\n{text}")


if __name__ == "__main__":
    main()
