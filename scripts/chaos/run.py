"""Three proxies, eight servers, a store with a replica and sentinels, and clients of all kinds through kills, freezes, partitions,
full and slow disks, clock jumps, expiring certificates, reloads, upgrades and deploys: `make chaos`.

Everything runs on loopback addresses of its own, as root in namespaces of its own; without root partitions and disks are left out.
Exits with 1 when a request was lost, or a session moved, without a cause. The report is printed, and is in the directory of the run
with all logs.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from faults import Faults
from report import Report
from resources import Resources
from world import HERE, World, target

CLIENT_PROCESSES = 2


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=int, default=3600, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--program", type=Path, help="homing, by default that of the profile demo")
    parser.add_argument("--only", help="faults to inject, by the names of their methods in faults.py: slow_disk,rolling_deploy")
    parser.add_argument("--isolated", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def isolate() -> None:
    """Again in namespaces of its own, as root. Whatever ends it, its processes end with it."""
    if os.geteuid() == 0 and "--isolated" not in sys.argv and shutil.which("unshare") and shutil.which("ip"):
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*command, "ip", "link", "set", "lo", "up"], check=False).returncode == 0:
            os.execvp(command[0], [*command, sys.executable, *sys.argv, "--isolated"])


def start_clients(world: World, chosen: argparse.Namespace, files: list) -> list:
    started = []
    for number, file in enumerate(files):
        command = [sys.executable, HERE / "clients.py", str(chosen.seed * 10 + number),
                   str(chosen.clients // CLIENT_PROCESSES), str(chosen.duration), file, *(["tls"] if world.tls else [])]
        with file.with_suffix(".log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
    return started


def check_ends(world: World, clients: list, faults: Faults, patience: float) -> None:
    for client in clients:
        faults.expect(client.wait(patience) == 0, "clients ended before their time")
    for proxy in world.proxies.values():
        faults.expect("panic" not in proxy.log.read_text(errors="replace"), f"{proxy.name} has panicked")


def main() -> int:
    chosen = options()
    isolate()
    if chosen.isolated:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    else:
        print("not as root, or without unshare and ip: partitions and disks are left out", file=sys.stderr)
    program = (chosen.program or target() / "demo" / "homing").resolve()
    directory = Path(tempfile.mkdtemp(prefix="homing-chaos-"))
    print(f"seed {chosen.seed}, {chosen.clients} clients, {chosen.duration} s, in {directory}", file=sys.stderr)
    world = World(program, directory, chosen.isolated)
    resources, stop = Resources(list(world.proxies.values()), chosen.isolated), threading.Event()
    files = [directory / f"clients-{number}.jsonl" for number in range(CLIENT_PROCESSES)]
    clients = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        world.start()
        faults = Faults(world, chosen.seed, chosen.only, directory / "faults.jsonl")
        threading.Thread(target=resources.measure, args=(stop,), daemon=True).start()
        began = time.monotonic()
        clients = start_clients(world, chosen, files)
        time.sleep(min(15, chosen.duration / 10))
        faults.run(began + chosen.duration - min(20, chosen.duration / 10))
        check_ends(world, clients, faults, chosen.duration)
        seconds = time.monotonic() - began
    finally:
        stop.set()
        for client in clients:
            client.kill()
        world.stop()
    report = Report(files, faults, resources, seconds, chosen.clients)
    (directory / "report.md").write_text(report.text())
    print(report.text())
    return 1 if report.unexplained() else 0


if __name__ == "__main__":
    sys.exit(main())
