"""The shared stores: real servers on free ports, what they count, and what a session takes there."""

import base64
import random
import re
import socket
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import programs

# As they are by default, but that nothing is written to disk: so `docs/` tells operators.
REDIS = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning", "--daemonize", "no"]
MEMCACHED = ["-l", "127.0.0.1", "-U", "0", "-m", "1024", "-t", "1"]
# A session's life in the store with the default idle time, in seconds: with a tenth more and some slack.
LIFE = 1985
# The bench's own questions, greetings and the sign of life every second: no request's.
NO_REQUESTS = {"ping", "info", "config", "hello", "auth", "select", "client", "command", "subscribe", "psubscribe", "role"}


@dataclass
class Counted:
    """What a store has done for the proxies since it was started."""

    # Commands by name, and what they say together.
    commands: dict
    # How many names were asked for: a command may have many.
    names: int
    # How often the server found something to read on a connection: pipelined commands are one. None: it does not say.
    reads: int | None

    def total(self) -> int:
        return sum(self.commands.values())

    def __sub__(self, before: "Counted") -> "Counted":
        commands = {name: count - before.commands.get(name, 0) for name, count in self.commands.items()}
        reads = None if self.reads is None else self.reads - before.reads
        return Counted({name: count for name, count in commands.items() if count}, self.names - before.names, reads)


class Redis:
    """Redis or Valkey."""

    def __init__(self, name: str, program: Path, core: int | None, directory: Path):
        self.name, self.port = name, programs.free_port()
        command = [program, "--port", self.port, *REDIS, "--dir", directory]
        self.process = programs.Process(command, core, directory / f"{name}.log").wait_for(self.port)
        self.client = socket.create_connection(("127.0.0.1", self.port), 10)
        self.answers = self.client.makefile("rb")
        self.asked = 0
        said = self.info("server")
        self.version = f"{name} {said.get('valkey_version') or said['redis_version']}, {self.info('memory')['mem_allocator']}"
        self.yaml = f'type: redis, redis: {{ urls: ["redis://127.0.0.1:{self.port}"] }}'

    def info(self, section: str) -> dict:
        self.asked += 1
        self.client.sendall(f"INFO {section}\r\n".encode())
        length = int(self.answers.readline()[1:])
        text = self.answers.read(length + 2).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def counted(self) -> Counted:
        commands = {}
        for series, told in self.info("commandstats").items():
            name = series.removeprefix("cmdstat_").split("|")[0]
            if name not in NO_REQUESTS:
                commands[name] = commands.get(name, 0) + int(told.split(",")[0].removeprefix("calls="))
        stats = self.info("stats")
        reads = int(stats["total_reads_processed"]) - self.asked if "total_reads_processed" in stats else None
        return Counted(commands, int(stats["keyspace_hits"]) + int(stats["keyspace_misses"]), reads)

    def used(self) -> tuple[int, int]:
        """Bytes, and values."""
        keys = self.info("keyspace").get("db0", "keys=0").split(",")[0]
        return int(self.info("memory")["used_memory"]), int(keys.removeprefix("keys="))

    def fill(self, count: int) -> None:
        for some in batches(count):
            commands = []
            for name, value in some:
                words = (b"SET", name, value, b"PX", str(LIFE * 1000).encode())
                commands.append(b"*5\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
            self.client.sendall(b"".join(commands))
            for _ in some:
                expect(self.answers.readline(), b"+OK")

    def stop(self) -> None:
        self.client.close()
        self.process.stop()


class Memcached:
    """One server."""

    def __init__(self, name: str, program: Path, core: int | None, directory: Path):
        self.name, self.port = name, programs.free_port()
        # As root it must be given a user; other users cannot choose one.
        command = [program, "-u", "root", "-p", self.port, *MEMCACHED]
        self.process = programs.Process(command, core, directory / f"{name}.log").wait_for(self.port)
        self.client = socket.create_connection(("127.0.0.1", self.port), 10)
        self.answers = self.client.makefile("rb")
        self.version = f"{name} {self.stats()['version']}"
        self.yaml = f'type: memcached, memcached: {{ servers: ["127.0.0.1:{self.port}"] }}'

    def stats(self) -> dict:
        self.client.sendall(b"stats\r\n")
        told = {}
        while (line := self.answers.readline().decode().split()) != ["END"]:
            told[line[1]] = line[2]
        return told

    def counted(self) -> Counted:
        told = self.stats()
        commands = {name: int(told[f"cmd_{name}"]) for name in ("get", "set", "touch")}
        return Counted(commands, commands["get"], None)

    def used(self) -> tuple[int, int]:
        told = self.stats()
        return int(told["bytes"]), int(told["curr_items"])

    def fill(self, count: int) -> None:
        for some in batches(count):
            commands = (b"ms %s %d T%d ME\r\n%s\r\n" % (name, len(value), LIFE, value) for name, value in some)
            self.client.sendall(b"".join(commands))
            for _ in some:
                expect(self.answers.readline(), b"HD")

    def stop(self) -> None:
        self.client.close()
        self.process.stop()


class Hazelcast:
    """One member. It tells what it did by its diagnostics, which it writes to a file every second."""

    def __init__(self, name: str, program: Path, core: int | None, directory: Path):
        self.name, self.port = name, programs.free_port()
        # A new folder for each member: an earlier one's figures are not to be read.
        self.directory = Path(tempfile.mkdtemp(prefix="hazelcast-", dir=directory))
        (self.directory / "hazelcast.yaml").write_text(HAZELCAST.format(port=self.port))
        jars = sorted((programs.target() / "stores" / "jars" / "hazelcast").glob("*.jar"))
        if not jars:
            raise programs.DidNotStart("the jar of Hazelcast is missing: run `make test-stores`")
        command = [program, "-XX:+UseSerialGC", "-Xmx2g", f"-Dhazelcast.config={self.directory}/hazelcast.yaml",
                   "-Dhazelcast.phone.home.enabled=false", "-Dhazelcast.socket.bind.any=false",
                   "-Dhazelcast.local.localAddress=127.0.0.1", "-Dhazelcast.diagnostics.enabled=true",
                   "-Dhazelcast.diagnostics.metrics.period.seconds=1",
                   f"-Dhazelcast.diagnostics.directory={self.directory}", "-cp", ":".join(map(str, jars)),
                   "com.hazelcast.core.server.HazelcastMemberStarter"]
        self.process = programs.Process(command, core, directory / f"{name}.log").wait_for(self.port, "is STARTED")
        self.version = f"{name} {jars[0].stem.removeprefix('hazelcast-')}"
        self.yaml = f'type: hazelcast, hazelcast: {{ members: ["127.0.0.1:{self.port}"] }}'

    def figures(self) -> dict:
        """Of the next round that is written whole: what it did until now is in that."""
        seen, until = len(self.rounds()), time.monotonic() + programs.DEADLINE
        while len(self.rounds()) < seen + 2:
            if time.monotonic() > until:
                raise programs.DidNotStart("the member of Hazelcast writes no diagnostics")
            time.sleep(0.1)
        return dict(re.findall(r"metric=([\w.]+)\]=(\d+)", self.rounds()[-2]))

    def rounds(self) -> list:
        text = "".join(file.read_text() for file in sorted(self.directory.glob("diagnostics-*.log")))
        # The first of each round.
        return text.split("metric=operation.invocations.heartbeatPacketsReceived]")

    def counted(self) -> Counted:
        told = self.figures()
        gets = int(told.get("map.getCount", 0))
        # Of all partitions; those of entry views and lives are counted nowhere else.
        return Counted({"operation": int(told.get("operation.completedCount", 0))}, gets, None)

    def used(self) -> tuple[int, int]:
        told = self.figures()
        return int(told.get("map.ownedEntryMemoryCost", 0)), int(told.get("map.ownedEntryCount", 0))

    def fill(self, count: int) -> None:
        for some in batches(count):
            entries = {name.decode().removeprefix("homing:"): value.decode() for name, value in some}
            self.map().put_all(entries).result()

    def map(self):
        if self.client is None:
            packages = next((programs.target() / "stores" / "clients" / "lib").glob("python3.*/site-packages"))
            sys.path.append(str(packages))
            import hazelcast
            self.client = hazelcast.HazelcastClient(cluster_members=[f"127.0.0.1:{self.port}"])
        return self.client.get_map("homing")

    client = None

    def stop(self) -> None:
        if self.client is not None:
            self.client.shutdown()
        self.process.stop()


HAZELCAST = """hazelcast:
  cluster-name: dev
  network:
    port: {{ port: {port}, auto-increment: false }}
    join: {{ auto-detection: {{ enabled: false }}, multicast: {{ enabled: false }} }}
"""
class Ignite:
    """One node, with the configuration of the tests' nodes and more room. It does not say what it was asked."""

    def __init__(self, name: str, program: Path, core: int | None, directory: Path):
        self.name, self.port = name, programs.free_port()
        source = Path(__file__).parents[2] / "tests" / "stores"
        text = (source / "ignite.xml").read_text()
        for word, value in {
            "ip": "127.0.0.1", "directory": directory, "client": self.port, "discovery": (port := programs.free_port()),
            "communication": programs.free_port(), "discoveries": f"<value>127.0.0.1:{port}</value>",
            "failure_detection_millis": 10_000, "authentication": "false", "client_port": "",
        }.items():
            text = text.replace(f"@{word}@", str(value))
        text = text.replace('"33554432"', f'"{512 << 20}"').replace('"metricsLogFrequency" value="0"', '"metricsLogFrequency" value="1000"')
        (directory / "ignite.xml").write_text(text)
        jars = sorted((program.parents[1] / "jars" / "ignite").glob("*.jar"))
        if not jars:
            sys.exit("the jars of Ignite are missing: run `make test-stores`")
        opened = [line for line in (source / "ignite-opens.txt").read_text().splitlines() if not line.startswith("#")]
        flags = [f"--add-opens={package}=ALL-UNNAMED" for package in opened]
        command = [
            program.resolve(), "-XX:+UseSerialGC", "-Xms256m", "-Xmx256m", "-Djava.net.preferIPv4Stack=true",
            "-DIGNITE_UPDATE_NOTIFIER=false", "-DIGNITE_QUIET=false", *flags, "-cp", ":".join(map(str, jars)),
            "org.apache.ignite.startup.cmdline.CommandLineStartup", directory / "ignite.xml"]
        self.process = programs.Process(command, core, directory / f"{name}.log").wait_for(self.port, "Topology snapshot")
        self.client = socket.create_connection(("127.0.0.1", self.port), 10)
        # Version 1.7.0, a thin client, no features.
        self.send(bytes([1, 1, 0, 7, 0, 0, 0, 2, 12, 0, 0, 0, 0]))
        self.receive()
        self.version = f"{name} {jar_version(jars)}"
        self.yaml = f'type: ignite, ignite: {{ addresses: ["127.0.0.1:{self.port}"] }}'

    def send(self, frame: bytes) -> None:
        self.client.sendall(struct.pack("<i", len(frame)) + frame)

    def receive(self) -> bytes:
        length, = struct.unpack("<i", self.client.recv(4, socket.MSG_WAITALL))
        return self.client.recv(length, socket.MSG_WAITALL)

    def ask(self, operation: int, fields: bytes) -> bytes:
        self.send(struct.pack("<hq", operation, 1) + fields)
        answer = self.receive()
        flags, = struct.unpack("<h", answer[8:10])
        if flags & 1:
            raise programs.DidNotStart(f"the store said {answer!r}")
        return answer[22 if flags & 2 else 10:]

    def counted(self) -> None:
        return None

    def used(self) -> tuple[int, int]:
        """Bytes by its own log, to the mebibyte, a second from now; and values."""
        before = len(self.told())
        until = time.monotonic() + programs.DEADLINE
        while len(self.told()) < before + 2 and time.monotonic() < until:
            time.sleep(0.1)
        size = self.ask(1020, struct.pack("<ibi", CACHE, 0, 0)) if self.filled else b""
        return int(self.told()[-1]) << 20, struct.unpack("<q", size)[0] if size else 0

    filled = False

    def told(self) -> list:
        log = self.process.log.read_text(errors="replace")
        return re.findall(r"default region \[type=default.*?usedRam=(\d+)MB", log, re.DOTALL)

    def fill(self, count: int) -> None:
        # As the proxy makes it (src/store/ignite/): partitioned, atomic, a backup, acknowledged by all copies.
        properties = struct.pack("<h", 0) + ignite_text(b"homing") + b"".join(struct.pack("<hi", *one) for one in ((1, 2), (2, 1), (3, 1), (4, 0)))
        self.ask(1054, struct.pack("<ih", len(properties) + 2, 5) + properties)
        self.filled = True
        for some in batches(count):
            values = ((name.removeprefix(b"homing:"), value + b" 5f0e93c1 ttl=%d" % LIFE) for name, value in some)
            pairs = b"".join(ignite_text(name) + ignite_text(value) for name, value in values)
            self.ask(1004, struct.pack("<ibqqqi", CACHE, 4, LIFE * 1000, LIFE * 1000, -2, len(some)) + pairs)

    def stop(self) -> None:
        self.client.close()
        self.process.stop()


# Java's hash of `homing`.
CACHE = -1_211_673_124


def ignite_text(text: bytes) -> bytes:
    return struct.pack("<bi", 9, len(text)) + text


def jar_version(jars: list) -> str:
    return next(jar.stem.removeprefix("ignite-core-") for jar in jars if jar.name.startswith("ignite-core-"))


PROGRAMS = {"redis": ("redis-server", Redis), "valkey": ("valkey-server", Redis), "memcached": ("memcached", Memcached),
            "hazelcast": ("java", Hazelcast),
    "ignite": ("java", Ignite)}


def start(name: str, core: int | None, directory: Path):
    """An empty store of that name."""
    program, kind = PROGRAMS[name]
    path = programs.target() / "stores" / "bin" / program
    if not path.exists():
        sys.exit(f"{program} is missing: run `make test-stores`")
    return kind(name, path, core, directory)


def batches(count: int, size: int = 1000):
    """Names and values of bindings, as the proxy writes them (src/store/engine/)."""
    chance = random.Random(count)
    for first in range(0, count, size):
        keys = (base64.urlsafe_b64encode(chance.randbytes(16))[:22] for _ in range(min(size, count - first)))
        yield [(b"homing:shop:" + key, b"1 0 a 1764000000000 edge-1") for key in keys]


def expect(line: bytes, answer: bytes) -> None:
    if line.rstrip() != answer:
        raise programs.DidNotStart(f"the store said {line!r} instead of {answer!r}")
