"""A shop's data as training sees it: catalog, split, prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from index.artifact import text_digest
from index.catalog.catalog import Catalog, read_catalog
from index.errors import MismatchError
from index.tables.interactions import load_interactions
from index.workspace import Workspace
from training.adapter import Adapter, check_adapter
from training.base_model import BaseModel, locate_base
from training.data.window_filter import LeftOut, select_evaluation_windows, select_training_windows
from training.data.windows import DataSplit, Window, describe_window, split_windows
from training.errors import SettingError
from training.model.batches import Sample
from training.progress import Progress
from training.prompt import PromptRenderer, PromptTemplate
from training.settings import TrainSettings


@dataclass(frozen=True)
class Dataset:
    """Everything a training step reads of a workspace, loaded once.

    Attributes:
        split: its training windows can be learned from, and every window has a history to read (see
            `training.data.window_filter`).
        left_out: training windows that cannot be learned from.
    """

    catalog: Catalog
    split: DataSplit
    base: BaseModel
    renderer: PromptRenderer
    left_out: LeftOut = field(default_factory=LeftOut)

    def prompts(self, windows: Sequence[Window]) -> list[tuple[int, ...]]:
        """Token ids of each window's history."""
        titles = self.catalog.titles
        return [self.renderer.render([titles[row] for row in window.history]).ids for window in windows]

    def titles(self, windows: Sequence[Window]) -> list[str]:
        """The true next title of each window."""
        return [self.catalog.titles[window.target] for window in windows]

    def samples(self, windows: Sequence[Window], *completions: Sequence[str]) -> list[Sample]:
        """One sample per window, with one completion from each list of titles."""
        return [
            Sample(prompt, tuple(map(self.renderer.completion_ids, titles)), describe_window(window, self.catalog))
            for window, prompt, titles in zip(
                windows, self.prompts(windows), zip(*completions, strict=True), strict=True
            )
        ]


def template_of(workspace: Workspace, settings: TrainSettings) -> PromptTemplate:
    """The prompt of this shop under these settings."""
    return PromptTemplate(
        noun=workspace.settings.noun,
        verb=workspace.settings.verb,
        max_history=settings.max_history,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_title_tokens=settings.max_title_tokens,
    )


def load_split(workspace: Workspace, settings: TrainSettings) -> tuple[Catalog, DataSplit]:
    """Read the catalog and the log, and split it. The same settings give the same split."""
    catalog = read_catalog(workspace.catalog_path)
    interactions = load_interactions(workspace.interactions_path, catalog)
    split = split_windows(
        list(interactions.by_user()),
        split=workspace.settings.split,
        max_history=settings.max_history,
        min_history=settings.min_history,
        sizes=(settings.train_windows, settings.validation_windows, settings.test_windows),
        seed=settings.seed,
    )
    return catalog, split


def load_dataset(workspace: Workspace, settings: TrainSettings, progress: Progress) -> Dataset:
    """Load what training needs; say how many windows are left out, and why.

    Raises:
        MissingArtifactError: no catalog, log or base yet; names the command.
        EmptyDataError: nothing is left to train on.
        SettingError: prompts and titles may exceed the base's context.
        TrainingError: base and catalog do not suit each other (see `select_training_windows`).
        MismatchError: the stand-in base was trained on another part of the log.
    """
    catalog, split = load_split(workspace, settings)
    base = locate_base(workspace)
    if base.training_data and base.training_data != split.training_data:
        raise MismatchError(
            "the part of the log that the stand-in base was trained on",
            expected=split.training_data[:12],
            found=base.training_data[:12],
            remedy=f"run `softrec base {workspace.root}` again, with the same --set min_history and max_history",
        )
    renderer = base.renderer(template_of(workspace, settings))
    check_context(base, renderer)
    train, left_out = select_training_windows(split.train, catalog, renderer)
    validation, unread_validation = select_evaluation_windows(split.validation, "validation", catalog, renderer)
    test, unread_test = select_evaluation_windows(split.test, "test", catalog, renderer)
    for note in (*left_out.notes(renderer.template), *unread_validation, *unread_test):
        progress.note(note)
    split = DataSplit(train, validation, test, split.histories, split.available)
    return Dataset(catalog, split, base, renderer, left_out)


def check_trained_on(adapter: Adapter, dataset: Dataset) -> None:
    """Refuse an adapter that does not belong to this base, catalog, prompt or split.

    Raises:
        MismatchError: naming both values.
    """
    check_adapter(
        adapter,
        base_digest=dataset.base.digest,
        tokenizer_digest=dataset.base.tokenizer.digest,
        catalog_digest=dataset.catalog.digest,
    )
    remedy = (
        f"train it again with `softrec train {adapter.facts.method} {adapter.path.parent.parent}`, or use its --set"
    )
    for what, expected, found in (
        ("prompt", str(dataset.renderer.template.to_json()), str(adapter.facts.template.to_json())),
        ("training part of the log", dataset.split.training_data[:12], adapter.facts.training_data[:12]),
    ):
        if expected != found:
            raise MismatchError(
                f"adapter {adapter.adapter_id}: its {what}", expected=expected, found=found, remedy=remedy
            )


def windows_digest(windows: Sequence[Window]) -> str:
    """Identity of a list of windows, in order."""
    return text_digest(
        *(f"{window.user_id}\0{window.timestamp}\0{window.history}\0{window.target}" for window in windows)
    )


def check_context(base: BaseModel, renderer: PromptRenderer) -> None:
    """Refuse settings under which a prompt and its title exceed the base's positions (`max_position_embeddings`).

    The settings count, not today's histories: the adapter keeps them, and a server renders with them. A base whose
    config.json names no limit has none.

    Raises:
        SettingError: naming both numbers, and the setting that fits.
    """
    limit = json.loads((base.path / "config.json").read_bytes()).get("max_position_embeddings")
    prompt, title = renderer.template.max_prompt_tokens, renderer.max_new_tokens
    if limit is None or prompt + title <= limit:
        return
    room, needed = limit - title, len(renderer.render([]).ids)
    raise SettingError(
        f"a prompt of {prompt} tokens (max_prompt_tokens) and a title of {title} with its end (max_title_tokens) "
        f"do not fit the {limit} positions of base {base.name}",
        remedy=f"--set max_prompt_tokens={room}"
        if room > needed
        else "lower max_title_tokens, or choose a base with more positions",
    )
