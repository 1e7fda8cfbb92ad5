"""One end of the video demonstration: publishes a file through the relay, or watches it there.

Run by demo-video.sh, which gives each end a process and a session of its own.
"""

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import moq

# Nothing of the file is ever too old for the viewer, however slow the machine.
MAX_AGE_US = 60_000_000


def access_units(stream: bytes) -> Iterator[bytes]:
    """Cuts an Annex-B H.264 stream where each access unit delimiter starts a picture."""
    delimiter = b"\x00\x00\x00\x01\x09"
    start = stream.find(delimiter)
    while start >= 0:
        end = stream.find(delimiter, start + len(delimiter))
        yield stream[start:] if end < 0 else stream[start:end]
        start = end


def parameter_sets(picture: bytes) -> bytes:
    """The SPS and PPS of a key picture, all a catalog needs to describe the video."""
    units = re.split(b"\x00?\x00\x00\x01", picture)[1:]
    return b"".join(b"\x00\x00\x00\x01" + unit for unit in units if unit[0] & 0x1F in (7, 8))


async def publish(args: argparse.Namespace) -> None:
    """Offers the pictures of an Annex-B file at their own pace, once somebody watches."""
    pictures = list(access_units(args.file.read_bytes()))
    if not pictures:
        sys.exit(f"{args.file}: no access unit delimiters; encode with -bsf:v h264_metadata=aud=insert")
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
    async with moq.connect(args.url, tls_verify=False, reconnect=False) as client:
        broadcast = client.create_broadcast(args.broadcast)
        hint = moq.VideoHint(coded=moq.Dimensions(width=args.width, height=args.height), framerate=args.fps)
        # With the parameter sets the catalog is complete at once, so that a viewer can subscribe
        # before the first frame exists.
        init = parameter_sets(pictures[0])
        track = broadcast.publish_video(moq.VideoFormat.AVC3, init, hint=hint, track="video")
        broadcast.announce()
        async with asyncio.timeout(args.patience):
            await track.used()
        clock = asyncio.get_running_loop()
        began = clock.time()
        for number, picture in enumerate(pictures):
            due = number / args.fps
            await asyncio.sleep(max(0.0, began + due - clock.time()))
            track.write_frame(picture, int(due * 1_000_000))
        track.finish()
        print(f"published {len(pictures)} frames", flush=True)
        # The last groups may still be on their way: whoever started the viewer knows when it is done.
        await leave.wait()
        broadcast.close()


async def watch(args: argparse.Namespace) -> None:
    """Writes what arrives, from the first frame to the end of the track."""
    frames = 0
    async with moq.connect(args.url, tls_verify=False, reconnect=False) as client:
        async with asyncio.timeout(args.patience):
            broadcast = await client.announced_broadcast(args.broadcast)
            catalog = await broadcast.catalog()
            name, video = next(iter(catalog.video.items()))
            subscription = moq.Subscription(priority=0, max_age_us=MAX_AGE_US)
            media = await broadcast.subscribe_media(name, video, subscription)
        with args.file.open("wb") as out:
            async with asyncio.timeout(args.patience + args.duration):
                async for frame in media:
                    # Each group ends with an empty frame that only says how long the last one is.
                    if frame.payload:
                        out.write(frame.payload)
                        frames += 1
        media.cancel()
    print(f"watched {frames} frames", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["publish", "watch"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--broadcast", default="demo/testsrc.hang")
    parser.add_argument("--file", type=Path, required=True, help="Annex-B H.264 to read or write")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of video")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for anything else")
    args = parser.parse_args()
    asyncio.run(publish(args) if args.role == "publish" else watch(args))


if __name__ == "__main__":
    main()
