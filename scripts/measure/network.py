"""Where the relay and the load meet: on loopback, or in network namespaces with a pair of virtual Ethernet."""

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator

from .tools import Trouble, need

RELAY_ADDRESS, LOAD_ADDRESS = "10.203.0.1", "10.203.0.2"


@dataclass(frozen=True)
class Network:
    """Where the relay listens, and what begins the command of either."""

    address: str = "127.0.0.1"
    relay: tuple[str, ...] = ()
    load: tuple[str, ...] = ()


LOOPBACK = Network()


def ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, timeout=10)
    if done.returncode:
        root = "" if os.geteuid() == 0 else " (network namespaces take root)"
        raise Trouble(f"ip {words}: {done.stderr.strip()}{root}")


@contextmanager
def veth() -> Iterator[Network]:
    """Packets take the kernel's way of a network card: queues, its share of a turn, and what wakes the receiver there."""
    need("ip", "iproute2")
    relay, load = (f"shardcast-{side}-{os.getpid()}" for side in ("relay", "load"))
    try:
        for name in (relay, load):
            ip(f"netns add {name}")
        ip(f"-n {relay} link add eth0 type veth peer name eth0 netns {load}")
        for name, address in ((relay, RELAY_ADDRESS), (load, LOAD_ADDRESS)):
            ip(f"-n {name} addr add {address}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
            ip(f"-n {name} link set lo up")
        within = [("ip", "netns", "exec", name) for name in (relay, load)]
        yield Network(RELAY_ADDRESS, *within)
    finally:
        # Its end of the pair goes with either.
        for name in (relay, load):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=10)
