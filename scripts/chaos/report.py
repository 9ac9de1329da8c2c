"""What was lost and moved, and by what: the report of a run."""

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from pathlib import Path

# Which faults may cost a request, and whose: its server's or its proxy's. All others must cost nothing.
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
# Tokens of a proxy whose clock is off by more than five minutes, and others' tokens there, are too old or from the future; so is
# what it writes to the store.
MOVES_BY_CLOCK = {"clock off by hours"}
# What a proxy could not write to the store when that was out of reach is lost with the proxy.
BEHIND = 60
STALLED = "the clients' program did not run"
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
    of_its_time = [fault for fault in faults if overlaps(fault, move["since"], move["at"])]
    for fault in of_its_time:
        if fault.kind in MOVES and move["home"] in fault.target.split(","):
            return fault.kind
    for fault in of_its_time:
        through = {f"proxy-{move['proxy']}", f"proxy-{move['before']}"}
        if fault.kind in MOVES_BY_CLOCK and (fault.target in through or move["kind"] == "learned"):
            return fault.kind
    if move["kind"] != "learned":
        return NO_CAUSE
    for fault in of_its_time:
        if fault.kind in MOVES_LEARNED:
            return fault.kind
    killed = any(fault.kind == "proxy killed" for fault in of_its_time)
    behind = any(fault.kind in MOVES_LEARNED and overlaps(fault, move["since"] - BEHIND, move["at"]) for fault in faults)
    if killed and behind:
        return "proxy killed after a store fault"
    # Its binding may have been lost at a proxy that it did not use since, or its hash has led to its server by chance.
    earlier = any(fault.kind in MOVES_LEARNED | MOVES_BY_CLOCK and overlaps(fault, move["session_began"], move["at"]) for fault in faults)
    return "a store or clock fault earlier in the session" if earlier else NO_CAUSE


def or_stall(cause: str, event: dict, stalls: list) -> str:
    """A client that does not run for seconds sends nothing, which timeouts of the proxy may end, and reads late."""
    stalled = any(
        stall["process"] == event["process"] and stall["began"] <= event["at"] and event.get("began", event.get("since")) <= stall["at"]
        for stall in stalls)
    return STALLED if cause == NO_CAUSE and stalled else cause


def cause_of_delay(slow: dict, faults: list) -> str:
    """Only told, not judged: an answer may also take long because the machine is busy."""
    cause = cause_of_loss(slow, faults)
    if cause == NO_CAUSE:
        of_its_time = [fault.kind for fault in faults if overlaps(fault, slow["began"], slow["at"])]
        cause = next((kind for kind in of_its_time if kind in MOVES | MOVES_LEARNED), NO_CAUSE)
    return cause


def around(event: dict, faults: list) -> str:
    """What else was going on, for what has no cause."""
    near = [f"{fault.kind} {fault.target}" for fault in faults if overlaps(fault, event.get("began", event.get("since")) - 5, event["at"])]
    return ", ".join(near) or "nothing"


class Timeline:
    """Faults by their time: there are hundreds, and tens of thousands of events on a busy machine."""

    def __init__(self, faults: list):
        self.faults = sorted(faults, key=lambda fault: fault.began)
        self.begins = [fault.began for fault in self.faults]
        self.longest = max((max(fault.ended - fault.began, 0) + fault.after for fault in faults), default=0)

    def near(self, event: dict) -> list:
        """Those that may overlap the event."""
        return self.faults[bisect_left(self.begins, event["began"] - self.longest):bisect_right(self.begins, event["at"] + 1)]


class Report:
    def __init__(self, files: list, faults, resources, seconds: float, clients: int):
        self.faults, self.resources, self.seconds, self.clients = faults, resources, seconds, clients
        events, self.counts = {"loss": [], "move": [], "slow": [], "stall": []}, Counter()
        for process, file in enumerate(files):
            for event in map(json.loads, Path(file).read_text().splitlines() if Path(file).exists() else []):
                kind = event.pop("event")
                if kind == "count":
                    self.counts.update(event)
                else:
                    events[kind].append(event | {"process": process})
        self.stalls = events["stall"]
        timeline = Timeline(faults.done)
        self.lost = [(loss, or_stall(cause_of_loss(loss, timeline.near(loss)), loss, self.stalls)) for loss in events["loss"]]
        self.moved = [(move, cause_of_move(move, faults.done)) for move in events["move"]]
        self.slow = [(slow, or_stall(cause_of_delay(slow, timeline.near(slow)), slow, self.stalls)) for slow in events["slow"]]

    def unexplained(self) -> int:
        return sum(cause == NO_CAUSE for _, cause in [*self.lost, *self.moved]) + len(self.faults.failed_checks)

    def text(self) -> str:
        lines = [self.summary(), "", *self.table_of_faults(), "", *self.tables_of_causes(), "", *self.resources.table(), "", *self.failures()]
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        requests = {kind.partition("/")[2]: n for kind, n in self.counts.items() if kind.startswith("requests/")}
        unexplained = sum(cause == NO_CAUSE for _, cause in self.slow)
        return (
            f"{self.clients} clients for {self.seconds / 60:.0f} minutes: {sum(requests.values())} requests and streams "
            f"({', '.join(f'{kind} {n}' for kind, n in sorted(requests.items()))}), {self.counts['messages']} messages over WebSockets. "
            f"{len(self.slow)} answers took over a second, {unexplained} of them at a time without a fault that explains it. "
            f"The clients' programs did not run for over two seconds {len(self.stalls)} times. "
            f"{self.resources.machine()}")

    def table_of_faults(self) -> list:
        times = sorted(Counter(fault.kind for fault in self.faults.done).items())
        return ["| fault | times |", "|---|---:|", *(f"| {kind} | {n} |" for kind, n in times)]

    def tables_of_causes(self) -> list:
        lines = ["| lost, by cause | requests | how |", "|---|---:|---|"]
        for cause, n in Counter(cause for _, cause in self.lost).most_common():
            how = Counter(loss["why"] for loss, other in self.lost if other == cause).most_common()
            lines.append(f"| {cause} | {n} | {', '.join(f'{why} {times}' for why, times in how)} |")
        lines += ["", "| moved, by cause | sessions | of them learned |", "|---|---:|---:|"]
        for cause, n in Counter(cause for _, cause in self.moved).most_common():
            learned = sum(move["kind"] == "learned" for move, other in self.moved if other == cause)
            lines.append(f"| {cause} | {n} | {learned} |")
        return lines

    def failures(self) -> list:
        lines = [f"- failed check: {failed}" for failed in self.faults.failed_checks]
        for what, events, shown in (("lost", self.lost, 40), ("moved", self.moved, 40), ("slow", self.slow, 10)):
            unexplained = [event for event, cause in events if cause == NO_CAUSE]
            lines += [f"- {what} without a cause: {event}; at that time: {around(event, self.faults.done)}" for event in unexplained[:shown]]
        return lines
