"""What a training run leaves behind: settings, figures per epoch, the log of its updates. Reads no weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from index.errors import CorruptArtifactError
from training.adapter import Adapter
from training.data.windows import DataSplit
from training.settings import spell

HISTORY = "history.jsonl"
METRICS = "metrics.jsonl"
_REPEATING = ("update", "epoch")  # they repeat the last measurement

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Distance:
    """One measurement of d_t.

    Attributes:
        position: epochs that were done when it was taken; 0.0 is before the first update.
        ratio: d_t / d_0.
        tau: the weight of the distilled titles that followed from it.
    """

    position: float
    d_t: float
    ratio: float
    tau: float


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        name: the adapter's name, or its id once it is published.
        method: "sft", "soft", ...
        settings: `TrainSettings.to_json`.
        history: one row of figures per epoch (see `training.loop.fit`); not empty.
        log: the rows of metrics.jsonl in the order of writing.
        windows: how many windows there were (`count_windows`); empty where that is not known.
        changed: names of the settings that differ from their preset's.
    """

    name: str
    method: str
    settings: Mapping[str, Any]
    history: Sequence[Row]
    log: Sequence[Row] = ()
    windows: Mapping[str, int] = field(default_factory=dict)
    changed: Sequence[str] = ()

    @property
    def best_epoch(self) -> int:
        """The published epoch, from 1: the best validation HR@10, the earlier one on equal values."""
        values = [row["validation_hr10"] for row in self.history]
        return values.index(max(values)) + 1

    @property
    def best(self) -> Row:
        return self.history[self.best_epoch - 1]

    @property
    def changed_settings(self) -> dict[str, Any]:
        """The settings that differ from their preset's."""
        return {name: self.settings[name] for name in self.changed if name != "preset"}

    def command(self, changes: Mapping[str, Any] | None = None) -> str:
        """The command, between back-ticks, that does the run again with other settings; see `for_shop`.

        Example:
            >>> FinishedRun("sft", "sft", {"preset": "tiny", "seed": 3}, [{}], changed=["seed"]).command()
            '`softrec train sft SHOP --preset tiny --set seed=3`'
        """
        settings = self.changed_settings | dict(changes or {})
        assignments = "".join(f" --set {name}={spell(value)}" for name, value in settings.items())
        return f"`softrec train {self.method} SHOP --preset {self.settings['preset']}{assignments}`"

    def updates(self) -> list[tuple[float, Row]]:
        """The log's updates, each with the epochs that were done after it: (0.5, row) is half-way through epoch 1."""
        return [(position, row) for position, row in self._placed_log() if row["event"] == "update"]

    def distances(self) -> list[Distance]:
        """Every measurement of d_t, in order; none where the method measures none."""
        return [
            Distance(position, row["d_t"], row["d_ratio"], row["tau"])
            for position, row in self._placed_log()
            if "d_t" in row and row["event"] not in _REPEATING
        ]

    def _placed_log(self) -> list[tuple[float, Row]]:
        """Every row of the log with the epochs done by then; its order in the file is the order of events."""
        per_epoch = Counter(row["epoch"] for row in self.log if row["event"] == "update")
        placed, position = [], 0.0
        for row in self.log:
            if row["event"] == "update":
                position += 1 / per_epoch[row["epoch"]]
            elif row["event"] == "epoch":
                position = float(row["epoch"])  # the sum above, without its rounding
            placed.append((position, row))
        return placed


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The figures that any row has, in the fullest row's order: a loss is absent where it was not computed.

    Example:
        >>> columns_of([{"epoch": 1, "hr10": 0.1}, {"epoch": 2, "loss_real": 2.0, "hr10": 0.2}])
        ['epoch', 'loss_real', 'hr10']
    """
    return list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))


def for_shop(text: str, shop: str) -> str:
    """Put a workspace in the place of SHOP, the one that `FinishedRun.command` leaves open: workspaces are copied."""
    return text.replace("SHOP", shop)


def count_windows(split: DataSplit) -> dict[str, int]:
    """Sizes of a split: train, validation and test as used, and `<part>_available` before sampling."""
    used = {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}
    return used | {f"{part}_available": n for part, n in zip(used, split.available, strict=True)}


def read_run(adapter: Adapter, *, windows: Mapping[str, int] | None = None) -> FinishedRun:
    """Read the run of a published adapter.

    Raises:
        CorruptArtifactError: there is no row of figures, or a line is not valid JSON.
    """
    facts = adapter.facts
    again = f"train it again with `softrec train {facts.method} {adapter.path.parent.parent}`"
    history = read_rows(adapter.path / HISTORY, remedy=again)
    if not history or any("validation_hr10" not in row for row in history):
        raise CorruptArtifactError(adapter.path / HISTORY, "no figures per epoch", remedy=again)
    log = read_rows(adapter.path / METRICS, remedy=again)
    changed = facts.changed_settings
    return FinishedRun(adapter.adapter_id, facts.method, facts.settings, history, log, windows or {}, changed)


def read_rows(path: Path, *, remedy: str) -> list[Row]:
    """Read a file of one JSON object per line.

    Raises:
        CorruptArtifactError: it is missing, or a line is not valid JSON; carries the remedy.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (FileNotFoundError, ValueError) as error:
        raise CorruptArtifactError(path, f"unreadable ({error})", remedy=remedy) from error
