"""Programs that the measuring needs: found, built or installed, or named in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
# What pgo.sh works in, and leaves its program in.
PGO = TARGET / "pgo"
# Builds from nothing on two slow cores take a quarter of an hour, the other relay's two.
BUILD_SECONDS = 3600

PEER_VERSION = "0.17.10"
INFERNO_VERSION = "0.12.8"
MATPLOTLIB = "matplotlib==3.11.2"


class Trouble(Exception):
    """What the person at the terminal has to know and can do something about."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def need(command: str, package: str) -> str:
    path = shutil.which(command)
    if path is None:
        raise Trouble(f"{command} is missing; run: apt-get install {package}")
    return path


def run(command: list, what: str, seconds: int = BUILD_SECONDS, env: dict | None = None) -> None:
    """Runs something long and shows what it says, on standard error."""
    try:
        status = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=sys.stderr,
            timeout=seconds,
        ).returncode
    except FileNotFoundError as error:
        raise Trouble(f"{what}: {error.filename} is missing") from error
    except subprocess.TimeoutExpired as error:
        raise Trouble(f"{what} took more than {seconds} s") from error
    if status != 0:
        raise Trouble(f"{what} failed: {' '.join(str(part) for part in command)}")


def given(variable: str) -> Path | None:
    """A program that the environment names instead of the one that would be built."""
    if variable not in os.environ:
        return None
    path = Path(os.environ[variable]).absolute()
    if not os.access(path, os.X_OK):
        raise Trouble(f"{variable}={path} is not a program")
    return path


# Package, and the variable that names a finished program of it.
OURS = {
    "shardcast": "SHARDCAST_BIN",
    "shardcast-load": "LOAD_BIN",
    "shardcast-ceiling": "CEILING_BIN",
    "shardcast-link": "LINK_BIN",
}


def build(*packages: str) -> list[Path]:
    """The release programs of these packages, built where the environment names none."""
    missing = [package for package in packages if given(OURS[package]) is None]
    if missing:
        say(f"building {', '.join(missing)} (minutes the first time)")
        # All together: chosen alone, each would have its dependencies with other features, and
        # they would be built again.
        run(["cargo", "build", "--release", "--workspace", "--bins"], "the build")
    return [given(OURS[package]) or TARGET / "release" / package for package in packages]


def example(name: str, variable: str, kind: str) -> Path:
    """The clients of an example, built for `debug` or `release` where the environment names none."""
    path = given(variable)
    if path is None:
        run(["cargo", "build", *{"debug": [], "release": ["--release"]}[kind], "--example", name],
            "the build of the clients")
        path = TARGET / kind / "examples" / name
    return path


def guided() -> Path:
    """The relay that pgo.sh has built."""
    path = given("SHARDCAST_PGO_BIN") or PGO / "shardcast"
    if not path.exists():
        raise Trouble(f"there is no {path}; run scripts/pgo.sh, which takes a quarter of an hour")
    return path


def installed(crate: str, version: str) -> bool:
    notes = ROOT / "target/tools/.crates.toml"
    return notes.exists() and f'"{crate} {version} ' in notes.read_text()


def peer() -> Path:
    """moq-relay, built like ours."""
    path = given("PEER_RELAY")
    if path is not None:
        return path
    if not installed("moq-relay", PEER_VERSION):
        say(f"building moq-relay {PEER_VERSION} (half an hour on slow cores; once)")
        # Without --locked, because its lock file names a version that the registry lacks.
        run(
            ["cargo", "install", "moq-relay", "--version", PEER_VERSION, "--no-default-features",
             "--features", "noq,io-uring,websocket", "--root", ROOT / "target/tools"],
            "building moq-relay",
            env={"CARGO_PROFILE_RELEASE_LTO": "thin", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "4"},
        )
    return ROOT / "target/tools/bin/moq-relay"


def inferno() -> Path:
    """The folder with inferno's programs."""
    if not installed("inferno", INFERNO_VERSION):
        say(f"building inferno {INFERNO_VERSION} (some minutes; once)")
        run(
            ["cargo", "install", "inferno", "--version", INFERNO_VERSION, "--locked",
             "--root", ROOT / "target/tools"],
            "building inferno",
        )
    return ROOT / "target/tools/bin"


def chart_python() -> Path:
    """A Python that has matplotlib, and nothing to do with the system's."""
    venv = ROOT / "target/measure-venv"
    python = venv / "bin/python"
    name, wanted = MATPLOTLIB.split("==")
    ask = f"from importlib.metadata import version; print(version('{name}'))"
    if python.exists():
        answer = subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout
        if answer.strip() == wanted:
            return python
    say(f"installing {MATPLOTLIB} into {venv}")
    run([sys.executable, "-m", "venv", venv], "making a Python environment", 300)
    run([venv / "bin/pip", "install", "-q", MATPLOTLIB], "installing matplotlib", 600)
    return python
