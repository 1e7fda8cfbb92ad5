"""soak.sh: a small load for hours, and what becomes of the relay's memory."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from . import load, relay, terminal, tools
from .relay import Mode, Relay
from .tools import Trouble

DESCRIPTION = """\
Fifty tracks of ten groups per second with two viewers, for two hours, on a relay of its own with two
shards. Says once a minute what the relay holds, and at the end, in one line and a picture, by how
much that grows. Needs a few percent of a core.
"""
EPILOG = """\
example:
  scripts/soak.sh 10

environment: SHARDCAST_BIN, LOAD_BIN name finished programs to use instead of building them.
Exit status: 0 the memory stays where it is, 1 when it grows, or content was lost, or the load failed.
"""
SCENARIO = str(tools.ROOT / "bench/scenarios/soak.toml")
SAMPLE_SECONDS = 10
WARMUP_SECONDS = 3
# What the caches take in at first is no growth: the slope is taken from here on, or in a shorter run
# from its second quarter on.
SETTLED_SECONDS = 30 * 60
SLOPE_MAX = 1.0
SHARDS = 2
MIB = 1 << 20
# The picture: one column for so many samples that these do.
COLUMNS, ROWS = 72, 10

Sample = tuple[float, int]


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    try:
        words = Path(f"/proc/{pid}/statm").read_text().split()
    except FileNotFoundError as error:
        raise Trouble("the relay is gone") from error
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE")


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def slope(samples: list[Sample]) -> float:
    """MB per hour, by least squares."""
    if len(samples) < 2:
        raise Trouble("too short to see a slope")
    count = len(samples)
    mean_at = sum(at for at, _ in samples) / count
    mean = sum(size for _, size in samples) / count
    spread = sum((at - mean_at) ** 2 for at, _ in samples)
    along = sum((at - mean_at) * (size - mean) for at, size in samples)
    return along / spread * 3600 / 1e6


def settled(samples: list[Sample], seconds: float) -> list[Sample]:
    begin = min(SETTLED_SECONDS, seconds / 4)
    return [sample for sample in samples if sample[0] >= begin]


def picture(samples: list[Sample]) -> str:
    """Memory over time, from 0 up, in characters."""
    last = samples[-1][0] or 1.0
    columns: list[int] = [0] * min(COLUMNS, len(samples))
    for at, size in samples:
        n = min(len(columns) - 1, int(at / last * len(columns)))
        columns[n] = max(columns[n], size)
    top = max(columns)
    lines = []
    for row in range(ROWS, 0, -1):
        drawn = "".join("#" if size * ROWS > top * (row - 1) else " " for size in columns)
        label = f"{top / MIB * row / ROWS:8.1f} MiB |"
        lines.append((label + drawn).rstrip())
    lines.append(" " * 13 + "+" + "-" * len(columns))
    lines.append(" " * 14 + "0" + f"{last / 60:.0f} min".rjust(len(columns) - 1))
    return "\n".join(lines)


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/soak.sh", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", nargs="?", type=float, default=120.0, help="default: 120")
    parser.add_argument("--out", type=Path, default=tools.TARGET / "soak", metavar="DIR",
                        help="where samples and logs are left (default: target/soak)")
    chosen = parser.parse_args(words)
    if not 0.5 <= chosen.minutes <= 7 * 24 * 60:
        parser.error("minutes are from 0.5 on, and a week at most")
    return chosen


def watch(at: Relay, client: subprocess.Popen, seconds: float, out: Path) -> list[Sample]:
    """Samples until the load has ended."""
    samples: list[Sample] = []
    began = time.monotonic()
    said = 0
    with (out / "rss.csv").open("w", buffering=1) as table:
        table.write("second,rss_bytes\n")
        while client.poll() is None:
            now = time.monotonic() - began
            if now > seconds + load.SPARE_SECONDS:
                raise Trouble("the load does not end")
            if now >= WARMUP_SECONDS:
                samples.append((now, resident(at.pid)))
                table.write(f"{now:.0f},{samples[-1][1]}\n")
            if now >= said * 60:
                size, held = resident(at.pid) / MIB, files(at.pid)
                print(f"minute {said:3}: {size:.2f} MiB, {held} files", flush=True)
                said += 1
            try:
                client.wait(SAMPLE_SECONDS)
            except subprocess.TimeoutExpired:
                pass
    return samples


def main(words: list[str]) -> None:
    chosen = arguments(words)
    binary, program = tools.build("shardcast", "shardcast-load")
    out: Path = chosen.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    seconds = chosen.minutes * 60
    # No core of its own, and nothing before others: it is to run beside them.
    mine = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    words_of_relay = relay.shardcast(SHARDS, *relay.certificate(out), [])
    mode = Mode("soak", binary, words_of_relay, mine, is_first=False)
    report = out / "load.jsonl"
    with relay.running(mode, out / "relay.log") as at, (out / "load.log").open("w") as sink:
        client = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", program, "--url", at.url, "--relay-pid", str(at.pid),
             "--duration", f"{seconds:g}s", "--warmup", f"{WARMUP_SECONDS}s", "--json", report,
             "--quiet", SCENARIO],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        try:
            samples = watch(at, client, seconds, out)
        finally:
            if client.poll() is None:
                client.kill()
                client.wait()
    said = relay.last_words((out / "load.log").read_text(errors="replace"))
    total, failure = load.outcome(load.lines(report), client.returncode, said)
    if failure:
        raise Trouble(f"the load failed: {failure}")
    print(picture(samples))
    grows = slope(settled(samples, seconds))
    lost = total["lost_frames"] + total["errors"]
    is_good = grows <= SLOPE_MAX and lost == 0
    print(
        f"soak: {'ok' if is_good else 'MISSED'}: {chosen.minutes:g} min, "
        f"{total['delivered']} groups delivered, {lost} lost; {samples[0][1] / MIB:.2f} MiB at first, "
        f"{samples[-1][1] / MIB:.2f} at last, {grows:+.2f} MB/h once settled "
        f"(at most {SLOPE_MAX:g}); {100 * total['relay']['cpu_share']:.1f} % of a core")
    if not is_good:
        sys.exit(1)


if __name__ == "__main__":
    terminal.start(main, "soak", sys.argv[1:])
