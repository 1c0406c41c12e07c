#!/usr/bin/env python3
"""Puts a run of `make bench-peers` into README.md and docs: bench/report.py [PEERS.json]

Replaces what is between the markers `<!-- bench-peers: NAME -->` and `<!-- / -->`, and copies the
plot to docs/peers.svg.
"""

import json
import os
import re
import shutil
import sys
import time

import scale

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
SERVERS = {"speak": "Speak", "nchan": "nchan", "ws": "ws", "socket.io": "Socket.IO",
           "pushpin": "Pushpin"}
TRANSPORTS = {"frames": "W", "events": "E", "fanout": "P"}
FANOUTS = (100, 1_000, 3_000, 10_000, 18_000)


def spread(figures, places=None):
    """Returns the median with least and most, and the median as a number."""
    figures = sorted(figures)
    middle = (figures[(len(figures) - 1) // 2] + figures[len(figures) // 2]) / 2
    if places is None:
        places = 2 if middle < 3 else 1 if middle < 100 else 0
    def form(figure):
        return f"{figure:,.{places}f}"
    return f"{form(middle)} ({form(figures[0])}–{form(figures[-1])})", middle


def rounds(parts, name, server):
    return parts.get(name, {}).get("servers", {}).get(server, {}).get("rounds", [])


def of_rounds(parts, name, figure, places=None):
    """Returns a row's cells by server, with the figures behind them."""
    cells = {}
    for server in SERVERS:
        if samples := rounds(parts, name, server):
            cells[server] = spread([figure(sample) for sample in samples], places)
    return cells


def cost(parts, name):
    return of_rounds(parts, name, lambda sample: sample["cost"])


def best_transport(parts, readers):
    """Returns the cheapest delivery of each server, with the letter of its transport."""
    cells = {}
    for kind, letter in TRANSPORTS.items():
        for server, (text, middle) in cost(parts, f"{kind}{readers}").items():
            if server not in cells or middle < cells[server][1]:
                cells[server] = (f"{text} {letter}", middle)
    return cells


def load_of(name):
    return int(name.removeprefix("load"))


def highest_load(parts):
    """Returns the highest load at which 99 % of the deliveries took less than 100 ms."""
    cells = {}
    for server in SERVERS:
        kept = [load_of(name) for name, part in parts.items()
                if name.startswith("load") and scale.kept_up(part, server)]
        if kept:
            cells[server] = (f"{max(kept):,}", -max(kept))
    return cells


def row(label, cells):
    """Returns a row in which the best figure is bold."""
    best = min((middle for _, middle in cells.values()), default=None)
    def cell(server):
        if server not in cells:
            return "–"
        text, middle = cells[server]
        return f"**{text}**" if middle == best else text
    return [label, *(cell(server) for server in SERVERS)]


def summary(parts):
    """The table of the README."""
    def ratio(sample):
        return sample["left_over_before"]
    def last(sample):
        return sample["latency_ms"]["most"] / 1000
    def p99(sample):
        return sample["latency_ms"]["p99"]
    rows = [
        ["", *SERVERS.values()],
        row("a delivery to one of 1,000, µs", best_transport(parts, 1000)),
        row("a delivery to one of 10,000, µs", best_transport(parts, 10000)),
        row("a delivery in a chat, 500 rooms of 10, µs", cost(parts, "chat500x10")),
        row("deliveries a second that 99 % get in 100 ms", highest_load(parts)),
        row("99 % of 10,000 deliveries a second, ms", of_rounds(parts, "load10000", p99)),
        row("connect, wait and leave, µs", cost(parts, "come")),
        row("an idle client, bytes", cost(parts, "idle")),
        row("memory after 10,000 left ÷ before", of_rounds(parts, "idle", ratio)),
        row("TLS: a delivery to one of 1,000, µs", cost(parts, "tls-frames1000")),
        row("TLS: a full handshake, µs", cost(parts, "tls-handshakes")),
        row("TLS: an idle client, bytes", cost(parts, "tls-idle")),
        row("TLS: 10,000 come back at once, s until the last waits",
            of_rounds(parts, "tls-return", last)),
    ]
    return scale.table(rows)


def goals(parts):
    """The goals of Speak's own TLS."""
    rows = [["goal", "measured", ""]]
    for part in parts.values():
        for goal in part["goals"]:
            if goal["measured"] is None:
                continue
            other = parts.get(goal["against"], {}).get("label", goal["against"])
            against = {"absolute": part["unit"], "memory before": "× the memory before"}.get(
                other, f"× {other}")
            measured = goal["measured"]
            figure, _ = spread([measured["least"], measured["median"], measured["most"]])
            rows.append([f"{part['label']}: at most {goal['at_most']:g} {against}", figure,
                         "met" if goal["met"] else "missed"])
    return scale.table(rows)


def latencies(parts):
    """Half, 99 % and 99.9 % of the deliveries, by the load."""
    rows = [["deliveries a second", *SERVERS.values()]]
    for name in (name for name in parts if name.startswith("load")):
        cells = []
        for server in SERVERS:
            samples = rounds(parts, name, server)
            medians = [spread([s["latency_ms"][key] for s in samples])[1]
                       for key in ("half", "p99", "p99_9")] if samples else []
            cells.append(" / ".join(f"{ms:,.{2 if ms < 3 else 0}f}" for ms in medians) or "–")
        rows.append([f"{load_of(name):,}", *cells])
    return scale.table(rows)


def crowds(parts):
    """CPU time of a delivery, and resident memory, by the number of readers."""
    rows = [["WebSockets", *SERVERS.values()]]
    for readers in FANOUTS:
        cpu = cost(parts, f"frames{readers}")
        memory = of_rounds(parts, f"frames{readers}", lambda s: s["resident_bytes"] / 1e6, 0)
        cells = [f"{cpu[server][0]} µs, {memory[server][1]:,.0f} MB" if server in cpu else "–"
                 for server in SERVERS]
        rows.append([f"{readers:,}", *cells])
    return scale.table(rows)


def conditions(run):
    """When, where and how long, and what was left out."""
    at = time.strftime("%Y-%m-%d", time.gmtime(run["at"]))
    noise = [sample["disturbed"] for part in run["parts"] for server in part["servers"].values()
             for sample in server["rounds"]]
    lines = [
        f"{at}, {run['processor']}, Linux {run['kernel']}, {run['rounds']} rounds in "
        f"{run['took_seconds']:.0f} s.",
        f"Others took more than 5 % of a core in {sum(n > 0.05 for n in noise)} of {len(noise)} "
        "measurements.",
    ]
    lines += [f"Left out: {line}." for line in run["left_out"]]
    return "\n".join(lines) + "\n"


def fill(path, name, text):
    """Replaces the text between the markers of a name."""
    path = os.path.join(ROOT, path)
    with open(path) as file:
        old = file.read()
    between = re.compile(rf"(<!-- bench-peers: {name} -->\n).*?(<!-- / -->)", re.S)
    new, count = between.subn(lambda match: f"{match[1]}{text}{match[2]}", old)
    if count != 1:
        sys.exit(f"{path} has {count} places for {name}")
    with open(path, "w") as file:
        file.write(new)


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else f"{ROOT}/bench/results/peers.json"
    with open(path) as file:
        run = json.load(file)
    parts = scale.load(path)
    fill("README.md", "summary", summary(parts) + "\n" + conditions(run))
    fill("README.md", "goals", goals(parts))
    fill("docs/capacity.md", "crowds", crowds(parts))
    fill("docs/capacity.md", "latencies", latencies(parts))
    fill("docs/capacity.md", "scale", scale.text(parts))
    shutil.copy(os.path.splitext(path)[0] + ".svg", f"{ROOT}/docs/peers.svg")
    print("updated: README.md, docs/capacity.md, docs/peers.svg")


if __name__ == "__main__":
    main()
