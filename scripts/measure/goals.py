"""What the relay is meant to reach, and whether it does."""

from dataclasses import dataclass

from . import figures
from .figures import MEMORY, P99, PER_ANNOUNCEMENT, PER_COPY, SHARE, VIEWERS, Figure, Spread
from .load import Run
from .report import NOTHING, spread_text, table

PEERS = ("peer", "peer-workers", "peer-uring")
OURS = ("ours",)
CEILING = ("ceiling",)
SHARDS = ("ours-2shards",)

# Two crowds that are sent as many frames a second.
MANY, FEW = "chat:viewers=1000,rate=4", "chat:viewers=100,rate=40"
SEARCH = "video, most viewers"


@dataclass(frozen=True)
class Goal:
    """A figure of one side over that of another in the same round, or the figure by itself."""

    title: str
    figure: Figure
    # Scenario, and the modes of which the best counts.
    above: tuple[str, tuple[str, ...]]
    below: tuple[str, tuple[str, ...]] | None
    limit: float

    @property
    def at_least(self) -> bool:
        return self.figure.higher_is_better


def against_peers(scenario: str, limit: float, figure: Figure = PER_COPY) -> Goal:
    title = f"{scenario}: {figure.title.split(',')[0]}, ours / best peer"
    return Goal(title, figure, (scenario, OURS), (scenario, PEERS), limit)


def against_ceiling(scenario: str, limit: float = 1.15) -> Goal:
    title = f"{scenario}: {PER_COPY.title.split(',')[0]}, ours / ceiling"
    return Goal(title, PER_COPY, (scenario, OURS), (scenario, CEILING), limit)


GOALS = (
    against_peers("chat", 0.22),
    against_peers("video", 0.25),
    against_peers("audio", 0.40),
    against_peers("hd", 0.40),
    against_peers("rooms", 0.33),
    against_peers("meeting", 0.30),
    *(against_ceiling(scenario, 0.90) for scenario in ("chat", "video")),
    *(against_ceiling(scenario) for scenario in ("audio", "hd", "rooms")),
    *(against_peers(scenario, 0.50, P99) for scenario in ("chat", "video", "audio", "hd", "rooms")),
    against_peers("meeting", 0.60, P99),
    against_peers(SEARCH, 2.0, VIEWERS),
    Goal("idle: KiB per connection, ours", MEMORY, ("idle", OURS), None, 18),
    against_peers("idle", 0.35, MEMORY),
    against_peers("idle", 0.30, SHARE),
    Goal("chat: CPU per delivered frame, 2 shards / 1 shard", PER_COPY,
         ("chat", SHARDS), ("chat", OURS), 1.10),
    Goal("chat: CPU per delivered frame, 1,000 viewers / 100 viewers", PER_COPY,
         (MANY, OURS), (FEW, OURS), 1.10),
    against_peers("announce", 0.50, PER_ANNOUNCEMENT),
)


def side(runs: list[Run], figure: Figure, shape: str, modes: tuple[str, ...]) -> dict[int, float]:
    mode = figures.best(runs, figure, shape, modes)
    return {} if mode is None else figures.by_round(runs, figure, shape, mode)


def reached(goal: Goal, runs: list[Run]) -> Spread | None:
    above = side(runs, goal.figure, *goal.above)
    if goal.below is None:
        return Spread.of(above.values())
    return figures.ratio(above, side(runs, goal.figure, *goal.below))


def verdict(goal: Goal, found: Spread | None) -> str:
    if found is None:
        return "not measured"
    met = found.median >= goal.limit if goal.at_least else found.median <= goal.limit
    return "reached" if met else "missed"


def judgement(runs: list[Run]) -> str:
    rows = []
    for goal in GOALS:
        found = reached(goal, runs)
        sign = "≥" if goal.at_least else "≤"
        rows.append([
            goal.title, f"{sign} {goal.limit:g}", spread_text(found, 2) if found else NOTHING,
            verdict(goal, found),
        ])
    return table(["Figure", "Goal", "Measured", "Verdict"], rows)
