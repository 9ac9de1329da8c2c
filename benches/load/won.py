#!/usr/bin/env python3
"""What the build of `make release-pgo` won: instructions a request, of the usual release build and of that one."""

import os

import callgrind
import contenders
import counts
import programs

REQUESTS = 2000


def main() -> None:
    binaries = programs.built()
    directory = programs.target() / "bench-load"
    directory.mkdir(exist_ok=True)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    builds = [binaries | more for more in ({}, programs.built_by_profile())]
    servers, ports = programs.start_servers(binaries["server"], 4, None, directory)
    setting = contenders.Setting(directory, ports)
    preload = callgrind.steady(directory)
    print("| instructions a request | release build | guided by a profile | |\n|---|---|---|---|")
    try:
        for case in counts.CASES:
            for name in counts.WHO:
                usual, guided = (instructions(name, case, build, setting, preload) for build in builds)
                print(f"| {case}: {name} | {usual:,.0f} | {guided:,.0f} | {guided / usual - 1:+.1%} |", flush=True)
    finally:
        servers.stop()


def instructions(name: str, case: str, binaries: dict, setting, preload) -> float:
    contender = next(one for one in contenders.ours(binaries) if one.name == name)
    counted = counts.Measured(contender, case, binaries, setting).counted(REQUESTS, preload)
    return sum(counted.instructions.values())


if __name__ == "__main__":
    main()
