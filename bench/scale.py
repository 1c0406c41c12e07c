#!/usr/bin/env python3
"""Prints what a million readers take, as tables in Markdown: bench/scale.py [PEERS.json]

Everything follows from slopes: those that `make bench-peers` measured (CPU time of a delivery,
bytes of a waiting reader), and constants below that other scripts measured. An estimate: no machine
here holds a million readers.
"""

import json
import os
import sys

READERS = 1_000_000
NODES = (1, 4, 16)
ROOMS = (10, 100, 1_000, 10_000, 100_000)

# Bytes of a socket in the kernel (bench/kernel.py), and of a delivery around its payload: Ethernet,
# IPv4, and TCP with timestamps.
KERNEL_BYTES = 3_850
HEADER_BYTES = 14 + 20 + 32
# CPU time in µs: a write (make bench); a record of another node, with others in a batch, and its
# part in Redis, for the record and for each node (make bench-cluster).
WRITE_US = 3.8
APPLY_US = 1.3
REDIS_US, REDIS_NODE_US = 3.0, 0.9
# A plan leaves half of a core free, and takes 12 KiB a reader (docs/capacity.md).
PLAN_CORE = 0.5
PLAN_BYTES = 12 * 1024
# Assumed prices in EUR a month without tax, as of November 2026: GiB of memory of common virtual
# servers with at least two cores. Put in those of your provider.
PRICES = {2: 4, 4: 6, 8: 11, 16: 21, 32: 42}
GIB = 2**30


def load(path):
    with open(path) as file:
        return {part["name"]: part for part in json.load(file)["parts"]}


def speak(parts, name):
    """Returns the rounds of Speak in a part."""
    return parts[name]["servers"]["speak"]["rounds"]


def cost(parts, name):
    return parts[name]["servers"]["speak"]["cost"]["median"]


def kept_up(part, server):
    """Returns the rounds of a load in which a server kept up: 99 % of its deliveries in 100 ms."""
    rounds = part["servers"].get(server, {}).get("rounds", [])
    return rounds if rounds and max(r["latency_ms"]["p99"] for r in rounds) < 100 else None


def delivery_us(parts):
    """Returns the cost of a delivery by the size of the room."""
    loads = [p for name, p in parts.items() if name.startswith("load") and kept_up(p, "speak")]
    small = loads[-1]["servers"]["speak"]["cost"]["median"]
    largest = [100, 1_000, 10_000, 18_000]
    return dict(zip(ROOMS, [small] + [cost(parts, f"frames{size}") for size in largest]))


def table(rows):
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n"


def machine(readers):
    """Returns the smallest memory in GiB that holds the readers by the plan, and its price."""
    need = readers * PLAN_BYTES / GIB + 0.5
    return next((size, price) for size, price in PRICES.items() if size >= need)


def memory_table(parts):
    plain, tls = cost(parts, "idle"), cost(parts, "tls-idle")
    rows = [["nodes", "descriptors of each", "user memory", "with TLS", "kernel", "a machine",
             "EUR a month, all"]]
    for nodes in NODES:
        readers = READERS / nodes
        size, price = machine(readers)
        rows.append([
            str(nodes), f"{readers:,.0f}", f"{readers * plain / GIB:.2f} GiB",
            f"{readers * tls / GIB:.2f} GiB", f"{readers * KERNEL_BYTES / GIB:.1f} GiB",
            f"{size} GiB", f"{nodes} × {price} = {nodes * price}",
        ])
    return table(rows)


def work_table(parts):
    costs = delivery_us(parts)
    sizes = [r["answer_bytes"] for r in speak(parts, "frames1000")]
    wire = max(sizes) + HEADER_BYTES
    rows = [["room", "µs a delivery", "writes a second",
             *(f"cores of {n}" for n in ("1 node", "each of 4", "each of 16")),
             "cores of Redis, 16", "messages a second per room, 16 nodes on half a core each"]]
    for room, us in costs.items():
        writes = READERS / room
        def cores(nodes):
            of_others = APPLY_US * writes if nodes > 1 else 0
            return (READERS / nodes * us + writes / nodes * WRITE_US + of_others) / 1e6
        redis = (REDIS_US + REDIS_NODE_US * NODES[-1]) * writes / 1e6
        shares = [f"{cores(n):.2f}{'' if cores(n) <= PLAN_CORE else ': too much'}" for n in NODES]
        rate = min(PLAN_CORE / cores(NODES[-1]), PLAN_CORE / redis)
        rows.append([f"{room:,}", f"{us:.1f}", f"{writes:,.0f}", *shares,
                     f"{redis:.2f}{'' if redis <= PLAN_CORE else ': too much'}", f"{rate:.1f}"])
    mbit = [READERS / n * wire * 8 / 1e6 for n in NODES]
    network = ", ".join(f"{rate:,.0f} Mbit/s with {n}" for rate, n in zip(mbit, NODES))
    return table(rows) + (
        f"\nA delivery has {wire} bytes on the wire, so a message a second to each reader takes, "
        f"for each node:\n{network}.\n"
    )


def text(parts):
    return memory_table(parts) + "\n" + work_table(parts)


if __name__ == "__main__":
    default = os.path.join(os.path.dirname(__file__), "results/peers.json")
    print(text(load(sys.argv[1] if len(sys.argv) > 1 else default)), end="")
