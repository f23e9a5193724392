"""Weights of a fused ranking, and which ranking is best: both from validation windows.

The weights are those of a conditional logit (McFadden 1974): among the rows that a fusion chooses from, the true next
one has probability softmax(features @ weights), and the likelihood of the validation windows is maximised, with a small
ridge. It uses the position of every target, where a search over a hit rate would only see those that cross the cut-off.
But it weighs the fiftieth position like the first; so last comes a blend of these weights with those that rank by
likelihood alone, by the share that gives the best NDCG@10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.ranking.grounding import Grounder
from index.ranking.ranking import POOL, Ranker, Written
from index.ranking.ranking_spec import FusionWeights
from training.measure.metrics import gains

GAMMAS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)  # BIGRec's popularity_gamma is one of these, or 0

_RIDGE = 1e-3  # per window, on features of unit spread
_LEAST = 10  # windows whose target must be among the candidates
_STEPS = 50
# what ranks by likelihood: written titles first, the others by distance, which hardly moves the written ones
_LIKELIHOOD = np.array([1.0, 1e-3, 0.0, 10.0])
_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the fitted weights in a blend with those

Choices = list[tuple[NDArray[np.float64], int]]  # one per window: features [n, 4], the position of the target


def fit_fusion(ranker: Ranker, grounder: Grounder, written: Sequence[Written], targets: Sequence[int]) -> FusionWeights:
    """Fit the weights of a fusion.

    Args:
        written: what was written for each validation window.
        targets: the catalog row that came next. Where it is none of the candidates the window says nothing.

    Returns:
        The weights; those of `likelihood` where fewer than ten windows say something.
    """
    nearest = grounder.rank([one.texts[0] for one in written], POOL)
    choices: Choices = []
    for one, near, target in zip(written, nearest, targets, strict=True):
        rows, log_probs, distances = ranker.pool(one, near)
        position = np.flatnonzero(rows == target)
        if len(position):
            choices.append((ranker.features(rows, log_probs, distances), int(position[0])))
    if len(choices) < _LEAST:
        return FusionWeights(*map(float, _LIKELIHOOD))
    fitted = maximise_likelihood(choices)
    by_likelihood = _LIKELIHOOD * (fitted[0] if fitted[0] > 0 else 1.0)
    blends = [by_likelihood + share * (fitted - by_likelihood) for share in _SHARES]
    return FusionWeights(*map(float, max(blends, key=lambda weights: _gain(choices, weights))))


def _gain(choices: Choices, weights: NDArray[np.float64]) -> float:
    """Sum of NDCG@10 over the windows whose target is among the candidates."""
    scores = [(features @ weights, position) for features, position in choices]
    positions = [
        int(np.count_nonzero(score >= score[position])) - 1 for score, position in scores
    ]  # ties count against it
    return float(gains(np.array(positions), 10).sum())


def maximise_likelihood(choices: Choices) -> NDArray[np.float64]:
    """Weights [4] under which the targets are most probable, less a ridge; by Newton's method, which is exact here.

    The objective is concave, so a full step that does not improve it is halved until it does.
    """
    spread = np.sqrt(np.mean([features.var(axis=0) for features, _ in choices], axis=0))
    scale = np.where(spread > 0, spread, 1.0)
    scaled = [(features / scale, position) for features, position in choices]
    weights = np.zeros(len(scale))
    value, gradient, curvature = _likelihood(scaled, weights)
    for _ in range(_STEPS):
        step = np.linalg.solve(curvature, gradient)
        while (better := _likelihood(scaled, weights + step))[0] < value and np.abs(step).max() > 1e-9:
            step = step / 2
        weights = weights + step
        value, gradient, curvature = better
        if np.abs(step).max() < 1e-8:
            break
    fitted: NDArray[np.float64] = weights / scale
    return fitted


def _likelihood(
    choices: Choices, weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Mean log-probability of the targets less the ridge; its gradient [4], and minus its Hessian [4, 4]."""
    value = -_RIDGE / 2 * float(weights @ weights)
    gradient = -_RIDGE * weights
    curvature = _RIDGE * np.eye(len(weights))
    for features, position in choices:
        scores = features @ weights
        log_total = float(np.logaddexp.reduce(scores))
        shares = np.exp(scores - log_total)
        mean = shares @ features
        value += (scores[position] - log_total) / len(choices)
        gradient += (features[position] - mean) / len(choices)
        centred = features - mean
        curvature += (centred * shares[:, None]).T @ centred / len(choices)
    return value, gradient, curvature
