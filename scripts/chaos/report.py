"""What was lost and moved, and by what: the report of a run."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median

# Which faults may cost a request, and whose: its server's, its proxy's, or none's. All others must cost nothing.
COSTS = {
    "server killed": "server", "server frozen": "server", "server cut off": "server",
    "proxy killed": "proxy", "proxy frozen": "proxy",
}
# After `drain_deadline` a drain ends the streams of its server, and no other request.
ENDS_STREAMS = {"server drained", "rolling deploy"}
STREAMS = {"websocket", "events"}
# Which faults may move a session of the given server, and which one of an application's id, whose binding is in the store.
MOVES = {"server killed", "server frozen", "server cut off", "server drained", "rolling deploy"}
MOVES_LEARNED = {"store killed", "store frozen", "store cut off"}
# What a proxy could not write to the store when that was out of reach is lost with the proxy.
BEHIND = 60
NO_CAUSE = "**without a cause**"


def overlaps(fault, began: float, ended: float) -> bool:
    return fault.began - 0.5 <= ended and began <= (fault.ended or ended) + fault.after


def cause_of_loss(loss: dict, faults: list) -> str:
    for fault in faults:
        ends = fault.kind in ENDS_STREAMS and loss["kind"] in STREAMS and loss["home"] in fault.target.split(",")
        if ends and overlaps(fault, loss["began"], loss["at"]):
            return fault.kind
        whose = COSTS.get(fault.kind)
        if not whose or not overlaps(fault, loss["began"], loss["at"]):
            continue
        if whose == "proxy" and fault.target == f"proxy-{loss['proxy']}":
            return fault.kind
        # A client without a session may get any server.
        if whose == "server" and (loss["home"] in (None, fault.target) or loss["kind"] == "new"):
            return fault.kind
    return NO_CAUSE


def cause_of_move(move: dict, faults: list) -> str:
    for fault in faults:
        if not overlaps(fault, move["since"], move["at"]):
            continue
        if fault.kind in MOVES and move["home"] in fault.target.split(","):
            return fault.kind
    for fault in faults:
        if move["kind"] != "learned" or fault.kind not in MOVES_LEARNED:
            continue
        if overlaps(fault, move["since"], move["at"]):
            return fault.kind
        killed = [other for other in faults if other.kind == "proxy killed" and overlaps(other, move["since"], move["at"])]
        if killed and overlaps(fault, move["since"] - BEHIND, move["at"]):
            return "proxy killed after a store fault"
    return NO_CAUSE


def around(event: dict, faults: list) -> str:
    """What else was going on, for what has no cause."""
    near = [f"{fault.kind} {fault.target}" for fault in faults if overlaps(fault, event.get("began", event.get("since")) - 5, event["at"])]
    return ", ".join(near) or "nothing"


class Report:
    def __init__(self, files: list, faults, samples: list, seconds: float, clients: int):
        self.faults, self.samples, self.seconds, self.clients = faults, samples, seconds, clients
        self.losses, self.moves, self.counts = [], [], Counter()
        for line in (line for file in files if Path(file).exists() for line in Path(file).read_text().splitlines()):
            event = json.loads(line)
            kind = event.pop("event")
            if kind == "count":
                self.counts.update(event)
            else:
                (self.losses if kind == "loss" else self.moves).append(event)
        self.by_cause = [(loss, cause_of_loss(loss, faults.done)) for loss in self.losses]
        self.moved = [(move, cause_of_move(move, faults.done)) for move in self.moves]

    def unexplained(self) -> int:
        return sum(cause == NO_CAUSE for _, cause in [*self.by_cause, *self.moved]) + len(self.faults.complaints)

    def text(self) -> str:
        requests = {kind.partition("/")[2]: n for kind, n in self.counts.items() if kind.startswith("requests/")}
        lines = [
            f"{self.clients} clients for {self.seconds / 60:.0f} minutes: {sum(requests.values())} requests and streams "
            f"({', '.join(f'{kind} {n}' for kind, n in sorted(requests.items()))}), {self.counts['messages']} messages over WebSockets. "
            f"{self.counts['slow']} answers took over a second.", "",
            "| fault | times |", "|---|---:|",
            *(f"| {kind} | {n} |" for kind, n in sorted(Counter(fault.kind for fault in self.faults.done).items())), "",
            "| lost, by cause | requests | how |", "|---|---:|---|",
        ]
        for cause, n in Counter(cause for _, cause in self.by_cause).most_common():
            how = Counter(loss["why"] for loss, other in self.by_cause if other == cause).most_common()
            lines.append(f"| {cause} | {n} | {', '.join(f'{why} {times}' for why, times in how)} |")
        lines += ["", "| moved, by cause | sessions | of them learned |", "|---|---:|---:|"]
        for cause, n in Counter(cause for _, cause in self.moved).most_common():
            learned = sum(move["kind"] == "learned" for move, other in self.moved if other == cause)
            lines.append(f"| {cause} | {n} | {learned} |")
        lines += ["", *self.resources(), ""]
        lines += [f"- complaint: {complaint}" for complaint in self.faults.complaints]
        lines += [f"- lost without a cause: {loss}; at that time: {around(loss, self.faults.done)}"
                  for loss, cause in self.by_cause if cause == NO_CAUSE][:40]
        lines += [f"- moved without a cause: {move}; at that time: {around(move, self.faults.done)}"
                  for move, cause in self.moved if cause == NO_CAUSE][:40]
        return "\n".join(lines) + "\n"

    def resources(self) -> list:
        """Of each proxy in the second and in the last quarter: a process that was just started has not all of its memory yet."""
        lines = ["| proxy | memory, MiB | descriptors | threads |", "|---|---|---|---|"]
        by_proxy = defaultdict(list)
        for sample in self.samples:
            by_proxy[sample["proxy"]].append(sample)
        for proxy, samples in sorted(by_proxy.items()):
            quarter = max(1, len(samples) // 4)
            parts = samples[quarter:2 * quarter] or samples, samples[-quarter:]
            cells = []
            for key in ("memory", "descriptors", "threads"):
                first, last = (median(sample[key] for sample in part) for part in parts)
                cells.append(f"{first:.0f} → {last:.0f}, at most {max(sample[key] for sample in samples):.0f}")
            lines.append(f"| {proxy} | {' | '.join(cells)} |")
        return lines
