#!/usr/bin/env python3
"""HTTP/2 beside other proxies: h2load (nghttp2) sends the requests of returning sessions, on many streams of each connection.

Contenders take turns, round after round; told are CPU time a request and requests a second relative to HAProxy's of the same round:
median (least-greatest). CPU time is the whole process's, and has the connections' opening in it.

    http2.py --rounds 5 --connections 16 --streams 8
    http2.py --tls --only homing-cookie,haproxy-cookie
    http2.py --counts                   instructions of a request instead, by part of the program (valgrind)

Results: target/bench-load/ (http2.md, http2.json).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from statistics import median

import callgrind
import contenders
import programs
from counts import TUNABLES

PEER = "haproxy-cookie"
RATE = re.compile(r"finished in .*?, ([\d.]+) req/s")
RESULT = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed")
STATUS = re.compile(r"status codes: (\d+) 2xx")


# Parts of the program by what names of functions begin with, in this order; what remains is of the last one.
PARTS = {
    "h2 and HPACK": ("h2::", "<h2::"), "pingora-proxy": ("pingora_proxy::", "<pingora_proxy::"),
    "pingora-core and pingora-http": ("pingora_", "<pingora_"), "Homing": ("homing::", "<homing::"),
    "tokio, sockets, clock": ("tokio::", "<tokio::", "std::sys", "<std::sys", "clock_gettime", "epoll", "recv", "send", "__pthread", "mio::"),
    "http: header maps": ("http::", "<http::"), "httparse": ("httparse::",), "allocator": ("mi_", "_mi_", "__rust"),
    "copies": ("__mem",), "rustls and ring": ("rustls::", "<rustls::", "ring::", "ring_", "_aes", "tokio_rustls::", "<tokio_rustls::"),
    "bytes": ("bytes::", "<bytes::"), "other": ("",),
}


class LoadFailed(Exception):
    """Not all requests were answered with 200."""


def load(options, address: str, session: str, requests: int) -> float:
    """Returns requests a second."""
    named = ["-H", f"cookie: {session}"] if session else []
    asked = ["taskset", "-c", str(options.load_core), "h2load", "-n", str(requests), "-c", str(options.connections),
             "-m", str(options.streams), "-t", "1", *named, address]
    text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    rate, result, status = RATE.search(text), RESULT.search(text), STATUS.search(text)
    if not (rate and result and status) or {result[2], status[1]} != {str(requests)}:
        raise LoadFailed(text)
    return float(rate[1])


class Contender:
    """One that runs, and what was measured of it."""

    def __init__(self, contender, options, setting, prefix=()):
        self.name = contender.name
        port = programs.free_port()
        scheme = "https" if options.tls else "http"
        self.address = f"{scheme}://127.0.0.1:{port}/"
        self.process = contender.start(setting, port, options.proxy_core, prefix)
        self.session = self.begin(options)
        self.rounds = []

    def begin(self, options) -> str:
        """A session's cookie, by one request of HTTP/2."""
        asked = ["curl", "-sk", "--http2-prior-knowledge" if not options.tls else "--http2", "-o", "/dev/null", "-D", "-", self.address]
        head = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        found = re.search(r"(?im)^set-cookie: *([^;\r\n]+)", head)
        return found[1] if found else ""

    def play(self, options) -> None:
        load(options, self.address, self.session, options.requests // 10)
        before = self.process.cpu_ns()
        rate = load(options, self.address, self.session, options.requests)
        self.rounds.append({"cpu_us": (self.process.cpu_ns() - before) / options.requests / 1000, "rate": rate})


def counts(contender, options, setting, directory) -> str:
    """Instructions of a request by part: the difference of a short run and a long one."""
    output, short, long = directory / "callgrind.out", 200, 2200
    os.environ["GLIBC_TUNABLES"] = TUNABLES
    one, took = Contender(contender, options, setting, callgrind.command(output)), []
    try:
        for requests in (short, short, long):
            load(options, one.address, one.session, requests)
            took.append(callgrind.take(one.process.pid, output).instructions)
    finally:
        one.process.stop()
    parts: Counter = Counter()
    for name in took[1] | took[2]:
        part = next(part for part, begins in PARTS.items() if name.startswith(begins))
        parts[part] += (took[2][name] - took[1][name]) / (long - short)
    lines = [f"instructions of a request over HTTP/2{' with TLS' if options.tls else ''}: {parts.total():,.0f}", ""]
    return "\n".join(lines + [f"{cost:9,.0f}  {part}" for part, cost in parts.most_common()]) + "\n"


def report(told: list, options) -> str:
    base = next((one for one in told if one.name == PEER), None)
    kind = f"HTTP/2{' with TLS' if options.tls else ''}, {options.connections} connections with {options.streams} streams each, 1 KiB"
    lines = [f"{kind}, {options.rounds} rounds", "", f"| relative to {PEER} | CPU per request | requests per second |", "|---|---|---|"]
    for one in told:
        cells = []
        for what in ("cpu_us", "rate"):
            ratios = [mine[what] / peers[what] for mine, peers in zip(one.rounds, base.rounds)] if base else []
            cells.append(f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "")
        lines.append(f"| {one.name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--rounds", type=int, default=3)
    reader.add_argument("--requests", type=int, default=40_000, help="of a round")
    reader.add_argument("--connections", type=int, default=16)
    reader.add_argument("--streams", type=int, default=8, help="at a time, of each connection")
    reader.add_argument("--tls", action="store_true")
    reader.add_argument("--counts", action="store_true", help="count Homing's instructions")
    reader.add_argument("--only", type=lambda text: [part for part in text.split(",") if part], default=[])
    reader.add_argument("--built", metavar="PROFILE", help="measure existing builds of this profile instead of building")
    return reader.parse_args()


def main() -> None:
    options = arguments()
    missing = [tool for tool in ("h2load", "curl") if not shutil.which(tool)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (h2load is in the package nghttp2-client)")
    binaries = programs.built(options.built) if options.built else programs.build()
    directory = programs.target() / "bench-load"
    directory.mkdir(exist_ok=True)
    options.proxy_core, options.load_core = programs.cores()
    # The floor speaks HTTP/1 only.
    found = [one for one in contenders.basic(binaries) if one.name != "floor" and (not options.only or one.name in options.only)]
    servers, ports = programs.start_servers(binaries["server"], 4, options.load_core, directory)
    setting = contenders.Setting(directory, ports, tls=options.tls, http2=True)
    told = []
    try:
        if options.counts:
            ours = next(one for one in found if one.name == "homing-cookie")
            print(counts(ours, options, setting, directory))
            return
        for contender in found:
            told.append(Contender(contender, options, setting))
        for number in range(options.rounds):
            print(f"  round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for one in told:
                one.play(options)
    finally:
        for one in told:
            one.process.stop()
        servers.stop()
    text = report(told, options)
    (directory / "http2.md").write_text(text)
    (directory / "http2.json").write_text(json.dumps({one.name: one.rounds for one in told}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
