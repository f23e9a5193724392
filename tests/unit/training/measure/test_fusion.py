"""The fusion's weights: found again from choices that were made by them, and a maximum of the likelihood."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item
from index.ranking.grounding import Grounder
from index.ranking.ranking import Ranker, Written
from index.ranking.ranking_spec import RankingSpec
from index.search.flat import FlatIndex
from tests.unit.index.letter_encoder import LetterEncoder
from training.measure.fusion import _likelihood, fit_fusion, maximise_likelihood


def draw_choices(weights: np.ndarray, windows: int, seed: int) -> list[tuple[np.ndarray, int]]:
    """Windows of eight candidates, whose target is drawn by softmax(features @ weights)."""
    draw = np.random.default_rng(seed)
    choices = []
    for _ in range(windows):
        features = draw.normal(size=(8, 4))
        scores = features @ weights
        shares = np.exp(scores - scores.max())
        choices.append((features, int(draw.choice(8, p=shares / shares.sum()))))
    return choices


def test_weights_that_made_the_choices_are_found_again():
    """4,000 choices of unit features pin each weight to about 0.03."""
    weights = np.array([1.0, 0.5, -0.5, 0.0])
    np.testing.assert_allclose(maximise_likelihood(draw_choices(weights, 4000, seed=0)), weights, atol=0.12)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_no_step_away_is_better_and_units_do_not_matter(seed, scale):
    choices = draw_choices(np.array([2.0, 0.0, 1.0, -1.0]), 60, seed)
    found = maximise_likelihood(choices)
    rescaled = [(features * np.array([scale, 1, 1, 1]), place) for features, place in choices]
    np.testing.assert_allclose(maximise_likelihood(rescaled) * np.array([scale, 1, 1, 1]), found, rtol=1e-3, atol=1e-3)
    spread = np.sqrt(np.mean([features.var(axis=0) for features, _ in choices], axis=0))
    scaled = [(features / spread, place) for features, place in choices]
    best = _likelihood(scaled, found * spread)[0]
    for step in np.vstack([np.eye(4), -np.eye(4)]) * 0.05:
        assert _likelihood(scaled, found * spread + step)[0] < best


@pytest.mark.parametrize("windows", [3, 30])
def test_a_model_that_knows_is_believed_and_without_evidence_likelihood_stands(windows):
    """The most probable title is always the target: log-probability gets weight, popularity none to speak of."""
    titles = ("a", "bb", "ccc", "dddd", "eeeee")
    catalog = Catalog.from_items(Item(title, title) for title in titles)
    grounder = Grounder(catalog, FlatIndex.build(LetterEncoder().encode(titles)), LetterEncoder())
    ranker = Ranker(grounder, np.array([9, 0, 0, 3, 1]))
    draw = np.random.default_rng(0)
    orders = [draw.permutation(5) for _ in range(windows)]
    written = [Written(tuple(titles[row] for row in order[:3]), (-1.0, -2.0, -3.0)) for order in orders]
    weights = fit_fusion(ranker, grounder, written, [int(order[0]) for order in orders])
    assert weights.log_prob > 0
    if windows < 10:
        choices = (RankingSpec("fusion", weights), RankingSpec("likelihood"))
        fused, by_likelihood = (ranker.rank(written, 5, choice) for choice in choices)
        assert [ranked.rows.tolist() for ranked in fused] == [ranked.rows.tolist() for ranked in by_likelihood]
