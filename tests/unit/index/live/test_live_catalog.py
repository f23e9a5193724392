"""A catalog under changes, against a plain dict and a list of titles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item, normalise_title
from index.catalog.changes import Change, change_catalog, parse_change
from index.errors import UnknownItemError

ORIGIN = (Item("a", "Tetris", "puzzle"), Item("b", "Doom"), Item("c", "TETRIS"), Item("d", "Myst", available=False))
TITLES = ("Tetris", "tetris ", "Doom", "Zork", "zork", "Pong")

ids = st.sampled_from(["a", "b", "c", "d", "e", "f"])
puts = st.builds(
    Change, st.just("put"), ids, st.sampled_from(TITLES), st.sampled_from(["", "x"]), st.none() | st.booleans()
)
patches = st.builds(
    Change,
    st.just("patch"),
    ids,
    st.none() | st.sampled_from(TITLES),
    st.none() | st.sampled_from(["", "y"]),
    st.booleans(),
)
removals = st.builds(Change, st.just("remove"), ids)
changes = st.lists(puts | patches | removals, max_size=25)


class Model:
    """The slow, obvious catalog: a dict of items, and every title that ever was, in order."""

    def __init__(self) -> None:
        self.items = {item.item_id: item for item in ORIGIN}
        self.titles: list[str] = []
        self.seen: list[str] = []
        self._note()

    def apply(self, change: Change) -> None:
        item = change.apply_to(self.items.get(change.item_id))
        if item is None:
            del self.items[change.item_id]
        else:
            self.items[change.item_id] = item
        self._note()

    def _note(self) -> None:
        for item in self.items.values():
            if item.item_id not in self.seen:
                self.seen.append(item.item_id)
            if normalise_title(item.title) not in map(normalise_title, self.titles):
                self.titles.append(item.title)

    def items_of(self, title: str) -> tuple[Item, ...]:
        wanted = normalise_title(title)
        there = [self.items[name] for name in self.seen if name in self.items]
        return tuple(item for item in there if normalise_title(item.title) == wanted)


def possible(steps: list[Change]) -> list[Change]:
    """The steps that change something that is there at that point."""
    model, kept = Model(), []
    for step in steps:
        if step.op == "put" or step.item_id in model.items:
            model.apply(step)
            kept.append(step)
    return kept


def assert_is(catalog: Catalog, model: Model) -> None:
    assert list(catalog.titles) == model.titles
    assert {item.item_id: item for item in catalog.items} == model.items
    for row, title in enumerate(model.titles):
        expected = model.items_of(title)
        assert catalog.items_of(row) == expected
        assert catalog.find_title_row(title) == (row if expected else None)
        assert catalog.category_of(row) == (expected[0].category if expected else "")
        assert (row in catalog.empty_rows) == (not expected)
        for item in expected:
            assert catalog.find_item(item.item_id) == item
            assert catalog.find_item_row(item.item_id) == catalog.recall_item_row(item.item_id) == row
    for item_id in set("abcdef") - set(model.items):
        assert catalog.find_item(item_id) is catalog.find_item_row(item_id) is None
        assert (catalog.recall_item_row(item_id) is not None) == (item_id in model.seen)


@given(changes, st.lists(st.sampled_from(["apart", "together", "compact"]), min_size=25, max_size=25))
def test_any_changes_in_any_batches_give_the_obvious_catalog(steps: list[Change], how: list[str]) -> None:
    """One at a time, together, and laid over a compacted one: the same rows, items and digest."""
    steps = possible(steps)
    origin = Catalog.from_items(ORIGIN)
    model, now, waiting = Model(), origin, []
    for step, way in zip(steps, how[: len(steps)], strict=True):
        model.apply(step)
        waiting.append(step)
        if way != "together":
            now, waiting = change_catalog(now, waiting), []
        if way == "compact":
            now = now.compacted()
    now = change_catalog(now, waiting)
    whole = change_catalog(origin, steps)
    for catalog in (now, whole, whole.compacted()):
        assert_is(catalog, model)
        assert (catalog.digest, catalog.imported_digest) == (whole.digest, origin.digest)
    assert_is(origin, Model())  # what others look at is as it was


@given(changes)
def test_changed_slots_are_all_that_differs_from_the_base(steps: list[Change]) -> None:
    origin = Catalog.from_items(ORIGIN)
    catalog = change_catalog(origin, possible(steps))
    assert catalog.overlaid is origin
    for slot in set(range(len(catalog.slots))) - set(catalog.changed_slots):
        assert catalog.slots[slot] is origin.slots[slot]
        assert catalog.row_of_slot(slot) == origin.row_of_slot(slot)


def test_putting_an_item_back_restores_it_at_its_place() -> None:
    origin = Catalog.from_items(ORIGIN)
    gone = change_catalog(origin, [Change("remove", "a")])
    back = change_catalog(gone, [Change("put", "a", "Tetris", "puzzle")])
    assert back.items == origin.items
    assert back.items_of(0) == origin.items_of(0)


def test_availability_alone_leaves_the_digest() -> None:
    origin = Catalog.from_items(ORIGIN)
    hidden = change_catalog(origin, [Change("patch", "a", available=False)])
    assert hidden.digest == origin.digest
    assert change_catalog(origin, [Change("patch", "a", category="x")]).digest != origin.digest


def test_a_change_of_nothing_is_refused_and_nothing_is_changed() -> None:
    origin = Catalog.from_items(ORIGIN)
    for change in (Change("remove", "z"), Change("patch", "z", "Doom")):
        with pytest.raises(UnknownItemError, match="'z'"):
            change_catalog(origin, [Change("remove", "a"), change])
    assert_is(origin, Model())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "op must be one of put, patch, remove"),
        ({"op": "hide", "item_id": "a"}, "op must be one of"),
        ({"op": "put"}, "item_id must be a string"),
        ({"op": "put", "item_id": ""}, "empty item_id"),
        ({"op": "put", "item_id": "a" * 257, "title": "x"}, "item_id over 256"),
        ({"op": "put", "item_id": "a"}, "put needs a title"),
        ({"op": "put", "item_id": "a", "title": " \x00 "}, "empty title"),
        ({"op": "put", "item_id": "a", "title": "x" * 1001}, "title over 1000"),
        ({"op": "put", "item_id": "a", "title": 7}, "title must be a string"),
        ({"op": "put", "item_id": "a", "title": "x", "price": 1}, "unknown field"),
        ({"op": "put", "item_id": "a", "title": "\ud800"}, "empty title"),
        ({"op": "put", "item_id": "\ud800", "title": "x"}, "unpaired surrogate"),
        ({"op": "put", "item_id": "a", "title": "x", "category": "c" * 1001}, "category over 1000"),
        ({"op": "patch", "item_id": "a"}, "patch changes nothing"),
        ({"op": "patch", "item_id": "a", "available": "yes"}, "available must be true or false"),
        ({"op": "remove", "item_id": "a", "title": "x"}, "remove takes an item_id alone"),
    ],
)
def test_a_bad_change_is_refused_with_its_reason(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_change(fields)


@given(changes)
def test_a_change_survives_json(steps: list[Change]) -> None:
    for step in steps:
        again = parse_change(step.to_json())
        assert (again.op, again.item_id, again.category, again.available) == (
            step.op, step.item_id, step.category, step.available,
        )  # fmt: skip
        assert again.title == (step.title and step.title.strip())
