"""Where everything runs: addresses, processes, and the configuration of the proxies."""

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import clock
from disk import Disk

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SERVERS = 8
PROXIES = 3
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
# Loopback addresses of its own, in a network namespace where possible, so that ports are fixed.
PROXY_PORT, TLS_PORT, ADMIN_PORT, SERVER_PORT, REDIS_PORT, SENTINEL_PORT = 18080, 18443, 19900, 19001, 16379, 26379


def proxy_address(number: int) -> str:
    return f"127.77.1.{number}"


def server_address(number: int) -> str:
    return f"127.77.2.{number}"


def store_address(number: int) -> str:
    return f"127.77.3.{number}"


class Process:
    """A program with its log, found again by its command line when it has replaced itself."""

    def __init__(self, name: str, command: list, directory: Path, environment: dict | None = None):
        self.name, self.command, self.environment = name, [str(word) for word in command], environment or {}
        self.directory, self.log = directory, directory / f"{name}.log"
        self.child = None

    def start(self) -> "Process":
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory,
                env=os.environ | self.environment, start_new_session=True)
        return self

    def pids(self) -> list:
        return [self.child.pid] if self.child and self.child.poll() is None else []

    def signal(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.child:
            self.child.wait()

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)


class Proxy(Process):
    """An upgrade replaces its process by one that is nobody's child here."""

    def __init__(self, number: int, program: Path, directory: Path):
        self.number, self.file = number, directory / f"proxy-{number}.yaml"
        super().__init__(f"proxy-{number}", [program, "run", "--config", self.file], directory)
        self.program = program
        # What it writes: the states that operators set, a snapshot of its sessions, the access log.
        self.state = directory / f"state-{number}"
        self.disk: Disk | None = None
        self.clock: clock.Clock | None = None
        self.admin = f"{proxy_address(number)}:{ADMIN_PORT}"

    def pids(self) -> list:
        """In the order in which they were started."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    state, *stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                    if str(self.file).encode() in words and b"run" in words and state != "Z":
                        found.append((int(stat[18]), int(entry.name)))
        return [pid for _, pid in sorted(found)]

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        while self.pids():
            time.sleep(0.02)
        if self.child:
            self.child.poll()

    def api(self, path: str, timeout: float = 2.0) -> dict:
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=timeout) as answer:
            return json.load(answer)

    def metric(self, name: str) -> list:
        """The values of all series of a metric."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            self.api("/api/v1/status")
            return True
        return False

    def pid(self) -> int | None:
        """Of the process that serves."""
        return next(reversed(self.pids()), None)

    def call(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess:
        return subprocess.run([self.program, *words, "--admin", self.admin], capture_output=True, text=True, timeout=timeout, check=False)

    def ready(self, within: float = 30) -> bool:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if self.answers():
                return True
            time.sleep(0.1)
        return False


def pool(name: str, sources: str, weights: dict) -> str:
    servers = "\n".join(
        f"      - {{ name: s{n}, address: '{server_address(n)}:{SERVER_PORT}', weight: {weights.get(n, 10)} }}" for n in range(1, SERVERS + 1))
    return f"""
  {name}:
    balance: round_robin
    servers:
{servers}
    connection: {{ connect_timeout: 1s, read_timeout: 5s }}
    health_check: {{ type: http, path: /healthz, interval: 1s, timeout: 1s, rise: 1, fall: 2 }}
    drain_deadline: 6s
    persistence:
      sources: [{sources}]
      idle_timeout: 10m"""


def configuration(number: int, directory: Path, sentinels: list, weights: dict, tls: Path | None, revision: int) -> str:
    """Of a proxy. `revision` stands in a route's name, so that every reload changes something."""
    listeners = f"  - address: {proxy_address(number)}:{PROXY_PORT}\n    timeouts: {{ keepalive: 60s }}\n"
    if tls:
        listeners += f"""  - address: {proxy_address(number)}:{TLS_PORT}
    tls: {{ certificates: [{{ cert: {tls}/cert.pem, key: {tls}/key.pem }}] }}
"""
    urls = ", ".join(f'"redis://{address}"' for address in sentinels)
    return f"""version: 1
proxy: {{ node: edge-{number}, threads: 1, upgrade_socket: {directory}/upgrade-{number}.sock, shutdown_grace: 30s }}
listeners:
{listeners}
routes:
  - {{ name: learned, match: {{ path_prefix: /learned }}, pool: learned }}
  - {{ name: r{revision}, match: {{ path_prefix: /revision-{revision} }}, pool: shop }}
  - {{ name: shop, match: {{ path_prefix: / }}, pool: shop }}
pools:{pool("shop", "{ cookie: {} }", weights)}{pool("learned", "{ learn: { cookie: SID } }", weights)}
keys: [{{ id: k1, secret: "{KEY}" }}]
store:
  type: redis
  timeout: 200ms
  redis: {{ mode: sentinel, master_name: chaos, urls: [{urls}], key_prefix: chaos }}
  snapshot: {{ path: {directory}/state-{number}/sessions, interval: 5s }}
admin: {{ address: "{proxy_address(number)}:{ADMIN_PORT}", state_file: {directory}/state-{number}/servers.json, allowed_hosts: ["{proxy_address(number)}"] }}
log: {{ level: info, access: {directory}/state-{number}/access.log }}
"""


class World:
    """All processes."""

    def __init__(self, program: Path, directory: Path, isolated: bool):
        self.directory, self.isolated = directory, isolated
        # Scripts find the program by its name, whatever the file is called.
        self.programs = directory / "bin"
        self.programs.mkdir()
        (self.programs / "homing").symlink_to(program)
        self.weights, self.revision = {}, 0
        self.tls = directory / "tls" if shutil.which("openssl") else None
        self.servers = {n: Process(f"s{n}", [sys.executable, HERE / "server.py", f"s{n}", server_address(n), SERVER_PORT], directory)
                        for n in range(1, SERVERS + 1)}
        self.proxies = {n: Proxy(n, program, directory) for n in range(1, PROXIES + 1)}
        self.redis, self.sentinels = {}, {}
        self.issuer_clock: clock.Clock | None = None

    def start(self) -> None:
        for server in self.servers.values():
            server.start()
        self.start_stores()
        self.start_clocks()
        self.mount_disks()
        if self.tls:
            self.tls.mkdir()
            self.renew_certificate(30 * 86400)
        self.configure()
        for proxy in self.proxies.values():
            proxy.start()
        for proxy in self.proxies.values():
            if not proxy.ready(60):
                sys.exit(f"{proxy.name} does not start: {proxy.log.read_text()[-2000:]}")

    def start_clocks(self) -> None:
        """Each proxy has a wall clock of its own; so has the program that makes certificates, for those that expire soon."""
        library = clock.build(self.directory)
        if not library:
            print("no C compiler: clock jumps and expiring certificates are left out", file=sys.stderr)
            return
        self.issuer_clock = clock.Clock(library, self.directory / "clock-of-issuer")
        for number, proxy in self.proxies.items():
            proxy.clock = clock.Clock(library, self.directory / f"clock-{number}")
            proxy.environment = proxy.clock.environment()

    def mount_disks(self) -> None:
        """What a proxy writes is on a file system of its own, where that is possible."""
        for number, proxy in self.proxies.items():
            proxy.state.mkdir()
            if self.isolated and Disk.is_possible():
                disk = Disk(self.directory / f"disk-{number}.img", proxy.state)
                proxy.disk = disk if disk.mount() else None

    def start_stores(self) -> None:
        program = redis_program()
        for number in (1, 2):
            replica = ["--replicaof", store_address(1), REDIS_PORT] if number == 2 else []
            folder = self.directory / f"redis-{number}"
            folder.mkdir()
            self.redis[number] = Process(
                f"redis-{number}", [program, "--bind", store_address(number), "--port", REDIS_PORT, "--save", "", "--appendonly", "no",
                                    "--repl-diskless-sync-delay", 0, "--protected-mode", "no", "--dir", folder, *replica], self.directory).start()
        time.sleep(1)
        for number in (1, 2, 3):
            address = store_address(10 + number)
            file = self.directory / f"sentinel-{number}.conf"
            file.write_text(f"""bind {address}
port {SENTINEL_PORT}
protected-mode no
sentinel monitor chaos {store_address(1)} {REDIS_PORT} 2
sentinel down-after-milliseconds chaos 2000
sentinel failover-timeout chaos 6000
""")
            self.sentinels[number] = Process(f"sentinel-{number}", [program, file, "--sentinel"], self.directory).start()

    def primary(self) -> int:
        """The number of the store that the first sentinel takes for the primary."""
        address = store_address(11)
        cli = redis_program().with_name("redis-cli")
        if cli.exists():
            answer = subprocess.run([cli, "-h", address, "-p", str(SENTINEL_PORT), "sentinel", "get-master-addr-by-name", "chaos"],
                                    capture_output=True, text=True, timeout=5, check=False).stdout
        else:
            answer = ask_redis(address, SENTINEL_PORT, "SENTINEL", "get-master-addr-by-name", "chaos")
        return next((n for n in self.redis if store_address(n) in answer), 1)

    def configure(self) -> None:
        sentinels = [f"{store_address(10 + n)}:{SENTINEL_PORT}" for n in (1, 2, 3)]
        for number, proxy in self.proxies.items():
            text = configuration(number, self.directory, sentinels, self.weights, self.tls, self.revision)
            new = proxy.file.with_suffix(".new")
            new.write_text(text)
            new.replace(proxy.file)

    def renew_certificate(self, seconds: float) -> None:
        """Valid for so long."""
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=chaos.test",
                   "-keyout", self.tls / "key.new", "-out", self.tls / "cert.new"]
        # openssl counts in days from its clock's now.
        days = math.ceil(seconds / 86400)
        environment = dict(os.environ)
        if self.issuer_clock:
            self.issuer_clock.set(seconds - days * 86400)
            environment |= self.issuer_clock.environment()
        subprocess.run([*command, "-days", str(days)], check=True, capture_output=True, env=environment)
        (self.tls / "key.new").replace(self.tls / "key.pem")
        (self.tls / "cert.new").replace(self.tls / "cert.pem")

    def stop(self) -> None:
        disks = [proxy.disk for proxy in self.proxies.values() if proxy.disk]
        # A process that waits for a disk cannot be killed.
        for disk in disks:
            disk.thaw()
        for process in [*self.proxies.values(), *self.servers.values(), *self.redis.values(), *self.sentinels.values()]:
            process.thaw()
            process.kill()
        for disk in disks:
            disk.remove(disk.folder.with_name(f"{disk.folder.name}-at-the-end"))


def redis_program() -> Path:
    known = target() / "stores" / "bin" / "redis-server"
    found = str(known) if known.exists() else shutil.which("redis-server") or shutil.which("valkey-server")
    if not found:
        sys.exit("no redis-server: make test-stores fetches one")
    return Path(found)


def target() -> Path:
    asked = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    return Path(json.loads(subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout)["target_directory"])


def ask_redis(host: str, port: int, *words: str) -> str:
    """One command, and the answer as it came."""
    with socket.create_connection((host, port), 2) as connection:
        connection.settimeout(2)
        text = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        connection.sendall(f"*{len(words)}\r\n{text}".encode())
        return connection.recv(4096).decode(errors="replace")
