"""Filters and exclusions, against the obvious loop over items."""

from hypothesis import given
from hypothesis import strategies as st

from serving.candidates import CandidateSelector
from serving.schema import Filters
from tests.tiny_shop import ITEMS, tiny_catalog

SELECTOR = CandidateSelector(tiny_catalog())
names = st.sampled_from(["puzzle", "action", "classic", "adventure", "nope", "Puzzle"])


@given(
    category=st.none() | st.lists(names, min_size=1, max_size=3),
    available_only=st.booleans(),
    excluded=st.sets(st.sampled_from([item.item_id for item in ITEMS] + ["unknown"])),
)
def test_selection_equals_the_loop(category: list[str] | None, available_only: bool, excluded: set[str]) -> None:
    chosen = SELECTOR.select(Filters(category=category, available_only=available_only), excluded)
    expected = [
        item
        for item in ITEMS
        if (category is None or set(category) & set(item.category.split("|")))
        and (item.available or not available_only)
        and item.item_id not in excluded
    ]
    catalog = SELECTOR.catalog
    rows = range(len(catalog))
    assert sorted((item for row in rows for item in chosen.items_of(row)), key=ITEMS.index) == expected
    expected_rows = {catalog.find_item_row(item.item_id) for item in expected}
    assert {row for row in rows if chosen.rows[row]} == expected_rows
