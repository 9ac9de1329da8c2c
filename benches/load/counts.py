#!/usr/bin/env python3
"""Counts that do not drift: what the floor and Homing do for a request, in instructions and allocations (valgrind's
callgrind, only threads that serve requests) and system calls (strace). Between them what is written by hand (`sticky.rs`),
to be looked at: no check asks for it.

Every figure is the difference of a short run and a long one, so what starting, connecting and getting warm costs falls out.

    counts.py             measure, print, write counts.json
    counts.py --check     … and fail when Homing's share above the floor is greater than in counts.txt: by over 2 % of the
                          instructions, or by an allocation
    counts.py --write     … and write counts.txt
    counts.py --functions … and say for each case in which functions Homing's instructions above the floor are
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import callgrind
import committed
import contenders
import programs

# Requests that warm up, and those of the short run.
WARM, SHORT = 500, 200
# The first of the servers'; below those that systems give to outgoing connections.
PORTS = 21_700
# Long copies by `rep movsb` count as an instruction a byte here, and take next to no time; vector loops count as they are.
TUNABLES = "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000"
# How the load asks (see `load` without arguments), and what is set of contenders.Setting.
CASES = {
    "cookie hit": (["--sessions", "8"], {}),
    "new session": (["--new", "--path", "/s"], {}),
    "connection per request": (["--sessions", "8", "--close"], {}),
    "100 KiB": (["--sessions", "8", "--path", "/big"], {}),
    "cookie hit, TLS": (["--sessions", "8", "--tls"], {"tls": True}),
}
WHO = ("floor", "homing-cookie")
# Homing with circuit breaker and limits, in this case; and how many instructions they may take.
GUARDED, GUARDED_CASE, GUARDS_MAY_TAKE = "homing-guarded", "cookie hit", 300
BY_HAND = "pingora-cookie"
SYSCALL = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$")


class Measured:
    """One contender in one case."""

    def __init__(self, contender, case: str, binaries: dict, setting):
        self.arguments, special = CASES[case]
        self.contender, self.setting = contender, replace(setting, **special)
        self.load = binaries["load"]
        self.port = 0

    def started(self, prefix: list, preload: Path | None = None) -> programs.Process:
        self.port = programs.free_port()
        # Under strace nothing is put before the program: it would make system calls of its own.
        os.environ.update({"GLIBC_TUNABLES": TUNABLES} | ({"LD_PRELOAD": str(preload)} if preload else {}))
        try:
            return self.contender.start(self.setting, self.port, None, prefix)
        finally:
            os.environ.pop("LD_PRELOAD", None)

    def ask(self, requests: int) -> None:
        seen = programs.run_load(self.load, self.port, [*self.arguments, "--connections", 1, "--requests", requests], None)
        if seen.get("failed") or seen["errors"] or (self.contender.sticky and seen["moved"]):
            sys.exit(f"{self.contender.name}: {seen}")

    def counted(self, requests: int, preload: Path | None) -> callgrind.Counted:
        output = self.setting.directory / "callgrind.out"
        process = self.started(callgrind.command(output), preload)
        try:
            took = []
            for asked in (WARM, SHORT, SHORT + requests):
                self.ask(asked)
                took.append(callgrind.take(process.pid, output))
        finally:
            process.stop()
            output.unlink(missing_ok=True)
        _, short, long = took
        return callgrind.Counted(
            a_request(short.instructions, long.instructions, requests), a_request(short.allocations, long.allocations, requests))

    def syscalls(self, requests: int) -> dict:
        def whole_run(asked: int) -> Counter:
            output = self.setting.directory / "strace.out"
            process = self.started(["strace", "-f", "-c", "-o", str(output)])
            self.ask(asked)
            self.stop_traced(process)
            found = (SYSCALL.match(line) for line in output.read_text().splitlines())
            return Counter({match[2]: int(match[1]) for match in found if match and match[2] != "total"})

        calls = a_request(whole_run(SHORT), whole_run(SHORT + requests), requests)
        # A thread that wakes by the clock makes some that are no request's.
        return {name: round(count, 2) for name, count in sorted(calls.items()) if count >= 0.2}

    def stop_traced(self, process: programs.Process) -> None:
        # strace does not forward signals, so they go to the traced process. Pingora's signal to end at once is INT; Homing
        # ends by TERM as soon as nothing is under way.
        sent = signal.SIGTERM if self.contender.name.startswith("homing") else signal.SIGINT
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        subprocess.run(["kill", f"-{sent.value}", *children[:1]], check=False)
        process.child.wait(programs.DEADLINE)


def a_request(short: Counter, long: Counter, requests: int) -> dict:
    return {name: (long[name] - short[name]) / requests for name in long | short}


def start_servers(server: Path, directory: Path) -> tuple:
    """On the same ports as the last time, if they are free: how the connections kept to them meet in a hash map differs by
    port, and makes some hundred instructions a request."""
    try:
        return programs.start_servers(server, 4, None, directory, PORTS)
    except programs.DidNotStart as why:
        print(f"{why}counted with servers on other ports: a request may differ by 400 instructions", file=sys.stderr)
        return programs.start_servers(server, 4, None, directory)


def measure(options, binaries: dict, directory: Path) -> dict:
    found = contenders.ours(binaries)
    server, ports = start_servers(binaries["server"], directory)
    setting = contenders.Setting(directory, ports)
    preload = callgrind.steady(directory)
    who = WHO if options.check else (*WHO, BY_HAND)
    told = {}
    try:
        for case in CASES:
            told[case] = {}
            here = (*who, GUARDED) if case == GUARDED_CASE else who
            for contender in (one for one in found if one.name in here):
                print(f"{case}: {contender.name}", file=sys.stderr)
                one = Measured(contender, case, binaries, setting)
                told[case][contender.name] = figures(one.counted(options.requests, preload))
                if not options.check:
                    told[case][contender.name]["syscalls"] = one.syscalls(options.requests)
    finally:
        server.stop()
    return told


def figures(counted: callgrind.Counted) -> dict:
    callers: Counter = Counter()
    for way, count in counted.allocations.items():
        callers[callgrind.caller(way)] += count
    return {
        "instructions": round(sum(counted.instructions.values())),
        "allocations": round(callers.total(), 2),
        "functions": {name: round(cost, 1) for name, cost in counted.instructions.items() if abs(cost) >= 1},
        "callers": {name: round(count, 2) for name, count in callers.items() if abs(count) >= 0.01},
    }


def above(both: dict, what: str) -> float:
    return both["homing-cookie"][what] - both["floor"][what]


def guards_fit(told: dict, other_tools: str | None) -> bool:
    """Says what circuit breaker and limits take. With other tools, instructions say nothing."""
    both = told[GUARDED_CASE]
    instructions, allocations = (both[GUARDED][what] - both["homing-cookie"][what] for what in committed.SHARES)
    print(f"{GUARDED_CASE}, with circuit breaker and limits: {instructions:+,} instructions, {allocations:+.1f} allocations; "
          f"{GUARDS_MAY_TAKE} instructions are allowed")
    return bool(other_tools) or instructions <= GUARDS_MAY_TAKE


def table(told: dict) -> str:
    heads = {"floor": "floor", BY_HAND: "by hand", "homing-cookie": "Homing"}
    names = [name for name in heads if all(name in counted for counted in told.values())]
    lines = [row("a request", [heads[name] for name in names], "above the floor", ""), "|---" * (len(names) + 3) + "|"]
    for case, counted in told.items():
        floor, ours = counted["floor"], counted["homing-cookie"]
        for what, title, style in (("instructions", f"{case}: instructions", ","), ("allocations", "allocations", ".1f")):
            lines.append(row(title, [f"{counted[name][what]:{style}}" for name in names],
                             f"{above(counted, what):+{style}}", f"{ours[what] / floor[what]:.3f}"))
        if "syscalls" in floor:
            calls = (counted[name]["syscalls"].items() for name in names)
            lines.append(row("system calls", [", ".join(f"{count:g} {name}" for name, count in one) for one in calls], "", ""))
    return "\n".join(lines)


def row(title: str, cells: list, more: str, ratio: str) -> str:
    return "| " + " | ".join([title, *cells, more, ratio]) + " |"


def by_caller(told: dict) -> str:
    """Which code allocates: all that Homing decides, and what else differs from the floor."""
    lines = []
    for case, both in told.items():
        ours, floor = (both[name]["callers"] for name in ("homing-cookie", "floor"))
        lines.append(f"\n{case}: {above(both, 'allocations'):+.1f} allocations a request; beside them how many the floor has")
        for owner in callgrind.OWNERS:
            names = [name for name in ours | floor if callgrind.whose(name) == owner]
            if owner == callgrind.PINGORA:
                # Without callers, which differ with inlining.
                ours, floor = (innermost(one, names) for one in (ours, floor))
                names = list(ours | floor)
            sums = [sum(one.get(name, 0) for name in names) for one in (ours, floor)]
            lines.append(f"  {owner}: {sums[0]:.1f} ({sums[1]:.1f})")
            shown = [(ours.get(name, 0), floor.get(name, 0), name) for name in sorted(names, key=lambda name: -ours.get(name, 0))]
            lines += [f"    {a:5.1f} ({b:4.1f})  {name}" for a, b, name in shown
                      if abs(a - b) >= 0.05 or (owner != callgrind.PINGORA and a >= 0.05)]
    return "\n".join(lines)


def innermost(callers: dict, names: list) -> Counter:
    found: Counter = Counter()
    for name in names:
        found[name.partition(" < ")[0]] += callers.get(name, 0)
    return found


def by_function(told: dict) -> str:
    """Where Homing's instructions above the floor are: what it has more, or less, in every function."""
    lines = []
    for case, both in told.items():
        ours, floor = (both[name]["functions"] for name in ("homing-cookie", "floor"))
        more = {name: ours.get(name, 0) - floor.get(name, 0) for name in ours | floor}
        lines.append(f"\n{case}: {above(both, 'instructions'):+,} instructions a request, and all that Homing spends there")
        ranked = sorted(more.items(), key=lambda item: -abs(item[1]))
        lines += [f"{cost:+9.0f}  {ours.get(name, 0):8.0f}  {name}" for name, cost in ranked[:100] if abs(cost) >= 10]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--requests", type=int, default=3000)
    reader.add_argument("--check", action="store_true")
    reader.add_argument("--write", action="store_true")
    reader.add_argument("--functions", action="store_true")
    reader.add_argument("--built", action="store_true", help="take the programs as they are built")
    return reader.parse_args()


def main() -> None:
    options = arguments()
    wanted = ("valgrind",) if options.check else ("valgrind", "strace")
    missing = [tool for tool in wanted if not shutil.which(tool)]
    if missing:
        sys.exit(f"counts: install {' and '.join(missing)} (packages of these names)")
    ours = committed.counted_with()
    differs = committed.differs(ours) if options.check else None
    if differs and os.environ.get("CI") != "true":
        print(f"counts: not checked, since {committed.FILE.name} was counted with another {differs}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    by_hand = () if options.check else (programs.BY_HAND,)
    binaries = programs.built("release", *by_hand) if options.built else programs.build(*by_hand)
    # A separate file: Homing reloads its configuration when another bench writes a file with that name.
    directory = programs.target() / "bench-load" / "counts"
    directory.mkdir(parents=True, exist_ok=True)
    # All on one core, so that scheduling and the proxy's wake-ups per request are the same in every run.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    told = measure(options, binaries, directory)
    (directory.parent / "counts.json").write_text(json.dumps({"with": ours, "cases": told}, indent=1) + "\n")
    print(table(told))
    fits = guards_fit(told, differs)
    shares = {case: {what: above(both, what) for what in committed.SHARES} for case, both in told.items()}
    if not options.check:
        print(by_caller(told))
    if options.functions:
        print(by_function(told))
    if options.write:
        committed.write(ours, shares)
    if options.check and not (committed.check(shares, differs) and fits):
        sys.exit(1)


if __name__ == "__main__":
    main()
