"""Samples of perf, read from `perf script`: whose time they are."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Iterable

# A frame: address, symbol with or without an offset, and the file in parentheses.
FRAME = re.compile(r"^\s+[0-9a-f]+ (?P<symbol>.*?)(?:\+0x[0-9a-f]+)? \((?P<file>[^()]*)\)$")
# What the compiler appends to a symbol so that no two are the same.
HASH = re.compile(r"::h[0-9a-f]{16}$")
# The crate or module of a path of Rust, with one level of ours: `<shardcast::shard::Shard as ...`.
RUST = re.compile(r"^[<&(*\[]*(?:mut |dyn )*(?P<path>[a-z_][a-z0-9_]*(?:::[a-z_][a-z0-9_]*)*)::")


@dataclass(frozen=True)
class Place:
    symbol: str
    module: str


def module(symbol: str, file: str) -> str:
    """Where a symbol belongs: a crate, a module of the relay, or a file."""
    if file.startswith("[kernel") or file.endswith(".ko"):
        return "[kernel]"
    found = RUST.match(symbol)
    if found is None:
        name = file.rpartition("/")[2]
        return name if ".so" in name or name.startswith("[") else f"C in {name}"
    parts = found.group("path").split("::")
    return "::".join(parts[:2]) if parts[0] == "shardcast" else parts[0]


# The layers of the relay, each by the beginnings of its modules or symbols. What else there is is of libraries.
LAYERS = {
    "kernel": ("[kernel]", "[vdso]"),
    "QUIC": ("quinn_proto", "quinn_udp"),
    "crypto": ("aws_lc", "rustls", "webpki"),
    "allocator": ("_rjem", "rjem", "tikv_jemalloc", "je_"),
    "ours": ("shardcast",),
}
LIBRARIES = "libraries"


def layer(place: Place) -> str:
    """Whose work it is. Symbols of C say that by their first letters."""
    for name, beginnings in LAYERS.items():
        if place.module.startswith(beginnings) or place.symbol.startswith(beginnings):
            return name
    return LIBRARIES


def shortened(name: str, width: int) -> str:
    """With the middle left out where it is too long: beginning and end tell most."""
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}…{name[len(name) - (width - 1 - head):]}"


def leaves(lines: Iterable[str]) -> Counter[Place]:
    """How many samples were taken in each place: the first frame after a sample's head."""
    found: Counter[Place] = Counter()
    is_head = False
    for line in lines:
        line = line.rstrip("\n")
        if line and not line[0].isspace():
            is_head = True
        elif is_head:
            is_head = False
            frame = FRAME.match(line)
            symbol, file = frame.group("symbol", "file") if frame else ("[unknown]", "[unknown]")
            symbol = HASH.sub("", symbol)
            found[Place(symbol, module(symbol, file))] += 1
    return found


def shares(counts: Counter, most: int) -> list[tuple]:
    """The most frequent, in percent of all."""
    total = sum(counts.values())
    return [(name, 100 * count / total) for name, count in counts.most_common(most)]


def by_symbol(found: Counter[Place]) -> Counter[tuple[str, str]]:
    """By symbol, and the layer that it is of."""
    counts: Counter[tuple[str, str]] = Counter()
    for place, count in found.items():
        # A path of Rust says itself where it belongs.
        where = "" if RUST.match(place.symbol) else f" ({place.module.strip('[]')})"
        counts[place.symbol + where, layer(place)] += count
    return counts


def by_layer(found: Counter[Place]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for place, count in found.items():
        counts[layer(place)] += count
    return counts


def by_module(found: Counter[Place]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for place, count in found.items():
        counts[place.module] += count
    return counts
