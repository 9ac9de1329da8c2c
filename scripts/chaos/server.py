"""An application server: it knows its sessions, and answers pages, uploads, streams and WebSockets.

    server.py NAME ADDRESS PORT
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import sys

NAME, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
BOOT = os.urandom(4).hex()
SESSIONS: dict = {}
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def head(reader: asyncio.StreamReader) -> tuple | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    first, *lines = raw.decode("latin1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    method, target, _ = first.split(" ", 2)
    return method, target, fields


async def body(reader: asyncio.StreamReader, fields: dict) -> bytes:
    if fields.get("transfer-encoding") == "chunked":
        whole = b""
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            whole += await reader.readexactly(size)
            await reader.readline()
            if size == 0:
                return whole
    return await reader.readexactly(int(fields.get("content-length", 0)))


def session(fields: dict) -> tuple:
    """The application's own session by its cookie: its id, and whether it was known here."""
    cookies = dict(pair.strip().partition("=")[::2] for pair in fields.get("cookie", "").split(";"))
    sid = cookies.get("SID") or os.urandom(12).hex()
    known = sid in SESSIONS
    SESSIONS[sid] = SESSIONS.get(sid, 0) + 1
    return sid, known


def answer(fields: dict, extra: dict) -> bytes:
    sid, known = session(fields)
    text = json.dumps({"server": NAME, "boot": BOOT, "sid": sid, "known": known, "count": SESSIONS[sid], **extra}).encode()
    # A session that this server does not know gets its cookie again, as applications do. It keeps its id, by which clients check.
    cookie = "" if known else f"Set-Cookie: SID={sid}; Path=/\r\n"
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n{cookie}\r\n".encode() + text


async def stream(writer: asyncio.StreamWriter, events: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(events):
        text = f"data: {number} {NAME}\n\n".encode()
        writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        await writer.drain()
        await asyncio.sleep(1)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
    writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    while True:
        first, second = await reader.readexactly(2)
        length = second & 127
        mask = await reader.readexactly(4)
        text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(length)))
        if first & 15 == 8:
            writer.write(b"\x88\x00")
            await writer.drain()
            return
        text = f"{NAME} ".encode() + text
        writer.write(bytes([0x81, len(text)]) + text)
        await writer.drain()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ValueError):
        while request := await head(reader):
            method, target, fields = request
            if target == "/healthz":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            elif "sec-websocket-key" in fields:
                await websocket(reader, writer, fields["sec-websocket-key"])
                break
            elif "/events" in target:
                await stream(writer, int(target.rpartition("=")[2]))
            else:
                sent = await body(reader, fields)
                writer.write(answer(fields, {"length": len(sent), "digest": hashlib.sha256(sent).hexdigest()} if method == "POST" else {}))
            await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, ADDRESS, PORT, backlog=1024, reuse_address=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
