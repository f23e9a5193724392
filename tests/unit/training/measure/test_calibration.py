"""The threshold between miswritten and absent titles, where both are far apart by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.catalog.catalog import Catalog, Item
from index.ranking.grounding import Grounder
from index.search.flat import FlatIndex
from tests.tiny_shop import TEMPLATE, write_tiny_tokenizer
from tests.unit.index.letter_encoder import LetterEncoder
from training.measure.calibration import _accuracy, _divide, calibrate
from training.prompt import PromptRenderer


@pytest.fixture
def renderer(tmp_path: Path) -> PromptRenderer:
    return PromptRenderer(TEMPLATE, write_tiny_tokenizer(tmp_path), end_id=256)


def grounder(titles: list[str]) -> Grounder:
    catalog = Catalog.from_items(Item(title, title) for title in titles)
    return Grounder(catalog, FlatIndex.build(LetterEncoder().encode(catalog.titles)), LetterEncoder())


def test_a_slip_lies_within_the_threshold_and_an_absent_title_beyond(renderer: PromptRenderer) -> None:
    """Titles of eight equal letters: one letter fewer is 1 away, another title 8 * sqrt(2) = 11.3."""
    titles = [letter * 8 for letter in "abcdefghijklmnopqrst"]
    found = calibrate(grounder(titles), range(20), renderer)
    assert found is not None
    assert 1 < found.threshold < 11.3
    assert (found.accuracy, found.n) == (1, 40)


def test_with_too_few_titles_nothing_is_called_a_hallucination(renderer: PromptRenderer) -> None:
    assert calibrate(grounder(["aaaa", "bbbb", "cccc"]), [0, 1, 2], renderer) is None
    assert calibrate(grounder(["aaaa"]), [0], renderer) is None
    assert calibrate(grounder(["aaaa"]), [], renderer) is None


def test_no_threshold_divides_better() -> None:
    draw = np.random.default_rng(0)
    existing, absent = draw.normal(1, 1, 40), draw.normal(2, 1, 30)
    best = _accuracy(_divide(existing, absent), existing, absent)
    assert all(_accuracy(threshold, existing, absent) <= best for threshold in np.linspace(-1, 4, 400))
