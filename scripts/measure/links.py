"""links.sh: what a viewer sees over a bad link, through our relay and through moq-relay."""

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Callable, Iterator

from . import client, compare, figures, kept, plots_data, relay, report, terminal, tools
from .figures import Figure, Spread
from .relay import Mode
from .tools import Trouble, say

# Before it counts frames, and after it has made the last one.
WARMUP_SECONDS = 1
PATIENCE_SECONDS = 2
# With handshakes over a bad link.
SPARE_SECONDS = 60
# Starting and ending everything.
AROUND_SECONDS = 1.5


@dataclass(frozen=True)
class Link:
    name: str
    title: str
    arguments: str
    track: str = "2m"


LINKS = {link.name: link for link in (
    Link("clean", "20 Mb/s, 20 ms", "--rate 20M --delay 20"),
    Link("fair", "20 Mb/s, 20 ms, 1 % lost, 3 ms of jitter",
         "--rate 20M --delay 20 --loss 1 --jitter 3 --in-order"),
    Link("rough", "8 Mb/s, 40 ms, 2 %, 10 ms of jitter",
         "--rate 8M --delay 40 --loss 2 --jitter 10 --in-order"),
    Link("shuffled", "the same, and datagrams overtake each other",
         "--rate 8M --delay 40 --loss 2 --jitter 10"),
    Link("bursts", "20 Mb/s, 20 ms, 2 % in bursts of 10 ms",
         "--rate 20M --delay 20 --loss 2 --burst 10"),
    Link("silence", "20 Mb/s, 20 ms, 0.5 %, silent for 600 ms every 4 s",
         "--rate 20M --delay 20 --loss 0.5 --outage 4000:600"),
    Link("narrow", "1.6 Mb/s, 40 ms, 2 ms of jitter",
         "--rate 1.6M --delay 40 --jitter 2 --in-order --queue 500"),
    Link("narrower", "2 Mb/s, 40 ms, 0.2 %, a track of 3 Mb/s",
         "--rate 2M --delay 40 --loss 0.2 --queue 500", "3m"),
)}
SIDES = {"viewer": "A link before the viewer", "publisher": "A link before the publisher"}
MODES = ("delay", "loss", "peer")
# How a relay controls what it sends does not matter to what it receives.
PUBLISHER_MODES = ("delay", "peer")

DESCRIPTION = """\
Released clients publish and watch a track of 60 frames of 4096 bytes per second (or 30 of 12,500,
which is 3 Mb/s) through a relay, in groups of a second; the viewer wants nothing that is older
than two seconds. A seeded link (shardcast-link --help) stands before one of them, the other one
is at the relay. Says which share of the frames came within 200 ms and within a second, what never
came being late, and the median and p99 of those that came within a second. Medians of the rounds;
each round has another seed, which is the same for all relays.

  modes      delay, loss (ours, with --quic-congestion-control), peer (moq-relay as it comes)
  sides      viewer, publisher (delay and peer only)
  links
"""
DESCRIPTION += "".join(f"    {link.name:10} {link.title}\n" for link in LINKS.values())
EPILOG = """\
examples:
  scripts/links.sh                                      everything; half an hour
  scripts/links.sh --at-once                            the same in a quarter of an hour
  scripts/links.sh --links rough,narrow --sides viewer --rounds 1
  scripts/links.sh --from target/links/DATE             the tables of an earlier run

environment: SHARDCAST_BIN, LINK_BIN, WATCH_BIN, PEER_RELAY name finished programs to use instead
of building them. Exit status: 0 measured, 1 something is missing or failed.
"""


def listed(known) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no {name}; there are {', '.join(known)}")
        return names
    return chosen


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/links.sh", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=listed(LINKS), default=list(LINKS), metavar="LIST",
                        help="separated by commas (default: all)")
    parser.add_argument("--modes", type=listed(MODES), default=list(MODES), metavar="LIST",
                        help="default: delay,loss,peer")
    parser.add_argument("--sides", type=listed(SIDES), default=list(SIDES), metavar="LIST",
                        help="default: viewer,publisher")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--duration", type=int, default=12, metavar="SECONDS",
                        help="that each run counts (default: 12)")
    parser.add_argument("--seed", type=int, default=1, metavar="N",
                        help="of the first round; the others have the next ones (default: 1)")
    parser.add_argument("--at-once", action="store_true",
                        help="the relays of a row beside each other, and not in turns")
    kept.arguments(parser, "links")
    chosen = parser.parse_args(words)
    if min(chosen.rounds, chosen.duration) < 1:
        parser.error("--rounds and --duration begin at 1")
    return chosen


@dataclass
class Run:
    """What one viewer saw. `seen` is the line of bench/watch.rs, and empty when it failed."""

    side: str
    link: str
    mode: str
    round: int
    failure: str = ""
    seen: dict = field(default_factory=dict)
    # What became of the datagrams.
    passed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Programs:
    link: Path
    watch: Path


def programs() -> Programs:
    (link,) = tools.build("shardcast-link")
    # Not for release: two clients and one track need no speed, and would take minutes.
    return Programs(link, tools.example("watch", "WATCH_BIN", "debug"))


def modes(names: list[str], cert: Path, key: Path) -> list[Mode]:
    def ours(name: str) -> Mode:
        more = ["--quic-congestion-control", name]
        return Mode(name, tools.build("shardcast")[0], relay.shardcast(1, cert, key, more))

    peer = relay.open_to_all(cert, key)
    return [Mode(name, tools.peer(), peer) if name == "peer" else ours(name) for name in names]


@contextmanager
def laid(program: Path, link: Link, to: str, seed: int, passed: list[str]) -> Iterator[str]:
    """A link that stands; where it begins."""
    command = [program, "--listen", "127.0.0.1:0", "--to", to, "--seed", seed,
               *shlex.split(link.arguments)]
    process = subprocess.Popen(
        relay.pinned("1", command), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    try:
        first = process.stdout.readline()
        found = re.search(r"addr=(\S+)", first)
        if found is None:
            raise Trouble(f"the link does not stand: {shlex.join(map(str, command))}")
        yield found.group(1)
    finally:
        process.terminate()
        passed += process.communicate(timeout=10)[0].splitlines()


def one(
    has: Programs, side: str, link: Link, mode: Mode, round_: int, chosen: argparse.Namespace,
    raw: Path,
) -> Run:
    run = Run(side, link.name, mode.name, round_)
    log = raw / f"{round_}-{side}-{link.name}-{mode.name}.relay.log"
    try:
        with relay.running(mode, log) as at:
            direct = at.url.removeprefix("moqt://")
            seed = chosen.seed + round_ - 1
            with laid(has.link, link, direct, seed, run.passed) as behind:
                ends = {"publish": direct, "watch": direct}
                ends["watch" if side == "viewer" else "publish"] = behind
                words = [f"--{end}=moqt://{address}" for end, address in ends.items()]
                command = [has.watch, *words, "--track", link.track, "--duration", chosen.duration,
                           "--warmup", WARMUP_SECONDS]
                run.seen, run.failure = client.told("1", command, chosen.duration + SPARE_SECONDS)
    except (relay.NotStarted, subprocess.TimeoutExpired) as error:
        run.failure = str(error)
    return run


def share(name: str) -> Callable[[dict], float]:
    return lambda seen: 100 * seen[name]


SOON = Figure("Frames within 200 ms, %", 1, share("within_200_ms"))
IN_TIME = Figure("Frames within a second, %", 1, share("within_1_s"))
P50 = Figure("Latency p50 of frames within a second, ms", 0, lambda seen: seen["in_time_ms"]["p50"])
P99 = Figure("Latency p99 of frames within a second, ms", 0, lambda seen: seen["in_time_ms"]["p99"])
CELL = (SOON, IN_TIME, P50, P99)


def by_round(runs: list[Run], figure: Figure, side: str, link: str, mode: str) -> dict[int, float]:
    mine = [run for run in runs if (run.side, run.link, run.mode) == (side, link, mode)]
    return figures.measured(mine, lambda run: figure.of(run.seen))


def cell(runs: list[Run], side: str, link: str, mode: str) -> str:
    spreads = [Spread.of(by_round(runs, figure, side, link, mode).values()) for figure in CELL]
    told = [report.NOTHING if found is None else report.number(found.median, figure.digits)
            for found, figure in zip(spreads, CELL)]
    soon, in_time, p50, p99 = told
    failed = sum(bool(run.failure) for run in runs
                 if (run.side, run.link, run.mode) == (side, link, mode))
    text = f"{soon} / {in_time} %, {p50} / {p99} ms"
    return f"{text}, {failed} failed" if failed else text


def against(runs: list[Run], side: str, link: str, subject: str) -> str:
    """The peer's figures from ours, paired: points of the shares, and the ratio of p99."""
    def pairs(figure: Figure, of: Callable[[float, float], float]) -> Spread | None:
        ours, theirs = (by_round(runs, figure, side, link, mode) for mode in (subject, "peer"))
        return Spread.of(of(ours[n], theirs[n]) for n in sorted(ours.keys() & theirs.keys()))

    points = [pairs(figure, lambda ours, theirs: ours - theirs) for figure in (SOON, IN_TIME)]
    ratio = pairs(P99, lambda ours, theirs: ours / theirs)
    if None in (*points, ratio):
        return report.NOTHING
    soon, in_time = (f"{found.median:+.1f}" for found in points)
    return f"{soon} / {in_time}; {report.spread_text(ratio, 2)}"


def side_table(runs: list[Run], side: str) -> str:
    mine = [run for run in runs if run.side == side]
    names = report.unique(run.mode for run in mine)
    rivals = [name for name in names if name != "peer" and "peer" in names]
    header = [SIDES[side], *names, *(f"{name} − peer; p99 {name} / peer" for name in rivals)]
    rows = []
    for link in report.unique(run.link for run in mine):
        cells = [cell(runs, side, link, name) for name in names]
        rows.append([f"{link}: {LINKS[link].title}", *cells,
                     *(against(runs, side, link, name) for name in rivals)])
    return report.table(header, rows)


def markdown(runs: list[Run], known: list[str]) -> str:
    sides = report.unique(run.side for run in runs)
    failures = [f"* {run.side}, {run.link}, {run.mode}, round {run.round}: {run.failure}"
                for run in runs if run.failure]
    parts = ["\n".join(f"* {fact}" for fact in known), *(side_table(runs, side) for side in sides),
             "\n".join(failures)]
    return "\n\n".join(filter(None, parts)) + "\n"


def panels(runs: list[Run]) -> list[dict]:
    found = []
    # The same everywhere, so that each keeps its colour.
    names = report.unique(run.mode for run in runs)
    for side in report.unique(run.side for run in runs):
        mine = [run for run in runs if run.side == side]
        links = report.unique(run.link for run in mine)
        for figure in (SOON, P99):
            spreads = {
                mode: [Spread.of(by_round(runs, figure, side, link, mode).values())
                       for link in links]
                for mode in names
            }
            found.append(plots_data.panel(f"{SIDES[side]}: {figure.title}", links, spreads))
    return found


def told_briefly(run: Run) -> str:
    if run.failure:
        return f"failed: {run.failure}"
    return cell([run], run.side, run.link, run.mode)


def measure(chosen: argparse.Namespace, able: list[Mode], has: Programs, out: Path) -> list[Run]:
    """All rounds. Interrupted, it returns what there is."""
    raw = out / "raw"
    raw.mkdir(parents=True)
    turns = []
    for round_ in range(1, chosen.rounds + 1):
        for side in chosen.sides:
            mine = [m for m in able if side == "viewer" or m.name in PUBLISHER_MODES]
            for link in chosen.links if mine else []:
                ordered = compare.order(mine, round_ - 1)
                groups = [ordered] if chosen.at_once else [[mode] for mode in ordered]
                turns += [(round_, side, LINKS[link], group) for group in groups]
    each = chosen.duration + WARMUP_SECONDS + PATIENCE_SECONDS + AROUND_SECONDS
    say(f"{len(turns)} turns, about {terminal.minutes(each * len(turns))}; kept in {out}")
    runs: list[Run] = []
    try:
        with (out / "runs.jsonl").open("w") as lines:
            for n, (round_, side, link, group) in enumerate(turns, 1):
                with ThreadPoolExecutor(len(group)) as pool:
                    done = list(pool.map(
                        lambda mode: one(has, side, link, mode, round_, chosen, raw), group))
                for run in done:
                    runs.append(run)
                    lines.write(kept.line(run))
                    say(f"[{n}/{len(turns)}] round {round_}, {side}, {link.name}, {run.mode}:"
                        f" {told_briefly(run)}")
                lines.flush()
    except KeyboardInterrupt:
        say("interrupted; the tables hold what was measured until then")
    return runs


def facts(chosen: argparse.Namespace, words: list[str]) -> list[str]:
    how = "beside each other" if chosen.at_once else "in turns"
    return [
        f"{datetime.now():%Y-%m-%d %H:%M}, commit {compare.commit()}",
        *compare.noise(),
        f"{compare.processor()}; {chosen.rounds} rounds of {chosen.duration} s, relays {how}",
        f"command: `scripts/links.sh {shlex.join(words)}`",
        "Cells: frames within 200 ms / within a second, p50 / p99 of the latter; medians of the"
        " rounds. Beside the peer: points of both shares, and the ratio of p99, paired by round.",
    ]


def conclude(chosen: argparse.Namespace, runs: list[Run], known: list[str], out: Path) -> None:
    kept.conclude(chosen, markdown(runs, known), panels(runs), out)


def main(words: list[str]) -> None:
    chosen = arguments(words)
    if chosen.earlier:
        lines, known = kept.earlier(chosen.earlier)
        conclude(chosen, [Run(**line) for line in lines], known, chosen.earlier)
        return
    tools.need("taskset", "util-linux")
    out = kept.folder(chosen, "links")
    with tempfile.TemporaryDirectory() as folder:
        able = modes(chosen.modes, *relay.certificate(Path(folder)))
        has = programs()
        known = facts(chosen, words)
        kept.begin(out, known)
        runs = measure(chosen, able, has, out)
    if runs:
        conclude(chosen, runs, known, out)


if __name__ == "__main__":
    terminal.start(main, "links", sys.argv[1:])
