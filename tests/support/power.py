"""A disk that loses power: a file system of its own whose unwritten part can be thrown away."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN: from now on nothing is written
_NO_LOG_FLUSH = 2  # not the journal either
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))  # a user's own may lack them


class Disk:
    """ext4 in a file, mounted at ``mounted``. Only root may mount, and not everywhere: see ``why_not``."""

    def __init__(self, root: Path) -> None:
        self._image, self.mounted = root / "disk.img", root / "disk"
        self.mounted.mkdir()
        with self._image.open("wb") as file:
            file.truncate(256 << 20)
        self.why_not = ""
        if os.geteuid() or not shutil.which("mkfs.ext4", path=_PATH):
            self.why_not = "only root may mount a file system, made by mkfs.ext4"
        elif not self._done("mkfs.ext4", "-q", self._image) or not self._mount():
            self.why_not = "no file system can be mounted here"

    def cut_power(self) -> None:
        """Lose what is not on the disk yet, and come back."""
        descriptor = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
        self.unmount()
        assert self._mount()

    def unmount(self) -> None:
        if os.path.ismount(self.mounted):
            assert self._done("umount", self.mounted)

    def _mount(self) -> bool:
        return self._done("mount", "-o", "loop", self._image, self.mounted)

    def _done(self, *words: str | Path) -> bool:
        return (
            subprocess.run(words, capture_output=True, check=False, env={**os.environ, "PATH": _PATH}).returncode == 0
        )
