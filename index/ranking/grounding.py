"""Tie what a model wrote to titles that exist: an exact match if there is one, else the nearest by L2.

BIGRec's grounding, as SOFT uses it (arXiv:2505.20771): embed the generated title and rank the whole catalog by the L2
distance of its titles' embeddings. The published code always embeds. Here a title that is in the catalog word for word
takes its stored vector: the same ranking, without the encoder.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog
from index.search.encoder import TitleEncoder
from index.search.search import TitleSearch

_SPARE = 16  # over-fetch for hidden rows, at least
_REMEMBERED = 4096  # texts whose vectors are kept: 6 MB at 384 dimensions


@dataclass(frozen=True)
class GroundedText:
    """The row that a generation means, whether or not it may be recommended.

    Attributes:
        generation: the text as the model wrote it.
        match: "exact" when it is a title of the catalog up to `normalise_title`, else "nearest".
        row: the catalog row.
        distance: L2 distance between the generation's vector and the row's; 0 for an exact match.
        margin: how much farther the second nearest row lies, >= 0: small means ambiguous. None in a catalog of one row.
    """

    generation: str
    match: Literal["exact", "nearest"]
    row: int
    distance: float
    margin: float | None


@dataclass(frozen=True)
class Ranking:
    """The nearest allowed rows of one generation: rows int64 [k], distances float32 [k], ascending, ties by row.

    An exact match that is allowed comes first, also before rows of a smaller number with the same vector. `vector` is
    the generation's own, float32 [dimension].
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float32]
    grounding: GroundedText
    vector: NDArray[np.float32]


class Grounder:
    """A catalog, the index of its titles, and the encoder that made it.

    Raises:
        ValueError: their sizes do not fit together.
    """

    def __init__(self, catalog: Catalog, index: TitleSearch, encoder: TitleEncoder) -> None:
        if len(index) != len(catalog):
            raise ValueError(f"the index has {len(index)} rows, the catalog {len(catalog)}")
        if index.dimension != encoder.dimension:
            raise ValueError(f"the index has dimension {index.dimension}, the encoder {encoder.dimension}")
        self.catalog = catalog
        self.index = index
        self.encoder = encoder
        self._encoded: OrderedDict[str, NDArray[np.float32]] = OrderedDict()  # most recently used last

    def advance(self, catalog: Catalog, index: TitleSearch) -> Grounder:
        """Return the grounder of another state of the catalog; the two share the texts that they have embedded."""
        later = Grounder(catalog, index, self.encoder)
        later._encoded = self._encoded
        return later

    def rank(self, generations: Sequence[str], k: int, *, allowed: NDArray[np.bool_] | None = None) -> list[Ranking]:
        """Rank the catalog for each generation: one batch through the encoder, one search, seldom two.

        A text is grounded among all rows and ranked among the allowed ones. One search serves both if enough of its
        nearest rows are allowed; otherwise a second search applies the filter.

        Args:
            generations: texts, each of any length; an empty one is embedded like any other.
            k: how many rows; fewer come back only when fewer are allowed.
            allowed: bool [len(catalog)]; rows that may be ranked. None: all.

        Returns:
            One ranking per generation, in order.
        """
        if not generations:
            return []
        matches = [self.catalog.find_title_row(text) for text in generations]
        queries = self._vectors_of(generations, matches)
        searched = _reach(k, allowed)
        near_distances, near_rows = self.index.search(queries, max(searched, 2))
        for number, match in enumerate(matches):  # which an approximate search may have missed
            near_rows[number], near_distances[number] = _put_first(match, near_rows[number], near_distances[number])
        rankings = []
        short = self._search_again_where_short(queries, near_rows, k, allowed)
        for number, (text, match) in enumerate(zip(generations, matches, strict=True)):
            grounding = _ground(text, match, near_distances[number], near_rows[number])
            rows, distances = near_rows[number], near_distances[number]
            if number in short:
                rows, distances = short[number]
            elif allowed is not None:
                rows, distances = rows[allowed[rows]], distances[allowed[rows]]
            first = match if match is not None and (allowed is None or allowed[match]) else None
            nearest = _put_first(first, rows[:k], distances[:k])
            rankings.append(Ranking(*nearest, grounding, queries[number]))
        return rankings

    def _search_again_where_short(
        self, queries: NDArray[np.float32], near_rows: NDArray[np.int64], k: int, allowed: NDArray[np.bool_] | None
    ) -> dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Search with the filter for the queries among whose nearest rows [n, m] fewer than k are allowed."""
        if allowed is None:
            return {}
        enough = min(k, int(np.count_nonzero(allowed)))
        short = np.flatnonzero(allowed[near_rows].sum(axis=1) < enough)
        if not len(short):
            return {}
        distances, rows = self.index.search(queries[short], k, allowed=allowed)
        return {int(number): (rows[at], distances[at]) for at, number in enumerate(short)}

    def _vectors_of(self, generations: Sequence[str], matches: Sequence[int | None]) -> NDArray[np.float32]:
        """Stored vectors for exact matches, encoded ones for the rest, each distinct text once. [n, dimension]."""
        vectors = np.empty((len(generations), self.index.dimension), dtype=np.float32)
        texts = [text for text, row in zip(generations, matches, strict=True) if row is None]
        encoded = self._encode(list(dict.fromkeys(texts)))
        for number, (text, row) in enumerate(zip(generations, matches, strict=True)):
            vectors[number] = encoded[text] if row is None else self.index.vectors(np.array([row]))[0]
        return vectors

    def _encode(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Embed distinct texts through a least-recently-used cache: a model writes the same ones again and again."""
        known = {text: self._encoded[text] for text in texts if text in self._encoded}
        fresh = [text for text in texts if text not in known]
        known |= zip(fresh, self.encoder.encode(fresh), strict=True) if fresh else ()
        for text in texts:
            self._encoded[text] = known[text]
            self._encoded.move_to_end(text)
        while len(self._encoded) > _REMEMBERED:
            self._encoded.popitem(last=False)
        return known


def _reach(k: int, allowed: NDArray[np.bool_] | None) -> int:
    """How many rows to search without the filter, so that mostly k allowed ones are among them.

    Grounding needs the nearest row even if it is hidden, so this search always runs. If most rows are hidden, it
    fetches only that row and the next. Otherwise it fetches, beyond k, twice the number of hidden rows that k rows hold
    on average, and a few more, since what a user has seen is alike.
    """
    if allowed is None:
        return k
    hidden = len(allowed) - int(np.count_nonzero(allowed))
    return k + min(hidden, 2 * k * hidden // len(allowed) + _SPARE) if 2 * hidden <= len(allowed) else 2


def _ground(text: str, match: int | None, distances: NDArray[np.float32], rows: NDArray[np.int64]) -> GroundedText:
    row = int(rows[0]) if match is None else match
    distance = float(distances[0])
    margin = float(distances[1]) - distance if len(rows) > 1 else None
    return GroundedText(text, "nearest" if match is None else "exact", row, distance, margin)


def _put_first(
    row: int | None, rows: NDArray[np.int64], distances: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Move `row`, whose distance is 0, to the front; the others keep their order, the length stays."""
    if row is None or rows[0] == row:
        return rows, distances
    others = rows != row
    kept = len(rows) - 1
    return (
        np.concatenate([[row], rows[others][:kept]]),
        np.concatenate([np.zeros(1, dtype=np.float32), distances[others][:kept]]),
    )
