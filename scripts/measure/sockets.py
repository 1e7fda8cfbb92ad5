"""sockets.sh: viewers by WebSocket, of our relay and of moq-relay in turns."""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

from . import client, compare, figures, relay, report, terminal, tools
from .figures import Figure, Spread
from .load import Run, seconds
from .relay import Mode
from .tools import Trouble, say

# With what the client waits for frames that are under way.
SPARE_SECONDS = 60
LISTENS = re.compile(r'listening\b.*\baddr=(\S+).*\bkind="?http\b')
# Above this share of its core it is the client that is measured.
CLIENT_BUSY = 0.7
# So many that it stays below that.
VIEWERS = {"chat": 200, "video": 60, "link": 1}

DESCRIPTION = """\
Released clients publish and watch through our relay and through moq-relay in turns, each a fresh
process on a core of its own with the clients on another. Medians over the rounds, and ratios
paired by round with their least and most.

  modes      ours, peer-uring (moq-relay with --runtime-workers 1 --runtime-io-uring, which leaves
             WebSockets on its shared runtime), peer (as it comes; without real-time priority, with
             which it uses all of its core)
  shapes     chat   20 frames of 300 bytes per second, each a group
             video  60 frames of 4096 bytes per second, a group each second: 2 Mb/s
             link   video to one viewer, over a link in user space that passes --link and holds
                    16 KiB at either end; always by WebSocket
"""
EPILOG = """\
examples:
  scripts/sockets.sh                                    everything; six minutes
  scripts/sockets.sh chat --rounds 3 --viewers 100
  scripts/sockets.sh chat video --by quic               the same clients without WebSockets
  scripts/sockets.sh link --link 1600k

environment: SHARDCAST_BIN, SOCKETS_BIN, PEER_RELAY name finished programs to use instead of building
them; moq-relay is to have its feature `websocket`. Exit status: 0 measured, 1 something is missing
or failed.
"""


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/sockets.sh", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help="default: chat video link")
    parser.add_argument("--modes", default="ours,peer-uring", metavar="LIST", help="default: %(default)s")
    parser.add_argument("--by", choices=("ws", "quic"), default="ws", help="default: ws")
    parser.add_argument("--viewers", type=int, metavar="N", help="default: chat 200, video 60")
    parser.add_argument("--rounds", type=int, default=5, metavar="N",
                        help="of chat and video (default: 5)")
    parser.add_argument("--duration", type=seconds, default=4.0, metavar="SPAN",
                        help="that each of these measures (default: 4s)")
    parser.add_argument("--warmup", type=seconds, default=2.0, metavar="SPAN",
                        help="before that (default: 2s)")
    parser.add_argument("--link", default="1600k", metavar="RATE", help="default: 1600k")
    parser.add_argument("--link-rounds", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--link-duration", type=seconds, default=30.0, metavar="SPAN",
                        help="default: 30s")
    parser.add_argument("--relay-core", default="0", metavar="N", help="default: 0")
    parser.add_argument("--load-core", default="1", metavar="N", help="default: 1")
    chosen = parser.parse_args(words)
    chosen.shapes = chosen.shapes or ["chat", "video", "link"]
    for shape in chosen.shapes:
        if shape not in VIEWERS:
            parser.error(f"no shape {shape}; there are {', '.join(VIEWERS)}")
    if min(chosen.rounds, chosen.link_rounds) < 1:
        parser.error("--rounds and --link-rounds begin at 1")
    if chosen.relay_core == chosen.load_core:
        parser.error("the relay and the load need a core each")
    return chosen


COST = Figure("relay, µs per frame", 1, lambda said: said["relay_us_per_frame"])
P50 = Figure("age p50, ms", 1, lambda said: said["age_ms"]["p50"])
P99 = Figure("age p99, ms", 1, lambda said: said["age_ms"]["p99"])
MAX = Figure("age max, ms", 0, lambda said: said["age_ms"]["max"])
CAME = Figure("frames that came, %", 1, lambda said: 100 * said["came"] / said["frames"])
WHOLE = Figure("groups whole", 0, lambda said: said["groups"]["whole"])
CUT = Figure("groups cut", 0, lambda said: said["groups"]["cut"])
SKIPPED = Figure("groups skipped", 0, lambda said: said["groups"]["skipped"])
CLIENT = Figure("client, cores", 2, lambda said: said["client_cores"])
FAN_OUT = (COST, P50, P99, CAME, CLIENT)
FIGURES = {"chat": FAN_OUT, "video": FAN_OUT, "link": (P50, P99, MAX, CAME, WHOLE, CUT, SKIPPED)}
# What ratios are made of.
PAIRED = {"chat": (COST, P50, P99), "video": (COST, P50, P99), "link": (P50, P99, MAX)}


def modes(names: list[str], cert: Path, key: Path, core: str) -> list[Mode]:
    both = relay.open_to_all(cert, key)
    peer = (*both, "--web-http-listen", "127.0.0.1:0")
    uring = (*peer, "--runtime-workers", "1", "--runtime-io-uring")
    known = {
        "ours": lambda: Mode("ours", tools.build("shardcast")[0],
                             (*both, "--shards", "1", "--drain-timeout", "0s"), core),
        "peer": lambda: Mode("peer", tools.peer(), peer, core, is_first=False),
        "peer-uring": lambda: Mode("peer-uring", tools.peer(), uring, core),
    }
    for name in names:
        if name not in known:
            raise Trouble(f"no mode {name}; there are {', '.join(known)}")
    return [known[name]() for name in names]


def one(program: Path, shape: str, mode: Mode, round_: int, chosen: argparse.Namespace,
        raw: Path) -> Run:
    run = Run(shape, mode.name, round_)
    log = raw / f"{round_}-{shape}-{mode.name}.relay.log"
    is_link = shape == "link"
    duration = chosen.link_duration if is_link else chosen.duration
    viewers = 1 if is_link else chosen.viewers or VIEWERS[shape]
    try:
        with relay.running(mode, log) as at:
            url = at.url
            if is_link or chosen.by == "ws":
                found = LISTENS.search(log.read_text(errors="replace"))
                if found is None:
                    raise Trouble(f"{mode.name} does not say where its HTTP is")
                url = f"ws://{found.group(1)}"
            command = [program, "--url", url, "--scenario", "video" if is_link else shape,
                       "--viewers", viewers, "--duration", round(duration),
                       "--warmup", round(chosen.warmup), "--relay-pid", at.pid,
                       *(["--link", chosen.link] if is_link else [])]
            run.total, run.failure = client.told(
                chosen.load_core, command, duration + chosen.warmup + SPARE_SECONDS)
    except relay.NotStarted as error:
        run.failure = str(error)
    return run


def shape_table(runs: list[Run], shape: str) -> str:
    names = report.unique(run.mode for run in runs if run.shape == shape)
    rivals = [name for name in names if name != "ours" and "ours" in names]
    rows = []
    for figure in FIGURES[shape]:
        values = {name: figures.by_round(runs, figure, shape, name) for name in names}
        spreads = [Spread.of(values[name].values()) for name in names]
        paired = figure in PAIRED[shape]
        ratios = [figures.ratio(values["ours"], values[rival]) if paired else None
                  for rival in rivals]
        rows.append([
            figure.title,
            *(s and report.spread_text(s, figure.digits) or report.NOTHING for s in spreads),
            *(s and report.spread_text(s, 2) or report.NOTHING for s in ratios)])
    return report.table([shape, *names, *(f"ours / {rival}" for rival in rivals)], rows)


def told_briefly(run: Run) -> str:
    if run.failure:
        return f"failed: {run.failure}"
    told = [f"{figure.title} {report.number(figure.of(run.total), figure.digits)}"
            for figure in FIGURES[run.shape]]
    if run.total["client_cores"] > CLIENT_BUSY:
        told.append("the client is busy: fewer --viewers")
    return "; ".join(told)


def main(words: list[str]) -> None:
    chosen = arguments(words)
    tools.need("taskset", "util-linux")
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        able = modes(chosen.modes.split(","), *relay.certificate(raw), chosen.relay_core)
        program = tools.example("sockets", "SOCKETS_BIN", "release")
        turns = [
            (shape, mode, round_)
            for shape in chosen.shapes
            for round_ in range(1, (chosen.link_rounds if shape == "link" else chosen.rounds) + 1)
            for mode in compare.order(able, round_ - 1)
        ]
        say(f"load of this machine when it began: {os.getloadavg()[0]:.1f}")
        try:
            for n, (shape, mode, round_) in enumerate(turns, 1):
                run = one(program, shape, mode, round_, chosen, raw)
                runs.append(run)
                say(f"[{n}/{len(turns)}] round {round_} {shape} {mode.name}: {told_briefly(run)}")
        except KeyboardInterrupt:
            say("interrupted; the tables hold what was measured until then")
        say(f"and when it ended: {os.getloadavg()[0]:.1f}")
    print("\n\n".join(shape_table(runs, shape) for shape in report.unique(r.shape for r in runs)))
    if any(run.failure for run in runs):
        raise Trouble("some runs failed")


if __name__ == "__main__":
    terminal.start(main, "sockets", sys.argv[1:])
