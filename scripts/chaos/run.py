"""Three proxies, eight servers, a store with a replica and sentinels, and clients of all kinds through kills, freezes, partitions,
full disks, reloads, upgrades and deploys: `make chaos`.

Everything runs on loopback addresses of its own, as root in a network namespace of its own; without root partitions and full disks
are left out. Exits with 1 when a request was lost, or a session moved, without a cause. The report is printed, and is in the
directory of the run with all logs.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import faults
import report
import world

CLIENT_PROCESSES = 2
SAMPLE_EVERY = 5


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=int, default=3600, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--program", type=Path, help="homing, by default that of the profile demo")
    parser.add_argument("--isolated", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def isolate() -> None:
    """Again in namespaces of its own, as root. Whatever ends it, its processes end with it."""
    if os.geteuid() == 0 and "--isolated" not in sys.argv and shutil.which("unshare") and shutil.which("ip"):
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*command, "ip", "link", "set", "lo", "up"], check=False).returncode == 0:
            os.execvp(command[0], [*command, sys.executable, *sys.argv, "--isolated"])


def sample(all_: world.World, samples: list, stop: threading.Event) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    while not stop.wait(SAMPLE_EVERY):
        for proxy in all_.proxies.values():
            # During an upgrade there are two: the older one serves its last requests.
            for pid in proxy.pids()[-1:]:
                with contextlib.suppress(OSError, IndexError):
                    room = Path("/proc") / str(pid)
                    stat = (room / "stat").read_text().rsplit(")", 1)[1].split()
                    samples.append({
                        "proxy": proxy.name, "at": time.monotonic(), "memory": int(stat[21]) * page / 2**20,
                        "descriptors": len(list((room / "fd").iterdir())), "threads": int(stat[17])})


def main() -> int:
    chosen = options()
    isolate()
    if chosen.isolated:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    else:
        print("not as root, or without unshare and ip: partitions and full disks are left out", file=sys.stderr)
    program = (chosen.program or world.target() / "demo" / "homing").resolve()
    directory = Path(tempfile.mkdtemp(prefix="homing-chaos-"))
    print(f"seed {chosen.seed}, {chosen.clients} clients, {chosen.duration} s, in {directory}", file=sys.stderr)
    everything = world.World(program, directory)
    samples, stop = [], threading.Event()
    files, clients = [], []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        everything.start()
        threading.Thread(target=sample, args=(everything, samples, stop), daemon=True).start()
        began = time.monotonic()
        for number in range(CLIENT_PROCESSES):
            files.append(directory / f"clients-{number}.jsonl")
            command = [sys.executable, world.HERE / "clients.py", str(chosen.seed * 10 + number),
                       str(chosen.clients // CLIENT_PROCESSES), str(chosen.duration), files[-1], *(["tls"] if everything.tls else [])]
            with (directory / f"clients-{number}.log").open("wb") as log:
                clients.append(subprocess.Popen(command, stdout=log, stderr=log))
        time.sleep(min(15, chosen.duration / 10))
        doing = faults.Faults(everything, chosen.seed, chosen.isolated)
        doing.run(began + chosen.duration - min(20, chosen.duration / 10))
        for client in clients:
            doing.expect(client.wait(chosen.duration) == 0, "clients ended before their time")
        for proxy in everything.proxies.values():
            doing.expect("panic" not in proxy.log.read_text(errors="replace"), f"{proxy.name} has panicked")
        made = report.Report(files, doing, samples, time.monotonic() - began, chosen.clients)
    finally:
        stop.set()
        for client in clients:
            client.kill()
        everything.stop()
    text = made.text()
    (directory / "report.md").write_text(text)
    print(text)
    return 1 if made.unexplained() else 0


if __name__ == "__main__":
    sys.exit(main())
