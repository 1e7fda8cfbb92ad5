"""loadtest.sh: scenarios on one relay, a row each."""

import argparse
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from . import figures, load, plots_data, relay, terminal, tools
from .load import Span
from .relay import Relay
from .report import NOTHING, number, table
from .tools import Trouble, say

DESCRIPTION = """\
Runs scenarios of shardcast-load on a relay, each on a fresh one, and prints a row for each: what
was delivered, what it cost the relay, how late it was. The relay has a core of its own, and the
load another.

  scenarios  chat video hd audio rooms meeting announce fetch idle, a path to a TOML file, or one
             of them changed: chat:viewers=400,rate=10 (any option of shardcast-load) (default: chat)
"""
EPILOG = """\
example:
  scripts/loadtest.sh chat video:viewers=400

environment: SHARDCAST_BIN, LOAD_BIN name finished programs to use instead of building them.
Exit status: 0 measured, 1 when a scenario failed or something is missing.
"""
HEADER = ["Scenario", "delivered/s", "offered/s", "relay CPU %", "µs each", "p50 ms", "p99 ms",
          "lost", "KiB/conn", "switches/s"]


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/loadtest.sh", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", default=["chat"])
    parser.add_argument("--duration", type=load.seconds, default=10.0, metavar="SPAN",
                        help="that is measured (default: 10s)")
    parser.add_argument("--warmup", type=load.seconds, default=3.0, metavar="SPAN",
                        help="before that (default: 3s)")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--cores", metavar="LIST",
                        help="the relay's, as for taskset (default: one from 0 on per shard)")
    parser.add_argument("--load-core", metavar="N", help="default: the last one")
    parser.add_argument("--relay-arg", action="append", default=[], metavar="ARG",
                        help="for the relay, as in --relay-arg=--linger=0 (repeatable)")
    parser.add_argument("--url", metavar="URL",
                        help="a relay that runs, e.g. moqt://127.0.0.1:4443")
    parser.add_argument("--relay-pid", type=int, metavar="PID", help="its process, to measure it")
    parser.add_argument("--json", type=Path, metavar="DIR",
                        help="keep the JSON lines of every scenario there")
    parser.add_argument("--chart", type=Path, metavar="FILE",
                        help="draw what every second brought, as SVG")
    chosen = parser.parse_args(words)
    if chosen.relay_pid and not chosen.url:
        parser.error("--relay-pid belongs to --url")
    if chosen.shards < 1:
        parser.error("--shards begins at 1")
    chosen.shapes = load.shapes(parser, chosen.scenario)
    return chosen


def cost(total: dict) -> str:
    """CPU per piece of what the scenario is about."""
    pieces = (
        (figures.PER_COPY, ""), (figures.PER_ANNOUNCEMENT, " per announcement"),
        (figures.PER_FETCH, " per fetch"),
    )
    for figure, name in pieces:
        value = figure.of(total)
        if value is not None:
            return number(value, figure.digits) + name
    return NOTHING


def shown(value: float | None, digits: int) -> str:
    return NOTHING if value is None else number(value, digits)


def row(label: str, total: dict) -> list[str]:
    lost = [total[name] for name in total if name.startswith("lost_") and name != "lost_groups"]
    return [
        label,
        shown(total.get("delivered_per_s"), 0),
        shown(total.get("offered_per_s"), 0),
        shown(figures.scaled(figures.relay(total, "cpu_share"), 100), 1),
        cost(total),
        shown(figures.latency(total, "p50"), 2),
        shown(figures.latency(total, "p99"), 2),
        shown(sum(lost) if lost else None, 0),
        shown(figures.MEMORY.of(total), 1),
        shown(figures.switches(total), 0),
    ]


def placed(chosen: argparse.Namespace) -> tuple[str, str]:
    """The relay's cores and the load's."""
    mine = sorted(os.sched_getaffinity(0))
    cores = chosen.cores or ",".join(str(core) for core in mine[:chosen.shards])
    return cores, chosen.load_core or str(mine[-1])


def main(words: list[str]) -> None:
    chosen = arguments(words)
    cores, load_core = placed(chosen)
    if chosen.url:
        (client,) = tools.build("shardcast-load")
        mode = None
    else:
        binary, client = tools.build("shardcast", "shardcast-load")
    if chosen.chart:
        tools.chart_python()
    span = Span(chosen.duration, chosen.warmup)
    live = sys.stderr.isatty()
    rows, found, notes = [], {}, []
    with tempfile.TemporaryDirectory() as folder:
        kept = chosen.json or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        if not chosen.url:
            mode = relay.ours(binary, Path(folder), chosen.shards, cores, chosen.relay_arg)
        for shape in chosen.shapes:
            say(f"{shape.label}: about {terminal.minutes(span.expected(shape))}")
            name = shape.label.replace("/", "_")
            out = kept / f"{name}.jsonl"
            # A relay that runs already is not ours to start or stop.
            at = (relay.running(mode, kept / f"{name}.relay.log") if mode
                  else nullcontext(Relay(chosen.relay_pid, chosen.url)))
            with at as target:
                total, failure = load.measure(client, shape, target, span, load_core, out, live)
            found[shape.label] = load.lines(out)
            rows.append(row(shape.label, total))
            note = f"failed: {failure}" if failure else figures.blemish(total)
            if note:
                notes.append(f"{shape.label}: {note}")
    print(table(HEADER, rows))
    for note in notes:
        print(note)
    if chosen.chart:
        plots_data.draw("seconds", plots_data.seconds(found), chosen.chart)
        say(f"the seconds are in {chosen.chart}")
    if any(": failed: " in note for note in notes):
        raise Trouble("not every scenario could be measured")


if __name__ == "__main__":
    terminal.start(main, "loadtest", sys.argv[1:])
