"""Self-distillation: the SFT model answers its own training prompts; its answers are the easy curriculum.

SOFT, step 2 (arXiv:2505.20771): the SFT model decodes every training prompt with 4 beams, the best beam is the title
to learn. D = {(x, y)} becomes D^ = {(x, y^)}. The result is `distilled.parquet`, with its provenance in the file's
metadata.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from index.artifact import write_file
from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError
from training.adapter import Adapter
from training.data.dataset import Dataset, check_trained_on, windows_digest
from training.data.windows import Window
from training.errors import EmptyDataError
from training.loop.run import TrainingRun
from training.settings import TrainSettings

PROVENANCE = b"softrec"


@dataclass(frozen=True)
class Distilled:
    """Self-distilled titles, one per training window, in the windows' order.

    Attributes:
        titles: as the teacher wrote them.
        truths: the true next titles.
        provenance: what they were made from; `softrec train soft` makes them again when it no longer holds.
    """

    titles: tuple[str, ...]
    truths: tuple[str, ...]
    provenance: dict[str, str]

    @property
    def teacher(self) -> str:
        """Id of the adapter that wrote them."""
        return self.provenance["teacher"]


def ensure_distilled(run: TrainingRun, teacher: Adapter) -> Distilled:
    """Return the teacher's titles for the training windows: the stored ones if they fit, else made now and stored.

    Raises:
        MismatchError: the teacher belongs to another base, prompt, catalog or split.
        EmptyDataError: it wrote nothing.
    """
    check_trained_on(teacher, run.dataset)
    path = run.workspace.distilled_path
    provenance = _provenance(teacher, run.dataset, run.settings)
    try:
        stored = read_distilled(path)
        if stored.provenance == provenance:
            check_distilled(stored.titles, run.dataset.split.train, path)
            return stored
        changed = [name for name, value in provenance.items() if stored.provenance.get(name) != value]
        run.progress.note(f"the distilled titles were made with another {', '.join(changed)}: distilling again")
    except MissingArtifactError:
        run.progress.note(f"no distilled titles of {teacher.adapter_id} yet: distilling")
    return _distill(run, teacher, provenance)


def _distill(run: TrainingRun, teacher: Adapter, provenance: dict[str, str]) -> Distilled:
    windows = run.dataset.split.train
    with run.published(teacher) as model:
        written = run.writer.write(model, windows, decoding="beam", step="distil")
    titles = tuple(title for title, _ in written)
    if not any(titles):
        raise EmptyDataError(
            f"{teacher.adapter_id} wrote an empty title for each of the {len(titles)} training windows",
            remedy=f"train it longer: softrec train {teacher.name} {run.workspace.root} --set max_epochs=N",
        )
    truths = tuple(run.dataset.titles(windows))
    table = pa.table(
        {
            "user_id": [window.user_id for window in windows],
            "target": truths,
            "title": titles,
            "log_prob": [generation.log_prob for _, generation in written],
            "is_finished": [generation.is_finished for _, generation in written],
        }
    )
    buffer = BytesIO()
    pq.write_table(table.replace_schema_metadata({PROVENANCE: json.dumps(provenance)}), buffer)
    run.processes.on_main(lambda: write_file(run.workspace.distilled_path, buffer.getvalue()))
    return Distilled(titles, truths, provenance)


def read_distilled(path: Path) -> Distilled:
    """Read `distilled.parquet`.

    Raises:
        MissingArtifactError: it was not made yet.
        CorruptArtifactError: it is no such file.
    """
    command = f"softrec train soft {path.parent}"
    if not path.is_file():
        raise MissingArtifactError("self-distilled titles", path, command=command)
    try:
        table = pq.read_table(path)
        provenance = json.loads(table.schema.metadata[PROVENANCE])
        titles, truths = (tuple(map(str, table[name].to_pylist())) for name in ("title", "target"))
        return Distilled(titles, truths, provenance)
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CorruptArtifactError(path, f"unreadable ({error})", remedy=f"remove it and run `{command}`") from error


def find_distilled(path: Path, windows: Sequence[Window]) -> tuple[str, ...] | None:
    """The stored titles, if they were written for these windows."""
    try:
        stored = read_distilled(path)
    except MissingArtifactError:
        return None
    return stored.titles if stored.provenance.get("windows") == windows_digest(windows) else None


def _provenance(adapter: Adapter, dataset: Dataset, settings: TrainSettings) -> dict[str, str]:
    return {
        "teacher": adapter.adapter_id,
        "base": dataset.base.digest,
        "prompt": dataset.renderer.template.digest,
        "windows": windows_digest(dataset.split.train),
        "beams": str(settings.beams),
        "length_penalty": str(settings.length_penalty),
        "generator": settings.generator,
    }


def check_distilled(titles: Sequence[str], windows: Sequence[Window], path: Path) -> int:
    """Refuse self-distilled titles that are not one per window, or are all empty; count those that are empty.

    A few empty titles are what the teacher would write, and are learned as such.

    Args:
        path: of the file that holds them, in the workspace.

    Returns:
        How many are empty or blank.

    Raises:
        MismatchError: another number of titles than of windows.
        EmptyDataError: there is none, or none with anything in it.
    """
    again = f"remove it and run `softrec train soft {path.parent}`"
    if not titles:
        raise EmptyDataError(f"{path} holds no self-distilled title", remedy=again)
    if len(titles) != len(windows):
        raise MismatchError(
            f"{path}: self-distilled titles, one per training window",
            expected=str(len(windows)),
            found=str(len(titles)),
            remedy=again,
        )
    empty = sum(not title.strip() for title in titles)
    if empty == len(titles):
        raise EmptyDataError(
            f"{path}: all {empty} self-distilled titles are empty: the SFT adapter ends its answers at once",
            remedy=f"train it longer (softrec train sft {path.parent} --set max_epochs=N), then train soft again",
        )
    return empty
