"""profile.sh: where the relay's time goes under a scenario."""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from . import figures, load, relay, samples, terminal, tools
from .load import Span
from .report import number, table
from .tools import Trouble, say

DESCRIPTION = """\
Samples the relay with perf while shardcast-load runs a scenario on it: a flame graph, and tables
of where it was, by symbol and by module. All is kept in target/profile/<scenario>/.

The relay is built once more, with frame pointers. In a chat that gave 96 % of the stacks from the
thread's start on, where 8 KiB of copied stack per sample (--call-graph dwarf) gave half of them in
thirty times the data.
"""
EPILOG = """\
example:
  scripts/profile.sh video --duration 20s

Where the machine gives no cycle counter, as in most virtual machines, a clock takes the samples.
environment: LOAD_BIN names a finished load client; SHARDCAST_BIN a finished relay, whose stacks
are as good as its build. Exit status: 0 measured, 1 something is missing or failed.
"""
# Of load beyond what is sampled: a second before, and time for perf to begin and end.
MARGIN_SECONDS = 3
SPARE_SECONDS = 60
EVALUATION_SECONDS = 900
ROWS = 40
# Of a row beside its name: bars, a layer and a share.
ROW_FRAME = 30
WIDTH_MIN = 60
# Where nobody looks at a terminal.
WIDTH_USUAL = 100


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/profile.sh", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", help="of shardcast-load, or changed: chat:viewers=400")
    parser.add_argument("--duration", type=load.seconds, default=10.0, metavar="SPAN",
                        help="that is sampled (default: 10s)")
    parser.add_argument("--warmup", type=load.seconds, default=3.0, metavar="SPAN",
                        help="before that (default: 3s)")
    parser.add_argument("--frequency", type=int, default=999, metavar="HZ",
                        help="samples per second of CPU time (default: 999)")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--cores", default="0", metavar="LIST", help="the relay's (default: 0)")
    parser.add_argument("--load-core", default="1", metavar="N", help="default: 1")
    parser.add_argument("--relay-arg", action="append", default=[], metavar="ARG")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="default: target/profile/<scenario>")
    chosen = parser.parse_args(words)
    (chosen.shape,) = load.shapes(parser, [chosen.scenario])
    return chosen


def build() -> Path:
    finished = tools.given("SHARDCAST_BIN")
    if finished:
        return finished
    folder = tools.TARGET / "frame-pointers"
    say("building the relay with frame pointers (minutes the first time)")
    tools.run(
        ["cargo", "build", "--release", "-p", "shardcast"], "the build",
        env={
            "CARGO_TARGET_DIR": str(folder),
            "RUSTFLAGS": "-C force-frame-pointers=yes",
        },
    )
    return folder / "release/shardcast"


def event(perf: str) -> str:
    """Cycles where they can be counted, else a clock."""
    said = subprocess.run(
        [perf, "stat", "-x,", "-e", "cycles", "true"], capture_output=True, text=True, timeout=30)
    return "cpu-clock" if said.returncode or "<not" in said.stderr else "cycles"


def record(perf: str, chosen: argparse.Namespace, pid: int, lines: Path, out: Path) -> None:
    """Samples the relay from the end of the first measured second on."""
    patience = time.monotonic() + chosen.warmup + load.SPARE_SECONDS
    while not any(line.get("type") == "second" for line in load.lines(lines)):
        if time.monotonic() > patience:
            raise Trouble("the load client measures nothing")
        time.sleep(0.1)
    say(f"sampling for {chosen.duration:g} s")
    command = [
        perf, "record", "-q", "-e", event(perf), "-F", str(chosen.frequency), "--call-graph",
        "fp", "-p", str(pid), "-o", out, "--", "sleep", f"{chosen.duration:g}",
    ]
    done = subprocess.run(
        relay.pinned(chosen.load_core, command), capture_output=True, text=True,
        timeout=chosen.duration + SPARE_SECONDS)
    if done.returncode != 0:
        raise Trouble(f"perf record failed: {done.stderr.strip()}")


def piped(command: list, source: Path, out: Path) -> None:
    with source.open() as given, out.open("w") as kept:
        done = subprocess.run(
            [str(word) for word in command], stdin=given, stdout=kept, stderr=subprocess.PIPE,
            text=True, timeout=EVALUATION_SECONDS)
    if done.returncode != 0:
        raise Trouble(f"{Path(command[0]).name} failed: {done.stderr.strip()}")


def tables(found: Counter, title: str, width: int | None) -> str:
    """By layer, module and symbol; with names that fit a terminal of this width, or whole."""
    def fitted(name: str) -> str:
        return name if width is None else samples.shortened(name, width - ROW_FRAME)

    def part(name: str, counts: Counter) -> str:
        rows = [[fitted(what), number(share, 1)] for what, share in samples.shares(counts, ROWS)]
        return table([name, "self %"], rows)

    symbols = [
        [fitted(symbol), layer, number(share, 1)]
        for (symbol, layer), share in samples.shares(samples.by_symbol(found), ROWS)]
    return "\n\n".join([
        f"{title}: {found.total():,} samples", part("Layer", samples.by_layer(found)),
        part("Module", samples.by_module(found)), table(["Symbol", "Layer", "self %"], symbols),
    ]) + "\n"


def evaluate(perf: str, out: Path, title: str) -> Counter:
    """Stacks and the flame graph; returns what was sampled."""
    tools_folder = tools.inferno()
    script, folded = out / "perf.script", out / "stacks.folded"
    # Without --no-inline it asks addr2line about every frame, for hours.
    piped([perf, "script", "--no-inline", "-i", out / "perf.data"], Path("/dev/null"), script)
    piped([tools_folder / "inferno-collapse-perf"], script, folded)
    piped([tools_folder / "inferno-flamegraph", "--title", title], folded, out / "flame.svg")
    with script.open(errors="replace") as lines:
        found = samples.leaves(lines)
    script.unlink()
    if not found:
        raise Trouble("perf took no samples: the relay was idle, or may not be watched")

    return found


def main(words: list[str]) -> None:
    chosen = arguments(words)
    perf = tools.need("perf", "linux-perf")
    binary = build()
    (client,) = tools.build("shardcast-load")
    tools.inferno()
    out = chosen.out or tools.ROOT / "target/profile" / chosen.shape.label.replace("/", "_")
    out.mkdir(parents=True, exist_ok=True)
    lines = out / "load.jsonl"
    lines.unlink(missing_ok=True)
    span = Span(chosen.duration + MARGIN_SECONDS, chosen.warmup)
    with tempfile.TemporaryDirectory() as folder:
        mode = relay.ours(
            binary, Path(folder), chosen.shards, chosen.cores, chosen.relay_arg)
        say(f"loading the relay with {chosen.shape.label}")
        with relay.running(mode, out / "relay.log") as at:
            total, failure = load.measure(
                client, chosen.shape, at, span, chosen.load_core, lines,
                meanwhile=lambda: record(perf, chosen, at.pid, lines, out / "perf.data"))
    if failure:
        raise Trouble(f"{chosen.shape.label} failed: {failure}")
    title = f"shardcast, {chosen.shape.label}"
    cost = figures.PER_COPY.of(total)
    if cost is not None:
        title += f", {number(cost, 1)} µs per delivered frame while sampled"
    say("evaluating")
    found = evaluate(perf, out, title)
    (out / "top.md").write_text(tables(found, title, None))
    width = shutil.get_terminal_size((WIDTH_USUAL, 0)).columns
    print(tables(found, title, max(width, WIDTH_MIN)))
    say(f"the flame graph is {out / 'flame.svg'}")


if __name__ == "__main__":
    terminal.start(main, "profile", sys.argv[1:])
