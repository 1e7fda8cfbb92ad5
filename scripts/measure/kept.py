"""What a measurement leaves in its folder, and what is made of that again."""

import argparse
import json
from datetime import datetime
from pathlib import Path

from . import plots_data, tools
from .tools import Trouble, say


def arguments(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"default: target/{kind}/<date>")
    parser.add_argument("--from", dest="earlier", type=Path, metavar="DIR",
                        help="measure nothing, and make the tables of what is kept there")
    parser.add_argument("--no-plots", action="store_true", help="no SVG, and no matplotlib")


def folder(chosen: argparse.Namespace, kind: str) -> Path:
    """Where what is about to be measured goes."""
    if not chosen.no_plots:
        tools.chart_python()
    out = chosen.out or tools.ROOT / f"target/{kind}/{datetime.now():%Y-%m-%d-%H%M%S}"
    if (out / "raw").exists():
        raise Trouble(f"{out} holds runs already")
    return out


def begin(out: Path, facts: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "facts.json").write_text(json.dumps(facts))


def line(run) -> str:
    """Of runs.jsonl, which is written run by run, so that what was measured is there if the rest is not."""
    return json.dumps(run.__dict__, separators=(",", ":")) + "\n"


def earlier(out: Path) -> tuple[list[dict], list[str]]:
    """The runs of an earlier measurement, and its facts."""
    if not (out / "runs.jsonl").exists():
        raise Trouble(f"{out} holds no runs")
    lines = (out / "runs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], json.loads((out / "facts.json").read_text())


def conclude(chosen: argparse.Namespace, text: str, panels: list[dict], out: Path) -> None:
    (out / "report.md").write_text(text)
    print(text)
    if not chosen.no_plots:
        plots_data.draw("bars", panels, out / "chart.svg")
    say(f"kept in {out}")
