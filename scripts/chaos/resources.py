"""What the proxies and the machine use while a run goes on."""

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

EVERY = 5
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


@dataclass
class Resources:
    proxies: list
    # Whether the processes in /proc are those of the run, and no others.
    isolated: bool
    samples: list = field(default_factory=list)
    # The load average of the machine, and how many processors the run itself used, with clients and servers.
    load: list = field(default_factory=list)
    cores: list = field(default_factory=list)

    def measure(self, stop: threading.Event) -> None:
        began, before = time.monotonic(), {}
        while not stop.wait(EVERY):
            now = time.monotonic()
            self.load.append(os.getloadavg()[0])
            if self.isolated:
                used = processor_seconds()
                if before:
                    spent = sum(seconds - before.get(pid, 0) for pid, seconds in used.items())
                    self.cores.append(spent / (now - last))
                before, last = used, now
            for proxy in self.proxies:
                # During an upgrade there are two: the older one serves its last requests.
                for pid in proxy.pids()[-1:]:
                    with contextlib.suppress(OSError, IndexError):
                        self.samples.append({"proxy": proxy.name, "at": now - began, "pid": pid, **usage(Path("/proc") / str(pid))})

    def table(self) -> list:
        lines = ["| proxy | processes | memory, MiB | descriptors | threads |", "|---|---:|---|---|---|"]
        for proxy in self.proxies:
            samples = [sample for sample in self.samples if sample["proxy"] == proxy.name]
            if samples:
                cells = [course(samples, key) for key in ("memory", "descriptors", "threads")]
                lines.append(f"| {proxy.number} | {len({sample['pid'] for sample in samples})} | {' | '.join(cells)} |")
        return lines

    def machine(self) -> str:
        text = f"Load average of the machine: median {median(self.load):.1f}, at most {max(self.load):.1f}." if self.load else ""
        return f"{text} The run itself used {sum(self.cores) / len(self.cores):.2f} processors." if self.cores else text


def usage(process: Path) -> dict:
    stat = (process / "stat").read_text().rsplit(")", 1)[1].split()
    return {"memory": int(stat[21]) * PAGE / 2**20, "descriptors": len(list((process / "fd").iterdir())), "threads": int(stat[17])}


def processor_seconds() -> dict:
    """Of each process so far."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = (process / "stat").read_text().rsplit(")", 1)[1].split()
                found[process.name] = (int(stat[11]) + int(stat[12])) / TICKS
    return found


def course(samples: list, key: str) -> str:
    """Early, in the middle and at the end, the most, and what it rises by in an hour after the first third: a table of sessions
    takes `idle_timeout` to fill."""
    length = samples[-1]["at"]

    def at(share: float) -> float:
        near = [sample[key] for sample in samples if abs(sample["at"] - share * length) <= length / 20]
        return median(near or [sample[key] for sample in samples])

    rise = slope([(sample["at"] / 3600, sample[key]) for sample in samples if sample["at"] > length / 3])
    most = max(sample[key] for sample in samples)
    return f"{at(0.05):.0f}, {at(0.5):.0f}, {at(0.95):.0f}; at most {most:.0f}; {rise:+.1f} an hour"


def slope(points: list) -> float:
    """By least squares."""
    if len(points) < 2:
        return 0.0
    x_mean, y_mean = (sum(point[i] for point in points) / len(points) for i in (0, 1))
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / spread if spread else 0.0
