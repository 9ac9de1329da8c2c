"""What the bench tells: a Markdown table, all figures as JSON, and a chart."""

import json
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

BASES = ("floor", "floor-pgo", "pingora-cookie", "haproxy-cookie", "haproxy-table", "envoy-cookie", "aralez")


def write(told: dict, directory: Path) -> None:
    (directory / "results.json").write_text(json.dumps(told, indent=1) + "\n")
    (directory / "results.md").write_text(markdown(told))
    (directory / "results.svg").write_text(chart(told))


def ratios(one: dict, base: dict | None, value) -> tuple | None:
    """Median, least and greatest of the ratios of the same rounds."""
    if base is None or one["refused"] or base["refused"] or not one["rounds"]:
        return None
    found = [value(ours) / value(theirs) for ours, theirs in zip(one["rounds"], base["rounds"]) if value(theirs)]
    return (median(found), min(found), max(found)) if found else None


def cpu(seen: dict) -> float:
    return seen["cpu_us_per_request"]


def throughput(seen: dict) -> float:
    return seen["requests_per_second"]


def spread(found: tuple | None) -> str:
    return "" if found is None else f"{found[0]:.2f} ({found[1]:.2f}–{found[2]:.2f})"


def middle(one: dict, value) -> float:
    return median(value(seen) for seen in one["rounds"])


def by_name(case: dict) -> dict:
    return {one["contender"]: one for one in case["results"]}


def markdown(told: dict) -> str:
    machine = told["machine"]
    lines = [
        f"{machine['date']}, {machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}; "
        f"{told['rounds']} rounds of {told['seconds']:g} s, {told['connections']} connections. "
        "Ratios are medians of those of the same rounds (least–greatest).",
    ]
    if told["versions"]:
        lines += ["", ", ".join(f"{name} {version}" for name, version in told["versions"].items()) + "."]
    if told["missing"]:
        lines += ["", f"Left out: {'; '.join(told['missing'])}."]
    measured = {
        one["contender"] for case in told["cases"] if not case["void"] for one in case["results"] if not one["refused"]
    }
    for base in BASES:
        if base in measured:
            lines += ["", f"### CPU time a request of the whole process, to {base}'s", "", *overview(told, base)]
    for case in told["cases"]:
        lines += ["", f"### {case['case']}: {case['title']}", ""]
        lines += [f"No table: {case['void']}."] if case["void"] else details(case)
    return "\n".join(lines) + "\n"


def overview(told: dict, base: str) -> list:
    """Contenders down, cases across. Empty where a case is void or a contender had no part in it."""
    cases = [(case, by_name(case)) for case in told["cases"]]
    names = list(dict.fromkeys(name for _, results in cases for name in results))
    lines = ["| | " + " | ".join(case["case"] for case, _ in cases) + " |", "|---" * (len(cases) + 1) + "|"]
    for name in names:
        cells = [
            spread(ratios(results[name], results.get(base), cpu)) if name in results and not case["void"] else ""
            for case, results in cases
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def details(case: dict) -> list:
    """What is no ratio of CPU time. How long an answer takes says something at a fixed rate only: else the 64 connections
    ask again at once, and all wait as long as 64 requests take."""
    heads = ["CPU µs"]
    heads += ["p50 µs", "p99 µs", "p99.9 µs"] if case["at_rate"] else ["requests/s ÷ floor"]
    heads += ["core busy", "idle MiB", "resident MiB"]
    filled = any(one["filled"] for one in case["results"])
    if filled:
        heads.append("B a session")
    results = by_name(case)
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, one in results.items():
        if one["refused"]:
            lines.append(f"| {name} | " + " | ".join([one["refused"]] + [""] * (len(heads) - 1)) + " |")
            continue
        cells = [f"{middle(one, cpu):.1f}"]
        cells += latencies(one) if case["at_rate"] else [spread(ratios(one, results.get("floor"), throughput))]
        cells += [f"{middle(one, lambda seen: seen['core_busy']):.2f}", f"{one['idle_mib']:.0f}", f"{one['resident_mib']:.0f}"]
        if filled:
            cells.append(a_session(one))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def latencies(one: dict) -> list:
    return [f"{middle(one, lambda seen, share=share: seen['latency_us'][share]):.0f}" for share in ("p50", "p99", "p99.9")]


def a_session(one: dict) -> str:
    grown = (one["filled_mib"] - one["idle_mib"]) * (1 << 20)
    return f"{grown / one['filled']:.0f}" if one["filled"] else ""


def table(case: dict, base: str) -> list:
    """All of one case in one table, to one of its contenders."""
    results = by_name(case)
    heads = [f"CPU ÷ {base}", f"requests/s ÷ {base}", "p50 µs", "p99 µs", "p99.9 µs", "core busy", "RSS MiB"]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, one in results.items():
        if one["refused"]:
            lines.append(f"| {name} | " + " | ".join([one["refused"]] + [""] * (len(heads) - 1)) + " |")
            continue
        cells = [spread(ratios(one, results.get(base), value)) for value in (cpu, throughput)]
        cells += [*latencies(one), f"{middle(one, lambda seen: seen['core_busy']):.2f}", f"{one['resident_mib']:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


# The chart: a group of bars for each case, the floor's line at 1.
WIDTH, LEFT, RIGHT = 860, 170, 70
BAR, GAP, HEAD = 14, 5, 34
COLOURS = {"floor": "#9a9a9a", "pingora": "#5f5f5f", "homing": "#1f6f8b", "haproxy": "#c8843a", "nginx": "#5c8a4a",
           "envoy": "#8a5c8a", "aralez": "#a8505a"}


def chart(told: dict) -> str:
    groups = []
    for case in told["cases"]:
        results = by_name(case)
        bars = [(name, ratios(one, results.get("floor"), cpu)) for name, one in results.items()]
        bars = [] if case["void"] else [(name, found) for name, found in bars if found]
        if bars:
            groups.append((case, bars))
    most = max((found[2] for _, bars in groups for _, found in bars), default=1.0) * 1.05
    scale = (WIDTH - LEFT - RIGHT) / most
    parts, y = [], 46
    for case, bars in groups:
        parts.append(f'<text x="12" y="{y + 16}" class="head">{escape(case["case"])}: {escape(case["title"])}</text>')
        top = y + HEAD - 8
        y += HEAD
        for name, (middle_, least, greatest) in bars:
            parts += bar(name, y, scale, middle_, least, greatest)
            y += BAR + GAP
        x = LEFT + scale
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{y}" class="one"/>')
        y += 8
    machine = told["machine"]
    title = f"CPU time a request, the bare Pingora proxy = 1 ({machine['date']}, {machine['cpus']} CPUs, {machine['cpu']})"
    style = ("text{font:12px sans-serif;fill:#222}.head{font-weight:bold}.one{stroke:#222;stroke-dasharray:3 3}"
             ".spread{stroke:#222;stroke-width:1.5}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" viewBox="0 0 {WIDTH} {y + 10}">'
            f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="12" y="26" class="head">{escape(title)}</text>' + "\n".join(parts) + "</svg>\n")


def bar(name: str, y: float, scale: float, middle_: float, least: float, greatest: float) -> list:
    colour = COLOURS.get(name.partition("-")[0], "#777")
    centre = y + BAR / 2
    ends = LEFT + least * scale, LEFT + greatest * scale
    return [
        f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>',
        f'<rect x="{LEFT}" y="{y}" width="{middle_ * scale:.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line x1="{ends[0]:.1f}" y1="{centre}" x2="{ends[1]:.1f}" y2="{centre}" class="spread"/>',
        f'<text x="{ends[1] + 6:.1f}" y="{y + 11}">{middle_:.2f}</text>',
    ]
