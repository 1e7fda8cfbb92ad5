"""One run of the load client against one relay, and what came of it."""

import argparse
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from . import relay
from .network import LOOPBACK, Network
from .tools import Trouble

# Beyond the spans that were asked for: connecting, and the last frames.
SPARE_SECONDS = 60
# A search doubles the viewers and then halves the gap, with spans of its own.
SEARCH_SECONDS = 90
SEARCH_SECONDS_MAX = 500

SPAN = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m)?$")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}


def seconds(text: str) -> float:
    """6s, 500ms, 1m, or a bare number of seconds."""
    found = SPAN.match(text)
    if found is None:
        raise ValueError(f"{text} is no duration; write 6s")
    return float(found.group(1)) * UNITS[found.group(2)]


@dataclass(frozen=True)
class Shape:
    """A scenario, what of it is changed, and whether to look for the most viewers it bears.
    Written `chat`, `chat:viewers=1000,rate=4` or a path to a file."""

    label: str
    scenario: str
    changes: tuple[str, ...] = ()
    search: bool = False

    @staticmethod
    def parse(text: str, search: bool = False) -> "Shape":
        scenario, _, rest = text.partition(":")
        changes: list[str] = []
        for change in filter(None, rest.split(",")):
            name, equals, value = change.partition("=")
            if not equals or not value:
                raise ValueError(f"{text}: write NAME:option=value,option=value")
            changes += [f"--{name}", value]
        label = f"{text}, most viewers" if search else text
        return Shape(label, scenario, tuple(changes), search)

    @property
    def name(self) -> str:
        return Path(self.scenario).stem


def shapes(parser: argparse.ArgumentParser, texts: list[str]) -> list[Shape]:
    """The scenarios of a command line; a wrong one ends the program with its usage."""
    try:
        return [Shape.parse(text) for text in texts]
    except ValueError as error:
        parser.error(str(error))


@dataclass(frozen=True)
class Span:
    """How long a run measures, and for how long it runs before that."""

    duration: float
    warmup: float

    def expected(self, shape: Shape) -> float:
        """Seconds of a run with its start and end."""
        return SEARCH_SECONDS if shape.search else self.duration + self.warmup + 4

    def limit(self, shape: Shape) -> float:
        return SEARCH_SECONDS_MAX if shape.search else self.duration + self.warmup + SPARE_SECONDS


@dataclass
class Run:
    """What one run gave. `total` is the load client's last line and empty when it failed."""

    shape: str
    mode: str
    round: int
    failure: str = ""
    total: dict = field(default_factory=dict)


def command(
    binary: Path, shape: Shape, at: relay.Relay, span: Span, core: str, out: Path, live: bool
) -> list:
    """The load client and its arguments."""
    spans = ["--duration", f"{span.duration:g}s", "--warmup", f"{span.warmup:g}s"]
    bounds = ["--find-max", "--max-p99", "50ms", "--max-loss", "0"]
    watched = ["--relay-pid", at.pid] if at.pid else []
    quiet = [] if live else ["--quiet"]
    return [
        binary, "--url", at.url, *watched, *(bounds if shape.search else spans), "--cpu", core,
        "--json", out, *quiet, *shape.changes, shape.scenario,
    ]


def lines(path: Path) -> list[dict]:
    """The JSON lines of a run, also of one that was cut off in the middle of a line."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def outcome(found: list[dict], status: int | None, said: str) -> tuple[dict, str]:
    """What a run measured, and why that is nothing when it is."""
    ends = [line for line in found if line.get("type") in ("total", "max")]
    if status == 2:
        raise Trouble(f"shardcast-load does not take these arguments: {said}")
    if status is None:
        return {}, f"not finished in time: {said}"
    if status != 0:
        return {}, said.removeprefix("shardcast-load: ")
    if not ends:
        return {}, "ended without a total"
    end = ends[-1]
    shares = [line.get("load_cpu_share", 0) for line in found if line.get("type") == "probe"]
    if shares:
        # It may have been ourselves that could do no more.
        end["load"] = {"cpu_share": max(shares)}
    return end, ""


def measure(
    binary: Path, shape: Shape, at: relay.Relay, span: Span, core: str, out: Path,
    live: bool = False, meanwhile: Callable[[], None] = lambda: None, where: Network = LOOPBACK,
) -> tuple[dict, str]:
    """Runs the load client. Its lines are left in `out`, what it says beside it; with `live`, its
    display and its errors are on the terminal."""
    words = command(binary, shape, at, span, core, out, live)
    if where != LOOPBACK:
        # There any certificate will do anyway.
        words.insert(1, "--tls-disable-verify")
    log = out.with_suffix(".log")
    with log.open("w") as sink:
        process = subprocess.Popen(
            relay.pinned(core, words, within=where.load), stdin=subprocess.DEVNULL,
            stdout=sink, stderr=None if live else sink,
        )
        try:
            meanwhile()
            status = process.wait(span.limit(shape))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    said = "see above" if live else relay.last_words(log.read_text(errors="replace"))
    return outcome(lines(out), status, said)
