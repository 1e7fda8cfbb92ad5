"""How a program begins and ends: signals, errors in one line."""

import signal
import sys
from typing import Callable

from .tools import Trouble, say


def minutes(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 100 else f"{round(whole / 60)} min"


def stop(*_: object) -> None:
    # As Ctrl-C: relays and load are ended on the way out.
    raise KeyboardInterrupt


def start(main: Callable[[list[str]], None], name: str, words: list[str]) -> None:
    signal.signal(signal.SIGTERM, stop)
    try:
        main(words)
    except Trouble as trouble:
        say(f"{name}: {trouble}")
        sys.exit(1)
    except KeyboardInterrupt:
        say(f"{name}: interrupted")
        sys.exit(130)
