#!/usr/bin/env python3
"""Uses programs that count what they do, for `make release-pgo`: what they are asked here is what the build is made good at.

    train.py PROGRAMS PROFILES

PROGRAMS is a directory with `homing` and `floor`, PROFILES one for what they have counted. Numbers of requests are fixed and
the proxy has one thread, so two runs count nearly the same.
"""

import http.client
import http.server
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import contenders
import programs
from cases import CASES

# Of the bench's cases: what most proxies do all day. A request of `big` takes as long as several others.
REQUESTS = {"hit": 20_000, "new": 10_000, "close": 10_000, "big": 2_000, "tls": 10_000, "log": 5_000}
CONNECTIONS = 64
# So often each of the requests that the load does not know: bodies, errors.
ROUNDS = 300


class Application(http.server.BaseHTTPRequestHandler):
    """A server that takes bodies, and fails when it is asked to."""

    protocol_version = "HTTP/1.1"
    timeout = 5

    def answer(self) -> None:
        if self.path == "/gone":
            self.close_connection = True
            return  # without a word
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n")
            return
        body = b"x" * 512
        self.send_response({"/missing": 404, "/broken": 500}.get(self.path, 200))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_) -> None:
        pass


def bodies_and_errors(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=programs.DEADLINE)
    cookies = ""
    chunks = [b"y" * 1000] * 20
    asked = [
        ("POST", "/form", b"a=1&b=2"), ("PUT", "/file", b"x" * 20_000), ("POST", "/stream", chunks), ("GET", "/chunked", None),
        ("HEAD", "/", None), ("DELETE", "/item", None), ("GET", "/missing", None), ("GET", "/broken", None),
    ]
    for number in range(ROUNDS):
        for method, path, body in asked:
            headers = {"Cookie": cookies, "X-Requested-With": "XMLHttpRequest"} if cookies else {}
            client.request(method, path, iter(body) if isinstance(body, list) else body, headers,
                           encode_chunked=isinstance(body, list))
            answer = client.getresponse()
            answer.read()
            cookies = (answer.headers.get("Set-Cookie") or cookies).partition(";")[0]
            if answer.status >= 502:
                sys.exit(f"train: {method} {path}: {answer.status}")
        if number % 10 == 0:
            client.request("GET", "/gone")
            client.getresponse().read()
            nonsense(port)
    client.close()


def nonsense(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), programs.DEADLINE) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nbroken header\r\n\r\n")
        while stranger.recv(4096):
            pass


def train(contender, setting, use) -> None:
    port = programs.free_port()
    process = contender.start(setting, port, None)
    try:
        use(port)
    except BaseException:
        process.stop()
        raise
    # What was counted is written when a program ends by itself: Pingora's way to do that at once is INT, Homing's is TERM.
    process.stop(signal.SIGINT if contender.name.startswith("floor") else signal.SIGTERM)


def ask(load: Path, case, port: int) -> None:
    asked = [*case.load, "--connections", CONNECTIONS, "--requests", REQUESTS[case.name]]
    seen = programs.run_load(load, port, asked, None)
    if seen.get("failed") or seen["errors"]:
        sys.exit(f"train: {case.name}: {seen}")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    counting, profiles = (Path(argument).resolve() for argument in sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ["LLVM_PROFILE_FILE"] = str(profiles / "%p-%m.profraw")
    binaries = programs.built() | {name: counting / name for name in ("homing", "floor")}
    directory = programs.target() / "bench-load"
    directory.mkdir(exist_ok=True)
    found = contenders.ours(binaries)
    servers, ports = programs.start_servers(binaries["server"], 4, None, directory)
    try:
        for case in (case for case in CASES if case.name in REQUESTS):
            setting = contenders.Setting(directory, ports, **case.setting)
            for contender in (one for one in found if case.takes(one)):
                print(f"train: {case.name}: {contender.name}", file=sys.stderr)
                train(contender, setting, lambda port, case=case: ask(binaries["load"], case, port))
    finally:
        servers.stop()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application) as application:
        threading.Thread(target=application.serve_forever, daemon=True).start()
        setting = contenders.Setting(directory, [application.server_port])
        for contender in found:
            print(f"train: bodies and errors: {contender.name}", file=sys.stderr)
            train(contender, setting, bodies_and_errors)
        application.shutdown()


if __name__ == "__main__":
    main()
