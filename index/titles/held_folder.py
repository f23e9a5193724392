"""Folders with a living holder: no other process removes one before its holder ends.

A holder keeps a shared `flock` on the folder. The system releases it when the process ends, however it ends, so a
killed process leaves a folder that the next one can recognise and remove.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex


def hold_folder(directory: Path) -> int:
    """Keep other processes from removing a folder, for as long as the returned descriptor stays open.

    Raises:
        OSError: the folder does not exist.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def remove_unheld(directories: Iterable[Path]) -> None:
    """Remove those folders that no process holds."""
    for directory in directories:
        with suppress(OSError):  # it is held, or another process was quicker
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)


class HeldFolder:
    """A folder of this process alone, for files that another process opens by name.

    It disappears with this object or with the process; after a kill, the next `HeldFolder` beside it removes it.

    Args:
        parent: made if absent; nothing but such folders lies in it.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        remove_unheld(parent.iterdir())
        self.path = (parent / f"{os.getpid()}-{token_hex(4)}").absolute()
        self._numbers = itertools.count()
        self._release = weakref.finalize(self, _remove, self.path, self._make())

    def new_path(self, suffix: str = "") -> Path:
        """Name a file or folder in it that does not exist yet, and never did."""
        return self.path / f"{next(self._numbers)}{suffix}"

    def restore(self) -> None:
        """Make and hold the folder again if it was removed; its content stays lost.

        Raises:
            OSError: the folder cannot be made.
        """
        if not self.path.is_dir():
            descriptor = self._make()
            if (released := self._release.detach()) is not None:
                os.close(released[2][1])
            self._release = weakref.finalize(self, _remove, self.path, descriptor)

    def _make(self) -> int:
        while True:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a process that swept took it between the two calls
                descriptor = hold_folder(self.path)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                        return descriptor
                os.close(descriptor)


def _remove(path: Path, descriptor: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(descriptor)
