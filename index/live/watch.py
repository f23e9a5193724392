"""What other processes did to some files: which of them look new, and which of those cannot be taken up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from index.errors import SoftrecError

_Signature = tuple[int, int, int] | None
_UNREAD = (-1, -1, -1)  # the signature of no file: it is to be looked at again


class Watch:
    """The files as they were when they were last read, each under a name. Any thread may call any method.

    Args:
        paths: the files; they need not exist.
        note: told of each new problem.
    """

    def __init__(self, paths: Mapping[str, Path], note: Callable[[str], None]) -> None:
        self._paths, self._note = dict(paths), note
        self._seen = {name: _sign(path) for name, path in self._paths.items()}
        self._problems: dict[str, SoftrecError] = {}

    @property
    def problem(self) -> SoftrecError | None:
        """Why one of the files could not be taken up, or None."""
        return next(iter(list(self._problems.values())), None)  # a copy, for other threads write

    def is_stale(self) -> bool:
        """Whether any file is not as it was when it was last read; costs a `stat` call for each."""
        return any(map(self.is_new, self._paths))

    def is_new(self, name: str) -> bool:
        """Whether a file is not as it was when it was last read."""
        return _sign(self._paths[name]) != self._seen[name]

    def note_seen(self, name: str) -> None:
        """Take a file as it is now for read: call it before reading, lest what is written meanwhile be missed."""
        self._seen[name] = _sign(self._paths[name])

    @contextmanager
    def taking_up(self, name: str) -> Iterator[None]:
        """Read a file inside, and do with it what is to be done; an error inside is kept as its problem, not raised.

        What is damaged or does not belong here stays so until the file looks new again; what the system refused to
        read (OSError) may be readable the next time, so the file looks new at once.
        """
        self.note_seen(name)
        try:
            yield
        except (SoftrecError, OSError) as error:
            if isinstance(error, OSError):
                self._seen[name] = _UNREAD
            before = self._problems.get(name)
            self._problems[name] = error if isinstance(error, SoftrecError) else SoftrecError(str(error))
            if str(before) != str(error):  # else it is the same at each look
                self._note(f"index: {error}")
        else:
            self._problems.pop(name, None)


def _sign(path: Path) -> _Signature:
    """What tells that a file was replaced or appended to; None: there is none to be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
