"""What is asked of the contenders: one line each, and what is special about it."""

import os
from dataclasses import dataclass, field

SESSIONS = int(os.environ.get("BENCH_SESSIONS", "1000000"))
# Of the sessions in the table so many come back: a few hundred stay in the processor's caches, many do not.
COMING_BACK = os.environ.get("BENCH_RETURNING", "256")
RATE = int(os.environ.get("BENCH_RATE", "5000"))

RETURNING = ["--sessions", "256"]
NEW = ["--new", "--path", "/s"]


@dataclass
class Case:
    name: str
    title: str
    load: list
    # Which contenders make sense; None: all.
    only: tuple | None = None
    # Of contenders.Setting.
    setting: dict = field(default_factory=dict)
    servers: int = 4
    # New sessions that fill the table before the rounds.
    fill: int = 0

    def takes(self, contender) -> bool:
        if contender.by_address and "--new" in self.load:
            return False  # an address is a client: there is no new one with each request
        return self.only is None or any(contender.name == name or contender.name.startswith(name + "-") for name in self.only)


CASES = [
    Case("hit", "keep-alive, 64 connections, returning sessions, 1 KiB", RETURNING),
    Case("new", "keep-alive, a new session with each request, 1 KiB", NEW),
    Case("close", "a connection for each request, returning sessions, 1 KiB", [*RETURNING, "--close"]),
    Case("big", "keep-alive, returning sessions, 100 KiB", [*RETURNING, "--path", "/big"]),
    Case("tls", "TLS, keep-alive, returning sessions, 1 KiB", [*RETURNING, "--tls"], setting={"tls": True}),
    Case("rate", f"{RATE} requests a second whatever the answers do, returning sessions", [*RETURNING, "--rate", str(RATE)]),
    Case("routes", "keep-alive, returning sessions, 1,000 routes", RETURNING, ("floor", "homing-cookie"),
         {"routes": 1000}),
    # Connections are kept to servers that are asked rarely: with the usual pool all would only measure connecting.
    Case("servers", "keep-alive, returning sessions, 200 servers", RETURNING,
         ("floor", "pingora-cookie", "homing-cookie", "haproxy"), {"idle": 2000}, servers=200),
    Case("table", f"keep-alive, returning sessions among {SESSIONS:,} learned ones",
         ["--sessions", COMING_BACK],
         ("floor", "homing-learn", "haproxy-table", "nginx-learn"),
         {"max_sessions": SESSIONS * 5 // 4 + 10_000 + 5 * int(COMING_BACK)}, fill=SESSIONS),
    Case("expiry", "keep-alive, a new session with each request, each over after two seconds", NEW,
         ("floor", "homing-learn", "haproxy-table", "nginx-learn"), {"idle_timeout": "2s"}),
    Case("log", "keep-alive, returning sessions, access log to a file", RETURNING, ("floor", "homing-cookie"),
         {"access_log": True}),
]
