#!/usr/bin/env python3
"""What a cluster costs: prints the tables of docs/SCALE.md from unit costs.

Example: scripts/scale.py --nodes 100 --broadcasts 100000 --viewers 10000000 --shards 16

Unit costs are measured: memory and bytes by tests/scale.rs, which holds them to what is so; times as said beside.
"""

import argparse
import math
import random

# By tests/scale.rs, in bytes.
ROUTE_BYTES_PER_SHARD = 327
ROUTE_BYTES_OF_SESSION = 474
TOLD_BYTES = 97
START_BYTES = 43
END_BYTES = 4
TRACK_BYTES = 6870
SUBSCRIBE_BYTES = 63

# docs/PERFORMANCE.md: CPU of a relay per announcement delivered, and per frame delivered; memory per viewer.
ANNOUNCE_US = 14.1
FRAME_US = 26.8
VIEWER_BYTES = 42_800

# tests/mesh.rs: from one relay to the next, beside the way itself.
HOP_MS = 0
ROUND_TRIPS_PER_HOP = 1

# src/limits.rs
ROUTES_MAX = 1 << 19
ANNOUNCEMENTS_PER_RELAY_MAX = ROUTES_MAX // 4
ROUTE_CHANGES_PER_S_OF_RELAY = 10_000
ROUTES_MEMORY_SHARE = 1 / 16
ROUTE_BYTES = 400

# Bytes of the paths in tests/scale.rs.
PATH_BYTES = 33


def parse():
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    for name, usual in [("nodes", 100), ("broadcasts", 100_000), ("viewers", 10_000_000), ("shards", 16)]:
        parser.add_argument("--" + name, type=int, default=usual)
    # What a day is like: how often a broadcast begins and ends, what it carries, how many watch several.
    parser.add_argument("--life", type=float, default=600.0, help="seconds that a broadcast lives")
    parser.add_argument("--fps", type=float, default=60.0)
    parser.add_argument("--mbits", type=float, default=2.0, help="of a broadcast")
    parser.add_argument("--rtt", type=float, default=40.0, help="milliseconds between two relays")
    return parser.parse_args()


def tree(nodes):
    """One in the middle, and as many below each as there are of those."""
    side = max(1, math.isqrt(nodes - 1))
    return [(at, 0 if at <= side else 1 + (at - side - 1) % side) for at in range(1, nodes)]


def near(nodes, links):
    """Everyone with so many others: a ring, and the rest by chance."""
    chance = random.Random(1)
    edges = {(at, (at + 1) % nodes) for at in range(nodes)}
    for _ in range(links // 2 - 1):
        order = chance.sample(range(nodes), nodes)
        edges |= {(order[at], order[at - 1]) for at in range(nodes)}
    return sorted({(min(edge), max(edge)) for edge in edges})


def full(nodes):
    return [(at, to) for at in range(nodes) for to in range(at)]


def reach(around, start, without=None):
    """How far everybody is."""
    far, queue = {start: 0}, [start]
    for at in queue:
        for to in around[at]:
            if to != without and to not in far:
                far[to] = far[at] + 1
                queue.append(to)
    return far


def look(nodes, edges):
    """Most links of a node, most hops, and the most routes that a node has of one broadcast: a neighbour tells of
    it who has a way that does not lead through the node itself."""
    around = [[] for _ in range(nodes)]
    for a, b in edges:
        around[a].append(b)
        around[b].append(a)
    hops = max(max(reach(around, at).values()) for at in range(nodes))
    ways = 0
    for at in range(nodes):
        left, beyond = set(around[at]), []
        while left:
            part = reach(around, left.pop(), at)
            beyond.append(1 + len([to for to in left if to in part]))
            left -= set(part)
        ways = max([ways, *beyond])
    return max(map(len, around)), hops, ways


def size(count):
    for unit in ["B", "kB", "MB", "GB"]:
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def main():
    a = parse()
    changes = 2 * a.broadcasts / a.life
    print("| | links | of one node | hops | routes of one node | memory for routes | `--memory-max` at least | announcements/s of one node |"
          " CPU for them | its links for them |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    shapes = [("tree", tree(a.nodes)), ("everyone with 4 others", near(a.nodes, 4)),
              ("everyone with 6 others", near(a.nodes, 6)), ("everyone with everyone", full(a.nodes))]
    for name, edges in shapes:
        links, (degree, hops, ways) = len(edges), look(a.nodes, edges)
        routes = a.broadcasts * ways
        memory = routes * (a.shards * ROUTE_BYTES_PER_SHARD + ROUTE_BYTES_OF_SESSION)
        memory += a.broadcasts * degree * TOLD_BYTES
        least = routes * (ROUTE_BYTES + PATH_BYTES) * a.shards / ROUTES_MEMORY_SHARE
        told = changes * degree
        wire = told * (START_BYTES + END_BYTES) / 2
        over = "" if routes <= ROUTES_MAX else " (**more than `ROUTES_MAX`**)"
        print(f"| {name} | {links:,} | {degree} | {hops} | {routes:,}{over} | {size(memory)} | {size(least)} | {told:,.0f} |"
              f" {told * ANNOUNCE_US / 1e4:.1f} % of a core | {wire * 8 / 1e6:.2f} Mb/s |")
    print()
    viewers = a.viewers / a.nodes
    cores = viewers * a.fps * FRAME_US / 1e6
    print("| of one node | |\n|---|---|")
    print(f"| viewers | {viewers:,.0f} |")
    print(f"| their memory | {size(viewers * VIEWER_BYTES)} |")
    print(f"| cores for {a.fps:.0f} frames/s each | {cores:,.0f} |")
    print(f"| to viewers | {viewers * a.mbits / 1e3:,.0f} Gb/s |")
    watched = min(viewers, a.broadcasts)
    print(f"| from the cluster, if no two of them watch the same | {watched * a.mbits / 1e3:,.0f} Gb/s |")
    print(f"| the same, if they watch a hundredth of all broadcasts | {a.broadcasts / 100 * a.mbits / 1e3:,.1f} Gb/s |")
    print(f"| memory for tracks, at a hundredth | {size(a.broadcasts / 100 * TRACK_BYTES)} |")
    print(f"| asking for all of those anew | {size(a.broadcasts / 100 * SUBSCRIBE_BYTES)} |")
    for hops in (1, 3, 4):
        join = hops * (ROUND_TRIPS_PER_HOP * a.rtt + HOP_MS)
        print(f"| first frame, {hops} hops from a publisher whom nobody watches | {join:,.0f} ms more |")
    print()
    each = a.broadcasts / a.nodes
    print("| after | announcements on each link | time |\n|---|---|---|")
    for name, count in [("the death of a node with its share of publishers", each),
                        ("a link that is new or back, with all there is", a.broadcasts)]:
        busy = count * ANNOUNCE_US / 1e6
        bound = max(0.0, count - 2 * ANNOUNCEMENTS_PER_RELAY_MAX) / ROUTE_CHANGES_PER_S_OF_RELAY
        print(f"| {name} | {count:,.0f} | {busy + bound:.2f} s of a core at each end |")


if __name__ == "__main__":
    main()
