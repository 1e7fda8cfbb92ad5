"""One Python client (moq-rs) for the plays in tests/*.rs, with functions as browser/page.js has them.

A line on standard input is a number, a name that only the driver of pages needs, and a call; the
answer is a line with the same number, `ok` or `error`, and what it came to.
"""

import asyncio
import sys

import moq

# The clock of the plays' timestamps. This client counts microseconds.
TICKS_PER_SECOND = 90_000
MICROSECONDS_PER_SECOND = 1_000_000

# Nothing of a play is ever too old to be kept or delivered.
MAX_AGE_US = 60_000_000

SUBSCRIPTION = moq.Subscription(priority=0, max_age_us=MAX_AGE_US)


def microseconds(ticks: int) -> int:
    """The first microsecond of a tick, which the way back leads to the same tick."""
    return -(-ticks * MICROSECONDS_PER_SECOND // TICKS_PER_SECOND)


def stamp(timestamp_us: int) -> str:
    """The tick that is nearest, in the words of the plays."""
    return f"{round(timestamp_us * TICKS_PER_SECOND / MICROSECONDS_PER_SECOND)}/{TICKS_PER_SECOND}"


class Actor:
    """What the plays can ask for. What a function tells is one line of text."""

    def __init__(self) -> None:
        # An announcement lasts as long as its broadcast is held.
        self.broadcasts: dict[str, moq.BroadcastProducer] = {}
        self.tracks: dict[str, moq.TrackProducer] = {}

    async def connect(self, url: str, sha256: str) -> None:
        # Two origins, so that nothing is heard but what the relay says.
        self.publishes, self.views = moq.OriginProducer(), moq.OriginProducer()
        # Without WebSocket: a fallback would hide what QUIC could not do.
        self.client = moq.connect(
            url,
            tls_fingerprints=[sha256],
            tls_system_roots=False,
            bind="127.0.0.1:0",
            websocket_enabled=False,
            reconnect=False,
            publish=self.publishes,
            subscribe=self.views,
        )
        await self.client.__aenter__()
        self.announced = self.views.consume().announced()

    async def leave(self) -> None:
        await self.client.__aexit__(None, None, None)

    async def announce(self, path: str, name: str) -> None:
        broadcast = self.publishes.create_broadcast(path)
        info = moq.TrackInfo(timescale=TICKS_PER_SECOND, max_age_us=MAX_AGE_US, priority=0)
        self.tracks[name] = broadcast.publish_track(name, info)
        broadcast.announce()
        self.broadcasts[path] = broadcast

    async def replace(self, path: str, name: str) -> None:
        """A broadcast ends, and the next one of its name begins at once."""
        self.tracks[name].finish()
        self.broadcasts[path].close()
        await self.announce(path, name)

    async def write(self, name: str, sequence: int, frames: list[tuple[int, str]]) -> None:
        group = self.tracks[name].create_group(sequence)
        for ticks, payload in frames:
            group.write_frame(bytes.fromhex(payload), microseconds(ticks))
        group.finish()

    async def send(self, name: str, ticks: int, payload: str) -> int:
        return self.tracks[name].append_datagram(bytes.fromhex(payload), microseconds(ticks))

    async def finish(self, name: str) -> None:
        self.tracks[name].finish()

    async def hear(self) -> str:
        async for update in self.announced:
            return f"{update.prefix} {'up' if update.active else 'down'}"
        return "end"

    async def subscribe(self, path: str, name: str) -> None:
        broadcast = await self.views.consume().request_broadcast(path)
        self.subscription = await broadcast.subscribe_track(name, SUBSCRIPTION)

    async def subscribePast(self, path: str, name: str) -> None:
        """All that the relay holds, from the first group on."""
        wanted = moq.Subscription(priority=0, max_age_us=MAX_AGE_US, group_start=0)
        broadcast = await self.views.consume().request_broadcast(path)
        self.subscription = await broadcast.subscribe_track(name, wanted)

    async def next(self) -> str:
        """The next group in sequence order, which passes over what comes after something newer."""
        group = await self.subscription.next_group()
        return "end" if group is None else await self.read(group)

    async def group(self) -> str:
        group = await self.subscription.recv_group()
        return "end" if group is None else await self.read(group)

    async def receive(self) -> str:
        datagram = await self.subscription.recv_datagram()
        if datagram is None:
            return "end"
        return f"{datagram.sequence} {stamp(datagram.timestamp_us)}:{datagram.payload.hex()}"

    async def fetchGroup(self, path: str, name: str, sequence: int) -> str:
        broadcast = await self.views.consume().request_broadcast(path)
        return await self.read(await broadcast.fetch_group(name, sequence))

    async def read(self, group: moq.GroupConsumer) -> str:
        frames = [f"{stamp(frame.timestamp_us)}:{frame.payload.hex()}" async for frame in group]
        return " ".join([str(group.sequence), *frames])


async def answer(actor: Actor, line: str) -> None:
    number, _, call = line.rstrip("\n").split(" ", 2)
    try:
        told = await eval(f"actor.{call}", {"actor": actor})
        print(number, "ok", "" if told is None else told, flush=True)
    except Exception as error:
        print(number, "error", " ".join(f"{type(error).__name__} {error}".split()), flush=True)


async def main() -> None:
    actor, loop, calls = Actor(), asyncio.get_running_loop(), set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        call = asyncio.create_task(answer(actor, line))
        calls.add(call)
        call.add_done_callback(calls.discard)


asyncio.run(main())
