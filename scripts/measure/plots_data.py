"""What the charts show, made of runs; plots.py draws it."""

import json
import subprocess
from pathlib import Path

from . import figures
from .figures import P99, PER_COPY, VIEWERS, Spread
from .load import Run
from .report import unique
from .tools import Trouble, chart_python


def bars(runs: list[Run]) -> list[dict]:
    """The figures that scenarios have in common."""
    modes = unique(run.mode for run in runs)
    panels = []
    for figure in (PER_COPY, P99, VIEWERS):
        shapes = [
            shape for shape in unique(run.shape for run in runs)
            if any(figures.by_round(runs, figure, shape, mode) for mode in modes)
        ]
        if shapes:
            spreads = {
                mode: [figures.spread(runs, figure, shape, mode) for shape in shapes]
                for mode in modes
            }
            panels.append(panel(figure.title, shapes, spreads))
    return panels


def panel(title: str, shapes: list[str], spreads: dict[str, list[Spread | None]]) -> dict:
    """Bars of one figure: of each shape what each mode has, if it has any."""
    modes = {mode: [s and s.__dict__ for s in found] for mode, found in spreads.items()}
    return {"title": title, "shapes": shapes, "modes": modes}


# Of one second's line of the load client.
SECONDS = (
    ("Delivered frames per second", lambda line: line.get("delivered")),
    ("Latency p99, ms", lambda line: figures.scaled(line.get("latency_us", {}).get("p99"), 0.001)),
    ("CPU of the relay, %", lambda line: figures.scaled(line.get("relay_cpu_share"), 100)),
)


def seconds(found: dict[str, list[dict]]) -> list[dict]:
    """Of each scenario, what every second brought."""
    panels = []
    for title, of in SECONDS:
        lines = {}
        for shape, told in found.items():
            points = [[line["second"], of(line)] for line in told if line["type"] == "second"]
            points = [point for point in points if point[1] is not None]
            if points:
                lines[shape] = points
        if lines:
            panels.append({"title": title, "lines": lines})
    return panels


def draw(kind: str, panels: list[dict], out: Path) -> None:
    if not panels:
        return
    done = subprocess.run(
        [chart_python(), "-m", "measure.plots", kind, out.absolute()],
        input=json.dumps(panels), text=True, capture_output=True, timeout=120,
        cwd=Path(__file__).resolve().parents[1],
    )
    if done.returncode != 0:
        raise Trouble(f"the chart cannot be drawn: {done.stderr.strip().splitlines()[-1]}")
