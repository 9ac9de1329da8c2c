"""The wall clock of a program, which can be set apart from the machine's: by a small library that is loaded before libc."""

import contextlib
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().with_name("clock.c")


def build(directory: Path) -> Path | None:
    """The library, or None where it cannot be built."""
    library = directory / "clock.so"
    compiler = shutil.which("cc")
    if not compiler:
        return None
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"]
    return library if subprocess.run(command, check=False).returncode == 0 else None


class Clock:
    """How far a program's wall clock is ahead of the machine's; the program sees a change at once."""

    def __init__(self, library: Path, file: Path):
        self.library, self.file = library, file
        self.set(0)

    def environment(self) -> dict:
        return {"LD_PRELOAD": str(self.library), "CLOCK_OFFSET_FILE": str(self.file)}

    def set(self, seconds: float) -> None:
        """Changes the mapped file in place: a new file would not be seen."""
        mode = "r+b" if self.file.exists() else "wb"
        with self.file.open(mode) as file:
            file.write(struct.pack("=q", int(seconds * 1e9)))

    @contextlib.contextmanager
    def off_by(self, seconds: float):
        self.set(seconds)
        try:
            yield
        finally:
            self.set(0)
