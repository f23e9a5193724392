import numpy as np
import pytest

from index.catalog.catalog import Catalog, Item
from index.catalog.popularity import count_popularity, popularity_order

CATALOG = Catalog.from_items([Item("a", "Tetris"), Item("b", "Doom"), Item("c", "tetris"), Item("d", "Myst")])


def test_items_of_one_title_count_together() -> None:
    """Rows are Tetris (a, c), Doom (b), Myst (d); a, c, a, d fall on rows 0, 0, 0, 2."""
    assert count_popularity(CATALOG, ["a", "c", "a", "d"]).tolist() == [3, 0, 1]


def test_an_unknown_item_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' is not in the catalog"):
        count_popularity(CATALOG, ["a", "x"])


def test_order_is_by_count_then_row() -> None:
    order = popularity_order(np.array([2, 5, 2, 0, 5]))
    assert order.tolist() == [1, 4, 0, 2, 3]
    assert order.dtype == np.int64
