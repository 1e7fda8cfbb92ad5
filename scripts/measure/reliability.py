"""reliability.sh: the figures of docs/SPECIFICATION.md, row by row."""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import relay, terminal, tools
from .tools import Trouble

DESCRIPTION = """\
Measures rows of docs/SPECIFICATION.md one after the other, on the relay as it is released, and prints a
line for each: its number, ok or MISSED, what is promised, what was measured. Without numbers that is all
of them but 1 (hours of fuzzing) and 21 (a soak of two hours), and takes about half an hour. Rows with a
latency want a machine that does nothing else.
"""
EPILOG = """\
example:
  scripts/reliability.sh 4 16

environment: SHARDCAST_BIN, CEILING_BIN name finished programs to use instead of building them.
Exit status: 0 every row is ok, 1 some are not. What each row has said is in target/reliability.
"""
# Beyond this a row hangs.
ROW_SECONDS = 1800
LINES_SHOWN = 12
# Of shardcast-handover: microseconds that a turn of a busy relay lasts, and that mail may take.
TURN, MAIL_MAX = "500", 1000


@dataclass(frozen=True)
class Row:
    promise: str
    command: list[str]
    # Of what it says, the lines with what was measured.
    told: str
    environment: dict[str, str] = field(default_factory=dict)
    is_asked_for: bool = False


def test(promise: str, file: str, names: str, told: str, is_long: bool = False, **more: str) -> Row:
    """A row that tests hold, whose assertions judge."""
    words = ["cargo", "test", "--test", file, "--", *names.split(), "--nocapture"]
    return Row(promise, words + ["--ignored"] * is_long, told, more)


ROWS = {
    1: Row("mutated control and group streams: no panic, none takes 10 ms, memory by what came",
           ["scripts/fuzz.sh", "session"], "inputs", is_asked_for=True),
    2: test("a million damaged datagrams: no crash, no group lost", "drills", "noise_harms_nobody",
            "received|nothing lost", NOISE_DATAGRAMS="1000000"),
    3: test("a thousand random plays, each twice: no failure, the same history", "sim",
            "random_peers", "plays$|^test result", SIM_REPLAYED="1"),
    4: test("a viewer that never reads: 2 MiB at most, others lose nothing", "endurance",
            "one_never_reads", "^figure", is_long=True),
    5: test("a hundred of them: 2 MiB each at most, others lose nothing", "endurance",
            "a_hundred_never_read", "^figure", is_long=True),
    6: test("a link at a quarter of the bitrate: groups whole or reset, the newest 2 behind at most",
            "links", "a_quarter_of_the_bitrate", "behind at most"),
    7: test("a publisher dies: errors within its idle timeout and 1.5 s", "drills",
            "a_publisher_dies_and_returns", " after "),
    8: test("and returns: groups within 1 s", "drills", "a_publisher_dies_and_returns", "^back"),
    9: test("the relay is killed and back: 100 clients know within 2 s", "drills",
            "a_relay_that_is_killed", "told after"),
    10: test("SIGTERM beside fifty viewers: exit 0 within 5 s, and no false end", "drills",
             "the_relay_leaves_while_fifty_watch", "after"),
    11: test("loss of 1, 5 and 10 %: every group whole", "links", "what_a_link_loses", "all whole"),
    12: test("fifty handshakes at 30 % loss each way: within 300 s", "links", "handshakes_pass",
             "clients in"),
    13: test("silence: shorter than the idle timeout goes on, longer ends", "links",
             "falls_silent", "silence"),
    14: test("datagrams late and twice: no group lost or repeated", "links", "what_overtakes",
             "in order"),
    15: test("twenty ports for each client on four shards: nothing lost or astray", "steering",
             "on_four_shards", "ports"),
    16: test("a flood of Initials: 64 MiB at most, Retry, at most 3 times what was sent",
             "endurance", "a_flood_of_initials", "^figure", is_long=True),
    17: test("ten thousand connections come and go: nothing stays", "drills",
             "a_thousand_come_and_go", "connections in|files", CHURN_CONNECTIONS="10000"),
    18: test("a thousand that say nothing, half of it, or a byte a second: closed after 5 s",
             "drills", "silent_peers", "silent peers", SILENT_PEERS="1000"),
    19: test("bounds that a peer reaches, at their most and at one more", "limits", "", "works, and"),
    20: test("viewers of a silent track: 100 KiB each at most", "endurance",
             "a_thousand_wait_for_a_silent_track", "^figure", is_long=True),
    21: Row("two hours of fifty tracks: 1 MB/h at most", ["scripts/soak.sh"], "^soak: ",
            is_asked_for=True),
    22: test("ten times what the cache holds: 1.25 times its size at most", "endurance",
             "ten_caches_full_leave_one", "^figure", is_long=True),
    23: Row("mail between busy shards: p99 1 ms at most",
            ["shardcast-handover", "--duration", "3"], rf"turn|^ *{TURN} "),
    24: test("a shard that stalls for half a second: 50 ms at most elsewhere", "sim",
             "a_shard_that_stalls", "stalls"),
    25: test("a start that cannot be: one line that says why, at once", "startup",
             "refused port_of too_ forbidden", "^test result"),
    26: test("what is looked for does not come by itself", "links", "without_a_publisher",
             "^test result"),
}


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/reliability.sh", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="*", type=int, metavar="ROW")
    parser.add_argument("--list", action="store_true", help="say what each row runs, and end")
    chosen = parser.parse_args(words)
    unknown = [number for number in chosen.row if number not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]}; rows are 1 to {max(ROWS)}")
    return chosen


def has_run(row: Row, said: str) -> bool:
    """A test that is not there would pass."""
    if row.command[0] != "cargo":
        return True
    passed = re.search(r"^test result: ok\. (\d+) passed", said, re.MULTILINE)
    return passed is not None and int(passed[1]) > 0


def is_prompt(said: str) -> bool:
    """Whether mail between shards whose turns are a busy relay's takes no longer than it may."""
    lines = [line.split() for line in said.splitlines()]
    return any(words[:1] == [TURN] and float(words[3]) <= MAIL_MAX for words in lines)


def measured(row: Row, said: str) -> str:
    told = [line.strip() for line in said.splitlines() if re.search(row.told, line)]
    told = [re.sub(r"; 0 failed.*finished in", ", in", line.removeprefix("figure: ")) for line in told]
    return "; ".join(told[-LINES_SHOWN:])


def measure(number: int, row: Row, programs: dict[str, Path], out: Path) -> bool:
    log = out / f"{number}.log"
    words = [str(programs.get(word, word)) for word in row.command]
    if row.command[0] == "shardcast-handover":
        # What else runs on its cores would be measured too.
        words = [*relay.first(), *words]
    # The drills' client is built as it is; the relay is the one that is released.
    environment = {**os.environ, "SHARDCAST_BIN": str(programs["shardcast"]), **row.environment}
    began = time.monotonic()
    with log.open("w") as sink:
        try:
            status = subprocess.run(
                words, cwd=tools.ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=sink,
                stderr=subprocess.STDOUT, timeout=None if row.is_asked_for else ROW_SECONDS,
            ).returncode
        except FileNotFoundError as error:
            raise Trouble(f"row {number} needs {error.filename}") from error
        except subprocess.TimeoutExpired:
            status = None
    said = log.read_text(errors="replace")
    is_ok = status == 0 and has_run(row, said)
    if row.command[0] == "shardcast-handover":
        is_ok = is_ok and is_prompt(said)
    spent = time.monotonic() - began
    verdict = "ok" if is_ok else "MISSED"
    found = measured(row, said) or f"see {log}"
    print(f"{number:2} {verdict:6} {spent:4.0f} s  {row.promise} | {found}", flush=True)
    return is_ok


def main(words: list[str]) -> None:
    chosen = arguments(words)
    numbers = chosen.row or [n for n, row in ROWS.items() if not row.is_asked_for]
    if chosen.list:
        for number in numbers:
            row = ROWS[number]
            more = [f"{name}={value}" for name, value in row.environment.items()]
            print(f"{number:2}  {row.promise}\n      {' '.join([*more, *row.command])}")
        return
    ours, ceiling = tools.build("shardcast", "shardcast-ceiling")
    programs = {"shardcast": ours, "shardcast-handover": ceiling.with_name("shardcast-handover")}
    out = tools.TARGET / "reliability"
    out.mkdir(parents=True, exist_ok=True)
    missed = [n for n in numbers if not measure(n, ROWS[n], programs, out)]
    if missed:
        raise Trouble(f"missed: {', '.join(map(str, missed))}")


if __name__ == "__main__":
    terminal.start(main, "reliability", sys.argv[1:])
