#!/usr/bin/env python3
"""Resident memory of idle client connections: of Homing, a bare Pingora, and HAProxy and nginx where they are installed.

Each connection gets one response and then stays idle. Reported per connection: resident memory while all are idle, and what
is still resident after all have closed.

    idle.py --connections 3000
    idle.py --tls --only homing-cookie,haproxy-cookie
    idle.py --tls --http2

Results: target/bench-load/ (idle.md, idle.json).
"""

import argparse
import contextlib
import json
import os
import resource
import socket
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import contenders
import programs

# Connections that are opened and closed before the measurement: code, pools and threads are resident afterwards.
WARM_UP = 200
# Clients that open connections at a time.
CLIENTS = 16
# How long the proxy may take to return memory after the last connection has closed.
RETURN_SECONDS = 15
SETTLE_SECONDS = 2
REQUEST = b"GET / HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n"
# The same request in HTTP/2: preface, empty SETTINGS, acknowledgement of the proxy's, HEADERS with fields of HPACK's static table.
FIELDS = b"\x82\x84" + b"%c" + b"\x41\x10shop.example.org"
SETTINGS, HEADERS, END_STREAM = 4, 1, 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def http2_request(tls: bool) -> bytes:
    scheme = 0x87 if tls else 0x86
    head = frame(HEADERS, 5, 1, FIELDS % scheme)
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0) + head + frame(SETTINGS, 1, 0)


def connect(port: int, tls: ssl.SSLContext | None, http2: bool) -> socket.socket:
    """A connection that got one response."""
    client = socket.create_connection(("127.0.0.1", port), 30)
    if tls:
        client = tls.wrap_socket(client, server_hostname="shop.example.org")
    if http2:
        client.sendall(http2_request(tls is not None))
        receive_stream(client)
    else:
        client.sendall(REQUEST)
        receive_response(client)
    return client


def receive_stream(client: socket.socket) -> None:
    """Reads frames until the end of the response."""
    got, ended = b"", False
    while not ended:
        while len(got) < 9 or len(got) < 9 + int.from_bytes(got[:3], "big"):
            got += receive(client)
        length, kind, flags = int.from_bytes(got[:3], "big"), got[3], got[4]
        if kind not in (0, HEADERS, SETTINGS, 8):
            raise OSError(f"unexpected frame of type {kind}")
        ended = kind in (0, HEADERS) and bool(flags & END_STREAM)
        got = got[9 + length:]


def receive_response(client: socket.socket) -> None:
    got = b""
    while b"\r\n\r\n" not in got:
        got += receive(client)
    head, _, body = got.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(f"unexpected response: {head.splitlines()[0].decode()}")
    lengths = [line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length:")]
    left = int(lengths[0]) - len(body)
    while left > 0:
        left -= len(receive(client))


def receive(client: socket.socket) -> bytes:
    got = client.recv(65536)
    if not got:
        raise OSError("the proxy closed the connection")
    return got


def open_all(count: int, port: int, tls: ssl.SSLContext | None, http2: bool) -> list:
    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(lambda _: connect(port, tls, http2), range(count)))


def close_all(connections: list) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.close()


def measure(contender, setting, options, core: int, tls: ssl.SSLContext | None) -> dict:
    port = programs.free_port()
    process = contender.start(setting, port, core)
    try:
        close_all(open_all(WARM_UP, port, tls, options.http2))
        time.sleep(SETTLE_SECONDS)
        before = process.resident_mib()
        connections = open_all(options.connections, port, tls, options.http2)
        time.sleep(SETTLE_SECONDS)
        idle = process.resident_mib()
        close_all(connections)
        after = returned(process, before)
    finally:
        process.stop()
    kib = 1024 / options.connections
    return {"contender": contender.name, "idle_kib": (idle - before) * kib, "kept_kib": (after - before) * kib,
            "resident_mib": {"before": before, "idle": idle, "after": after}}


def returned(process, before: float) -> float:
    """Resident memory after the connections have closed: the least within the time that the proxy has to return it."""
    least = process.resident_mib()
    until = time.monotonic() + RETURN_SECONDS
    while time.monotonic() < until and least > before:
        time.sleep(0.5)
        least = min(least, process.resident_mib())
    return least


def report(results: list, options) -> str:
    peer = next((one["idle_kib"] for one in results if one["contender"].startswith("haproxy")), None)
    kind = f"HTTP/{2 if options.http2 else 1}{' with TLS' if options.tls else ''}"
    lines = [f"{options.connections:,} idle connections ({kind}), after one response each", "",
             "| | KiB each, idle | relative to HAProxy | KiB each, after they closed |", "|---|---|---|---|"]
    for one in results:
        ratio = f"{one['idle_kib'] / peer:.1f}" if peer else ""
        lines.append(f"| {one['contender']} | {one['idle_kib']:.2f} | {ratio} | {one['kept_kib']:.2f} |")
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--connections", type=int, default=3000)
    reader.add_argument("--tls", action="store_true")
    reader.add_argument("--http2", action="store_true", help="without the floor, which only speaks HTTP/1")
    reader.add_argument("--only", type=lambda text: [part for part in text.split(",") if part], default=[])
    reader.add_argument("--built", metavar="PROFILE", help="measure existing builds of this profile instead of building")
    return reader.parse_args()


def main() -> None:
    options = arguments()
    binaries = programs.built(options.built) if options.built else programs.build()
    directory: Path = programs.target() / "bench-load"
    directory.mkdir(exist_ok=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    core, own = programs.cores()
    os.sched_setaffinity(0, {own})
    found = [one for one in contenders.basic(binaries) if not options.only or one.name in options.only]
    if options.http2:
        found = [one for one in found if one.name != "floor"]
    servers, ports = programs.start_servers(binaries["server"], 4, own, directory)
    setting = contenders.Setting(directory, ports, tls=options.tls, http2=options.http2)
    tls = None
    if options.tls:
        tls = ssl._create_unverified_context()  # the bench's own certificate
        tls.set_alpn_protocols(["h2" if options.http2 else "http/1.1"])
    results = []
    try:
        for contender in found:
            print(f"  {contender.name}", file=sys.stderr, flush=True)
            results.append(measure(contender, setting, options, core, tls))
    finally:
        servers.stop()
    text = report(results, options)
    (directory / "idle.md").write_text(text)
    (directory / "idle.json").write_text(json.dumps(results, indent=1))
    print(text)


if __name__ == "__main__":
    main()
