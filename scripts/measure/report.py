"""Tables in Markdown of what was measured."""

from dataclasses import dataclass

from . import figures
from .figures import FIGURES, Figure, Spread
from .load import Run


NOTHING = "–"


@dataclass(frozen=True)
class Comparison:
    """One mode against the best of others."""

    title: str
    subject: str
    against: tuple[str, ...]


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def spread_text(found: Spread, digits: int) -> str:
    text = number(found.median, digits)
    if found.rounds == 1:
        return text
    return f"{text} ({number(found.least, digits)}–{number(found.most, digits)})"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Aligned, so that it reads well on a terminal too."""
    lines = [header, *rows]
    widths = [max(3, *(len(line[n]) for line in lines)) for n in range(len(header))]

    def drawn(cells: list[str]) -> str:
        first = cells[0].ljust(widths[0])
        return " | ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:]))])

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])])
    return "\n".join([f"| {drawn(header)} |", f"|{rule}|", *(f"| {drawn(r)} |" for r in rows)])


def unique(values) -> list[str]:
    return list(dict.fromkeys(values))


def cell(runs: list[Run], figure: Figure, shape: str, mode: str) -> str:
    mine = [run for run in runs if run.shape == shape and run.mode == mode]
    if not mine:
        return NOTHING
    found = figures.spread(runs, figure, shape, mode)
    failed = sum(bool(run.failure) for run in mine)
    blemished = sum(not run.failure and bool(figures.blemish(run.total)) for run in mine)
    parts = [spread_text(found, figure.digits)] if found else []
    parts += [f"{failed} of {len(mine)} failed"] if failed else []
    parts += [f"{blemished} of {len(mine)} not clean"] if blemished and found else []
    return ", ".join(parts) or NOTHING


def ratio_cell(runs: list[Run], figure: Figure, shape: str, comparison: Comparison) -> str:
    rival = figures.best(runs, figure, shape, comparison.against)
    if rival is None:
        return NOTHING
    found = figures.ratio(
        figures.by_round(runs, figure, shape, comparison.subject),
        figures.by_round(runs, figure, shape, rival),
    )
    if found is None:
        return NOTHING
    name = f", {rival}" if len(comparison.against) > 1 else ""
    return spread_text(found, 2) + name


def figure_table(
    runs: list[Run], figure: Figure, modes: list[str], comparisons: list[Comparison]
) -> str | None:
    """One row per scenario that some mode has this figure for."""
    shapes = [
        shape for shape in unique(run.shape for run in runs)
        if any(figures.by_round(runs, figure, shape, mode) for mode in modes)
    ]
    if not shapes:
        return None
    columns = [
        *((mode, [cell(runs, figure, shape, mode) for shape in shapes]) for mode in modes),
        *((c.title, [ratio_cell(runs, figure, shape, c) for shape in shapes])
          for c in comparisons),
    ]
    told = [(title, cells) for title, cells in columns if any(cell != NOTHING for cell in cells)]
    header = ["Scenario", *(title for title, _ in told)]
    return table(header, [[*row] for row in zip(shapes, *(cells for _, cells in told))])


def blemishes(runs: list[Run]) -> list[str]:
    """Every run that failed or was not clean."""
    found = []
    for run in runs:
        what = f"failed: {run.failure}" if run.failure else figures.blemish(run.total)
        if what:
            found.append(f"* round {run.round}, {run.shape}, {run.mode}: {what}")
    return found


def markdown(runs: list[Run], facts: list[str], comparisons: list[Comparison]) -> str:
    modes = unique(run.mode for run in runs)
    present = [c for c in comparisons if c.subject in modes and set(c.against) & set(modes)]
    parts = ["\n".join(f"* {fact}" for fact in facts)]
    for figure in FIGURES:
        drawn = figure_table(runs, figure, modes, present)
        if drawn:
            parts += [f"## {figure.title}", drawn]
    wrong = blemishes(runs)
    parts.append("## Runs that were not clean")
    parts.append("\n".join(wrong) if wrong else "None.")
    return "\n\n".join(parts) + "\n"
