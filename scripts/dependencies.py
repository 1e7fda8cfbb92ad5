#!/usr/bin/env python3
"""Holds what the workspace depends on to docs/DEPENDENCIES.md, by Cargo.lock, and what crates say of
themselves (cargo gets those that are not here):

* every crate that the relay names has a line there, and no line is of another;
* of what the relay is linked with two versions are there only where that page says so;
* all comes from crates.io, under licences that scripts/third_party.py accepts or that are for tests alone.

Known vulnerabilities are not looked up: that needs a database from the network (`cargo deny check advisories`).

Example: scripts/dependencies.py
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from third_party import is_accepted, linked  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/DEPENDENCIES.md"
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"

# Of crates that only tests and tools are built with, and that nobody is given.
ONLY_HERE = {"CC0-1.0", "CDLA-Permissive-2.0"}


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def rows(page, heading):
    """The names that the first cells of a table have, below a heading."""
    part = page.split(f"\n## {heading}\n", 1)[-1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `([^`]+)`", part, re.M))


def differences(what, said, found):
    faults = [f"{what}: {name} is missing in {PAGE.name}" for name in sorted(found - said)]
    return faults + [f"{what}: {name} is in {PAGE.name} and not there" for name in sorted(said - found)]


def faults(meta, relay, page):
    root = next(package for package in meta["packages"] if package["id"] == meta["resolve"]["root"])
    direct = {dep["name"] for dep in root["dependencies"] if dep["kind"] is None}
    yield from differences("named by the relay", rows(page, "What the relay names"), direct)
    of_tests = {dep["name"] for dep in root["dependencies"] if dep["kind"] == "dev" and dep["source"]}
    yield from differences("for tests", rows(page, "What only tests name"), of_tests - direct)
    versions = {}
    for package in relay:
        versions.setdefault(package["name"], set()).add(package["version"])
    twice = {name for name, found in versions.items() if len(found) > 1}
    yield from differences("two versions", rows(page, "What is there twice"), twice)
    ids = {package["id"] for package in relay}
    for package in meta["packages"]:
        if package["source"] is None:
            continue
        shown = f"{package['name']} {package['version']}"
        if package["source"] != REGISTRY:
            yield f"{shown} comes from {package['source']}"
        licence = package["license"] or "no licence"
        is_for_tests = package["id"] not in ids and licence in ONLY_HERE
        if not is_for_tests and (licence == "no licence" or not is_accepted(licence)):
            yield f"{shown} is under {licence}"


def main():
    shape = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=shape).parse_args()
    meta = metadata()
    relay = linked()
    found = list(faults(meta, relay, PAGE.read_text()))
    for fault in found:
        print(fault)
    print(f"{len(relay)} crates in the relay, {len(meta['packages'])} in the workspace")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
