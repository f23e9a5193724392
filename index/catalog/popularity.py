"""How often each title was chosen: the answer when nothing is known of a user, and the baseline of every table."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog


def count_popularity(catalog: Catalog, item_ids: Iterable[str]) -> NDArray[np.int64]:
    """Count the interactions of each catalog row.

    Args:
        catalog: the catalog; items with the same title count together.
        item_ids: one id per interaction. For an honest baseline give those of the training split only.

    Returns:
        int64 [len(catalog)].

    Raises:
        ValueError: an id is not in the catalog.
    """
    counts = np.zeros(len(catalog), dtype=np.int64)
    for item_id in item_ids:
        row = catalog.find_item_row(item_id)
        if row is None:
            raise ValueError(f"item id {item_id!r} is not in the catalog")
        counts[row] += 1
    return counts


def popularity_order(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows from the most to the least popular; equal counts in the order of their rows.

    Example:
        >>> popularity_order(np.array([1, 3, 0, 3])).tolist()
        [1, 3, 0, 2]
    """
    return np.argsort(-counts, kind="stable").astype(np.int64, copy=False)
