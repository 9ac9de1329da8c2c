#!/usr/bin/env python3
"""What reloads of a large file cost: 10,000 routes and 2,000 servers, and other servers with each reload.

Requests at a fixed rate to a pool that no reload changes, while nothing is reloaded and while one reload follows the other,
alternating in one run. Then more reloads, and a wait until the series of all servers that are gone have vanished. WebSockets of a
pool that no reload changes are open all the time. Told are the time of a reload, the ratio of p50 and p99, and memory, series, threads and
descriptors after all that against those before.

    reload.py --routes 10000 --servers 2000 --reloads 100 --rounds 5 --seconds 5
"""

import argparse
import base64
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median

import bench
import contenders
import programs
from cases import RETURNING, Case

# Servers of the pool that is measured.
STEADY = 4
# Addresses of all others: they share them, each under its own names.
ADDRESSES = 64
# The promise is five minutes.
VANISH_DEADLINE = 330
# The allocator returns what is unused within this time.
MEMORY_RETURNS = 15


def configuration(options, generation: int, ports: dict) -> str:
    """All servers but those of `app` and `ws` have names that no other generation has."""
    routes = [
        f"  - {{ name: r{number}, match: {{ hosts: [h{number}.example.org], path_prefix: /shop }}, pool: p{number % options.pools} }}"
        for number in range(options.routes)]
    pools = []
    for number in range(options.pools):
        lines = [f"  p{number}:", "    health_check: { type: http, path: /, interval: 10s }", "    circuit_breaker: {}",
                 "    persistence: {}", "    servers:"]
        for server in range(number, options.servers, options.pools):
            port = ports["others"][(server + generation) % ADDRESSES]
            lines.append(f'      - {{ name: g{generation}s{server}, address: "127.0.0.1:{port}" }}')
        pools += lines
    steady = [f'      - {{ name: s{number}, address: "127.0.0.1:{port}" }}' for number, port in enumerate(ports["steady"])]
    return "\n".join([
        "version: 1", "proxy: { threads: 1 }", f'listeners: [{{ address: "127.0.0.1:{ports["proxy"]}" }}]',
        f'metrics: {{ address: "127.0.0.1:{ports["metrics"]}" }}',
        "keys: [{ id: k1, secret: only-for-the-bench-0000000000000001 }]", "routes:",
        "  - { name: app, match: { path_prefix: / }, pool: app }", "  - { name: ws, match: { path_prefix: /ws }, pool: ws }",
        *routes, "pools:", "  app:", "    persistence: {}", "    servers:", *steady,
        "  ws:", "    persistence: {}", "    servers:", f'      - {{ name: w, address: "127.0.0.1:{ports["ws"]}" }}', *pools, ""])


class Proxy:
    """The proxy, and its file in its next version."""

    def __init__(self, options, directory: Path, ports: dict):
        self.options, self.ports = options, ports
        self.path, self.generation, self.process = directory / "reload.yaml", 0, None
        self.log_read, self.took, self.hash = 0, [], b""
        self.write()

    def start(self, _setting, port: int, core: int | None) -> programs.Process:
        self.ports["proxy"] = port
        self.write()
        command = [self.options.binaries["homing"], "run", "--config", self.path]
        self.process = programs.Process(command, core, self.path.with_suffix(".log")).wait_for(port, "homing is ready")
        self.process.metrics_port = self.ports["metrics"]
        return self.process

    def write(self) -> None:
        aside = self.path.with_suffix(".new")
        aside.write_text(configuration(self.options, self.generation, self.ports))
        # The watcher sees the rename, too; the signal that follows at once reloads earlier.
        aside.rename(self.path)

    def reload(self) -> float:
        """From the signal to the log's line."""
        self.generation += 1
        self.log_read = self.process.log.stat().st_size
        self.write()
        began = time.monotonic()
        os.kill(self.process.pid, signal.SIGHUP)
        while True:
            log = self.logged()
            # A signal before may have read this file already: what counts is another configuration.
            if done := [found for found in re.findall(rb"reload done config=(\w+)", log) if found != self.hash]:
                self.hash = done[-1]
                break
            if b"reload rejected" in log:
                sys.exit(f"reload: rejected, see {self.process.log}")
            if time.monotonic() - began > programs.DEADLINE or self.process.child.poll() is not None:
                sys.exit(f"reload: not within {programs.DEADLINE} s")
            time.sleep(0.002)
        self.took.append(time.monotonic() - began)
        return self.took[-1]

    def logged(self) -> bytes:
        with self.process.log.open("rb") as log:
            log.seek(self.log_read)
            return log.read()

    def visit(self, count: int) -> None:
        """Requests to the servers of this generation: connections that are kept, and counts."""
        client = http.client.HTTPConnection("127.0.0.1", self.ports["proxy"], timeout=30)
        for number in range(count):
            host = f"h{number * 37 % self.options.routes}.example.org"
            client.request("GET", "/shop", headers={"Host": host})
            answer = client.getresponse()
            answer.read()
            if answer.status != 200:
                sys.exit(f"reload: {host} was answered {answer.status}")
        client.close()

    def look(self) -> dict:
        status = Path(f"/proc/{self.process.pid}")
        began = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/metrics", timeout=60) as answer:
            text = answer.read()
        return {
            "memory": self.process.resident_mib(), "scrape_ms": (time.monotonic() - began) * 1000, "scrape_kib": len(text) / 1024,
            "series": sum(1 for line in text.splitlines() if line and not line.startswith(b"#")),
            "threads": len(list((status / "task").iterdir())), "descriptors": len(list((status / "fd").iterdir()))}


class Echo:
    """The server of the WebSockets: it sends back what it gets."""

    def __init__(self):
        self.door = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.door.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            client, _ = self.door.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            got = client.recv(4096)
            if not got:
                return
            head += got
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        while got := client.recv(4096):
            client.sendall(got)


class WebSocket:
    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        key = base64.b64encode(b"the sample nonce").decode()
        self.socket.sendall(("GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                             f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        if b" 101 " not in head:
            sys.exit(f"reload: no WebSocket: {head!r}")

    def is_alive(self) -> bool:
        frame = b"\x81\x85\0\0\0\0hello"
        try:
            self.socket.sendall(frame)
            return self.socket.recv(len(frame), socket.MSG_WAITALL) == frame
        except OSError:
            return False


class Reloading:
    """One reload after the other, until the round is over."""

    def __init__(self, proxy: Proxy):
        self.proxy, self.done = proxy, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.done.wait(self.proxy.options.pause):
            self.proxy.reload()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def asked(runner: bench.Runner, options) -> dict:
    load = [*RETURNING, "--rate", str(options.rate), "--connections", options.connections, "--seconds", options.seconds]
    seen = runner.ask(load)
    if runner.refused:
        sys.exit(f"reload: {runner.refused}")
    return seen["latency_us"]


def checked(options, path: Path) -> float:
    """How long the program takes to check the file."""
    began = time.monotonic()
    subprocess.run([options.binaries["homing"], "check", "--config", path], check=True, capture_output=True)
    return time.monotonic() - began


def measure(options, directory: Path) -> dict:
    proxy_core, load_core = programs.cores()
    os.sched_setaffinity(0, {load_core})
    servers, ports = programs.start_servers(options.binaries["server"], STEADY + ADDRESSES, load_core, directory)
    echo = Echo()
    ports = {"steady": ports[:STEADY], "others": ports[STEADY:], "ws": echo.port, "metrics": programs.free_port(), "proxy": 0}
    proxy = Proxy(options, directory, ports)
    runner = bench.Runner(
        contenders.Contender("homing-reload", True, False, False, proxy.start), Case("reload", "", RETURNING), options,
        (proxy_core, load_core))
    seen = {"quiet": [], "reloading": []}
    try:
        runner.start(contenders.Setting(directory, ports["steady"]))
        if runner.refused:
            sys.exit(f"reload: {runner.refused}")
        seen["check"] = checked(options, proxy.path)
        sockets = [WebSocket(ports["proxy"]) for _ in range(options.sockets)]
        proxy.visit(options.visits)
        time.sleep(MEMORY_RETURNS)
        seen["before"] = proxy.look()
        for number in range(options.rounds):
            bench.say(f"  round {number + 1} of {options.rounds}")
            alive = [one.is_alive() for one in sockets]
            seen["quiet"].append(asked(runner, options))
            with Reloading(proxy):
                seen["reloading"].append(asked(runner, options))
        while len(proxy.took) < options.reloads:
            time.sleep(options.pause)
            proxy.reload()
            proxy.visit(options.visits)
            alive = [one.is_alive() for one in sockets]
        seen["after"] = proxy.look()
        bench.say(f"  {len(proxy.took)} reloads; waiting for series to vanish")
        last = time.monotonic()
        while (now := proxy.look())["series"] > seen["before"]["series"] and time.monotonic() - last < VANISH_DEADLINE:
            time.sleep(5)
            # They end when nothing is sent for `connection.read_timeout`.
            alive = [one.is_alive() for one in sockets]
        seen["vanished"] = time.monotonic() - last
        time.sleep(MEMORY_RETURNS)
        alive = sum(one.is_alive() and before for one, before in zip(sockets, alive))
        seen["with_sockets"] = proxy.look()
        for one in sockets:
            one.socket.close()
        time.sleep(MEMORY_RETURNS)
        seen["end"] = proxy.look()
    finally:
        if runner.process:
            runner.process.stop()
        servers.stop()
    return seen | {"took": proxy.took, "alive": alive, "sockets": len(sockets)}


def tell(options, seen: dict) -> None:
    took = sorted(seen["took"])
    print(f"{options.routes:,} routes, {options.servers:,} servers in {options.pools:,} pools, {len(took)} reloads with other servers each time")
    print(f"reload: {median(took):.2f} s ({took[0]:.2f} to {took[-1]:.2f}), {median(took) / seen['check']:.2f} of \"homing check\" of the file")
    for quantile in ("p50", "p99"):
        ratios = sorted(during[quantile] / before[quantile] for before, during in zip(seen["quiet"], seen["reloading"]))
        of = lambda which: median(one[quantile] for one in seen[which])
        print(f"{quantile}: {median(ratios):.2f} of the quiet one ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
              f"{of('quiet'):,.0f} µs quiet, {of('reloading'):,.0f} µs reloading")
    before = seen["before"]
    for what, text in (("after", "right after the last reload"), ("with_sockets", f"{seen['vanished']:.0f} s later"),
                       ("end", "with all WebSockets closed")):
        now = seen[what]
        print(f"{text}: memory {now['memory'] / before['memory']:.2f} of that before ({now['memory']:.0f} MiB), "
              f"series {now['series'] / before['series']:.2f} ({now['series']:,}), "
              f"threads {now['threads']} (before {before['threads']}), descriptors {now['descriptors']} ({before['descriptors']}), "
              f"scrape {now['scrape_ms']:.0f} ms, {now['scrape_kib']:.0f} KiB")
    print(f"WebSockets of the unchanged pool: {seen['alive']} of {seen['sockets']} alive")


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--routes", type=int, default=10_000)
    reader.add_argument("--servers", type=int, default=2_000)
    reader.add_argument("--pools", type=int, default=200)
    reader.add_argument("--reloads", type=int, default=100)
    reader.add_argument("--pause", type=float, default=0.5, help="seconds between a reload and the next")
    reader.add_argument("--visits", type=int, default=200, help="requests to other servers after a reload")
    reader.add_argument("--sockets", type=int, default=20, help="WebSockets")
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument("--seconds", type=float, default=5)
    reader.add_argument("--rate", type=int, default=3000)
    reader.add_argument("--connections", type=int, default=64)
    reader.add_argument("--built", choices=("release", "demo", "debug"), help="take the programs as they are built")
    options = reader.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options.binaries = programs.built(options.built) if options.built else programs.build()
    directory = programs.target() / "bench-load" / "reload"
    directory.mkdir(parents=True, exist_ok=True)
    tell(options, measure(options, directory))


if __name__ == "__main__":
    main()
