"""Filters and exclusions, against the obvious loop over items."""

from hypothesis import given
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item
from index.catalog.changes import Change, change_catalog
from index.catalog.slots import SlotArrays
from serving.schema import Filters
from serving.snapshots.candidates import Candidates, select_candidates
from tests.tiny_shop import ITEMS, tiny_catalog

SLOTS = SlotArrays.of(tiny_catalog())
names = st.sampled_from(["puzzle", "action", "classic", "adventure", "nope", "Puzzle"])


@given(
    category=st.none() | st.lists(names, min_size=1, max_size=3),
    available_only=st.booleans(),
    excluded=st.sets(st.sampled_from([item.item_id for item in ITEMS] + ["unknown"])),
)
def test_selection_equals_the_loop(category: list[str] | None, available_only: bool, excluded: set[str]) -> None:
    chosen = select_candidates(SLOTS, Filters(category=category, available_only=available_only), excluded)
    assert_obvious(chosen, SLOTS.catalog, category, available_only, excluded)


puts = st.builds(
    Change,
    st.just("put"),
    st.sampled_from([*(item.item_id for item in ITEMS), "j1", "j2"]),
    st.sampled_from(["Tetris", "Zork", "Myst", "New", "Newer"]),
    st.sampled_from(["puzzle", "action|puzzle", "", "new"]),
    st.booleans(),
)


@given(
    batches=st.lists(st.lists(puts, max_size=6), max_size=4),
    removed=st.sets(st.sampled_from([item.item_id for item in ITEMS])),
    compact=st.booleans(),
    category=st.none() | st.lists(st.sampled_from(["puzzle", "action", "new"]), min_size=1, max_size=2),
    available_only=st.booleans(),
)
def test_after_changes_too(
    batches: list[list[Change]],
    removed: set[str],
    compact: bool,
    category: list[str] | None,
    available_only: bool,
) -> None:
    """Each state's arrays made from those before, as a server makes them."""
    slots = SLOTS
    catalog = change_catalog(slots.catalog, [Change("remove", item_id) for item_id in sorted(removed)])
    catalog = catalog.compacted() if compact else catalog
    for batch in [[], *batches]:
        catalog = change_catalog(catalog, batch)
        slots = slots.advance(catalog)
        excluded = {"i1", "j1", "unknown"}
        chosen = select_candidates(slots, Filters(category=category, available_only=available_only), excluded)
        assert_obvious(chosen, catalog, category, available_only, excluded)


def assert_obvious(
    chosen: Candidates, catalog: Catalog, category: list[str] | None, available_only: bool, excluded: set[str]
) -> None:
    def place(item: Item) -> int:
        return catalog.items.index(item)

    expected = [
        item
        for item in catalog.items
        if (category is None or set(category) & set(item.category.split("|")))
        and (item.available or not available_only)
        and item.item_id not in excluded
    ]
    rows = range(len(catalog))
    assert sorted((item for row in rows for item in chosen.items_of(row)), key=place) == expected
    expected_rows = {catalog.find_item_row(item.item_id) for item in expected}
    assert {row for row in rows if chosen.rows[row]} == expected_rows
