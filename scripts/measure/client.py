"""A client that measures, and says what it saw in one line of JSON."""

import json
import subprocess

from . import relay


def told(core: str, command: list, seconds: float) -> tuple[dict, str]:
    """What it said, or why that is nothing."""
    try:
        done = subprocess.run(
            relay.pinned(core, command), capture_output=True, text=True, timeout=seconds,
            env=relay.environment())
    except subprocess.TimeoutExpired as error:
        return {}, str(error)
    if done.returncode != 0:
        return {}, relay.last_words(done.stderr)
    return json.loads(done.stdout), ""
