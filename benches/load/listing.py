#!/usr/bin/env python3
"""What listing all sessions through the admin API costs traffic: requests at a fixed rate, of sessions that return, while nobody
lists and while a client lists a million sessions over and over, alternating in one run. Told are p50 and p99 to those without.

    listing.py --rounds 5 --seconds 5 --sessions 1000000 --rate 3000
"""

import argparse
import json
import sys
import threading
import urllib.request
from statistics import median

import bench
import contenders
import programs
from cases import Case

# The most that a page may have.
PAGE = 1000


class Lister:
    """A client that lists every session, page by page, again and again until it is stopped."""

    def __init__(self, port: int):
        self.address = f"http://127.0.0.1:{port}/api/v1/sessions?limit={PAGE}"
        self.listed, self.failed = 0, None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def run(self) -> None:
        cursor = ""
        while not self.done.is_set():
            try:
                with urllib.request.urlopen(self.address + cursor, timeout=30) as answer:
                    page = json.load(answer)
            except OSError as why:
                self.failed = why
                return
            self.listed += len(page["items"])
            cursor = f"&cursor={page['next']}" if page["next"] else ""


def measure(options, directory) -> tuple[list, list, int]:
    proxy_core, load_core = programs.cores()
    binaries = programs.built("release") if options.built else programs.build()
    options.binaries = binaries
    case = Case("listing", "", ["--sessions", "256", "--rate", str(options.rate)], fill=options.sessions)
    servers, ports = programs.start_servers(binaries["server"], 4, load_core, directory)
    setting = contenders.Setting(directory, ports, max_sessions=options.sessions * 2, admin_port=programs.free_port())
    contender = next(one for one in contenders.ours(binaries) if one.name == "homing-learn")
    runner = bench.Runner(contender, case, options, (proxy_core, load_core))
    quiet, listing, listed = [], [], 0
    try:
        runner.start(setting)
        for _ in range(options.rounds):
            quiet.append(asked(runner, case, options))
            with Lister(setting.admin_port) as lister:
                listing.append(asked(runner, case, options))
            if lister.failed:
                sys.exit(f"listing: {lister.failed}")
            listed += lister.listed
    finally:
        if runner.process:
            runner.process.stop()
        servers.stop()
    return quiet, listing, listed


def asked(runner: bench.Runner, case: Case, options) -> dict:
    seen = runner.ask([*case.load, "--connections", options.connections, "--seconds", options.seconds])
    if runner.refused:
        sys.exit(f"listing: {runner.refused}")
    return seen["latency_us"]


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument("--seconds", type=float, default=5)
    reader.add_argument("--sessions", type=int, default=1_000_000)
    reader.add_argument("--rate", type=int, default=3000)
    reader.add_argument("--connections", type=int, default=64)
    reader.add_argument("--built", action="store_true", help="take the programs as they are built")
    options = reader.parse_args()
    directory = programs.target() / "bench-load" / "listing"
    directory.mkdir(parents=True, exist_ok=True)
    quiet, listing, listed = measure(options, directory)
    print(f"{listed:,} sessions listed in {options.rounds * options.seconds:g} s, {options.sessions:,} in the table")
    for quantile in ("p50", "p99"):
        ratios = sorted(during[quantile] / before[quantile] for before, during in zip(quiet, listing))
        print(f"{quantile}: {median(ratios):.2f} of the quiet one ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
              f"{median(one[quantile] for one in quiet):,.0f} µs quiet, {median(one[quantile] for one in listing):,.0f} µs listing")


if __name__ == "__main__":
    main()
