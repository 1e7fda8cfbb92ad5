"""Somebody who takes a share of a core, so that the relay has the rest: where a load client can bear no more than a
whole core of the relay does, the relay is given less, and what that bears is measured."""

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Iterator

from .relay import first, pinned
from .tools import Trouble, need

# Far below what viewers notice.
PERIOD_SECONDS = 0.001


def spin(share: float) -> None:
    """Takes this share of each period, whatever else wants the core."""
    begins = time.monotonic()
    while True:
        while time.monotonic() < begins + share * PERIOD_SECONDS:
            pass
        begins = max(begins + PERIOD_SECONDS, time.monotonic())
        time.sleep(max(0.0, begins - time.monotonic()))


@contextmanager
def taking(share: float, core: str) -> Iterator[None]:
    """Before the relay, which is before all others."""
    if share == 0:
        yield
        return
    need("chrt", "util-linux")
    if not first():
        raise Trouble("--relay-share takes root: nobody else may come before the relay")
    command = ["chrt", "--rr", "2", sys.executable, "-m", "measure.rival", str(share)]
    # Who interrupts us is to have the tables of what was measured.
    process = subprocess.Popen(
        pinned(core, command, is_first=False), stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    spin(float(sys.argv[1]))
