#!/usr/bin/env python3
"""Runs the compiled suites of the workspace, each as cargo would, some beside each other.

Suites that mostly wait (for clients, timers, browsers) run one after the other in one lane. Beside them, two at a
time, with one thread each and only while nobody else wants the processor, run those on a virtual clock or none: they
compute, and whether that takes longer changes nothing. What measures time, fills memory or keeps every core busy
runs alone, at the end. The output of each is printed whole when it is over, and what failed once more at the end.
All run, also where one has failed.

Example: scripts/suites.py              # all
         scripts/suites.py sim web      # these
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parent.parent

# A suite that is in no list waits. Those that compute begin in this order, the longest first.
COMPUTES = """
    sim evening hostile serve_loop mesh floods runs links announcements
    shardcast-load shardcast-ceiling shardcast-link shardcast-fuzz house link
    admission claims cluster leases legacy limits memory mux scale webtransport wire
""".split()
ALONE = """
    access authority behind_links drills failures footprint initials load shortage startup steering systemd tcp_floods
    tokens upgrade
""".split()


@dataclass
class Suite:
    name: str
    program: str
    folder: str
    log: str = ""
    seconds: float = 0.0
    processor_seconds: float = 0.0
    is_good: bool = False

    def run(self, threads: int | None) -> None:
        env = dict(os.environ, CARGO_MANIFEST_DIR=self.folder)
        # Who computes gives way to who waits.
        gives_way = [] if threads is None else ["chrt", "--idle", "0"]
        arguments = [] if threads is None else [f"--test-threads={threads}"]
        begun = time.monotonic()
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [*gives_way, self.program, *arguments],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            # With what it has started and waited for.
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            log.seek(0)
            self.log = log.read().decode(errors="replace")
        self.seconds = time.monotonic() - begun
        self.processor_seconds = used.ru_utime + used.ru_stime
        self.is_good = process.returncode == 0


@dataclass
class Results:
    suites: list[Suite] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, suite: Suite) -> None:
        with self.lock:
            self.suites.append(suite)
            word = "ok" if suite.is_good else "FAILED"
            took = f"{suite.seconds:.0f} s, {suite.processor_seconds:.0f} s of processor"
            print(f"suite {suite.name}: {word}, {took}\n{suite.log}", flush=True)


def suites_in(messages: str) -> list[Suite]:
    """What `cargo test --no-run --message-format=json` has built."""
    suites = []
    for line in messages.splitlines():
        said = json.loads(line)
        if said.get("reason") != "compiler-artifact" or not said["profile"]["test"]:
            continue
        if said.get("executable"):
            folder = str(Path(said["manifest_path"]).parent)
            suites.append(Suite(said["target"]["name"], said["executable"], folder))
    return suites


def named(suites: list[Suite], names: list[str]) -> list[Suite]:
    return [suite for name in names for suite in suites if suite.name == name]


def run_lane(suites: Iterator[Suite], threads: int | None, results: Results) -> None:
    for suite in suites:
        try:
            suite.run(threads)
        except OSError as error:
            suite.log = f"it could not be run: {error}"
        results.add(suite)


def build() -> list[Suite]:
    command = ["cargo", "test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        sys.exit(built.returncode)
    return suites_in(built.stdout)


FRAME = re.compile(r"^\s*(\d+: |at )")
REASON_LINES = 40


def reasons(suite: Suite) -> str:
    """What each test that failed has said, without the frames of its stack."""
    said = suite.log.partition("\nfailures:\n")[2].rpartition("\nfailures:\n")[0]
    tests = re.split(r"^(?=---- .* stdout ----$)", said, flags=re.M)[1:]
    lines = ([line for line in test.splitlines() if not FRAME.match(line)] for test in tests)
    kept = ("\n".join([*test[:REASON_LINES], *test[REASON_LINES:][-REASON_LINES:]]) for test in lines)
    return f"suite {suite.name}:\n" + ("\n".join(kept) or suite.log[-2000:])


def summary(results: Results) -> str:
    counts = [0, 0, 0]
    for suite in results.suites:
        for found in re.finditer(
            r"^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored", suite.log, re.M
        ):
            counts = [sum(pair) for pair in zip(counts, map(int, found.groups()))]
    slowest = sorted(results.suites, key=lambda suite: -suite.seconds)[:3]
    slow = ", ".join(f"{suite.name} {suite.seconds:.0f} s" for suite in slowest)
    passed, failed, ignored = counts
    return f"{passed} passed, {failed} failed, {ignored} ignored; longest: {slow}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", help="by name; all where none is named")
    wanted = parser.parse_args().suites
    suites = build()
    if unknown := set(wanted) - {suite.name for suite in suites}:
        parser.error(f"no suite is called {', '.join(sorted(unknown))}")
    suites = [suite for suite in suites if not wanted or suite.name in wanted]
    computes, alone = (named(suites, names) for names in (COMPUTES, ALONE))
    waits = [suite for suite in suites if suite not in computes + alone]
    results = Results()
    # Two take turns at those that compute.
    queue = iter(computes)
    lanes = [(queue, 1), (queue, 1), (iter(waits), None)]
    # Who interrupts us interrupts all suites that run, and no other is begun.
    running = [threading.Thread(target=run_lane, args=(*lane, results), daemon=True) for lane in lanes]
    for lane in running:
        lane.start()
    for lane in running:
        lane.join()
    run_lane(iter(alone), None, results)
    failed = [suite for suite in results.suites if not suite.is_good]
    if failed:
        print("\n".join(map(reasons, failed)))
        print(f"suites that failed: {', '.join(suite.name for suite in failed)}")
    print(summary(results))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
