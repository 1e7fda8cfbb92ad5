"""Charts, as SVG: `python -m measure.plots bars|seconds OUT.svg <DATA.json`, run by the Python
that tools.chart_python() makes."""

import json
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "shardcast"

import matplotlib.pyplot as plt  # noqa: E402 (the backend is chosen first)

# Told apart by people who see fewer colours too (Okabe and Ito).
COLOURS = ("#0072B2", "#999999", "#E69F00", "#D55E00", "#CC79A7", "#009E73")


def clean(axes) -> None:
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def legend(figure, rows) -> None:
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", frameon=False, fontsize=8,
                  ncols=len(COLOURS))


def bars(panels: list[dict], out: str) -> None:
    """A panel per figure, a group per scenario, a bar per mode; whiskers from least to most."""
    figure, rows = plt.subplots(
        len(panels), 1, figsize=(9, 3.4 * len(panels)), layout="constrained", squeeze=False)
    for (axes,), panel in zip(rows, panels):
        shapes, modes = panel["shapes"], list(panel["modes"])
        width = 0.8 / len(modes)
        for n, mode in enumerate(modes):
            found = [(at, s) for at, s in enumerate(panel["modes"][mode]) if s]
            heights = [s["median"] for _, s in found]
            whiskers = [
                [s["median"] - s["least"] for _, s in found],
                [s["most"] - s["median"] for _, s in found],
            ]
            drawn = axes.bar(
                [at + (n - (len(modes) - 1) / 2) * width for at, _ in found], heights,
                width * 0.92, label=mode, color=COLOURS[n % len(COLOURS)], yerr=whiskers,
                error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"})
            axes.bar_label(drawn, fmt="{:,.3g}", fontsize=6, padding=2)
        # Changes to a scenario below its name.
        names = [shape.replace(":", "\n").replace(",", "\n") for shape in shapes]
        axes.set_xticks(range(len(shapes)), names)
        axes.set_xlim(-0.5, max(len(shapes), 3) - 0.5)
        axes.tick_params(axis="x", length=0)
        axes.set_title(panel["title"], loc="left", fontsize=10)
        clean(axes)
    legend(figure, rows)
    figure.savefig(out)


def seconds(panels: list[dict], out: str) -> None:
    """A panel per figure, a line per scenario."""
    figure, rows = plt.subplots(
        len(panels), 1, figsize=(9, 2.4 * len(panels)), layout="constrained", sharex=True,
        squeeze=False)
    for (axes,), panel in zip(rows, panels):
        for n, (shape, points) in enumerate(panel["lines"].items()):
            axes.plot(*zip(*points), label=shape, color=COLOURS[n % len(COLOURS)], marker=".")
        axes.set_ylim(bottom=0)
        axes.set_title(panel["title"], loc="left", fontsize=10)
        clean(axes)
    legend(figure, rows)
    rows[-1][0].set_xlabel("second")
    figure.savefig(out)


if __name__ == "__main__":
    {"bars": bars, "seconds": seconds}[sys.argv[1]](json.load(sys.stdin), sys.argv[2])
