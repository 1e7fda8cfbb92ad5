"""Relays to measure: how each is started, and one that runs."""

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Iterator

from . import tools
from .network import LOOPBACK, RELAY_ADDRESS, Network

# From the start of the process to its line that it listens.
START_SECONDS = 20
STOP_SECONDS = 3

LISTENS = re.compile(r'listening\b.*\baddr=(\S+).*\bkind="?quic\b')
# What the ceiling program speaks: fan-out, and nothing else.
FAN_OUT = frozenset({"chat", "video", "hd", "audio", "rooms", "meeting"})


class NotStarted(tools.Trouble):
    """The relay ended, or did not listen."""


@dataclass(frozen=True)
class Mode:
    """One way to run one relay. Its arguments are all but the address to listen on."""

    name: str
    binary: Path
    arguments: tuple[str, ...] = ()
    # Cores that it may use.
    cores: str = "0"
    # The scenarios that it can serve; all when None.
    scenarios: frozenset[str] | None = None
    # Whether it comes before ordinary programs on its cores.
    is_first: bool = True

    def serves(self, scenario: str) -> bool:
        return self.scenarios is None or scenario in self.scenarios


@dataclass(frozen=True)
class Relay:
    pid: int
    url: str


def certificate(folder: Path) -> tuple[Path, Path]:
    """One certificate for all relays: io_uring workers of moq-relay want one from a file."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [tools.need("openssl", "openssl"), "req", "-x509", "-newkey", "ec",
         "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "10",
         "-subj", "/CN=localhost", "-addext",
         f"subjectAltName=DNS:localhost,IP:127.0.0.1,IP:{RELAY_ADDRESS}",
         "-keyout", key, "-out", cert],
        check=True, capture_output=True, timeout=30,
    )
    return cert, key


def open_to_all(cert: Path, key: Path) -> tuple[str, ...]:
    """What both relays take alike."""
    return ("--listen-tls-cert", str(cert), "--listen-tls-key", str(key), "--auth-public", "**")


def shardcast(shards: int, cert: Path, key: Path, more: list[str]) -> tuple[str, ...]:
    return (
        "--shards", str(shards), *open_to_all(cert, key), "--web-http-listen", "off",
        "--drain-timeout", "0s", *more,
    )


def ours(binary: Path, folder: Path, shards: int, cores: str, more: list[str]) -> Mode:
    """Our relay by itself, with a certificate that lives as long as this folder."""
    return Mode("ours", binary, shardcast(shards, *certificate(folder), more), cores)


def modes(names: list[str], cert: Path, key: Path, core: str, two_cores: str) -> list[Mode]:
    """The named modes, with their programs built."""
    peer = open_to_all(cert, key)
    workers = (*peer, "--runtime-workers", "1")

    def own(name: str, binary: Path, shards: int, cores: str) -> Mode:
        return Mode(name, binary, shardcast(shards, cert, key, []), cores)

    known = {
        "ours": lambda name: own(name, tools.build("shardcast")[0], 1, core),
        "ours-pgo": lambda name: own(name, tools.guided(), 1, core),
        "ours-2shards": lambda name: own(name, tools.build("shardcast")[0], 2, two_cores),
        "ceiling": lambda name: Mode(
            name, tools.build("shardcast-ceiling")[0], (), core, FAN_OUT),
        "peer": lambda name: Mode(name, tools.peer(), peer, core),
        "peer-workers": lambda name: Mode(name, tools.peer(), workers, core),
        "peer-uring": lambda name: Mode(
            name, tools.peer(), (*workers, "--runtime-io-uring"), core),
    }
    for name in names:
        if name not in known:
            raise tools.Trouble(f"no mode {name}; there are {', '.join(known)}")
    return [known[name](name) for name in names]


def environment() -> dict[str, str]:
    """Ours without what would configure a relay behind our back, or colour its log."""
    own = ("MOQ_", "SHARDCAST_", "RUST_LOG")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**kept, "NO_COLOR": "1"}


def last_words(said: str) -> str:
    """Why a program ended: the line that it calls an error, else the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return [*lines[-1:], *errors[:1]][-1] if lines else "it says nothing"


def pinned(
    cores: str, command: list, is_first: bool = True, within: tuple[str, ...] = ()
) -> list[str]:
    """A command that keeps to these cores, before ordinary programs there, and dies with us."""
    words = [*within, *(str(word) for word in command)]
    ahead = first() if is_first else ()
    return ["setpriv", "--pdeathsig", "KILL", *ahead, "taskset", "-c", cores, *words]


@cache
def first() -> tuple[str, ...]:
    """Real time where this user may have it: what else runs on a core would be measured too, as
    latency and as cold caches."""
    command = ("chrt", "--rr", "1")
    may = subprocess.run([*command, "true"], capture_output=True, timeout=10).returncode == 0
    return command if may else ()


@contextmanager
def running(mode: Mode, log: Path, where: Network = LOOPBACK) -> Iterator[Relay]:
    """A fresh process of this relay, from the moment it listens."""
    command = [mode.binary, "--listen", f"{where.address}:0", *mode.arguments]
    with log.open("w") as sink:
        process = subprocess.Popen(
            pinned(mode.cores, command, mode.is_first, where.relay), stdout=sink,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment(),
        )
    try:
        yield Relay(process.pid, f"moqt://{address(process, log)}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # moq-relay waits for sessions to leave, and nothing hangs on it here.
            process.kill()
            process.wait()


def address(process: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while True:
        said = log.read_text(errors="replace")
        found = LISTENS.search(said)
        if found:
            return found.group(1)
        if process.poll() is not None:
            raise NotStarted(f"it did not start: {last_words(said)}")
        if time.monotonic() > deadline:
            raise NotStarted(f"it does not listen after {START_SECONDS} s: {last_words(said)}")
        time.sleep(0.05)
