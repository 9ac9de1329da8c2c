"""A part of the shared store's bench: its table, its figures, and what went wrong in it."""

import contextlib

import contenders
import pair
import programs
from bench import say


class Part:
    """The result of one part: a table, remarks on it, all its figures, and what went wrong."""

    def __init__(self, name: str, title: str, *heads: str):
        self.name, self.title, self.heads = name, title, heads
        self.rows, self.figures, self.failures = [], {}, []
        # A finished table; otherwise it is built from the rows.
        self.lines = None
        say(f"{name}: {title}")

    def row(self, name: str, *cells: str) -> None:
        self.rows.append((name, *cells))

    @contextlib.contextmanager
    def of(self, name: str):
        """What fails in here is a row with the reason."""
        try:
            yield
        except (pair.Failed, contenders.Refused, programs.DidNotStart, OSError) as why:
            self.fail(name, " ".join(str(why).split()))

    def fail(self, name: str, why: str) -> None:
        say(f"  {name}: {why}")
        self.failures.append(name)
        self.row(name, why)

    def markdown(self) -> str:
        return "\n".join([f"### {self.name}: {self.title}", "", *(self.lines or self.table())]) + "\n"

    def table(self) -> list:
        lines = ["| | " + " | ".join(self.heads) + " |", "|---" * (len(self.heads) + 1) + "|"]
        for row in self.rows:
            lines.append("| " + " | ".join([*row, *[""] * (len(self.heads) + 1 - len(row))]) + " |")
        return lines

    def told(self) -> dict:
        return {"part": self.name, "title": self.title, "failures": self.failures, "figures": self.figures}
