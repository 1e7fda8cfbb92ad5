"""The figures of a run, and what is said of several: medians, extremes, ratios of pairs."""

from dataclasses import dataclass
from statistics import median
from typing import Callable, Iterable

from .load import Run


@dataclass(frozen=True)
class Figure:
    title: str
    digits: int
    # From what a run has said; None where it does not apply.
    of: Callable[[dict], float | None]
    higher_is_better: bool = False


def relay(total: dict, name: str) -> float | None:
    return total.get("relay", {}).get(name)


def scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def fetch_cost(total: dict) -> float | None:
    spent, fetched = relay(total, "cpu_s"), total.get("fetched_groups")
    return spent * 1e6 / fetched if spent is not None and fetched else None


def latency(total: dict, part: str, name: str = "latency_us") -> float | None:
    return scaled(total.get(name, {}).get(part), 0.001)


def unpaid_share(total: dict) -> float | None:
    """The share of a core, where there is nothing to divide it by."""
    if any(figure.of(total) is not None for figure in (PER_COPY, PER_ANNOUNCEMENT, PER_FETCH)):
        return None
    return scaled(relay(total, "cpu_share"), 100)


def switches(total: dict) -> float | None:
    counts = [relay(total, f"{kind}_switches") for kind in ("voluntary", "involuntary")]
    if None in counts or not total.get("duration_s"):
        return None
    return sum(counts) / total["duration_s"]


def copy_cost(total: dict) -> float | None:
    """Where groups are fetched too, frames do not say what the work was."""
    return None if total.get("fetched_groups") else relay(total, "cpu_us_per_copy")


PER_COPY = Figure("CPU per delivered frame, µs", 1, copy_cost)
PER_ANNOUNCEMENT = Figure(
    "CPU per delivered announcement, µs", 1,
    lambda t: relay(t, "cpu_us_per_announcement"))
PER_FETCH = Figure("CPU per fetched group, µs", 1, fetch_cost)
SHARE = Figure("CPU of a core, %", 2, unpaid_share)
P99 = Figure("Latency p99, ms", 2, lambda t: latency(t, "p99"))
FETCH_P99 = Figure(
    "Latency of fetches p99, ms", 2, lambda t: latency(t, "p99", "fetch_latency_us"))
MEMORY = Figure(
    "Memory per connection, KiB", 1, lambda t: relay(t, "rss_kib_per_connection"))
VIEWERS = Figure(
    "Most viewers", 0,
    lambda t: t.get("viewers") if t.get("type") == "max" else None, higher_is_better=True)

COSTS = (PER_COPY, PER_ANNOUNCEMENT, PER_FETCH, SHARE)
FIGURES = (*COSTS, P99, FETCH_P99, MEMORY, VIEWERS)


# A run that delivers less than this share of what was offered did not keep up.
KEEPS_UP = 0.98
# From this share of its core on, the load client may be what is measured.
LOAD_BUSY = 0.85


def blemish(total: dict) -> str:
    """What is wrong with a run that measured something."""
    faults = []
    for what in ("frames", "groups", "announcements", "fetches"):
        if total.get(f"lost_{what}"):
            faults.append(f"lost {total[f'lost_{what}']} {what}")
    if total.get("errors"):
        faults.append(f"{total['errors']} errors")
    offered, delivered = total.get("offered_per_s"), total.get("delivered_per_s")
    if offered and delivered is not None and delivered < KEEPS_UP * offered:
        faults.append(f"delivered {delivered / offered:.0%} of what was offered")
    busy = total.get("load", {}).get("cpu_share") or 0
    if busy > LOAD_BUSY:
        faults.append(f"the load client used {busy:.0%} of its core")
    return ", ".join(faults)


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float
    rounds: int

    @staticmethod
    def of(values: Iterable[float]) -> "Spread | None":
        values = list(values)
        if not values:
            return None
        return Spread(median(values), min(values), max(values), len(values))


def measured(runs: Iterable, of: Callable) -> dict[int, float]:
    """What each round measured, of runs that are of one kind; rounds that failed are not in it."""
    found = {run.round: of(run) for run in runs if not run.failure}
    return {round_: value for round_, value in found.items() if value is not None}


def by_round(runs: list[Run], figure: Figure, shape: str, mode: str) -> dict[int, float]:
    mine = [run for run in runs if (run.shape, run.mode) == (shape, mode)]
    return measured(mine, lambda run: figure.of(run.total))


def spread(runs: list[Run], figure: Figure, shape: str, mode: str) -> Spread | None:
    return Spread.of(by_round(runs, figure, shape, mode).values())


def best(runs: list[Run], figure: Figure, shape: str, modes: Iterable[str]) -> str | None:
    """The mode with the best median of this figure, whatever it lost meanwhile: a relay that
    drops frames has less to do, so this errs in its favour."""
    medians = {}
    for mode in modes:
        found = spread(runs, figure, shape, mode)
        if found is not None:
            medians[mode] = found.median
    if not medians:
        return None
    return (max if figure.higher_is_better else min)(medians, key=medians.__getitem__)


def ratio(above: dict[int, float], below: dict[int, float]) -> Spread | None:
    """The ratios of the rounds that have both."""
    rounds = sorted(above.keys() & below.keys())
    return Spread.of(above[n] / below[n] for n in rounds if below[n])
