"""Laws of SOFT's scheduler."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.recipes.soft.curriculum import curriculum_weight

distances = st.floats(1e-3, 1e6)
alphas = st.floats(1e-2, 1e3)


@given(distance=distances, initial=distances, alpha=alphas)
def test_in_the_unit_interval_however_far_the_model_is_off(distance, initial, alpha):
    assert 0.0 <= curriculum_weight(distance, initial, curriculum_alpha=alpha) <= 1.0


@given(initial=distances, alpha=alphas)
def test_one_at_the_start(initial, alpha):
    assert curriculum_weight(initial, initial, curriculum_alpha=alpha) == 1.0


@given(nearer=distances, farther=distances, initial=distances, alpha=alphas)
def test_falls_with_the_distance(nearer, farther, initial, alpha):
    nearer, farther = sorted((nearer, farther))
    weights = [curriculum_weight(d, initial, curriculum_alpha=alpha) for d in (nearer, farther)]
    assert weights[0] <= weights[1]


@pytest.mark.parametrize(("distance", "initial", "alpha"), [(1, 0, 1), (1, 1, 0), (-1, 1, 1)])
def test_refuses_what_has_no_meaning(distance, initial, alpha):
    with pytest.raises(ValueError, match="must be positive"):
        curriculum_weight(distance, initial, curriculum_alpha=alpha)
