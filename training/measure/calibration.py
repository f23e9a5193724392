"""How far from the catalog a written title may lie before it counts as a hallucination.

Two kinds of text are known for sure, made of the titles that came next in the validation windows:

* slips: a title with one of its tokens left out, as a model miswrites it. They stand for an item that exists, where the
  nearest title is still the one that was miswritten.
* absent titles: a title looked up in the catalog without it. They read like titles and stand for nothing.

The threshold divides the two kinds' distances to the nearest title with the highest balanced accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.ranking.grounding import Grounder
from training.prompt import PromptRenderer

_MOST = 512  # titles
_LEAST = 10  # of each kind


@dataclass(frozen=True)
class Calibration:
    """A threshold on L2 distances, and what it is worth.

    Attributes:
        threshold: a title farther than this from its nearest counts as a hallucination.
        accuracy: balanced accuracy on titles that it was not chosen on, 0.5 being chance.
        n: slips and absent titles that it was chosen on.
    """

    threshold: float
    accuracy: float
    n: int


def calibrate(
    grounder: Grounder, rows: Sequence[int], renderer: PromptRenderer, *, seed: int = 0
) -> Calibration | None:
    """Choose the threshold on some titles of the catalog.

    Args:
        rows: catalog rows, of the targets of validation windows; each counts once, at most 512 of them.
        renderer: knows the tokens of a title.

    Returns:
        None where fewer than ten texts of either kind can be made: then no distance is called a hallucination.
    """
    draw = np.random.default_rng(seed)
    distinct = draw.permutation(np.unique(np.asarray(rows, dtype=np.int64)))[:_MOST]
    existing, missed = _slips(grounder, distinct, renderer, draw)
    absent = np.concatenate([_without_itself(grounder, distinct), missed])
    if min(len(existing), len(absent)) < _LEAST:
        return None
    existing, absent = draw.permutation(existing), draw.permutation(absent)
    halves = [(existing[side::2], absent[side::2]) for side in (0, 1)]
    accuracy = np.mean([_accuracy(_divide(*halves[side]), *halves[1 - side]) for side in (0, 1)])
    return Calibration(_divide(existing, absent), float(accuracy), len(existing) + len(absent))


def _slips(
    grounder: Grounder, rows: NDArray[np.int64], renderer: PromptRenderer, draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances of miswritten titles: of those whose nearest title is the right one, and of the others."""
    texts, meant = [], []
    for row in rows.tolist():
        ids = list(renderer.title_ids(grounder.catalog.titles[row]))
        if len(ids) < 2:
            continue
        del ids[int(draw.integers(len(ids)))]
        text = renderer.tokenizer.text(ids)
        if grounder.catalog.find_title_row(text) is None:
            texts.append(text)
            meant.append(row)
    found = [ranking.grounding for ranking in grounder.rank(texts, 1)]
    distances = np.array([grounding.distance for grounding in found])
    right = np.array([grounding.row for grounding in found]) == np.array(meant)
    return distances[right], distances[~right]


def _without_itself(grounder: Grounder, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distance of each title to the nearest other one."""
    distances, nearest = grounder.index.search(grounder.index.vectors(rows), 2)
    if nearest.shape[1] < 2:
        return np.empty(0)
    # of titles with one vector any may stand first
    others: NDArray[np.float64] = np.where(nearest[:, 0] == rows, distances[:, 1], distances[:, 0]).astype(np.float64)
    return others


def _divide(existing: NDArray[np.float64], absent: NDArray[np.float64]) -> float:
    """Return the distance that divides best: half-way between two that were seen."""
    seen = np.unique(np.concatenate([existing, absent]))
    between = (seen[1:] + seen[:-1]) / 2 if len(seen) > 1 else seen
    return float(between[np.argmax([_accuracy(threshold, existing, absent) for threshold in between])])


def _accuracy(threshold: float, existing: NDArray[np.float64], absent: NDArray[np.float64]) -> float:
    return float(((existing <= threshold).mean() + (absent > threshold).mean()) / 2)
