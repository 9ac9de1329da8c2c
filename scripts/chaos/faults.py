"""What is done to the world: each fault is a method that does it and undoes it, and is written down with its times."""

import contextlib
import os
import random
import subprocess
import threading
import time
from dataclasses import dataclass, field

import world


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
    isolated: bool
    done: list = field(default_factory=list)
    complaints: list = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.lock = threading.Lock()
        # How often of a hundred. What needs a network namespace or a small disk is left out without root.
        self.kinds = {
            self.kill_server: 14, self.freeze_server: 10, self.kill_proxy: 8, self.freeze_proxy: 8, self.reload: 14,
            self.upgrade: 14, self.rolling_deploy: 4, self.kill_store: 8, self.freeze_store: 6, self.drain_server: 6,
        }
        if self.world.tls:
            self.kinds[self.certificate] = 6
        if self.isolated:
            self.kinds |= {self.cut_off_server: 8, self.cut_off_store: 6, self.fill_disk: 6}

    def run(self, until: float) -> None:
        """One fault after the other, on two threads, which leave each other's targets alone."""
        threads = [threading.Thread(target=self.one_by_one, args=(until, number), daemon=True) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def one_by_one(self, until: float, number: int) -> None:
        chance = random.Random(self.seed * 31 + number)
        while time.monotonic() < until:
            method = chance.choices(list(self.kinds), list(self.kinds.values()))[0]
            # The second thread only does what must harm nobody, so that causes can be told from each other.
            if number and method not in (self.reload, self.upgrade, self.certificate):
                method = self.reload
            try:
                method(chance)
            except (OSError, subprocess.SubprocessError, RuntimeError) as error:
                self.complaints.append(f"{method.__name__}: {error}")
            time.sleep(chance.uniform(1, 6) * (3 if number else 1))

    @contextlib.contextmanager
    def fault(self, kind: str, target: str, after: float = 3.0):
        one = Fault(kind, target, time.monotonic(), after=after)
        self.done.append(one)
        try:
            yield one
        finally:
            one.ended = time.monotonic()

    def kill_server(self, chance: random.Random) -> None:
        server = self.world.servers[chance.choice(list(self.world.servers))]
        with self.fault("server killed", server.name):
            server.kill()
            time.sleep(chance.uniform(0.2, 8))
            server.start()
            time.sleep(1)

    def freeze_server(self, chance: random.Random) -> None:
        server = self.world.servers[chance.choice(list(self.world.servers))]
        # Requests that wait for a server are ended by the read timeout.
        with self.fault("server frozen", server.name, after=6):
            server.freeze()
            time.sleep(chance.uniform(1, 7))
            server.thaw()

    def drain_server(self, chance: random.Random) -> None:
        name = f"s{chance.choice(list(self.world.servers))}"
        with self.fault("server drained", name, after=10):
            for state in ("drain", "ready"):
                for proxy in self.world.proxies.values():
                    for pool in ("shop", "learned"):
                        proxy.call("server", "set", f"{pool}/{name}", "--state", state, timeout=20)
                time.sleep(chance.uniform(4, 10) if state == "drain" else 0)

    def kill_proxy(self, chance: random.Random) -> None:
        with self.lock:
            proxy = self.world.proxies[chance.choice(list(self.world.proxies))]
            with self.fault("proxy killed", proxy.name):
                proxy.kill()
                time.sleep(chance.uniform(0, 3))
                proxy.start()
                self.expect(proxy.ready(), f"{proxy.name} does not start again")

    def freeze_proxy(self, chance: random.Random) -> None:
        with self.lock:
            proxy = self.world.proxies[chance.choice(list(self.world.proxies))]
            with self.fault("proxy frozen", proxy.name, after=8):
                proxy.freeze()
                time.sleep(chance.uniform(0.5, 5))
                proxy.thaw()

    def reload(self, chance: random.Random) -> None:
        with self.lock, self.fault("reload", "all proxies"):
            self.world.round += 1
            self.world.weights = {n: chance.choice((5, 10, 10, 20)) for n in self.world.servers}
            self.world.configure()
            for proxy in self.world.proxies.values():
                told = proxy.call("reload")
                self.expect(told.returncode == 0, f"reload of {proxy.name}: {told.stderr.strip()}")

    def upgrade(self, chance: random.Random) -> None:
        with self.lock:
            proxy = self.world.proxies[chance.choice(list(self.world.proxies))]
            with self.fault("upgrade", proxy.name):
                before = proxy.pid()
                told = proxy.call("upgrade", timeout=120)
                self.expect(told.returncode == 0, f"upgrade of {proxy.name}: {told.stderr.strip()}")
                self.expect(proxy.pid() != before, f"{proxy.name} is the same process after its upgrade")

    def rolling_deploy(self, chance: random.Random) -> None:
        names = [f"s{n}" for n in chance.sample(list(self.world.servers), 2)]
        script = world.ROOT / "conf" / "examples" / "rolling-deploy.sh"
        proxies = [word for proxy in self.world.proxies.values() for word in ("--admin", proxy.admin)]
        path = f"{self.world.program.parent}:{os.environ['PATH']}"
        with self.fault("rolling deploy", ",".join(names), after=10):
            # The servers of both pools are the same processes: the other pool's are drained by hand.
            for name in names:
                for proxy in self.world.proxies.values():
                    proxy.call("server", "set", f"learned/{name}", "--state", "drain", timeout=20)
            mark = self.world.directory / "deploy"
            # The script's command asks for the server to be replaced, and waits until it is.
            command = f"touch {mark}-$SERVER; while [ -e {mark}-$SERVER ]; do sleep 0.1; done"
            deploy = subprocess.Popen(
                [script, *proxies, "--ignore-silent", "--healthy-for", "2", "shop", *names, "--", "sh", "-c", command],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"PATH": path})
            while deploy.poll() is None:
                for name in names:
                    if (asked := mark.with_name(f"deploy-{name}")).exists():
                        server = self.world.servers[int(name[1:])]
                        server.kill()
                        server.start()
                        asked.unlink()
                time.sleep(0.2)
            self.expect(deploy.returncode == 0, f"rolling deploy: {deploy.stderr.read().strip()[-300:]}")
            for name in names:
                for proxy in self.world.proxies.values():
                    for pool in ("shop", "learned"):
                        proxy.call("server", "set", f"{pool}/{name}", "--state", "ready", timeout=20)

    def kill_store(self, chance: random.Random) -> None:
        number = self.world.primary() if chance.random() < 0.7 else chance.choice(list(self.world.redis))
        store = self.world.redis[number]
        with self.fault("store killed", store.name, after=15):
            store.kill()
            time.sleep(chance.uniform(1, 12))
            store.start()
            time.sleep(2)

    def freeze_store(self, chance: random.Random) -> None:
        store = self.world.redis[self.world.primary()]
        with self.fault("store frozen", store.name, after=15):
            store.freeze()
            time.sleep(chance.uniform(0.5, 8))
            store.thaw()

    def certificate(self, chance: random.Random) -> None:
        days = chance.choice((1, 30))
        with self.lock, self.fault("certificate renewed", "all proxies"):
            self.world.renew_certificate(days)
            for proxy in self.world.proxies.values():
                told = proxy.call("reload")
                self.expect(told.returncode == 0, f"reload of {proxy.name}: {told.stderr.strip()}")

    def cut_off_server(self, chance: random.Random) -> None:
        number = chance.choice(list(self.world.servers))
        with self.fault("server cut off", f"s{number}", after=6), cut_off(world.server_address(number)):
            time.sleep(chance.uniform(1, 8))

    def cut_off_store(self, chance: random.Random) -> None:
        number = self.world.primary()
        with self.fault("store cut off", f"redis-{number}", after=15), cut_off(world.store_address(number)):
            time.sleep(chance.uniform(1, 8))

    def fill_disk(self, chance: random.Random) -> None:
        """The disk of a proxy's state file is full, while an operator sets a server's weight."""
        proxy = self.world.proxies[chance.choice(list(self.world.proxies))]
        room = self.world.directory / f"state-{proxy.number}"
        with self.fault("disk full", proxy.name):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", room], check=True)
            filler = room / "filler"
            try:
                with contextlib.suppress(OSError), filler.open("wb") as file:
                    while True:
                        file.write(bytes(4096))
                        file.flush()
                proxy.call("server", "set", "shop/s1", "--weight", "7", timeout=20)
                time.sleep(chance.uniform(1, 4))
            finally:
                filler.unlink(missing_ok=True)
                subprocess.run(["umount", room], check=False)
                proxy.call("server", "set", "shop/s1", "--weight", "10", timeout=20)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.complaints.append(what)


@contextlib.contextmanager
def cut_off(address: str):
    """Packets to an address vanish, in this network namespace."""
    route = ["table", "local", "blackhole", address]
    subprocess.run(["ip", "route", "add", *route], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "route", "del", *route], check=True)
