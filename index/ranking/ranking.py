"""From the titles that a model wrote to a ranked list of catalog rows: by distance, by likelihood, or by both.

* `l2` is the paper's (BIGRec, arXiv:2308.08434; SOFT, arXiv:2505.20771): the whole catalog by L2 distance to the best
  title. With `popularity_gamma` it is BIGRec's second step, which lets popularity in.
* `likelihood` ranks by the model's own summed log-probability of each title, not divided by its length: what the model
  thinks of every title, where `l2` asks which titles look like the best one.
* `fusion` is a weighted sum of both and of popularity, over the titles written, the nearest and the most popular ones.
  `training.measure.fusion` fits the weights on validation.

Titles that were not written have no log-probability. Behind those that were, `likelihood` goes on by distance to the
best one, so a list is always as long as the catalog allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.catalog.popularity import popularity_order
from index.ranking.grounding import GroundedText, Grounder, Ranking
from index.ranking.ranking_spec import FusionWeights, RankingSpec

POOL = 50  # nearest and most popular rows that a fusion looks at beside the titles written

_BLOCK = 512  # rows whose distances are measured at once: in a core's cache, a third of the time of a whole catalog's


@dataclass(frozen=True)
class Written:
    """Titles that a model wrote after one prompt, distinct, the most probable first.

    Attributes:
        texts: as written; never empty, though a text may be.
        log_probs: summed natural log-probability of each.
        rows: the catalog row of each, if decoding was constrained to the catalog; None: rows are found by the text.
    """

    texts: tuple[str, ...]
    log_probs: tuple[float, ...]
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.texts or len(self.texts) != len(self.log_probs) or len(self.rows or self.texts) != len(self.texts):
            raise ValueError(f"{len(self.texts)} texts, {len(self.log_probs)} log_probs, rows {self.rows}")


@dataclass(frozen=True)
class RankedRows:
    """Allowed rows for one prompt, best first.

    Attributes:
        rows: int64 [k], distinct.
        scores: float64 [k], higher is better: the fused score, or log_probs, or minus distances, as the mode says;
            unwritten rows behind written ones have minus their distance. Under BIGRec's gamma, minus its quotient.
        log_probs: float64 [k]; nan where the title was not written.
        distances: float32 [k], L2 to the best title.
        grounding: the row that the best title means.
        only_popular: rows that a fusion looked at for nothing but their popularity: not written, not among the nearest.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    log_probs: NDArray[np.float64]
    distances: NDArray[np.float32]
    grounding: GroundedText
    only_popular: frozenset[int] = frozenset()


class Ranker:
    """Ranks the rows of one catalog.

    Args:
        grounder: the catalog and its index.
        popularity: int64 [len(catalog)], interactions per row.
    """

    def __init__(self, grounder: Grounder, popularity: NDArray[np.int64]) -> None:
        self.grounder = grounder
        self.popularity = popularity
        self.popular = popularity_order(popularity)  # rows, the most popular first
        self._log_popularity = np.log1p(popularity.astype(np.float64))

    def advance(self, grounder: Grounder) -> Ranker:
        """Return the ranker of a later state of the catalog, whose added rows were never chosen; nothing is sorted."""
        later = copy(self)
        later.grounder = grounder
        rows, added = len(self.popular), len(grounder.catalog) - len(self.popular)
        if added:
            later.popularity = np.pad(self.popularity, (0, added))
            later.popular = np.concatenate([self.popular, np.arange(rows, rows + added, dtype=np.int64)])
            later._log_popularity = np.pad(self._log_popularity, (0, added))
        return later

    def rank(
        self, written: Sequence[Written], k: int, choice: RankingSpec, *, allowed: NDArray[np.bool_] | None = None
    ) -> list[RankedRows]:
        """Rank rows for each prompt's titles; one batch through the encoder, one search.

        Args:
            k: how many rows; fewer come back only when fewer are allowed.
            allowed: bool [len(catalog)]; rows that may be ranked. None: all.
        """
        depth = max(k, POOL) if choice.mode == "fusion" else k
        nearest = self.grounder.rank([one.texts[0] for one in written], depth, allowed=allowed)
        ranked = []
        for one, near in zip(written, nearest, strict=True):
            if choice.popularity_gamma:
                ranked.append(self._by_gamma(one, near, k, choice.popularity_gamma, allowed))
            elif choice.mode == "l2":
                ranked.append(self._by_distance(one, near, allowed))
            elif choice.mode == "likelihood":
                ranked.append(self._written_first(one, near, k, allowed))
            else:
                assert choice.weights is not None
                ranked.append(self._fuse(one, near, k, choice.weights, allowed))
        return ranked

    def pool(
        self, written: Written, near: Ranking, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
        """The candidates of a fusion: rows [n], their log-probabilities (nan: not written) and distances.

        Args:
            near: the `POOL` or more nearest rows of the best title.
        """
        rows, log_probs = self._rows_of(written, allowed)
        popular = self.popular[:POOL] if allowed is None else _first(self.popular, allowed, POOL)
        others = np.setdiff1d(np.union1d(near.rows, popular), rows)
        rows = np.concatenate([rows, others])
        return rows, np.concatenate([log_probs, _unknown(others)]), self._distances(near, rows)

    def features(
        self, rows: NDArray[np.int64], log_probs: NDArray[np.float64], distances: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return the features of `FusionWeights`, float64 [n, 4]: score = features @ weights.array."""
        unwritten = np.isnan(log_probs)
        floor = 0.0 if unwritten.all() else float(np.nanmin(log_probs))
        known = np.where(unwritten, floor, log_probs)
        return np.stack([known, -distances.astype(np.float64), self._log_popularity[rows], -1.0 * unwritten], axis=1)

    def _by_distance(self, written: Written, near: Ranking, allowed: NDArray[np.bool_] | None) -> RankedRows:
        scores = -near.distances.astype(np.float64)
        log_probs = self._log_probs_of(near.rows, written, allowed)
        return RankedRows(near.rows, scores, log_probs, near.distances, near.grounding)

    def _written_first(self, written: Written, near: Ranking, k: int, allowed: NDArray[np.bool_] | None) -> RankedRows:
        rows, log_probs = self._rows_of(written, allowed)
        rows, log_probs = rows[:k], log_probs[:k]
        others = np.flatnonzero(~np.isin(near.rows, rows))[: k - len(rows)]
        distances = near.distances[others]
        return RankedRows(
            np.concatenate([rows, near.rows[others]]),
            np.concatenate([log_probs, -distances.astype(np.float64)]),
            np.concatenate([log_probs, _unknown(others)]),
            np.concatenate([self._distances(near, rows), distances]),
            near.grounding,
        )

    def _fuse(
        self, written: Written, near: Ranking, k: int, weights: FusionWeights, allowed: NDArray[np.bool_] | None
    ) -> RankedRows:
        rows, log_probs, distances = self.pool(written, near, allowed)
        scores = self.features(rows, log_probs, distances) @ weights.array
        best = np.lexsort((rows, -scores))[:k]
        popular = np.setdiff1d(rows[best][np.isnan(log_probs[best])], near.rows)
        ranked = rows[best], scores[best], log_probs[best], distances[best]
        return RankedRows(*ranked, near.grounding, frozenset(popular.tolist()))

    def ranks_by_gamma(
        self, written: Sequence[Written], targets: Sequence[int], gammas: Sequence[float]
    ) -> NDArray[np.int64]:
        """Return the rank of each target under each of BIGRec's gammas, from 0: int64 [len(gammas), len(written)].

        Equals what `rank` gives, with one pass over the catalog per prompt instead of one per gamma.
        """
        every = np.arange(len(self.popularity))
        nearest = self.grounder.rank([one.texts[0] for one in written], 1)
        ranks = np.empty((len(gammas), len(written)), dtype=np.int64)
        for at, (near, target) in enumerate(zip(nearest, targets, strict=True)):
            spread, share = self._spread(self._distances(near, every)), self._share(every)
            for number, gamma in enumerate(gammas):
                quotients = spread / share**gamma
                ties = quotients[:target] == quotients[target]
                ranks[number, at] = np.count_nonzero(quotients < quotients[target]) + np.count_nonzero(ties)
        return ranks

    def _by_gamma(
        self, written: Written, near: Ranking, k: int, gamma: float, allowed: NDArray[np.bool_] | None
    ) -> RankedRows:
        """BIGRec, step two: distances, min-max normalised over the rows, divided by (1 + popularity) ** gamma.

        Popularity is divided by its maximum. Costs a pass over the whole catalog.
        """
        rows = np.arange(len(self.popularity)) if allowed is None else np.flatnonzero(allowed)
        distances = self._distances(near, rows)
        quotients = self._spread(distances) / self._share(rows) ** gamma
        best = np.lexsort((rows, quotients))[:k]
        log_probs = self._log_probs_of(rows[best], written, allowed)
        return RankedRows(rows[best], -quotients[best], log_probs, distances[best], near.grounding)

    def _spread(self, distances: NDArray[np.float32]) -> NDArray[np.float64]:
        """Min-max normalised."""
        above = distances.astype(np.float64) - distances.min(initial=np.inf)
        spread: NDArray[np.float64] = above / max(float(above.max(initial=0.0)), np.finfo(np.float64).tiny)
        return spread

    def _share(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """1 + popularity, that of the most popular row being 1."""
        share: NDArray[np.float64] = 1.0 + self.popularity[rows] / max(int(self.popularity.max()), 1)
        return share

    def _log_probs_of(
        self, rows: NDArray[np.int64], written: Written, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """float64 [n], nan where a row's title was not written."""
        known = dict(zip(*(values.tolist() for values in self._rows_of(written, allowed)), strict=True))
        return np.array([known.get(row, np.nan) for row in rows.tolist()], dtype=np.float64)

    def _rows_of(
        self, written: Written, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the allowed rows among the titles written, most probable first, and their log-probabilities."""
        found: dict[int, float] = {}
        catalog = self.grounder.catalog
        rows = map(catalog.find_title_row, written.texts) if written.rows is None else iter(written.rows)
        for row, log_prob in zip(rows, written.log_probs, strict=True):
            if row is not None and (allowed is None or allowed[row]):
                found[row] = max(log_prob, found.get(row, -np.inf))
        order = sorted(found, key=lambda row: (-found[row], row))
        return np.array(order, dtype=np.int64), np.array([found[row] for row in order], dtype=np.float64)

    def _distances(self, near: Ranking, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """L2 distance of some rows to the best title, float32 [n]."""
        distances = np.empty(len(rows), dtype=np.float32)
        for begin in range(0, len(rows), _BLOCK):
            difference = self.grounder.index.vectors(rows[begin : begin + _BLOCK]).astype(np.float64)
            difference -= near.vector
            distances[begin : begin + _BLOCK] = np.sqrt(np.einsum("nd,nd->n", difference, difference))
        return distances


def _unknown(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.full(len(rows), np.nan)


def _first(order: NDArray[np.int64], allowed: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """Return the first n allowed rows of an order, looking no further than needed."""
    for reach in (4 * n, 64 * n, len(order)):
        found = order[:reach][allowed[order[:reach]]]
        if len(found) >= n:
            break
    return found[:n]
