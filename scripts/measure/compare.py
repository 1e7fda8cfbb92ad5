"""compare.sh: relays measured in turns, so that what the machine does meanwhile hits all alike."""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from . import (
    figures, goals, kept, load, network, plots_data, relay, report, rival, terminal, tools)
from .load import Run, Shape, Span
from .relay import Mode
from .tools import Trouble, say

# Above this load average, others are at work.
LOAD_QUIET = 0.7
FAN_OUT = ["chat", "video", "hd", "audio", "rooms", "meeting"]
MODES = ["ours", "ceiling", *goals.PEERS]
COMPARISONS = [
    report.Comparison("ours / best peer", "ours", goals.PEERS),
    report.Comparison("ours / ceiling", "ours", goals.CEILING),
    report.Comparison("PGO / ours", "ours-pgo", goals.OURS),
    report.Comparison("PGO / best peer", "ours-pgo", goals.PEERS),
    report.Comparison("2 shards / 1", "ours-2shards", goals.OURS),
]
AB = [report.Comparison("A / B", "A", ("B",))]

DESCRIPTION = """\
Measures the relay, the ceiling program and moq-relay in turns: every round runs every mode
once per scenario, each with a fresh process on a core of its own and the load on another.
Medians over the rounds, and ratios paired by round with their least and most.

  modes      ours, ours-pgo (as scripts/pgo.sh builds it), ours-2shards, ceiling, peer (moq-relay
             as it comes), peer-workers (--runtime-workers 1), peer-uring (that and
             --runtime-io-uring)
  scenarios  chat video hd audio rooms meeting announce fetch idle, or changed:
             chat:viewers=400,rate=10
"""
EPILOG = """\
examples:
  scripts/compare.sh                                    the usual modes and scenarios
  scripts/compare.sh --ab target/release/shardcast /tmp/other --scenarios chat,video --rounds 5
  scripts/compare.sh --veth --scenarios chat,video      over a pair of virtual Ethernet; as root
  scripts/compare.sh --find-max --relay-share 0.5 --modes ours   the load client bears it then
  scripts/compare.sh --targets                          every figure with a goal, and the verdicts
  scripts/compare.sh --from target/compare/DATE --targets   the tables of an earlier comparison

environment: SHARDCAST_BIN, SHARDCAST_PGO_BIN, LOAD_BIN, CEILING_BIN, PEER_RELAY name finished
programs to use instead of building them. Exit status: 0 measured, 1 something is missing or failed.
"""


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/compare.sh", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", help="scenarios, as with --scenarios")
    parser.add_argument("--scenarios", default="", metavar="LIST", help="separated by commas, or by"
                        " spaces where one is changed (default: chat,video,hd,audio,rooms,meeting)")
    parser.add_argument("--modes", default=",".join(MODES), metavar="LIST",
                        help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--duration", type=load.seconds, default=6.0, metavar="SPAN",
                        help="that each run measures (default: 6s)")
    parser.add_argument("--warmup", type=load.seconds, default=3.0, metavar="SPAN",
                        help="before that (default: 3s)")
    parser.add_argument("--relay-core", default="0", metavar="N", help="default: 0")
    parser.add_argument("--load-core", default="1", metavar="N", help="default: 1")
    parser.add_argument("--veth", action="store_true",
                        help="relay and load in a network namespace each, a pair of virtual"
                        " Ethernet between them, and not on loopback")
    parser.add_argument("--relay-share", type=float, default=1.0, metavar="SHARE",
                        help="of its core that the relay is left with, in slices of a millisecond;"
                        " a load client with one core may bear no more (default: 1)")
    parser.add_argument("--find-max", action="store_true",
                        help="compare the most viewers that each bears (default scenario: video)")
    parser.add_argument("--max-rounds", type=int, default=2, metavar="N",
                        help="rounds of --find-max, which takes long (default: 2)")
    parser.add_argument("--ab", nargs=2, type=Path, metavar=("A", "B"),
                        help="compare two shardcast programs instead")
    parser.add_argument("--a-arg", action="append", default=[], metavar="ARG",
                        help="an argument for A, as in --a-arg=--linger=0 (repeatable)")
    parser.add_argument("--b-arg", action="append", default=[], metavar="ARG")
    parser.add_argument("--shards", type=int, default=1, metavar="N",
                        help="of A and B (default: 1)")
    parser.add_argument("--targets", action="store_true",
                        help="measure every figure that has a goal, and judge")
    kept.arguments(parser, "compare")
    chosen = parser.parse_args(words)
    if min(chosen.rounds, chosen.max_rounds, chosen.shards) < 1:
        parser.error("--rounds, --max-rounds and --shards begin at 1")
    if not 0.1 <= chosen.relay_share <= 1:
        parser.error("--relay-share is between 0.1 and 1")
    if chosen.relay_share < 1 and (not chosen.find_max or chosen.targets):
        parser.error("--relay-share is for --find-max: what a frame costs does not depend on it")
    if chosen.relay_share < 1 and (chosen.shards > 1 or "ours-2shards" in chosen.modes):
        parser.error("--relay-share is of one core: not for two shards")
    if chosen.relay_core == chosen.load_core:
        parser.error("the relay and the load need a core each")
    try:
        chosen.shapes = shapes(chosen)
    except ValueError as error:
        parser.error(str(error))
    return chosen


@dataclass(frozen=True)
class Turn:
    """One scenario and who runs it in every round."""

    shape: Shape
    modes: list[Mode]
    rounds: int


def order(modes: list, round_: int) -> list:
    """Who is first changes from round to round."""
    at = round_ % len(modes)
    return modes[at:] + modes[:at]


def listed(text: str) -> list[str]:
    """Scenarios, separated by spaces, or by commas where none is changed."""
    words = text.split()
    return [name for word in words for name in ([word] if ":" in word else word.split(","))]


def shapes(chosen: argparse.Namespace) -> list[Shape]:
    texts = [name for text in [*chosen.scenario, chosen.scenarios] for name in listed(text)]
    if chosen.targets and not texts:
        texts = [*FAN_OUT, "idle", "announce", goals.MANY, goals.FEW]
        return [*map(Shape.parse, texts), Shape.parse("video", search=True)]
    texts = texts or (["video"] if chosen.find_max else FAN_OUT)
    return [Shape.parse(text, chosen.find_max) for text in texts]


def turns(chosen: argparse.Namespace, modes: list[Mode]) -> list[Turn]:
    """What is run, in this order in every round."""
    found = []
    for shape in chosen.shapes:
        able = [mode for mode in modes if mode.serves(shape.name)]
        if chosen.targets:
            # Goals about our own growth need nobody else; two shards are judged by chat.
            own = shape.label in (goals.MANY, goals.FEW)
            able = [m for m in able if m.name == "ours" or not own]
            able = [m for m in able if m.name != "ours-2shards" or shape.label == "chat"]
        if not able:
            say(f"no mode serves {shape.label}")
            continue
        found.append(Turn(shape, able, chosen.max_rounds if shape.search else chosen.rounds))
    if not found:
        raise Trouble("nothing to measure")
    return found


def ab_modes(chosen: argparse.Namespace, cert: Path, key: Path) -> list[Mode]:
    found = []
    for name, binary, more in zip("AB", chosen.ab, (chosen.a_arg, chosen.b_arg)):
        if not os.access(binary, os.X_OK):
            raise Trouble(f"{binary} is not a program")
        words = relay.shardcast(chosen.shards, cert, key, more)
        found.append(Mode(name, binary.absolute(), words, relay_cores(chosen, chosen.shards)))
    return found


def relay_cores(chosen: argparse.Namespace, shards: int) -> str:
    """A core for each shard, the load's only when there is no other left."""
    first, last = int(chosen.relay_core), int(chosen.load_core)
    between = sorted(os.sched_getaffinity(0) - {first, last})
    return ",".join(str(core) for core in [first, *between, last][:shards])


def commit() -> str:
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=tools.ROOT, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def noise() -> list[str]:
    busy = os.getloadavg()[0]
    if busy <= LOAD_QUIET:
        return []
    return [f"others used this machine when it began (load {busy:.1f}): expect noise"]


def facts(
    chosen: argparse.Namespace, modes: list[Mode], plan: list[Turn], words: list[str]
) -> list[str]:
    """What a reader of the tables must know to repeat them."""
    rounds = max(turn.rounds for turn in plan)
    many = "s" if rounds > 1 else ""
    searches = {turn.rounds for turn in plan if turn.shape.search} - {rounds}
    fewer = "".join(f" ({n} of searches)" for n in searches)
    rival = "" if chosen.ab else (
        ", against the mode with the best median of that figure, whatever it lost")
    return [
        f"{datetime.now():%Y-%m-%d %H:%M}, commit {commit()}",
        *noise(),
        f"{processor()}, {os.cpu_count()} cores, Linux {platform.release()}",
        f"{rounds} round{many}{fewer}, {chosen.duration:g} s measured after {chosen.warmup:g} s;"
        f" relay on core {chosen.relay_core}, load on core {chosen.load_core}, over"
        f" {'a pair of virtual Ethernet' if chosen.veth else 'loopback'}{left_with(chosen)}",
        f"command: `scripts/compare.sh {shlex.join(words)}`",
        *(f"{mode.name}: `{shlex.join([str(mode.binary), *told(mode.arguments)])}`"
          for mode in modes),
        f"Cells: median (least–most) of the rounds. Ratios: paired by round{rival}.",
    ]


def left_with(chosen: argparse.Namespace) -> str:
    share = chosen.relay_share
    return "" if share == 1 else f"; the relay is left with {share:.0%} of its core"


def told(words: tuple[str, ...]) -> list[str]:
    """Without the certificate, which is the same for all and gone afterwards."""
    return [word for at, word in enumerate(words)
            if not word.startswith("--listen-tls") and not words[at - 1].startswith("--listen-tls")]


def one(
    client: Path, turn: Turn, mode: Mode, round_: int, span: Span, core: str, raw: Path,
    where: network.Network,
) -> Run:
    """One run; a relay that does not even start is a run that failed."""
    name = f"{round_}-{turn.shape.label}-{mode.name}".replace("/", "_").replace(" ", "-")
    run = Run(turn.shape.label, mode.name, round_)
    try:
        with relay.running(mode, raw / f"{name}.relay.log", where) as at:
            out = raw / f"{name}.jsonl"
            run.total, run.failure = load.measure(
                client, turn.shape, at, span, core, out, where=where)
    except relay.NotStarted as error:
        run.failure = str(error)
    return run


def told_briefly(run: Run) -> str:
    if run.failure:
        return f"failed: {run.failure}"
    parts = []
    for figure in figures.FIGURES:
        value = figure.of(run.total)
        if value is not None:
            name, _, unit = figure.title.partition(", ")
            parts.append(f"{name} {report.number(value, figure.digits)} {unit}".rstrip())
    return "; ".join([*parts, *filter(None, [figures.blemish(run.total)])])


def measure(
    chosen: argparse.Namespace, plan: list[Turn], out: Path, where: network.Network
) -> list[Run]:
    """All rounds. Interrupted, it returns what there is."""
    (client,) = tools.build("shardcast-load")
    span = Span(chosen.duration, chosen.warmup)
    raw = out / "raw"
    raw.mkdir(parents=True)
    todo = [
        (turn, mode, round_)
        for round_ in range(1, max(turn.rounds for turn in plan) + 1)
        for turn in plan if round_ <= turn.rounds
        for mode in order(turn.modes, round_ - 1)
    ]
    expected = [span.expected(turn.shape) for turn, _, _ in todo]
    say(f"{len(todo)} runs, about {terminal.minutes(sum(expected))}; kept in {out}")
    started = time.monotonic()
    runs: list[Run] = []
    try:
        with (out / "runs.jsonl").open("w") as lines:
            for n, (turn, mode, round_) in enumerate(todo, 1):
                run = one(client, turn, mode, round_, span, chosen.load_core, raw, where)
                runs.append(run)
                lines.write(kept.line(run))
                lines.flush()
                pace = (time.monotonic() - started) / sum(expected[:n])
                left = pace * sum(expected[n:])
                say(f"[{n:>{len(str(len(todo)))}}/{len(todo)}] round {round_} {run.shape}"
                    f" {run.mode}: {told_briefly(run)} ({terminal.minutes(left)} left)")
    except KeyboardInterrupt:
        say("interrupted; the tables hold what was measured until then")
    return runs


def conclude(chosen: argparse.Namespace, runs: list[Run], known: list[str], out: Path) -> None:
    comparisons = AB if any(run.mode == "A" for run in runs) else COMPARISONS
    text = report.markdown(runs, known, comparisons)
    if chosen.targets:
        text = f"{text}\n## Goals\n\n{goals.judgement(runs)}\n"
    kept.conclude(chosen, text, plots_data.bars(runs), out)


def main(words: list[str]) -> None:
    chosen = arguments(words)
    if chosen.earlier:
        lines, known = kept.earlier(chosen.earlier)
        conclude(chosen, [Run(**line) for line in lines], known, chosen.earlier)
        return
    cores = {int(chosen.relay_core), int(chosen.load_core)}
    if not cores <= os.sched_getaffinity(0):
        mine = ", ".join(str(core) for core in sorted(os.sched_getaffinity(0)))
        raise Trouble(f"only cores {mine} may be used; see --relay-core and --load-core")
    tools.need("taskset", "util-linux")
    out = kept.folder(chosen, "compare")
    with tempfile.TemporaryDirectory() as folder:
        cert, key = relay.certificate(Path(folder))
        if chosen.ab:
            modes = ab_modes(chosen, cert, key)
        else:
            names = chosen.modes.split(",")
            if chosen.targets and "ours-2shards" not in names:
                names.append("ours-2shards")
            modes = relay.modes(names, cert, key, chosen.relay_core, relay_cores(chosen, 2))
        plan = turns(chosen, modes)
        known = facts(chosen, modes, plan, words)
        kept.begin(out, known)
        for warning in noise():
            say(warning)
        met = network.veth() if chosen.veth else nullcontext(network.LOOPBACK)
        with met as where, rival.taking(1 - chosen.relay_share, chosen.relay_core):
            runs = measure(chosen, plan, out, where)
    if runs:
        conclude(chosen, runs, known, out)


if __name__ == "__main__":
    terminal.start(main, "compare", sys.argv[1:])
