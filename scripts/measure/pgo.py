"""pgo.sh: the relay built twice, the second time knowing what ran in the first."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import load, relay, terminal, tools
from .load import Span
from .tools import Trouble, say

DESCRIPTION = """\
Builds the relay with counters, has it serve every scenario of load for some seconds, and builds it
again, as one unit, so that what was used most is inlined and laid out together. The second
program is left in target/pgo/shardcast. It does what any other build does, for less;
docs/PERFORMANCE.md says how much less.
"""
EPILOG = """\
example:
  scripts/pgo.sh chat video

Needs llvm-profdata, of the toolchain (rustup component add llvm-tools) or of the system
(apt-get install llvm-19), and a quarter of an hour on two slow cores.
environment: LOAD_BIN names a finished load client; RUSTFLAGS are kept.
Exit status: 0 built, 1 something is missing or failed.
"""
# All that the relay does at any rate. `idle` would teach it to wait.
SCENARIOS = "chat video audio hd rooms meeting announce fetch"
# The first that reads profiles as Rust 1.95 writes them.
LLVM_MIN = 19
LLVM_MAX = 40
MERGE_SECONDS = 300


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/pgo.sh", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", default=SCENARIOS.split(),
                        help=f"to train with (default: {SCENARIOS})")
    parser.add_argument("--duration", type=load.seconds, default=5.0, metavar="SPAN",
                        help="of each (default: 5s)")
    parser.add_argument("--relay-core", default="0", metavar="N", help="default: 0")
    parser.add_argument("--load-core", default="1", metavar="N", help="default: 1")
    chosen = parser.parse_args(words)
    chosen.shapes = load.shapes(parser, chosen.scenario)
    # The load client would say so after the first build.
    for shape in chosen.shapes:
        known = tools.ROOT / f"bench/scenarios/{shape.scenario}.toml"
        if not known.exists() and not Path(shape.scenario).exists():
            parser.error(f"there is no scenario {shape.scenario}")
    return chosen


def asked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise Trouble(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def profdata() -> str:
    """llvm-profdata: the toolchain's own, else the newest of the system's that reads what this compiler writes."""
    own = Path(asked("rustc", "--print", "target-libdir")).parent / "bin/llvm-profdata"
    versions = range(LLVM_MAX, LLVM_MIN - 1, -1)
    names = [str(own), *(f"llvm-profdata-{n}" for n in versions), "llvm-profdata"]
    found = [path for path in map(shutil.which, names) if path]
    # Found out now, and not after the first build.
    with tempfile.TemporaryDirectory() as folder:
        sample(Path(folder))
        for tool in found:
            if merged(tool, Path(folder)) is None:
                return tool
    tried = f" ({', '.join(found)} cannot)" if found else ""
    raise Trouble(f"there is no llvm-profdata that reads profiles of {asked('rustc', '--version')}{tried};"
                  f" run: rustup component add llvm-tools, or apt-get install llvm-{LLVM_MIN}")


def sample(folder: Path) -> None:
    """Leaves the profile of a program that does nothing."""
    (folder / "main.rs").write_text("fn main() {}\n")
    program = str(folder / "main")
    asked("rustc", f"-Cprofile-generate={folder}", "-o", program, str(folder / "main.rs"))
    asked(program)


def build(folder: Path, target: str, flag: str) -> Path:
    # With a target named, build scripts and macros are built without the flag.
    tools.run(
        ["cargo", "build", "--release", "--bin", "shardcast", "--target", target], "the build",
        env={
            "CARGO_TARGET_DIR": str(folder),
            # Worth their minutes here, and a few percent.
            "CARGO_PROFILE_RELEASE_LTO": "fat",
            "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "1",
            "RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} {flag}".strip(),
        },
    )
    return folder / target / "release/shardcast"


def train(binary: Path, chosen: argparse.Namespace, logs: Path) -> None:
    (client,) = tools.build("shardcast-load")
    span = Span(chosen.duration, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        mode = relay.ours(binary, Path(folder), 1, chosen.relay_core, [])
        for shape in chosen.shapes:
            say(f"training with {shape.label}")
            name = shape.label.replace("/", "_")
            with relay.running(mode, logs / f"{name}.relay.log") as at:
                _, failure = load.measure(
                    client, shape, at, span, chosen.load_core, logs / f"{name}.jsonl")
            if failure:
                raise Trouble(f"{shape.label} failed: {failure}")


def merge(tool: str, raw: Path, profile: Path) -> None:
    # Written when a process ends by itself.
    if not any(raw.glob("*.profraw")):
        raise Trouble(f"the relay left no profile in {raw}")
    fault = merged(tool, raw, profile)
    if fault is not None:
        raise Trouble(f"{tool} does not read the profile ({fault})")


def merged(tool: str, raw: Path, profile: Path = Path(os.devnull)) -> str | None:
    """What was wrong with it, if something was."""
    found = [str(path) for path in raw.glob("*.profraw")]
    done = subprocess.run(
        [tool, "merge", "--sparse", "-o", str(profile), *found], capture_output=True, text=True,
        timeout=MERGE_SECONDS)
    return None if done.returncode == 0 else done.stderr.strip()


def main(words: list[str]) -> None:
    chosen = arguments(words)
    tools.need("taskset", "util-linux")
    tool = profdata()
    target = asked("rustc", "--print", "host-tuple")
    folder = tools.PGO
    raw, profile, logs = folder / "raw", folder / "shardcast.profdata", folder / "logs"
    shutil.rmtree(raw, ignore_errors=True)
    logs.mkdir(parents=True, exist_ok=True)
    say("1/3: building the relay with counters (minutes)")
    counting = build(folder / "counting", target, f"-Cprofile-generate={raw}")
    say("2/3: letting it serve")
    train(counting, chosen, logs)
    merge(tool, raw, profile)
    say("3/3: building it again for what it did (minutes)")
    # Cargo does not see that the profile has changed.
    shutil.rmtree(folder / "guided", ignore_errors=True)
    guided = build(folder / "guided", target, f"-Cprofile-use={profile}")
    done = folder / "shardcast"
    shutil.copy2(guided, done)
    print(done)
    say("compare it with: scripts/compare.sh --modes ours,ours-pgo")


if __name__ == "__main__":
    terminal.start(main, "pgo", sys.argv[1:])
