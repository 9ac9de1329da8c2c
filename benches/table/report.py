"""The figures of `cargo bench --bench table -- --scale`, as Markdown tables and a chart beside their JSON file."""

import json
import sys
from math import log10
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

# Name of a figure, what it is called, how it is written.
VISITS = (
    ("resident_bytes", "a session, resident, B", 1),
    ("visit_ns", "visit, mean, ns", 0),
    ("visit_p50_ns", "visit, p50, ns (with the clock's own)", 0),
    ("visit_p99_ns", "visit, p99, ns", 0),
    ("visit_p9999_ns", "visit, p99.99, ns", 0),
    ("visit_2_threads_ns", "visit, two threads at once, mean, ns", 0),
    ("miss_ns", "visit of an unknown session, ns", 0),
    ("rebind_ns", "move to another server, ns", 0),
    ("insert_ns", "insert, mean while the table grows, ns", 0),
    ("visit_after_other_work_p50_ns", "visit after 512 KiB of other work, p50, ns", 0),
    ("one_read_ns", "one dependent read of that much memory, ns", 0),
)
CROWD = (
    ("eviction", "evict_flat_out_p9999_ratio", "others come to a full table flat out"),
    ("eviction", "evict_paced_p9999_ratio", "20,000 others a second come to a full table"),
    ("expiry", "sweep_flat_out_p9999_ratio", "swept flat out"),
    ("expiry", "sweep_paced_p9999_ratio", "a million swept in two seconds"),
    ("expiry", "snapshot_p9999_ratio", "snapshots written flat out"),
)
WAITS = (
    ("eviction", "insert_full", "insert into a full table"),
    ("expiry", "insert_growing", "insert while growing"),
    ("expiry", "sweep_step", "a whole sweep step"),
)
STARTS = (("start", "start", "no session data"), ("data", "data_800", "session data of 800 B"),
          ("data", "data_20", "session data of 20 B"))


def main(path: Path) -> None:
    told = json.loads(path.read_text())
    found = {}
    for one in told:
        for name, value in one["figures"].items():
            found.setdefault((one["part"], one["sessions"], name), []).append(value)
    text = "\n".join([*visits(found), *crowd(found), *waits(found), *starts(found), *data(found)]) + "\n"
    path.with_suffix(".md").write_text(text)
    path.with_suffix(".svg").write_text(chart(found))
    print(text)
    print(path.with_suffix(".md"), path.with_suffix(".svg"))


def sizes(found: dict, part: str) -> list:
    return sorted({size for of, size, _ in found if of == part})


def spread(values: list | None, digits: int = 2, scale: float = 1) -> str:
    """Median, and least and greatest when there are several."""
    if not values:
        return ""
    shown = [f"{value / scale:,.{digits}f}" for value in (median(values), min(values), max(values))]
    return shown[0] if len(set(shown)) == 1 else f"{shown[0]} ({shown[1]}–{shown[2]})"


def table(heads: list, rows: list) -> list:
    lines = ["| " + " | ".join(["", *heads]) + " |", "|---" * (len(heads) + 1) + "|"]
    return ["", *lines, *("| " + " | ".join(row) + " |" for row in rows)] if rows and heads else []


def visits(found: dict) -> list:
    columns = sizes(found, "visits")
    rows = [[what, *(spread(found.get(("visits", size, name)), digits) for size in columns)]
            for name, what, digits in VISITS]
    return table([f"{size:,}" for size in columns], rows)


def crowd(found: dict) -> list:
    columns = sorted({*sizes(found, "eviction"), *sizes(found, "expiry")})
    rows = [["p99.99 of a visit to the quiet table's: " + what, *(spread(found.get((part, size, name))) for size in columns)]
            for part, name, what in CROWD]
    return table([f"{size:,}" for size in columns], rows)


def waits(found: dict) -> list:
    rows = []
    for part, name, what in WAITS:
        for size in sizes(found, part)[-2:]:
            of = lambda share: found.get((part, size, f"{name}_{share}_ns"))
            over = found.get((part, size, f"{name}_over_100us"), [0])
            count = found.get((part, size, f"{name}_count"), [0])
            rows.append([f"{what}, {size:,}", *(spread(of(share), 1, 1000) for share in ("p50", "p99", "p9999")),
                         f"{spread(over, 0)} of {median(count):,.0f}"])
    return table(["p50, µs", "p99, µs", "p99.99, µs", "over 100 µs"], rows)


def starts(found: dict) -> list:
    rows = []
    for part, name, what in STARTS:
        for size in sizes(found, part):
            of = lambda key: found.get((part, size, f"{name}_{key}"))
            if of("file_bytes"):
                rows.append([f"{size:,}, {what}", spread(of("file_bytes"), 0, 1 << 20), *(
                    spread(of(key), 0) for key in ("write_ms", "read_cold_ms", "start_cold_ms")), spread(of("cold_ratio")), *(
                    spread(of(key), 0) for key in ("read_warm_ms", "check_warm_ms", "start_warm_ms"))])
    return table(["MiB", "write, ms", "read from disk, ms", "start from disk, ms", "ratio", "read from cache, ms",
                  "read and checked, ms", "start from cache, ms"], rows)


def data(found: dict) -> list:
    rows = []
    for name in ("data_800", "data_20"):
        for size in sizes(found, "data"):
            for state, what in (("quiet", "quiet"), ("writing", "snapshots written flat out")):
                of = lambda share: found.get(("data", size, f"{name}_{state}_{share}_ns"))
                entries = median(found[("data", size, f"{name}_entries")])
                rows.append([f"{entries:,.0f} entries of {name.partition('_')[2]} B, {what}",
                             *(spread(of(share), 1, 1000) for share in ("p50", "p99", "p9999", "max"))])
    return table(["data found: p50, µs", "p99, µs", "p99.99, µs", "greatest, µs"], rows)


# The chart: three panels over the number of sessions, both axes logarithmic but for memory.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 860, 250, 70, 250, 56, 66
LOWEST, HIGHEST = 3, 7
PANELS = (
    ("time of one operation, ns", 1, 5, (
        ("visits", "visit_ns", "visit, mean", "#1f6f8b"),
        ("visits", "visit_2_threads_ns", "visit, two threads at once", "#5c8a4a"),
        ("visits", "rebind_ns", "move to another server", "#8a5c8a"),
        ("visits", "insert_ns", "insert while growing", "#c8843a"),
        ("visits", "visit_after_other_work_p50_ns", "visit after other work, p50", "#b04a4a"),
        ("visits", "one_read_ns", "one dependent read", "#9a9a9a"),
    )),
    ("p99.99 of a visit, ns", 2, 6, (
        ("eviction", "evict_quiet_p9999_ns", "quiet", "#9a9a9a"),
        ("eviction", "evict_flat_out_p9999_ns", "others evict, flat out", "#c8843a"),
        ("eviction", "evict_paced_p9999_ns", "20,000 evictions a second", "#8a5c8a"),
        ("expiry", "sweep_flat_out_p9999_ns", "swept flat out", "#1f6f8b"),
        ("expiry", "snapshot_p9999_ns", "snapshots written flat out", "#5c8a4a"),
    )),
    ("resident memory of a session, B", None, None, (
        ("visits", "resident_bytes", "resident", "#1f6f8b"),
        ("visits", "own_bytes", "the table's own", "#9a9a9a"),
    )),
)
LIMIT = 64


def chart(found: dict) -> str:
    parts = []
    for number, (title, low, high, lines) in enumerate(PANELS):
        parts += panel(found, TOP + number * (HEIGHT + GAP), title, low, high, lines)
    height = TOP + len(PANELS) * (HEIGHT + GAP)
    style = "text{font:12px sans-serif;fill:#222}.head{font-weight:bold}.grid{stroke:#ddd}.limit{stroke:#222;stroke-dasharray:3 3}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
            f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
            '<text x="12" y="24" class="head">The table from a thousand to ten million sessions (medians)</text>'
            + "\n".join(parts) + "</svg>\n")


def panel(found: dict, top: float, title: str, low, high, lines: tuple) -> list:
    most = 256
    x = lambda power: LEFT + (power - LOWEST) / (HIGHEST - LOWEST) * (WIDTH - LEFT - RIGHT)
    y = lambda share: top + HEIGHT - share * HEIGHT
    share = (lambda value: min(value / most, 1)) if low is None else (
        lambda value: min(max((log10(max(value, 1)) - low) / (high - low), 0), 1))
    marks = range(0, most + 1, 64) if low is None else [10**power for power in range(low, high + 1)]
    parts = [f'<text x="12" y="{top - 12}" class="head">{escape(title)}</text>']
    for mark in marks:
        at = y(share(mark))
        kind = "limit" if low is None and mark == LIMIT else "grid"
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" class="{kind}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{mark:,}</text>')
    for power in range(LOWEST, HIGHEST + 1):
        parts.append(f'<text x="{x(power):.1f}" y="{top + HEIGHT + 18}" text-anchor="middle">{10**power:,}</text>')
    ends = []
    for part, name, what, colour in lines:
        points = [(x(log10(size)), y(share(median(found[part, size, name]))))
                  for size in sizes(found, part) if (part, size, name) in found]
        if not points:
            continue
        path = " ".join(f"{at:.1f},{up:.1f}" for at, up in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{at:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>' for at, up in points]
        ends.append([points[-1][1], what, colour])
    return parts + names(ends)


def names(ends: list) -> list:
    """Beside the lines' ends, one under the other where they would overlap."""
    parts, last = [], float("-inf")
    for up, what, colour in sorted(ends):
        last = max(up + 4, last + 15)
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{last:.1f}" style="fill:{colour}">{escape(what)}</text>')
    return parts


if __name__ == "__main__":
    main(Path(sys.argv[1]))
