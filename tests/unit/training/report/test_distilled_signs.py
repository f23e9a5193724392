from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item
from training.errors import EmptyDataError
from training.report.distilled_signs import DISTINCT_TRUE, RANDOM_PAIR, TOP_TRUE, DistilledSigns, describe_distilled

GAMES = Catalog.from_items(
    [Item("a", "Doom", "action"), Item("b", "Quake", "action"), Item("c", "Myst", "puzzle"), Item("d", "Pong", "retro")]
)
MIXED = Catalog.from_items(
    [Item("a", "Doom", "action|retro"), Item("b", "Quake", "action"), Item("c", "Myst", "puzzle"), Item("d", "Pong")]
)
TITLES = ("Doom", "Quake", "Myst", "Pong")
PAIRS = st.lists(st.tuples(st.sampled_from((*TITLES, "Dom", "")), st.sampled_from(TITLES)), min_size=1, max_size=12)


def describe(pairs: list[tuple[str, str]], catalog: Catalog = GAMES) -> DistilledSigns:
    return describe_distilled([a for a, _ in pairs], [b for _, b in pairs], catalog)


def categories(title: str, catalog: Catalog) -> set[str]:
    row = catalog.find_title_row(title)
    return set() if row is None else set(catalog.category_of(row).split("|")) - {""}


def test_every_share_stands_beside_its_chance_level():
    """Five windows: true Doom, Myst, Pong, Quake, Doom; written Doom, Doom, Doom, Quake and a misspelt Dom.

    Equal to the truth: the first and the fourth. Random pair: Doom 3 * 2 and Quake 1 * 1 of 25 pairs. Same category:
    the same two, Dom being none; written action 4 times against true action 3 times: 12 of 25. Action is 3 of the 5
    true categories, and Doom, the most popular title, is action.
    """
    pairs = [("Doom", "Doom"), ("Doom", "Myst"), ("Doom", "Pong"), ("Quake", "Quake"), ("Dom", "Doom")]
    signs = {sign.name: sign for sign in describe(pairs).signs}
    assert {name: (sign.share, sign.n) for name, sign in signs.items()} == {
        "distilled_unique": (3 / 5, 5),
        "distilled_top10": (1.0, 5),
        "distilled_true": (2 / 5, 5),
        "distilled_off_catalog": (pytest.approx(1 / 5), 5),
        "distilled_category": (2 / 5, 5),
    }
    assert signs["distilled_unique"].beside == {DISTINCT_TRUE: 4 / 5, "one title for everybody": 1 / 5}
    assert signs["distilled_top10"].beside == {TOP_TRUE: 1.0, "no title twice": 1.0}
    assert signs["distilled_true"].beside == {RANDOM_PAIR: 7 / 25, "always the most popular true title": 2 / 5}
    assert signs["distilled_off_catalog"].beside == {}
    assert signs["distilled_category"].beside == {
        "exactly the true title": 2 / 5,
        RANDOM_PAIR: 12 / 25,
        "always the most frequent category": 3 / 5,
        "always the most popular true title": 3 / 5,
    }


@given(PAIRS)
def test_a_random_pair_is_the_mean_over_all_pairs(pairs: list[tuple[str, str]]):
    """The slow version: every distilled title against every true one, one by one."""
    signs = describe(pairs, MIXED)
    every = [(a, b) for a, _ in pairs for _, b in pairs]
    same = signs.find("distilled_true")
    assert same is not None
    assert same.beside[RANDOM_PAIR] == pytest.approx(sum(a == b for a, b in every) / len(every))
    kept = [(a, b) for a, b in pairs if categories(b, MIXED)]
    every = [(categories(a, MIXED), categories(b, MIXED)) for a, _ in kept for _, b in kept]
    for name, agree in (
        ("distilled_category", lambda a, b: a == b),
        ("distilled_category_shared", lambda a, b: bool(a & b)),
    ):
        if (sign := signs.find(name)) is not None:
            assert sign.beside[RANDOM_PAIR] == pytest.approx(sum(agree(a, b) for a, b in every) / len(every))
            assert sign.n == len(kept)
            assert sign.share == pytest.approx(
                sum(agree(categories(a, MIXED), categories(b, MIXED)) for a, b in kept) / len(kept)
            )


@given(PAIRS)
def test_shares_are_shares_and_the_order_of_windows_does_not_matter(pairs: list[tuple[str, str]]):
    signs = describe(pairs, MIXED)
    assert all(0 <= share <= 1 for sign in signs.signs for share in (sign.share, *sign.beside.values()))
    assert describe(pairs[::-1], MIXED).metrics() == signs.metrics()
    assert DistilledSigns.from_json(json.loads(json.dumps(asdict(signs)))) == signs


@given(PAIRS)
def test_one_category_per_item_makes_no_second_sign(pairs: list[tuple[str, str]]):
    assert describe(pairs).find("distilled_category_shared") is None


def test_spelling_that_the_catalog_forgives_is_forgiven():
    signs = describe([("DOOM ", "Doom"), ("doom", "Doom")])
    assert signs.metrics() == {
        "distilled_unique": 0.5,
        "distilled_top10": 1.0,
        "distilled_true": 1.0,
        "distilled_off_catalog": 0.0,
        "distilled_category": 1.0,
        "distilled_titles": 2.0,
    }


def test_what_has_no_category_is_left_out_and_said():
    """Of (Doom, Doom) and (Pong, Pong) only the first has a category; a catalog without any has no such sign."""
    signs = describe([("Doom", "Doom"), ("Pong", "Pong")], MIXED)
    sign = signs.find("distilled_category")
    assert sign is not None
    assert (sign.share, sign.n) == (1.0, 1)
    assert "1 true titles without a category" in signs.notes[0]
    bare = describe([("Doom", "Doom")], Catalog.from_items([Item("a", "Doom")]))
    assert bare.find("distilled_category") is None
    assert "no categories" in bare.notes[0]


def test_no_titles_and_lists_of_unlike_length_are_refused():
    with pytest.raises(EmptyDataError, match="no distilled titles"):
        describe_distilled([], [], GAMES)
    with pytest.raises(ValueError, match="shorter"):
        describe_distilled(["Doom", "Myst"], ["Doom"], GAMES)
