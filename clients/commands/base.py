"""`softrec base`: the stand-in base, where no pretrained model is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clients.errors import RefusedError
from clients.progress import open_progress
from clients.tables import say
from index.errors import MissingArtifactError
from index.workspace import Workspace
from training.base_model import BaseModel, locate_base
from training.progress import Progress
from training.recipes.stand_in import train_stand_in
from training.settings import TrainSettings, resolve_settings

# what decides the split and the prompt; the rest of TrainSettings is of adapters
SETTINGS = (
    *("max_history", "min_history", "train_windows", "validation_windows", "test_windows", "seed"),
    *("max_prompt_tokens", "max_title_tokens"),
)


def train_base(root: Path, assignments: Sequence[str] = ()) -> BaseModel:
    """Train the stand-in base.

    Raises:
        RefusedError: the shop names a pretrained base, so that a stand-in would never be used; or an assignment
            changes nothing about it.
    """
    workspace = Workspace.open(root)
    if workspace.settings.base_model:
        raise RefusedError(
            f"{root} uses {workspace.settings.base_model}; a stand-in would never be used",
            remedy="remove base_model from softrec.toml first",
        )
    _check_assignments(assignments)
    base = train_stand_in(workspace, resolve_settings(TrainSettings, "tiny", assignments), open_progress())
    say(f"base: stand-in {base.digest[:12]} in {base.path}")
    return base


def _check_assignments(assignments: Sequence[str]) -> None:
    names = [text.partition("=")[0].strip() for text in assignments]
    if idle := [name for name in names if name not in SETTINGS]:
        raise RefusedError(
            f"--set {', '.join(idle)} changes nothing about the stand-in base", remedy=f"set only {', '.join(SETTINGS)}"
        )


def ensure_base(workspace: Workspace, settings: TrainSettings, progress: Progress) -> None:
    """Train the stand-in base if the shop has neither it nor a named base, and say so."""
    if workspace.settings.base_model:
        return
    try:
        locate_base(workspace)
    except MissingArtifactError as error:
        progress.note(f"training the stand-in base first: {error}")
        train_stand_in(workspace, settings, progress)
