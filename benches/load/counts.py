#!/usr/bin/env python3
"""Counts that do not drift: instructions (callgrind) and system calls (strace) of the floor and of Homing, a request.

Every figure is the difference of two runs, of N and of 2N requests one after the other, divided by N: what starting,
stopping and getting warm costs is in both and falls out. Instructions are those of the middle one of three such runs.

    counts.py             measure, print, write counts.json
    counts.py --check     … and fail when Homing's instructions above the floor grew by more than 2 % over counts.txt
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
from pathlib import Path

import contenders
import programs

COMMITTED = Path(__file__).resolve().parent / "counts.txt"
MAY_GROW = 0.02
# Long copies by `rep movsb` count as an instruction a byte here, and take next to no time; vector loops count as they are.
TUNABLES = "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000"
# How the load asks; see `load` without arguments.
CASES = {
    "cookie hit": ["--sessions", "8"],
    "new session": ["--new", "--path", "/s"],
    "connection per request": ["--sessions", "8", "--close"],
}
WHO = ("floor", "homing-cookie")
# A position (often relative) and a cost.
COST = re.compile(r"^[-+*\d]\S* (\d+)$")
# Ends the name of every Rust function, and differs from program to program.
HASH = re.compile(r"::h[0-9a-f]{16}")
SYSCALL = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$")


def run(contender, load: Path, setting, prefix: list, arguments: list, requests: int) -> None:
    """One run from start to a graceful end, under valgrind or strace."""
    port = programs.free_port()
    process = contender.start(setting, port, None, prefix)
    seen = programs.run_load(load, port, [*arguments, "--connections", 1, "--requests", requests], None)
    stop(process, contender.name)
    if seen.get("failed") or seen["errors"] or (contender.sticky and seen["moved"]):
        sys.exit(f"{contender.name}: {seen}")


def stop(process: programs.Process, name: str) -> None:
    # strace hands signals on to nobody: what it traces is asked itself.
    # Pingora's own way to end at once is INT; Homing ends by TERM as soon as nothing is under way.
    sent = signal.SIGINT if name.startswith("floor") else signal.SIGTERM
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if children:
        subprocess.run(["kill", f"-{sent.value}", children[0]], check=False)
        process.child.wait(programs.DEADLINE)
    else:
        process.stop(sent)


def functions(output: Path) -> Counter:
    """Instructions by function, from a callgrind file: self cost only."""
    names, costs, current, inclusive = {}, Counter(), "", False
    for line in output.read_text(errors="replace").splitlines():
        if line.startswith("fn="):
            number, _, name = line[3:].partition(" ")
            names.setdefault(number, HASH.sub("", name))
            current = names[number]
        elif line.startswith("cfn="):
            number, _, name = line[4:].partition(" ")
            if name:
                names.setdefault(number, HASH.sub("", name))
        elif line.startswith("calls="):
            inclusive = True
        elif cost := COST.match(line):
            if not inclusive:
                costs[current] += int(cost[1])
            inclusive = False
    return costs


def instructions(contender, load: Path, setting, arguments: list, requests: int) -> Counter:
    output = setting.directory / "callgrind.out"
    output.unlink(missing_ok=True)
    prefix = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
    run(contender, load, setting, prefix, arguments, requests)
    return functions(output)


def syscalls(contender, load: Path, setting, arguments: list, requests: int) -> Counter:
    output = setting.directory / "strace.out"
    prefix = ["strace", "-f", "-c", "-o", str(output)]
    run(contender, load, setting, prefix, arguments, requests)
    found = (SYSCALL.match(line) for line in output.read_text().splitlines())
    return Counter({match[2]: int(match[1]) for match in found if match and match[2] != "total"})


def a_request(measure, *arguments, requests: int, times: int = 1) -> dict:
    """What one request adds. Of several runs the middle one: threads that wake by the clock do more in a longer run."""
    def middle(count: int) -> Counter:
        return sorted((measure(*arguments, count) for _ in range(times)), key=Counter.total)[times // 2]

    few, many = middle(requests), middle(2 * requests)
    return {name: (many[name] - few[name]) / requests for name in many | few}


def measure(options) -> dict:
    binaries = programs.built() if options.built else programs.build()
    directory = programs.target() / "bench-load"
    directory.mkdir(exist_ok=True)
    found = contenders.ours(binaries)
    server, ports = programs.start_servers(binaries["server"], 4, None, directory)
    setting = contenders.Setting(directory, ports)
    told = {}
    try:
        for case, arguments in CASES.items():
            told[case] = {}
            for contender in (one for one in found if one.name in WHO):
                print(f"{case}: {contender.name}", file=sys.stderr)
                common = (contender, binaries["load"], setting, arguments)
                by_function = a_request(instructions, *common, requests=options.requests, times=3)
                calls = a_request(syscalls, *common, requests=options.requests)
                told[case][contender.name] = {
                    "instructions": round(sum(by_function.values())),
                    "functions": {name: round(cost, 1) for name, cost in by_function.items() if abs(cost) >= 1},
                    # A thread that wakes by the clock makes some that are no request's.
                    "syscalls": {name: round(count, 2) for name, count in sorted(calls.items()) if count >= 0.2},
                }
    finally:
        server.stop()
    (directory / "counts.json").write_text(json.dumps(told, indent=1) + "\n")
    return told


def table(told: dict) -> str:
    lines = ["| case | floor | Homing | above the floor | | system calls: floor | Homing |", "|---|---|---|---|---|---|---|"]
    for case, both in told.items():
        floor, ours = both["floor"], both["homing-cookie"]
        calls = [", ".join(f"{count:g} {name}" for name, count in one["syscalls"].items()) for one in (floor, ours)]
        lines.append(
            f"| {case} | {floor['instructions']:,} | {ours['instructions']:,} | {above(both):+,} "
            f"| {ours['instructions'] / floor['instructions']:.3f} | {calls[0]} | {calls[1]} |")
    return "\n".join(lines)


def above(both: dict) -> int:
    return both["homing-cookie"]["instructions"] - both["floor"]["instructions"]


def by_function(told: dict) -> str:
    """Where Homing's instructions above the floor are: what it has more, or less, in every function."""
    lines = []
    for case, both in told.items():
        ours, floor = (both[name]["functions"] for name in ("homing-cookie", "floor"))
        more = {name: ours.get(name, 0) - floor.get(name, 0) for name in ours | floor}
        lines.append(f"\n{case}: {above(both):+,} a request")
        ranked = sorted(more.items(), key=lambda item: -abs(item[1]))
        lines += [f"{cost:+9.0f}  {ours.get(name, 0):8.0f}  {name}" for name, cost in ranked[:100] if abs(cost) >= 10]
    return "\n".join(lines)


def committed() -> dict:
    """The lines of counts.txt: what is above the floor, and the case."""
    lines = (line.split(maxsplit=1) for line in COMMITTED.read_text().splitlines() if line and not line.startswith("#"))
    return {case: int(count) for count, case in lines}


def check(told: dict) -> bool:
    fits = True
    for case, before in committed().items():
        now = above(told[case])
        if now > before * (1 + MAY_GROW):
            print(f"counts: {case}: {now} instructions above the floor, {now / before - 1:+.1%} over the {before} in "
                  f"{COMMITTED.name}. `make counts` says in which functions; if it is meant, `make counts-write`.")
            fits = False
        elif now < before * (1 - MAY_GROW):
            print(f"counts: {case}: {now} instructions above the floor, fewer than the {before} in {COMMITTED.name}: "
                  "`make counts-write` keeps what was won.")
    return fits


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--requests", type=int, default=2000)
    reader.add_argument("--check", action="store_true")
    reader.add_argument("--write", action="store_true")
    reader.add_argument("--functions", action="store_true")
    reader.add_argument("--built", action="store_true", help="take the programs as they are built")
    options = reader.parse_args()
    missing = [tool for tool in ("valgrind", "strace") if not shutil.which(tool)]
    if missing:
        sys.exit(f"counts: install {' and '.join(missing)} (packages of these names)")
    os.environ["GLIBC_TUNABLES"] = TUNABLES
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    told = measure(options)
    print(table(told))
    if options.functions:
        print(by_function(told))
    if options.write:
        lines = [f"{above(both)} {case}" for case, both in told.items()]
        COMMITTED.write_text("# Instructions above the floor, a request. Written by `make counts-write`.\n" + "\n".join(lines) + "\n")
    if options.check and not check(told):
        sys.exit(1)


if __name__ == "__main__":
    main()
