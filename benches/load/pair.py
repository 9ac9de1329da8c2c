"""Two proxies and one store, seen by one client that asks one thing after the other: how long the second proxy takes for a
session that began at the first, and when it hears that one has moved."""

import contextlib
import gc
import re
import socket
import time

import contenders
import programs

HEAD = ("GET {path} HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: bench\r\nAccept: */*\r\n{cookie}\r\n")
# A copy that no announcement reaches is at most twice `near_ttl` old.
PATIENCE = 30
LOOKUPS = 'homing_store_operation_duration_seconds_count{op="lookup"}'
ANNOUNCEMENTS = "homing_store_announcements_total"
GOOD = re.compile(r'result="(ok|lost)"')
QUOTED = re.compile(r'="(.*?)"')
# Sessions in a row, and seconds.
WARM_SESSIONS, WARM_DEADLINE = 1000, 60


class Failed(Exception):
    """An answer that nothing can be measured by."""


class Client:
    """One connection, kept."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, cookie: str | None, path: str = "/") -> tuple[str, str | None, float]:
        """The server that responded, its cookie, and how many microseconds it took."""
        request = HEAD.format(path=path, cookie=f"Cookie: {cookie}\r\n" if cookie else "").encode()
        began = time.perf_counter_ns()
        self.socket.sendall(request)
        came = self.socket.recv(65536)
        while (end := came.find(b"\r\n\r\n")) < 0 or len(came) < end + 4 + 1024:
            more = self.socket.recv(65536)
            if not more:
                raise Failed("the connection ended without an answer")
            came += more
            if b" 200 " not in came[:16] and end >= 0:
                break
        took = (time.perf_counter_ns() - began) / 1000
        lines = came[:max(end, 0)].decode().split("\r\n")
        if " 200 " not in lines[0] + " ":
            raise Failed(f"an answer was {lines[0]!r}")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        given = headers.get("set-cookie", "").partition(";")[0]
        return headers["x-server"], given or None, took

    def begin(self) -> tuple[str, str, float]:
        return self.ask(None, "/s")


class Pair:
    """Proxies A and B with one store; memory: each with its own. `ports` are of the servers as A and B reach them."""

    def __init__(self, name: str, store: str, options, cores, ports_a: list, ports_b: list):
        self.name, self.proxies = name, []
        clients = []
        for letter, ports in (("a", ports_a), ("b", ports_b)):
            begin = contenders.homing(options.binaries["homing"], "learn", store, f"{name}-{letter}")
            port = programs.free_port()
            self.proxies.append(begin(contenders.Setting(options.directory, ports), port, cores[0]))
            clients.append(Client(port))
        self.a, self.b = clients

    def of_b(self, begins_with: str) -> float:
        """The sum of what B's metrics of that name say."""
        return sum(value for series, value in self.proxies[1].metrics().items() if series.startswith(begins_with))

    def unanswered(self) -> str:
        """What the proxies asked the store in vain."""
        told = []
        for letter, process in zip("AB", self.proxies):
            for series, count in process.metrics().items():
                if series.startswith("homing_store_operations_total{") and count and not GOOD.search(series):
                    told.append(f"{letter}: {count:.0f} {', '.join(QUOTED.findall(series))}")
        return "the store answered all that it was asked" if not told else "not answered: " + "; ".join(told)

    def stop(self) -> None:
        for process in self.proxies:
            process.stop()


@contextlib.contextmanager
def undisturbed(pair: Pair):
    """Fails with an error that names the store's missing replies."""
    gc.disable()
    try:
        yield
    except Failed as why:
        raise Failed(f"{why}; {pair.unanswered()}") from why
    finally:
        gc.enable()


def quantile(found: list, share: float) -> float:
    """Nearest rank, as `load` has it."""
    ranked = sorted(found)
    return ranked[max(-(-int(share * 1000) * len(ranked) // 1000), 1) - 1]


# The requests of one session, in order, with their proxy: the columns of a table.
STEPS = ("begun at A", "next at A", "first at B", "next at B")


def warm(pair: Pair) -> None:
    """Until a number of sessions in a row were at home at B: connections are made, and a store in Java that has just started compiles
    what it runs, and answers late meanwhile."""
    deadline, right = time.monotonic() + WARM_DEADLINE, 0
    while right < WARM_SESSIONS:
        home, cookie, _ = pair.a.begin()
        right = right + 1 if pair.b.ask(cookie)[0] == home else 0
        if time.monotonic() > deadline:
            raise Failed(f"not {WARM_SESSIONS} sessions in a row were at home at B within {WARM_DEADLINE} s")


def first_requests(pair: Pair, count: int, two: bool) -> dict:
    """Microseconds of every step, `count` sessions. Of two sessions one goes on at A, the other at B."""
    seen = {step: [] for step in STEPS}
    with undisturbed(pair):
        for _ in range(count):
            home, cookie, took = pair.a.begin()
            seen["begun at A"].append(took)
            hold(seen["next at A"], home, pair.a.ask(cookie), "A")
            if two:
                home, cookie, took = pair.a.begin()
                seen["begun at A"].append(took)
                hold(seen["first at B"], home, pair.b.ask(cookie), "B")
                hold(seen["next at B"], home, pair.b.ask(cookie), "B")
    return {step: found for step, found in seen.items() if found}


def hold(seen: list, home: str, answer: tuple, proxy: str) -> None:
    server, _, took = answer
    if server != home:
        raise Failed(f"not sticky: {proxy} sent a session of {home} to {server}")
    seen.append(took)


class Moves:
    """Sessions whose server A cannot reach any more, while B still can: a way between them is gone, the server is not. So
    B moves none of them by itself, and what it does is what it has heard."""

    def __init__(self, pair: Pair, door: programs.Process, count: int):
        self.pair, self.sessions, self.others = pair, [], []
        while len(self.sessions) < count:
            home, cookie, _ = pair.a.begin()
            hold([], home, pair.b.ask(cookie), "B")
            (self.sessions if home == "s0" else self.others).append(cookie)
        door.stop()

    def play(self, at_once: bool) -> dict:
        """All of them move. `at_once`: before B is asked for any, since it takes long to hear."""
        asked_before, heard_before = self.pair.of_b(LOOKUPS), self.pair.of_b(ANNOUNCEMENTS)
        waits, stale, ordinary, moving = [], [], [], []
        groups = [self.sessions] if at_once else [[cookie] for cookie in self.sessions]
        with undisturbed(self.pair):
            for number, group in enumerate(groups):
                waiting = {}
                for cookie in group:
                    server, _, took = self.pair.a.ask(cookie)
                    if server == "s0":
                        raise Failed("A still reaches the server that it was parted from")
                    waiting[cookie] = [server, time.perf_counter_ns(), 0]
                    moving.append(took)
                self.until_heard(waiting, waits, stale)
                ordinary.append(self.pair.b.ask(self.others[number % len(self.others)])[2])
        return {
            "waits_us": waits, "stale": stale, "ordinary_us": ordinary, "moving_us": moving,
            "lookups": self.pair.of_b(LOOKUPS) - asked_before, "announcements": self.pair.of_b(ANNOUNCEMENTS) - heard_before,
        }

    def until_heard(self, waiting: dict, waits: list, stale: list) -> None:
        """Asks B for each in turn, at once and without a pause, until it knows."""
        until = time.monotonic() + PATIENCE
        while waiting:
            if time.monotonic() > until:
                raise Failed(f"B has not heard of {len(waiting)} moves in {PATIENCE} s")
            for cookie, one in list(waiting.items()):
                server, _, _ = self.pair.b.ask(cookie)
                if server == one[0]:
                    waits.append((time.perf_counter_ns() - one[1]) / 1000)
                    stale.append(one[2])
                    del waiting[cookie]
                elif server == "s0":
                    one[2] += 1
                else:
                    raise Failed(f"B sent a session that A moved to {one[0]} to {server}")


@contextlib.contextmanager
def started(stores: dict, options, cores, ports_a: list, ports_b: list):
    """A pair for every store; `stores`: names to what the configuration says of them."""
    pairs = []
    try:
        for name, yaml in stores.items():
            pairs.append(Pair(name, yaml, options, cores, ports_a, ports_b))
        yield pairs
    finally:
        for pair in pairs:
            pair.stop()
