"""A run's figures in TensorBoard, MLflow or Weights & Biases, beside the `metrics.jsonl` that is always written.

The tracking classes are accelerate's; here they are chosen, opened on the main process alone, and kept from writing
anywhere but where their settings say.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from training.errors import SettingError

TRACKERS = ("tensorboard", "mlflow", "wandb")  # each is also the name of the package it needs
PROJECT = "softrec"  # what MLflow calls the experiment and W&B the project


class Trackers:
    """The open trackers of one run: none, one or several. A run never reads from them."""

    def __init__(self, trackers: Sequence[GeneralTracker] = ()) -> None:
        self._trackers = tuple(trackers)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send figures of one update; `step` counts updates from 1 over the whole run."""
        for tracker in self._trackers:
            tracker.log(dict(figures), step=step)

    def close(self) -> None:
        """Write what is buffered and end the run there."""
        for tracker in self._trackers:
            tracker.finish()


def open_trackers(names: str | None, folder: Path, run: str, config: Mapping[str, Any]) -> Trackers:
    """Open the trackers that `--report-to` names.

    TensorBoard writes to `folder/run`, so `tensorboard --logdir folder` shows all runs. MLflow and W&B obey their own
    variables (MLFLOW_TRACKING_URI, WANDB_MODE=offline, ...); without them MLflow keeps a database in `folder`, and W&B
    its files, which it sends to its server.

    Args:
        names: comma-separated, of `TRACKERS`; None opens nothing.
        folder: where trackers that write files put them; made when needed.
        run: what the run is called: the adapter's name.
        config: the run's settings, flat: str, int, float, bool or None.

    Returns:
        The trackers; on other processes than the main one there are none, so a figure is logged once.

    Raises:
        SettingError: a name is unknown, or its package is not installed.
    """
    chosen = parse_trackers(names)
    if not PartialState().is_main_process:
        return Trackers()
    trackers = [_make(name, folder, run) for name in chosen]
    for tracker in trackers:
        tracker.start()
        tracker.store_init_configuration(dict(config))
    return Trackers(trackers)


def parse_trackers(names: str | None) -> list[str]:
    """Check the names that `--report-to` gives, and return them without repeats.

    Raises:
        SettingError: a name is unknown, or its package is not installed.
    """
    asked = list(dict.fromkeys(name.strip() for name in (names or "").split(",") if name.strip()))
    for name in asked:
        if name not in TRACKERS:
            near = difflib.get_close_matches(name, TRACKERS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(TRACKERS)}, or none alone"
            raise SettingError(f"--report-to: unknown tracker {name!r}", remedy=hint)
        if importlib.util.find_spec(name) is None:
            raise SettingError(
                f"--report-to {name}: the package is not installed", remedy=f"install it with `pip install {name}`"
            )
    return asked


def _make(name: str, folder: Path, run: str) -> GeneralTracker:
    folder.mkdir(parents=True, exist_ok=True)
    if name == "tensorboard":
        return TensorBoardTracker(run, folder)
    if name == "wandb":
        return WandBTracker(PROJECT, name=run, dir=str(folder))
    # MLflow's own default is the current folder
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve() / 'mlflow.db'}")
    return MLflowTracker(PROJECT, logging_dir=str(folder.resolve()), run_name=run)
