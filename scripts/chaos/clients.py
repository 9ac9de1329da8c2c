"""Clients of all kinds, each of which checks its own session. What went wrong goes to a file, a JSON object a line.

    clients.py SEED COUNT SECONDS FILE [TLS]
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import random
import signal
import ssl
import sys
import time
from collections import Counter

import world

SEED, COUNT, SECONDS, FILE = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
TLS = len(sys.argv) > 5
END = time.monotonic() + SECONDS
# Longer than every timeout of the proxy, so that it is the proxy that says what went wrong.
PATIENCE = 20
# An answer after more seconds is written down.
SLOW = 1
# This program itself did not run for so many seconds: the machine is too busy.
STALL = 2
# The kinds of clients, and how many of a hundred.
KINDS = {"keep-alive": 40, "new": 15, "learned": 20, "upload": 10, "websocket": 10, "events": 5}

count: Counter = Counter()
out = open(FILE, "w", buffering=1)  # noqa: SIM115
stopping = False


def note(event: str, **more) -> None:
    out.write(json.dumps({"event": event, **more}) + "\n")


class Failure(Exception):
    """A request that was lost, and how."""


class Client:
    """A browser with a cookie jar, on a connection that it keeps."""

    def __init__(self, number: int, kind: str):
        self.random = random.Random(SEED * 1_000_003 + number)
        self.kind, self.path = kind, "/learned/cart" if kind == "learned" else "/shop/cart"
        self.tls = TLS and number % 10 == 0
        self.proxy = self.random.randrange(world.PROXIES) + 1
        self.connection = None
        self.forget()

    def forget(self) -> None:
        """A new client."""
        self.cookies, self.home, self.sid, self.began = {}, None, None, time.monotonic()
        # When the server answered last, and through which proxy.
        self.seen, self.seen_at = time.monotonic(), self.proxy

    async def open(self) -> tuple:
        if self.connection is None:
            address = world.proxy_address(self.proxy)
            if self.tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                self.connection = await asyncio.open_connection(address, world.TLS_PORT, ssl=context)
            else:
                self.connection = await asyncio.open_connection(address, world.PROXY_PORT)
        return self.connection

    def close(self) -> None:
        if self.connection:
            self.connection[1].close()
        self.connection = None

    async def request(self, method: str, path: str, more: str = "", sent: bytes = b"") -> dict:
        """The answer's status, fields and body. A connection that the proxy had closed while it was idle is no loss."""
        for _ in range(2):
            kept = self.connection is not None
            reader, writer = await self.open()
            cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            cookies = f"Cookie: {cookies}\r\n" if cookies else ""
            length = f"Content-Length: {len(sent)}\r\n" if sent else ""
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: chaos.test\r\n{cookies}{length}{more}\r\n".encode() + sent)
            try:
                await writer.drain()
                first = await reader.readline()
            except ConnectionError:
                first = b""
            if first or not kept:
                break
            self.close()
        if not first:
            raise Failure("closed before an answer")
        status, fields = int(first.split()[1]), {}
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin1").partition(":")
            if name.lower() == "set-cookie":
                pair = value.split(";")[0].strip().split("=", 1)
                self.cookies[pair[0]] = pair[1]
            fields[name.lower()] = value.strip()
        if status != 101 and "content-length" in fields:
            try:
                fields["body"] = await reader.readexactly(int(fields["content-length"]))
            except asyncio.IncompleteReadError as cut:
                raise Failure("cut off") from cut
        # A stream is read before its connection is closed.
        if fields.get("connection", "").lower() == "close" and "body" in fields:
            self.close()
        return {"status": status, **fields}

    async def visit(self) -> None:
        sent, more, method = b"", "", "GET"
        if self.kind == "upload":
            sent = self.random.randbytes(self.random.choice((500, 20_000, 300_000)))
            method, more = "POST", "Content-Type: application/octet-stream\r\n"
        answer = await self.request(method, self.path, more, sent)
        if answer["status"] != 200:
            raise Failure(f"status {answer['status']}")
        page = json.loads(answer["body"])
        if sent and page["digest"] != hashlib.sha256(sent).hexdigest():
            raise Failure("another upload arrived")
        if self.sid and page["sid"] != self.sid:
            raise Failure("the session of another client")
        self.check(page["server"])
        self.sid = page["sid"]

    def check(self, server: str) -> None:
        now = time.monotonic()
        if self.home and server != self.home:
            note("move", kind=self.kind, since=self.seen, at=now, home=self.home, to=server, proxy=self.proxy, before=self.seen_at,
                 session_began=self.began)
            count["moved"] += 1
        self.home, self.seen, self.seen_at = server, now, self.proxy

    async def websocket(self) -> None:
        """Some messages, each of which comes back from the same server."""
        key = base64.b64encode(self.random.randbytes(16)).decode()
        more = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        answer = await self.request("GET", "/shop/socket", more)
        if answer["status"] != 101:
            raise Failure(f"status {answer['status']}")
        reader, writer = self.connection
        server = None
        for number in range(self.random.randrange(3, 12)):
            if stopping:
                break
            text, mask = f"m{number}".encode(), os.urandom(4)
            writer.write(bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text)))
            await writer.drain()
            frame = await reader.readexactly(2)
            if frame[0] != 0x81:
                raise Failure("no WebSocket frame came back")
            back = (await reader.readexactly(frame[1] & 127)).decode()
            name, _, rest = back.partition(" ")
            if rest != text.decode() or server not in (None, name):
                raise Failure("another message came back")
            if server is None:
                self.check(name)
            server = name
            count["messages"] += 1
            await asyncio.sleep(1)
        writer.write(b"\x88\x80" + os.urandom(4))
        await writer.drain()
        self.close()

    async def events(self) -> None:
        events = self.random.randrange(3, 12)
        answer = await self.request("GET", f"/shop/events?n={events}")
        if answer["status"] != 200:
            raise Failure(f"status {answer['status']}")
        reader, _ = self.connection
        number, text = 0, ""
        while size := int((await reader.readline()).strip() or b"-1", 16):
            if size < 0:
                raise Failure("cut off")
            text += (await reader.readexactly(size + 2))[:size].decode()
            # Chunks need not be events: after a pause several come in one.
            *whole, text = text.split("\n\n")
            for event in whole:
                if not event.startswith(f"data: {number} "):
                    raise Failure("an event is missing")
                if number == 0:
                    self.check(event.split()[2])
                number += 1
        await reader.readline()
        if number != events:
            raise Failure(f"{number} of {events} events")
        if answer.get("connection", "").lower() == "close":
            self.close()

    async def use(self) -> None:
        if self.kind == "new" or self.random.random() < 0.01:
            self.close()
            self.forget()
        if self.kind in ("websocket", "events") and self.home:
            await (self.websocket() if self.kind == "websocket" else self.events())
        else:
            await self.visit()

    async def run(self) -> None:
        await asyncio.sleep(self.random.random() * 8)
        while time.monotonic() < END and not stopping:
            began = time.monotonic()
            why = None
            try:
                await asyncio.wait_for(self.use(), PATIENCE + (15 if self.kind in ("websocket", "events") else 0))
            except Failure as failure:
                why = str(failure)
            except asyncio.TimeoutError:
                why = "no answer in time"
            except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError, ValueError):
                why = "cut off"
            except (ConnectionRefusedError, OSError, ssl.SSLError):
                why = "no connection"
            except Exception as error:  # noqa: BLE001
                # Of this program; the other clients go on.
                why = f"{type(error).__name__}: {error}"
            if stopping:
                break
            count["requests", self.kind] += 1
            took = time.monotonic() - began
            if why:
                note("loss", kind=self.kind, began=began, at=time.monotonic(), why=why, home=self.home, proxy=self.proxy, tls=self.tls)
                self.close()
                # As behind a balancer that leaves out a proxy that does not answer.
                self.proxy = self.random.randrange(world.PROXIES) + 1
            elif self.kind not in ("websocket", "events"):
                if took > SLOW:
                    note("slow", kind=self.kind, began=began, at=time.monotonic(), home=self.home, proxy=self.proxy)
            elif self.random.random() < 0.02:
                self.close()
                self.proxy = self.random.randrange(world.PROXIES) + 1
            if self.kind in ("keep-alive", "learned") and self.random.random() < 0.05:
                self.close()
                self.proxy = self.random.randrange(world.PROXIES) + 1
            await asyncio.sleep(self.random.uniform(2, 6))
        with contextlib.suppress(Exception):
            self.close()


async def watch_for_stalls() -> None:
    while time.monotonic() < END and not stopping:
        began = time.monotonic()
        await asyncio.sleep(0.5)
        if time.monotonic() - began > 0.5 + STALL:
            note("stall", began=began, at=time.monotonic())


def stop(*_: object) -> None:
    global stopping
    stopping = True


async def main() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    kinds = [kind for kind, share in KINDS.items() for _ in range(share)]
    await asyncio.gather(watch_for_stalls(), *(Client(number, kinds[number * 37 % 100]).run() for number in range(COUNT)))
    note("count", **{"/".join(key) if isinstance(key, tuple) else key: value for key, value in count.items()})


asyncio.run(main())
