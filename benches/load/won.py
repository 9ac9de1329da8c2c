#!/usr/bin/env python3
"""What the build of `make release-pgo` won: instructions a request, of the usual release build and of that one."""

import os
import sys

import contenders
import counts
import programs

REQUESTS = 2000


def main() -> None:
    os.environ["GLIBC_TUNABLES"] = counts.TUNABLES
    binaries = programs.built()
    directory = programs.target() / "bench-load"
    directory.mkdir(exist_ok=True)
    builds = [contenders.ours(binaries | more) for more in ({}, programs.built_by_profile())]
    servers, ports = programs.start_servers(binaries["server"], 4, None, directory)
    setting = contenders.Setting(directory, ports)
    print("| instructions a request | release build | guided by a profile | |\n|---|---|---|---|")
    try:
        for case, arguments in counts.CASES.items():
            for name in counts.WHO:
                both = [next(one for one in build if one.name == name) for build in builds]
                usual, guided = (instructions(one, binaries["load"], setting, arguments) for one in both)
                print(f"| {case}: {name} | {usual:,.0f} | {guided:,.0f} | {guided / usual - 1:+.1%} |")
                sys.stdout.flush()
    finally:
        servers.stop()


def instructions(contender, load, setting, arguments: list) -> float:
    measured = counts.a_request(counts.instructions, contender, load, setting, arguments, requests=REQUESTS)
    return sum(measured.values())


if __name__ == "__main__":
    main()
