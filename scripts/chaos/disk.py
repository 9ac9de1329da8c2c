"""A small file system of its own, so that it can be full or stop while the rest of the machine goes on. Needs root."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

SIZE = 256 * 2**20
PROGRAMS = ("mkfs.ext4", "mount", "umount", "fsfreeze")


class Disk:
    """An ext4 file system in a file, on a loop device."""

    def __init__(self, image: Path, folder: Path):
        self.image, self.folder = image, folder

    @staticmethod
    def is_possible() -> bool:
        return all(shutil.which(program) for program in PROGRAMS)

    def mount(self) -> bool:
        """Whether it is mounted: a machine may have no free loop device."""
        with self.image.open("wb") as file:
            file.truncate(SIZE)
        run = {"check": False, "stdout": subprocess.DEVNULL}
        made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", self.image], **run).returncode == 0
        return made and subprocess.run(["mount", "-o", "loop", self.image, self.folder], **run).returncode == 0

    def thaw(self) -> None:
        """If it is stalled."""
        subprocess.run(["fsfreeze", "--unfreeze", self.folder], check=False, stderr=subprocess.DEVNULL)

    def remove(self, copy: Path) -> None:
        """Keeps a copy of its files."""
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns("lost+found"))
        subprocess.run(["umount", self.folder], check=False)
        self.image.unlink()

    @contextlib.contextmanager
    def full(self):
        """There is no room for a single byte more."""
        filler = self.folder / "filler"
        try:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                room = os.statvfs(self.folder)
                os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_bsize)
            with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            yield
        finally:
            filler.unlink(missing_ok=True)

    @contextlib.contextmanager
    def stalled(self):
        """Every write waits in the kernel until this is over. Reading works."""
        subprocess.run(["fsfreeze", "--freeze", self.folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", self.folder], check=True)
