#!/usr/bin/env python3
"""The bench of the shared store: the same Homing with its own memory, with Redis, Valkey, memcached, Hazelcast and Ignite, in one run.

Proxies have one core and one thread each; load, servers and stores share another. What is told are ratios of the same
rounds (median, least and greatest), and refused is what `bench.py` refuses. The parts:

    returning   returning sessions, learned and with tokens: CPU a request and requests a second, to memory's
    counted     returning sessions: instructions and allocations a request in the threads that serve, by valgrind
    steady      learned sessions, a request a second each: what the store is asked, and its own CPU
    first       two proxies: the first request at B of a session that began at A
    moves       two proxies: when B hears of what A has moved
    memory      bytes a session, in the store and in the proxy
    frozen      requests a second while the store stands still (SIGSTOP), to those before

    shared.py --parts returning,first --stores redis --rounds 3 --seconds 2

Results: target/bench-load/ (shared.md, shared.json).
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from statistics import median

import bench
import contenders
import counts
import pair
import programs
import report
import stores
from bench import listed, say
from cases import NEW, RETURNING, Case
from parts import Part

STORES = ("redis", "valkey", "memcached", "hazelcast", "ignite")
# Seconds; the default.
NEAR_TTL = 10
# Requests under valgrind.
COUNTED = 1000
OPERATIONS = "homing_store_operation_duration_seconds_count"


def homings(options, running: dict, mode: str) -> list:
    """Homing with memory, and with every store that runs."""
    def one(name: str, yaml: str) -> contenders.Contender:
        start = contenders.homing(options.binaries["homing"], mode, yaml, f"{name}-{mode}")
        return contenders.Contender(f"{name}-{mode}", True, False, mode == "learn", start)
    return [one("memory", "type: memory"), *(one(name, store.yaml) for name, store in running.items())]


@contextlib.contextmanager
def running_stores(options, cores):
    running = {}
    try:
        for name in options.stores:
            running[name] = stores.start(name, cores[1], options.directory)
            options.versions[name] = running[name].version
        yield running
    finally:
        for store in running.values():
            store.stop()


@contextlib.contextmanager
def running_servers(options, cores, count: int = 4):
    process, ports = programs.start_servers(options.binaries["server"], count, cores[1], options.directory)
    try:
        yield process, ports
    finally:
        process.stop()


def runner(contender, options, cores, ports: list, part: Part) -> bench.Runner | None:
    """A proxy that is up and sticky; else the reason is in the part."""
    one = bench.Runner(contender, Case(contender.name, "", RETURNING), options, cores)
    one.start(contenders.Setting(options.directory, ports))
    if one.refused:
        stop(one)
        return part.fail(contender.name, one.refused)
    return one


def stop(one: bench.Runner) -> None:
    if one.process:
        one.process.stop()


def returning(options, cores) -> list:
    told = []
    for mode, what in (("learn", "learned"), ("cookie", "with tokens")):
        part = Part("returning", f"keep-alive, {options.connections} connections, 256 returning sessions, {what}")
        with running_stores(options, cores) as running:
            case = Case(f"returning-{mode}", part.title, RETURNING)
            seen = bench.run_case(case, homings(options, running, mode), options, cores)
        part.figures = seen
        part.failures = [one["contender"] for one in seen["results"] if one["refused"]]
        part.lines = report.table(seen, f"memory-{mode}")
        if seen["void"]:
            part.failures.append(case.name)
            part.lines = [f"No table: {seen['void']}."]
        told.append(part)
    return told


def counted(options, cores) -> list:
    """Within about one percent the same on any machine, however busy. The clock runs, unlike in `counts.py`: stores need it."""
    told = []
    for mode, what in (("learn", "learned"), ("cookie", "with tokens")):
        part = Part("counted", f"returning sessions, {what}, counted", "instructions", "to memory's", "allocations")
        base = None
        with running_stores(options, cores) as running, running_servers(options, cores) as (_, ports):
            setting = contenders.Setting(options.directory, ports)
            for contender in homings(options, running, mode):
                with part.of(contender.name):
                    seen = counts.figures(counts.Measured(contender, "cookie hit", options.binaries, setting).counted(COUNTED, None))
                    base = base or seen
                    took = seen["instructions"]
                    part.row(contender.name, f"{took:,.0f}", f"{took / base['instructions']:.3f}", f"{seen['allocations']:.1f}")
        told.append(part)
    return told


def steady(options, cores) -> list:
    part = Part(
        "steady", f"{options.sessions} learned sessions, a request a second each, over {options.steady:g} s",
        "requests", "commands ÷ requests", "round trips ÷ requests", "names asked for ÷ requests", "commands",
        "store's CPU ÷ proxy's", "proxy's CPU ÷ memory's", "p99 µs")
    base = None
    with running_stores(options, cores) as running, running_servers(options, cores) as (_, ports):
        for contender, store in zip(homings(options, running, "learn"), [None, *running.values()]):
            with part.of(contender.name):
                one = runner(contender, options, cores, ports, part)
                if one is None:
                    continue
                try:
                    seen = watched(one, store, options, cores)
                finally:
                    stop(one)
                part.figures[contender.name] = seen
                base = base or seen
                part.row(contender.name, *steady_cells(seen, base))
    return [part]


def watched(one: bench.Runner, store, options, cores) -> dict:
    """Reads proxy and store twice under load: after every copy was refreshed once, and later."""
    settle = min(1.5 * NEAR_TTL, options.steady)
    # Sessions of real clients do not all begin in one moment, so neither do these: else their copies would grow old together.
    arguments = [
        "--sessions", options.sessions, "--spread", NEAR_TTL, "--rate", options.sessions, "--connections", options.connections,
        "--seconds", settle + options.steady + 2, "--pid", one.process.pid, "--core", cores[0]]
    load = programs.begin_load(one.load, one.port, arguments, cores[1])
    begun = requests(one) + options.sessions * (1 + settle)
    until = time.monotonic() + programs.DEADLINE * 5
    while requests(one) < begun:
        if load.poll() is not None or time.monotonic() > until:
            raise pair.Failed(f"the load did not come up: {programs.end_load(load)}")
        time.sleep(0.1)
    before = looked_at(one, store)
    time.sleep(options.steady)
    after = looked_at(one, store)
    tally = programs.end_load(load)
    wrong = tally.get("failed") or tally["errors"] or (f"not sticky: {tally['moved']} moved" if tally["moved"] else None)
    if wrong:
        raise pair.Failed(str(wrong))
    seen = {name: after[name] - before[name] for name in ("requests", "proxy_cpu_ns", "store_cpu_ns", "operations")}
    counted = after["counted"] - before["counted"] if after["counted"] else stores.Counted({}, 0, None)
    return seen | {"told": after["counted"] is not None or store is None} | {"commands": counted.commands, "names": counted.names, "reads": counted.reads, "load": tally}


def requests(one: bench.Runner) -> float:
    return total(one.process.metrics(), "homing_requests_total")


def total(metrics: dict, begins_with: str) -> float:
    return sum(value for series, value in metrics.items() if series.startswith(begins_with))


def looked_at(one: bench.Runner, store) -> dict:
    metrics = one.process.metrics()
    return {
        "requests": total(metrics, "homing_requests_total"), "operations": total(metrics, OPERATIONS),
        "proxy_cpu_ns": one.process.cpu_ns(), "store_cpu_ns": store.process.cpu_ns() if store else 0,
        "counted": store.counted() if store else None,
    }


def steady_cells(seen: dict, base: dict) -> list:
    a_request = lambda count: f"{count / seen['requests']:.4f}"
    cpu = lambda one: one["proxy_cpu_ns"] / one["requests"]
    timed = [
        f"{seen['store_cpu_ns'] / seen['proxy_cpu_ns']:.3f}", f"{cpu(seen) / cpu(base):.2f}",
        f"{seen['load']['latency_us']['p99']:.0f}"]
    disturbed = bench.disturbed([seen["load"], base["load"]])
    # Ignite does not say what it was asked.
    of_store = lambda cell: cell if seen["told"] else ""
    return [
        f"{seen['requests']:.0f}", of_store(a_request(sum(seen["commands"].values()))), a_request(seen["operations"]),
        of_store(a_request(seen["names"])),
        ", ".join(f"{count} {name}" for name, count in sorted(seen["commands"].items())),
        *([disturbed] if disturbed else timed),
    ]


def first(options, cores) -> list:
    part = Part(
        "first", f"two proxies, one request after the other, {options.rounds} × {options.begins} sessions",
        *(f"{step}, p50 / p99 µs" for step in pair.STEPS), "first at B ÷ next at A: p50", "p99", "÷ next with memory: p50",
        "p99")
    with running_stores(options, cores) as running, running_servers(options, cores) as (_, ports):
        yamls = {"memory": "type: memory"} | {name: store.yaml for name, store in running.items()}
        with pair.started(yamls, options, cores, ports, ports) as pairs:
            rounds = {one.name: [] for one in pairs}
            for one in pairs:
                with part.of(one.name):
                    if one.name == "memory":
                        pair.first_requests(one, 64, False)
                    else:
                        pair.warm(one)
            pairs = [one for one in pairs if one.name not in part.failures]
            for number in range(options.rounds):
                say(f"  round {number + 1} of {options.rounds}")
                for one in pairs:
                    seen = first_round(part, one, options.begins)
                    if seen is not None:
                        rounds[one.name].append(seen)
    for name, seen in rounds.items():
        if name not in part.failures:
            part.row(name, *first_cells(seen, rounds["memory"]))
        part.figures[name] = [{step: summary(found) for step, found in one.items()} for one in seen]
    return [part]


def first_round(part: Part, one: pair.Pair, count: int) -> dict | None:
    if one.name not in part.failures:
        with part.of(one.name):
            return pair.first_requests(one, count, one.name != "memory")
    return None


def summary(found: list) -> dict:
    return {"count": len(found), "p50": pair.quantile(found, 0.5), "p99": pair.quantile(found, 0.99), "max": max(found)}


def first_cells(seen: list, memory: list) -> list:
    cells = []
    for step in pair.STEPS:
        found = [took for one in seen for took in one.get(step, [])]
        cells.append(f"{pair.quantile(found, 0.5):.0f} / {pair.quantile(found, 0.99):.0f}" if found else "")
    if "first at B" not in seen[0]:
        return cells
    for others in (seen, memory):
        for share in (0.5, 0.99):
            both = zip(seen, others)
            cells.append(spread([pair.quantile(ours["first at B"], share) / pair.quantile(theirs["next at A"], share)
                                 for ours, theirs in both]))
    return cells


def spread(found: list) -> str:
    return report.spread((median(found), min(found), max(found)) if found else None)


def moves(options, cores) -> list:
    part = Part(
        "moves", f"two proxies, {options.moves} sessions whose server A does not reach and B does",
        "until B knew, from A's answer: p50 ms", "p99 ms", "max ms", "answers by the old server: all", "most for a session",
        "an ordinary request to B: p50 ms", "p99 ms", "the request that moves, at A: p50 ms", "B's lookups", "B heard")
    with running_stores(options, cores) as running, running_servers(options, cores) as (_, ports):
        for name, store in running.items():
            with part.of(name), running_servers(options, cores, 1) as (door, doors), \
                    pair.started({name: store.yaml}, options, cores, [*doors, *ports[1:]], ports) as (one,):
                pair.warm(one)
                seen = pair.Moves(one, door, options.moves).play(at_once=name == "memcached")
                waits, ordinary, moving = (summary(seen.pop(f"{what}_us")) for what in ("waits", "ordinary", "moving"))
                stale = seen.pop("stale")
                part.figures[name] = seen | {
                    "waits_us": waits, "ordinary_us": ordinary, "moving_us": moving,
                    "stale": {"all": sum(stale), "sessions": sum(1 for one in stale if one), "most": max(stale)}}
                ms = lambda value: f"{value / 1000:.2f}"
                part.row(name, ms(waits["p50"]), ms(waits["p99"]), ms(waits["max"]), str(sum(stale)), str(max(stale)),
                         ms(ordinary["p50"]), ms(ordinary["p99"]), ms(moving["p50"]), f"{seen['lookups']:.0f}",
                         f"{seen['announcements']:.0f}")
    return [part]


def memory(options, cores) -> list:
    part = Part(
        "memory", f"{options.binds:,} sessions", "B a session in the store", "B a session in the proxy", "÷ with memory",
        "sessions")
    base = None
    with running_servers(options, cores) as (_, ports):
        for name in (None, *options.stores):
            with part.of(name or "memory"):
                seen = in_store(name, options, cores) if name else {}
                with running_stores(replaced(options, stores=[name] if name else []), cores) as running:
                    contender = homings(options, running, "learn")[-1]
                    one = runner(contender, options, cores, ports, part)
                    if one is None:
                        continue
                    try:
                        seen |= in_proxy(one, bool(name), options)
                    finally:
                        stop(one)
                base = base or seen
                part.figures[contender.name] = seen
                grown = f"{seen['proxy_bytes'] / base['proxy_bytes']:.2f}" if base["proxy_bytes"] else ""
                stored = f"{seen['store_bytes']:.1f}" if name else ""
                part.row(contender.name, stored, f"{seen['proxy_bytes']:.0f}", grown, f"{seen['filled']:,}")
    return [part]


def replaced(options, **changes):
    return argparse.Namespace(**(vars(options) | changes))


def in_store(name: str, options, cores) -> dict:
    """Written by the bench in the engine's format: a store's memory does not depend on the writer."""
    store = stores.start(name, cores[1], options.directory)
    try:
        before, _ = store.used()
        store.fill(options.binds)
        used, values = store.used()
    finally:
        store.stop()
    if values != options.binds:
        raise pair.Failed(f"the store keeps {values} of {options.binds} bindings")
    return {"store_bytes": (used - before) / values}


def in_proxy(one: bench.Runner, shared: bool, options) -> dict:
    """Table, near copy and what the allocator rounds up; connections and pools are there before."""
    idle = one.process.resident_mib()
    tally = one.ask(["--new", "--path", "/s", "--requests", options.binds])
    if one.refused:
        raise pair.Failed(one.refused)
    if shared:
        settled(one)
    return {"filled": tally["requests"], "proxy_bytes": (one.process.resident_mib() - idle) * (1 << 20) / tally["requests"]}


def settled(one: bench.Runner) -> None:
    """Until the store answers and has all that was to be written."""
    until = time.monotonic() + programs.DEADLINE
    while True:
        metrics = one.process.metrics()
        if metrics["homing_store_up"] == 1 and metrics["homing_store_pending_writes"] == 0:
            return
        if time.monotonic() > until:
            waiting = metrics["homing_store_pending_writes"]
            raise pair.Failed(f"{waiting:.0f} writes wait, {programs.DEADLINE} s after the store is back")
        time.sleep(0.05)


def frozen(options, cores) -> list:
    part = Part(
        "frozen", f"learned sessions, the store stands still for {options.freeze:g} s",
        "requests/s ÷ before", "CPU a request ÷ before", "p99 µs before", "p99 µs frozen", "max ms before", "max ms frozen",
        "round trips not answered", "s until all was written")
    with running_stores(options, cores) as running, running_servers(options, cores) as (_, ports):
        for contender, store in zip(homings(options, running, "learn")[1:], running.values()):
            for what, load in (("returning", RETURNING), ("new", NEW)):
                name = f"{contender.name}, {what}"
                with part.of(name):
                    one = runner(contender, options, cores, ports, part)
                    if one is None:
                        continue
                    try:
                        rounds = [freeze(one, store, load, options) for _ in range(options.rounds)]
                    finally:
                        stop(one)
                    part.figures[name] = rounds
                    part.row(name, *frozen_cells(rounds))
    return [part]


def freeze(one: bench.Runner, store, load: list, options) -> dict:
    arguments = [*load, "--seconds", options.freeze]
    seen = {"before": one.measure(arguments)}
    settled(one)
    late = lambda: sum(value for series, value in one.process.metrics().items()
                       if series.startswith("homing_store_operations_total{") and 'result="timeout"' in series)
    unanswered = late()
    seen["frozen"] = one.measure([*arguments, "--freeze", store.process.pid])
    why = one.refused or bench.disturbed(list(seen.values()))
    if why:
        raise pair.Failed(why)
    seen["unanswered"] = late() - unanswered
    began = time.monotonic()
    settled(one)
    return seen | {"settled_s": time.monotonic() - began}


def frozen_cells(rounds: list) -> list:
    ratio = lambda value: spread([value(one["frozen"]) / value(one["before"]) for one in rounds])
    of = lambda when, share: median(one[when]["latency_us"][share] for one in rounds)
    return [
        ratio(report.throughput), ratio(report.cpu), f"{of('before', 'p99'):.0f}", f"{of('frozen', 'p99'):.0f}",
        f"{of('before', 'max') / 1000:.1f}", f"{of('frozen', 'max') / 1000:.1f}",
        f"{median(one['unanswered'] for one in rounds):.0f}", f"{median(one['settled_s'] for one in rounds):.1f}",
    ]


PLAYED = {"returning": returning, "counted": counted, "steady": steady, "first": first, "moves": moves, "memory": memory, "frozen": frozen}


def arguments() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--parts", type=listed, default=[], help="of: " + ", ".join(PLAYED))
    reader.add_argument("--stores", type=listed, default=[], help="of: " + ", ".join(STORES))
    reader.add_argument("--rounds", type=int, default=3)
    reader.add_argument("--seconds", type=float, default=2, help="of a round of `returning`")
    reader.add_argument("--connections", type=int, default=64)
    reader.add_argument("--sessions", type=int, default=2000, help="of `steady`; so many requests a second, too")
    reader.add_argument("--steady", type=float, default=180, help="seconds; the store is told of a visit every 180")
    reader.add_argument("--begins", type=int, default=2000, help="sessions of a round of `first`")
    reader.add_argument("--moves", type=int, default=1000)
    reader.add_argument("--binds", type=int, default=100_000, help="sessions of `memory`")
    reader.add_argument("--freeze", type=float, default=10, help="seconds")
    reader.add_argument("--built", choices=("release", "debug"), help="take the programs as they are built")
    options = reader.parse_args()
    for name, known in (("parts", PLAYED), ("stores", STORES)):
        unknown = set(getattr(options, name)) - set(known)
        if unknown:
            reader.error(f"no such {name}: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        setattr(options, name, getattr(options, name) or list(known))
    return options


def write(told: dict, parts: list, directory) -> None:
    machine = told["machine"]
    lines = [f"{machine['date']}, {machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}; "
             "ratios: median of the rounds' (least–greatest)."]
    if told["profile"] != "release":
        lines.append(f"**Built for {told['profile']}: no figures.**")
    lines += [version + "." for version in told["versions"].values()]
    (directory / "shared.md").write_text("\n".join(lines) + "\n\n" + "\n".join(part.markdown() for part in parts))
    told["parts"] = [part.told() for part in parts]
    (directory / "shared.json").write_text(json.dumps(told, indent=1) + "\n")


def main() -> None:
    options = arguments()
    # So that whatever ends the bench ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options.binaries = programs.built(options.built) if options.built else programs.build()
    options.directory = programs.target() / "bench-load"
    options.directory.mkdir(exist_ok=True)
    options.versions = {}
    if options.built == "debug":
        # To try the bench itself, also where others work.
        bench.MAY_BE_STOLEN = bench.MAY_BE_OTHERS = 1.0
    cores = programs.cores()
    os.sched_setaffinity(0, {cores[1]})
    inner = ("binaries", "directory", "versions", "built")
    told = {
        "machine": bench.machine(), "profile": options.built or "release", "versions": options.versions,
        "settings": {name: value for name, value in vars(options).items() if name not in inner}}
    parts = []
    for name in PLAYED:
        if name in options.parts:
            parts += PLAYED[name](options, cores)
            # After each, so that an interrupted run has a report.
            write(told, parts, options.directory)
    print((options.directory / "shared.md").read_text())
    print(f"{options.directory / 'shared.md'}, .json")
    if any(part.failures for part in parts):
        sys.exit(1)


if __name__ == "__main__":
    main()
