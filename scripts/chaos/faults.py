"""What is done to the world: each fault is a method that does it and undoes it, and is written down with its times."""

import contextlib
import dataclasses
import json
import math
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import world

# Servers of both pools are the same processes.
POOLS = ("shop", "learned")
# Never killed and never upgraded, so that its memory can be followed for the whole run.
OLD_PROXY = world.PROXIES
MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass
class Fault:
    """Something that was done, from when to when, and to what. `after`: its effects last so much longer."""

    kind: str
    target: str
    began: float
    ended: float = 0.0
    after: float = 3.0
    note: str = ""


@dataclass
class Faults:
    """Does one thing after the other, and now and then two at once."""

    world: world.World
    seed: int
    only: str | None
    # Each fault as it ends, an object a line.
    log: Path
    done: list = field(default_factory=list)
    failed_checks: list = field(default_factory=list)

    def __post_init__(self) -> None:
        # Of what replaces processes or configurations, and of the certificate: held for as long as another change would disturb.
        self.lock, self.certificate_lock = threading.Lock(), threading.Lock()
        # How often each comes, as weights. What the machine cannot do is left out.
        self.kinds = {
            self.kill_server: 14, self.freeze_server: 10, self.kill_proxy: 8, self.freeze_proxy: 8, self.reload: 14,
            self.upgrade: 14, self.rolling_deploy: 4, self.kill_store: 8, self.freeze_store: 6, self.drain_server: 6,
        }
        if self.world.tls:
            self.kinds[self.renew_certificate] = 6
        if self.world.issuer_clock:
            self.kinds |= {self.set_clock_by_minutes: 4, self.set_clock_by_hours: 4}
        if self.world.tls and self.world.issuer_clock:
            self.kinds[self.let_certificate_expire] = 5
        if self.world.isolated:
            self.kinds |= {self.cut_off_server: 8, self.cut_off_store: 6}
        if all(proxy.disk for proxy in self.world.proxies.values()):
            self.kinds |= {self.fill_disk: 6, self.slow_disk: 7}
        if self.only:
            self.kinds = {method: weight for method, weight in self.kinds.items() if method.__name__ in self.only.split(",")}

    def run(self, until: float) -> None:
        """One fault after the other, on two threads, which leave each other's targets alone."""
        threads = [threading.Thread(target=self.one_by_one, args=(until, number), daemon=True) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def one_by_one(self, until: float, number: int) -> None:
        rng = random.Random(self.seed * 31 + number)
        while time.monotonic() < until:
            method = rng.choices(list(self.kinds), list(self.kinds.values()))[0]
            # The second thread only does what must harm nothing, so that causes can be told from each other.
            if number and method not in (self.reload, self.upgrade, self.renew_certificate):
                method = self.reload
            try:
                method(rng)
            except (OSError, subprocess.SubprocessError, RuntimeError) as error:
                self.expect(False, f"{method.__name__}: {error}")
            time.sleep(rng.uniform(1, 6) * (3 if number else 1))

    @contextlib.contextmanager
    def fault(self, kind: str, target: str, after: float = 3.0, note: str = ""):
        one = Fault(kind, target, time.monotonic(), after=after, note=note)
        self.done.append(one)
        try:
            yield one
        finally:
            one.ended = time.monotonic()
            with self.log.open("a") as log:
                log.write(json.dumps({"time": time.strftime("%H:%M:%S", time.gmtime())} | dataclasses.asdict(one)) + "\n")

    def any_proxy(self, rng: random.Random) -> world.Proxy:
        return rng.choice(list(self.world.proxies.values()))

    def young_proxy(self, rng: random.Random) -> world.Proxy:
        """One whose process may be replaced."""
        return rng.choice([proxy for proxy in self.world.proxies.values() if proxy.number != OLD_PROXY])

    def kill_server(self, rng: random.Random) -> None:
        server = rng.choice(list(self.world.servers.values()))
        with self.fault("server killed", server.name):
            server.kill()
            time.sleep(rng.uniform(0.2, 8))
            server.start()
            time.sleep(1)

    def freeze_server(self, rng: random.Random) -> None:
        server = rng.choice(list(self.world.servers.values()))
        # Requests that wait for a server are ended by the read timeout.
        with self.fault("server frozen", server.name, after=6):
            server.freeze()
            time.sleep(rng.uniform(1, 7))
            server.thaw()

    def drain_server(self, rng: random.Random) -> None:
        name = rng.choice(list(self.world.servers.values())).name
        with self.fault("server drained", name, after=10):
            self.set_state(name, "drain")
            time.sleep(rng.uniform(4, 10))
            self.set_state(name, "ready")

    def set_state(self, name: str, state: str, pools: tuple = POOLS) -> None:
        for proxy in self.world.proxies.values():
            for pool in pools:
                proxy.call("server", "set", f"{pool}/{name}", "--state", state, timeout=20)

    def kill_proxy(self, rng: random.Random) -> None:
        with self.lock:
            proxy = self.young_proxy(rng)
            with self.fault("proxy killed", proxy.name):
                proxy.kill()
                time.sleep(rng.uniform(0, 3))
                proxy.start()
                self.expect(proxy.ready(), f"{proxy.name} does not start again")

    def freeze_proxy(self, rng: random.Random) -> None:
        with self.lock:
            proxy = self.any_proxy(rng)
            with self.fault("proxy frozen", proxy.name, after=8):
                proxy.freeze()
                time.sleep(rng.uniform(0.5, 5))
                proxy.thaw()

    def reload(self, rng: random.Random) -> None:
        with self.lock, self.fault("reload", "all proxies"):
            self.world.revision += 1
            self.world.weights = {n: rng.choice((5, 10, 10, 20)) for n in self.world.servers}
            self.world.configure()
            self.reload_all()

    def reload_all(self) -> None:
        for proxy in self.world.proxies.values():
            result = proxy.call("reload")
            self.expect(result.returncode == 0, f"reload of {proxy.name}: {result.stderr.strip()}")

    def upgrade(self, rng: random.Random) -> None:
        with self.lock:
            proxy = self.young_proxy(rng)
            with self.fault("upgrade", proxy.name):
                before = proxy.pid()
                result = proxy.call("upgrade", timeout=120)
                self.expect(result.returncode == 0, f"upgrade of {proxy.name}: {result.stderr.strip()}")
                self.expect(proxy.pid() != before, f"{proxy.name} is the same process after its upgrade")

    def rolling_deploy(self, rng: random.Random) -> None:
        names = [server.name for server in rng.sample(list(self.world.servers.values()), 2)]
        with self.fault("rolling deploy", ",".join(names), after=10):
            # The script replaces the servers of one pool.
            for name in names:
                self.set_state(name, "drain", ("learned",))
            deploy = self.start_deploy(names)
            while deploy.poll() is None:
                for name in names:
                    if (asked := self.replacement_request(name)).exists():
                        server = self.world.servers[int(name[1:])]
                        server.kill()
                        server.start()
                        asked.unlink()
                time.sleep(0.2)
            self.expect(deploy.returncode == 0, f"rolling deploy: {deploy.stderr.read().strip()[-300:]}")
            for name in names:
                self.set_state(name, "ready")

    def replacement_request(self, name: str) -> Path:
        """The file by which the script's command asks for a server to be replaced."""
        return self.world.directory / f"replace-{name}"

    def start_deploy(self, names: list) -> subprocess.Popen:
        script = world.ROOT / "conf" / "examples" / "rolling-deploy.sh"
        proxies = [word for proxy in self.world.proxies.values() for word in ("--admin", proxy.admin)]
        request = self.replacement_request("$SERVER")
        command = f"touch {request}; while [ -e {request} ]; do sleep 0.1; done"
        return subprocess.Popen(
            [script, *proxies, "--ignore-silent", "--drain-timeout", "15s", "--maint-on-timeout", "--healthy-for", "2", "--health-timeout", "60",
             "shop", *names, "--", "sh", "-c", command],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PATH": f"{self.world.programs}:{os.environ['PATH']}"})

    def kill_store(self, rng: random.Random) -> None:
        number = self.world.primary() if rng.random() < 0.7 else rng.choice(list(self.world.redis))
        store = self.world.redis[number]
        with self.fault("store killed", store.name, after=15):
            store.kill()
            time.sleep(rng.uniform(1, 12))
            store.start()
            time.sleep(2)

    def freeze_store(self, rng: random.Random) -> None:
        store = self.world.redis[self.world.primary()]
        with self.fault("store frozen", store.name, after=15):
            store.freeze()
            time.sleep(rng.uniform(0.5, 8))
            store.thaw()

    def renew_certificate(self, rng: random.Random) -> None:
        days = rng.choice((2, 30))
        with self.certificate_lock, self.lock, self.fault("certificate renewed", "all proxies"):
            self.world.renew_certificate(days * DAY)
            self.reload_all()

    def let_certificate_expire(self, rng: random.Random) -> None:
        """A certificate runs out while it is in use. Clients that do not verify it go on; metric and log say it; a new one heals."""
        with self.certificate_lock, self.fault("certificate expired", "all proxies"):
            valid = rng.uniform(6, 10)
            with self.lock:
                self.world.renew_certificate(valid)
                end = time.time() + valid
                self.reload_all()
            self.check_certificate("in time", in_time=True, until=end - 2)
            # The certificate's end is in whole seconds.
            time.sleep(max(0.0, end + 1.5 - time.time()))
            self.check_certificate("expired", in_time=False)
            logs = {proxy: proxy.log.stat().st_size for proxy in self.world.proxies.values()}
            with self.lock:
                self.reload_all()
            for proxy, length in logs.items():
                warned = b"expired on" in proxy.log.read_bytes()[length:]
                self.expect(warned, f"the log of {proxy.name} does not warn of the expired certificate")
            time.sleep(rng.uniform(2, 8))
            with self.lock:
                self.world.renew_certificate(30 * DAY)
                self.reload_all()
            self.check_certificate("renewed", in_time=True)

    def check_certificate(self, when: str, in_time: bool, until: float = math.inf) -> None:
        """By metric, and as a client that verifies. On a busy machine its time may be over before all proxies are checked."""
        for proxy in self.world.proxies.values():
            if time.time() > until:
                return
            with self.lock:
                ends = proxy.metric("homing_tls_certificate_expiry_timestamp_seconds")
                verified = verifies(world.proxy_address(proxy.number), self.world.tls / "cert.pem")
            told = bool(ends) and (min(ends) > time.time()) == in_time
            self.expect(told, f"certificate {when}: the metric of {proxy.name} is {ends} at {time.time():.0f}")
            self.expect(verified == in_time, f"certificate {when}: a client of {proxy.name} that verifies is {'let in' if verified else 'not'}")

    def set_clock_by_minutes(self, rng: random.Random) -> None:
        """By less than what proxies may differ, also when another one was off the other way just before."""
        self.set_clock(rng, "clock off by minutes", rng.choice((-1, 1)) * rng.uniform(MINUTE / 2, 2 * MINUTE))

    def set_clock_by_hours(self, rng: random.Random) -> None:
        self.set_clock(rng, "clock off by hours", rng.choice((-1, 1)) * rng.uniform(HOUR, 20 * HOUR))

    def set_clock(self, rng: random.Random, kind: str, seconds: float) -> None:
        proxy = self.any_proxy(rng)
        with self.fault(kind, proxy.name, after=15, note=f"{seconds:+.0f} s"), proxy.clock.off_by(seconds):
            time.sleep(rng.uniform(3, 15))

    def cut_off_server(self, rng: random.Random) -> None:
        number = rng.choice(list(self.world.servers))
        with self.fault("server cut off", f"s{number}", after=6), cut_off(world.server_address(number)):
            time.sleep(rng.uniform(1, 8))

    def cut_off_store(self, rng: random.Random) -> None:
        number = self.world.primary()
        with self.fault("store cut off", f"redis-{number}", after=15), cut_off(world.store_address(number)):
            time.sleep(rng.uniform(1, 8))

    def fill_disk(self, rng: random.Random) -> None:
        """The disk of all that a proxy writes is full, while an operator sets a server's weight."""
        proxy = self.any_proxy(rng)
        with self.fault("disk full", proxy.name):
            with proxy.disk.full():
                refused = proxy.call("server", "set", "shop/s1", "--weight", "7", timeout=40)
                self.expect(refused.returncode != 0, f"{proxy.name} takes a weight that it cannot write")
                time.sleep(rng.uniform(1, 6))
            self.reset_weight(proxy)

    def slow_disk(self, rng: random.Random) -> None:
        """Writes to the disk of a proxy hang, while an operator sets a server's weight and the access log is rotated."""
        proxy = self.any_proxy(rng)
        log = proxy.state / "access.log"
        with self.fault("slow disk", proxy.name):
            log.rename(log.with_suffix(f".{time.time():.0f}"))
            with proxy.disk.stalled():
                change = threading.Thread(target=proxy.call, args=("server", "set", "shop/s1", "--weight", "7"))
                change.start()
                proxy.signal(signal.SIGUSR1)
                until = time.monotonic() + rng.uniform(2, 10)
                while time.monotonic() < until:
                    self.expect(proxy.answers(), f"{proxy.name}: the API does not answer while its disk hangs")
                    time.sleep(0.5)
                self.expect(change.is_alive(), f"{proxy.name} has set a weight that it cannot have written")
            change.join()
            self.reset_weight(proxy)

    def reset_weight(self, proxy: world.Proxy) -> None:
        result = proxy.call("server", "set", "shop/s1", "--reset")
        self.expect(result.returncode == 0, f"{proxy.name}, its disk repaired: {result.stderr.strip()}")

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.failed_checks.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {what}")
            print(self.failed_checks[-1], file=sys.stderr, flush=True)


@contextlib.contextmanager
def cut_off(address: str):
    """Packets to an address vanish, in this network namespace."""
    route = ["table", "local", "blackhole", address]
    subprocess.run(["ip", "route", "add", *route], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "route", "del", *route], check=True)


def verifies(address: str, certificate: Path) -> bool:
    """Whether a client that trusts this certificate, while it is valid, connects."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    with socket.create_connection((address, world.TLS_PORT), 5) as connection:
        try:
            with context.wrap_socket(connection):
                return True
        except ssl.SSLCertVerificationError:
            return False
