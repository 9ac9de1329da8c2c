"""What valgrind's callgrind counted in the threads that serve requests: instructions by function, and allocations by caller.

Threads that wake by the clock (Pingora's timer, health checks, metrics) do more in a longer run, and are left out.
"""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

STEADY = Path(__file__).resolve().parent / "steady.c"
# One of them stands in every thread that serves requests, and in no other.
# A build guided by a profile inlines the first two.
SERVES = ("HttpServerApp>::process_new_http", "homing::proxy::fast_path::exchange::serve", "homing::proxy::connection::deadlines::")
# Where an allocator is entered: mimalloc, which is ours, and the C library's own. `__rust_alloc` and its like are inlined.
ENTRIES = ("mi_malloc", "mi_zalloc", "mi_calloc", "mi_realloc")
C_ENTRIES = ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign")
# The depth to which callers of an allocation are distinguished.
CALLERS = 12
# A position (often relative) and a cost.
COST = re.compile(r"^[-+*\d]\S* (\d+)$")
CALLS = re.compile(r"^calls=(\d+)")
# Ends the name of every Rust function, and differs from program to program.
HASH = re.compile(r"::h[0-9a-f]{16}")
# Names that say how something is allocated, not what for.
PLUMBING = re.compile(r"^<?&?(alloc|core|std|hashbrown|bytes|smallvec|http|pingora_http)::|^<(T|\[T\]|&T|I|F|u8) as |^__rust")
# A hook that is left as Pingora has it.
DEFAULT_HOOK = "pingora_proxy::proxy_trait::ProxyHttp::"

# Functions that decide on an allocation.
OWN, BOXES, PINGORA = OWNERS = "Homing's own", "boxes of hooks' futures, which Pingora's API asks for", "Pingora's"


@dataclass
class Counted:
    """Of the threads that serve requests."""

    # Function to instructions, its own only.
    instructions: Counter = field(default_factory=Counter)
    # Callers of the allocator, innermost first, to allocations.
    allocations: Counter = field(default_factory=Counter)


def steady(directory: Path) -> Path:
    """Builds what makes two runs of a program do the same."""
    library = directory / "steady.so"
    compiler = shutil.which("cc") or "gcc"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(STEADY)], check=True)
    return library


def command(output: Path) -> list:
    """To be put before a program."""
    wide = [f"--separate-callers{CALLERS}={name}*" for name in ENTRIES]
    wide += [f"--separate-callers{CALLERS}={name}" for name in C_ENTRIES]
    return ["valgrind", "--tool=callgrind", "--separate-threads=yes", *wide, f"--callgrind-out-file={output}"]


def take(pid: int, output: Path) -> Counted:
    """What the running program did since the last time, or since it started."""
    asked = ["callgrind_control", "--dump", str(pid)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    # A number for each time and one for each thread are appended.
    files = sorted(output.parent.glob(f"{output.name}.*-*"))
    if done.returncode != 0 or not files:
        raise ChildProcessError(f"callgrind_control told nothing of process {pid}: {done.stdout}{done.stderr}")
    told, serving = Counted(), 0
    for file in files:
        text = file.read_text(errors="replace")
        file.unlink()
        if any(name in text for name in SERVES):
            serving += 1
            read(text, told)
    if not serving:
        raise ValueError(f"none of {len(files)} threads ran {' or '.join(SERVES)}: is their name another by now?")
    return told


def read(text: str, told: Counted) -> None:
    """One thread's file: https://valgrind.org/docs/manual/cl-format.html, with names compressed."""
    names, current, callee, inclusive = {}, "", "", False
    for line in text.splitlines():
        if line.startswith("fn="):
            current = function(line[3:], names).partition("'")[0]
        elif line.startswith("cfn="):
            callee = function(line[4:], names)
        elif calls := CALLS.match(line):
            # The next line is what the callee cost.
            inclusive = True
            if way := allocation(callee):
                told.allocations[way] += int(calls[1])
        elif cost := COST.match(line):
            if not inclusive:
                told.instructions[current] += int(cost[1])
            inclusive = False


def function(text: str, names: dict) -> str:
    number, _, name = text.partition(" ")
    if name:
        names.setdefault(number, HASH.sub("", name))
    return names[number]


def allocation(callee: str) -> tuple | None:
    """The callers, innermost first, when this is a call into an allocator from outside of it."""
    entered, *callers = callee.split("'")
    if not (entered.startswith(ENTRIES) or entered in C_ENTRIES) or not callers:
        return None
    inside = callers[0].startswith(("mi_", "_mi_")) or callers[0] in C_ENTRIES
    return None if inside else tuple(callers)


def caller(way: tuple) -> str:
    """The first of an allocation's callers that explains its purpose, and the caller of that."""
    telling = [name for name in way if not PLUMBING.match(name)] or list(way)
    return " < ".join(telling[:2])


def whose(name: str) -> str:
    """The part of a caller's path that caused the allocation."""
    first = name.partition(" < ")[0]
    if "homing::" not in first and "proxy_trait::ProxyHttp>::" not in first and not first.startswith(DEFAULT_HOOK):
        return PINGORA
    # What `async_trait` makes of a hook: a function that boxes the future in which the hook's own code stands.
    boxed = "{{closure}}" not in first and (" as pingora" in first or first.startswith(DEFAULT_HOOK))
    return BOXES if boxed else OWN
