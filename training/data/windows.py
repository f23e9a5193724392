"""Windows (history, target) of a log, and the split that keeps the future out of training.

Rows are catalog rows: row r is the r-th distinct title. Histories are oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from index.artifact import text_digest
from index.catalog.catalog import Catalog
from index.workspace import Split
from training.errors import EmptyDataError

SHARES = (0.8, 0.1)  # of the windows, for training and validation; the rest is test

Sequences = Sequence[tuple[str, NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class Window:
    """What a user did, and what the user did next.

    Attributes:
        history: catalog rows, oldest first; at least one.
        target: the catalog row that came next.
        timestamp: of the target.
    """

    user_id: str
    history: tuple[int, ...]
    target: int
    timestamp: int


@dataclass(frozen=True)
class DataSplit:
    """Windows to train on, to choose by and to report on; and what else training may see.

    Attributes:
        histories: each user's rows up to the end of the training period, oldest first. The stand-in base and the
            popularity baseline learn from these; no target of validation or test is among them at its own time or
            later.
        available: windows before sampling, as (train, validation, test).
    """

    train: tuple[Window, ...]
    validation: tuple[Window, ...]
    test: tuple[Window, ...]
    histories: tuple[tuple[int, ...], ...]
    available: tuple[int, int, int]

    @cached_property
    def training_data(self) -> str:
        """Identity of what training may see: the SHA-256 of `histories`.

        It stands in the manifests of base and adapters. One that saw another part of a log could have seen this split's
        test targets, so it is refused.
        """
        return text_digest(*(" ".join(map(str, history)) for history in self.histories))


def sliding_windows(
    user_id: str, rows: Sequence[int], timestamps: Sequence[int], *, max_history: int = 10, min_history: int = 10
) -> list[Window]:
    """Return one user's windows, oldest first.

    Every interaction with at least `min_history` before it is a target. A user with fewer gives the one longest window
    there is, and a user with one interaction none (SOFT, arXiv:2505.20771: windows of 11, shorter users give one).

    Example:
        >>> [w.history for w in sliding_windows("u", [3, 1, 4, 1], [1, 2, 3, 4], max_history=2, min_history=2)]
        [(3, 1), (1, 4)]
        >>> [w.target for w in sliding_windows("u", [3, 1, 4], [1, 2, 3])]
        [4]
    """
    if not 1 <= min_history <= max_history:
        raise ValueError(f"need 1 <= min_history <= max_history, got {min_history} and {max_history}")
    last = len(rows) - 1
    first = min(min_history, last)
    return [
        Window(
            user_id, tuple(int(row) for row in rows[max(0, at - max_history) : at]), int(rows[at]), int(timestamps[at])
        )
        for at in range(max(first, 1), last + 1)
    ]


def split_windows(
    sequences: Sequences,
    *,
    split: Split,
    max_history: int = 10,
    min_history: int = 10,
    sizes: tuple[int, int, int] = (4096, 512, 1000),
    seed: int = 0,
) -> DataSplit:
    """Cut a log into training, validation and test windows, and sample each to at most its size.

    "time": all windows ordered by their target's time, 80/10/10; windows of equal time stay on one side, so every
    validation target is later than every training target. "leave-last-out": each user's last interaction is a test
    target, the one before a validation target, the rest is training.

    Args:
        sequences: (user_id, rows, timestamps) per user, oldest first.
        sizes: most windows of train, validation, test; the sample is drawn with `seed` and kept in time order.

    Raises:
        EmptyDataError: one of the three parts has no window.
    """
    cut = _split_by_time if split == "time" else _split_last_out
    parts, histories = cut(sequences, max_history, min_history)
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if not part:
            raise EmptyDataError(
                f"the log gives no {name} window (split: {split}, users: {len(sequences)})",
                remedy="users need at least three interactions; import more of the log",
            )
    draw = np.random.default_rng(seed)
    train, validation, test = (_sample(part, size, draw) for part, size in zip(parts, sizes, strict=True))
    return DataSplit(train, validation, test, tuple(histories), (len(parts[0]), len(parts[1]), len(parts[2])))


Parts = tuple[list[Window], list[Window], list[Window]]


def _split_by_time(sequences: Sequences, max_history: int, min_history: int) -> tuple[Parts, list[tuple[int, ...]]]:
    windows = [
        window
        for user_id, rows, timestamps in sequences
        for window in sliding_windows(
            user_id, rows.tolist(), timestamps.tolist(), max_history=max_history, min_history=min_history
        )
    ]
    windows.sort(key=lambda window: window.timestamp)
    times = [window.timestamp for window in windows]
    train_end = _end_of_tie(times, round(SHARES[0] * len(times)))
    validation_end = _end_of_tie(times, max(round((SHARES[0] + SHARES[1]) * len(times)), train_end + 1))
    parts = windows[:train_end], windows[train_end:validation_end], windows[validation_end:]
    last_seen = times[train_end - 1] if train_end else 0
    histories = [tuple(rows[timestamps <= last_seen].tolist()) for _, rows, timestamps in sequences]
    return parts, [history for history in histories if history]


def _end_of_tie(times: Sequence[int], end: int) -> int:
    while 0 < end < len(times) and times[end] == times[end - 1]:
        end += 1
    return min(end, len(times))


def _split_last_out(sequences: Sequences, max_history: int, min_history: int) -> tuple[Parts, list[tuple[int, ...]]]:
    parts: Parts = ([], [], [])
    histories = []
    for user_id, all_rows, all_timestamps in sequences:
        rows, timestamps = all_rows.tolist(), all_timestamps.tolist()
        for part, end in ((parts[2], len(rows)), (parts[1], len(rows) - 1)):
            if end >= 2:
                history = tuple(rows[max(0, end - 1 - max_history) : end - 1])
                part.append(Window(user_id, history, rows[end - 1], timestamps[end - 1]))
        parts[0].extend(
            sliding_windows(user_id, rows[:-2], timestamps[:-2], max_history=max_history, min_history=min_history)
        )
        if rows[:-2]:
            histories.append(tuple(rows[:-2]))
    return parts, histories


def _sample(windows: Sequence[Window], size: int, draw: np.random.Generator) -> tuple[Window, ...]:
    if len(windows) <= size:
        return tuple(windows)
    return tuple(windows[at] for at in np.sort(draw.choice(len(windows), size, replace=False)))


def count_rows(histories: Iterable[Sequence[int]], n_rows: int) -> NDArray[np.int64]:
    """Count how often each catalog row occurs: int64 [n_rows]."""
    flat = np.fromiter((row for history in histories for row in history), dtype=np.int64)
    return np.bincount(flat, minlength=n_rows).astype(np.int64)


def describe_window(window: Window, catalog: Catalog) -> str:
    """Name a window so that a person can find it: who, and what came next."""
    return f"user {window.user_id} -> {catalog.titles[window.target]!r}"
