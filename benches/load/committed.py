"""counts.txt: what stands above the floor as it was last accepted, and what it was counted with."""

import platform
import re
import shutil
import subprocess
from pathlib import Path

FILE = Path(__file__).resolve().parent / "counts.txt"
SHARES = ("instructions", "allocations")
# Of the instructions above the floor, or below it.
MAY_GROW = 0.02
# Two runs of the same programs differ by less, even on a busy machine.
SAME_INSTRUCTIONS, SAME_ALLOCATIONS = 100, 0.2
# Extensions of a CPU that valgrind passes on, and by which libraries choose how they copy, search and encrypt.
EXTENSIONS = ("sse4_2", "avx2", "bmi2", "fma", "aes", "pclmulqdq", "rdrand")
WITH = "# with "


def counted_with() -> dict:
    """All that decides how many instructions the same source makes."""
    rustc = first_line("rustc", "-vV", line=r"^release: (.*)$")
    host = first_line("rustc", "-vV", line=r"^host: (.*)$")
    try:
        flags = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        flags = None
    has = set(flags[1].split()) if flags else set()
    return {
        "rustc": f"{rustc} {host}",
        "C compiler": first_line(shutil.which("cc") or "gcc", "-dumpfullversion", line=r"^(.*)$"),
        "C library": " ".join(platform.libc_ver()),
        "valgrind": first_line("valgrind", "--version", line=r"^valgrind-(.*)$"),
        "CPU": " ".join(name for name in EXTENSIONS if name in has) or "none",
    }


def first_line(*command: str, line: str) -> str:
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return "none"
    found = re.search(line, told, re.MULTILINE)
    return found[1].strip() if found else "unknown"


def differs(ours: dict) -> str | None:
    """The first part of what we count with that is not what the file was counted with."""
    lines = [line.removeprefix(WITH) for line in FILE.read_text().splitlines() if line.startswith(WITH)]
    theirs = dict(line.split(": ", 1) for line in lines)
    return next((f"{part}: {theirs.get(part, 'unknown')}, here {value}" for part, value in ours.items()
                 if theirs.get(part) != value), None)


def write(ours: dict, shares: dict) -> None:
    lines = ["# Above the floor, a request: instructions, allocations, case. Written by `make counts-write`."]
    lines += [f"{WITH}{part}: {value}" for part, value in ours.items()]
    lines += [f"{share['instructions']} {share['allocations']:.1f} {case}" for case, share in shares.items()]
    FILE.write_text("\n".join(lines) + "\n")


def read() -> dict:
    found = {}
    for line in FILE.read_text().splitlines():
        if line and not line.startswith("#"):
            instructions, allocations, case = line.split(maxsplit=2)
            found[case] = {"instructions": int(instructions), "allocations": float(allocations)}
    return found


def check(shares: dict, other_tools: str | None) -> bool:
    """Says what is more than it was. With other tools, instructions say nothing; allocations are the source's own."""
    if other_tools:
        print(f"counts: instructions are not compared, since {FILE.name} was counted with another {other_tools}. "
              "`make counts-write` counts again.")
    fits = True
    for case, before in read().items():
        now = shares[case]
        allowed = {
            "instructions": max(abs(before["instructions"]) * MAY_GROW, SAME_INSTRUCTIONS), "allocations": SAME_ALLOCATIONS,
        }
        for what in SHARES[1:] if other_tools else SHARES:
            grown = now[what] - before[what]
            told = f"counts: {case}: {now[what]:,.6g} {what} above the floor"
            if grown > allowed[what]:
                print(f"{told}, {grown:,.6g} over the {before[what]:,.6g} in {FILE.name}. `make counts` says where; if it is "
                      "meant, `make counts-write`.")
                fits = False
            elif -grown > allowed[what]:
                print(f"{told}, fewer than the {before[what]:,.6g} in {FILE.name}: `make counts-write` keeps what was won.")
    if fits:
        print(f"counts: no more than in {FILE.name}")
    return fits
