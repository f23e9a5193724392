import csv
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from clients.demo_shop import SHELVES, fill_shelf, next_item_chances, write_demo_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_demo_shop(folder, seed=3, users=200)
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(shop: Path, tmp_path: Path) -> None:
    write_demo_shop(tmp_path / "again", seed=3, users=200)
    write_demo_shop(tmp_path / "other", seed=4, users=200)
    for name in ("items.csv", "interactions.csv"):
        assert (shop / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (shop / "interactions.csv").read_bytes() != (tmp_path / "other" / "interactions.csv").read_bytes()


def test_exactly_one_title_is_sold_in_two_editions(shop: Path) -> None:
    items = read(shop / "items.csv")
    assert len({item["item_id"] for item in items}) == len(items)
    counts = Counter(item["title"] for item in items)
    assert [count for count in counts.values() if count > 1] == [2]
    assert {item["category"] for item in items} == set(SHELVES)
    assert 300 <= len(counts) <= 500


def test_every_user_has_6_to_30_interactions_in_order_and_buys_no_title_twice(shop: Path) -> None:
    titles = {item["item_id"]: item["title"] for item in read(shop / "items.csv")}
    by_user: dict[str, list[dict[str, str]]] = {}
    for row in read(shop / "interactions.csv"):
        by_user.setdefault(row["user_id"], []).append(row)
    assert set(by_user) == {str(user) for user in range(1, 201)}
    for rows in by_user.values():
        assert 6 <= len(rows) <= 30
        bought = [titles[row["item_id"]] for row in rows]
        assert len(set(bought)) == len(bought)
        seconds = [int(row["timestamp"]) for row in rows]
        assert all(earlier < later for earlier, later in pairwise(seconds))
        assert {int(row["rating"]) for row in rows} <= {1, 2, 3, 4, 5}


def test_next_instalments_follow_the_ones_before_far_more_often_than_a_popular_item_comes(shop: Path) -> None:
    """The signal a language model can read off the titles must beat what a popularity list can know."""
    titles = {item["item_id"]: item["title"] for item in read(shop / "items.csv")}
    interactions = read(shop / "interactions.csv")
    top = {item_id for item_id, _ in Counter(row["item_id"] for row in interactions).most_common(10)}
    owned: dict[str, set[str]] = {}
    continues = popular = 0
    for row in interactions:
        title, before = titles[row["item_id"]], owned.setdefault(row["user_id"], set())
        stem, _, number = title.rpartition(" ")
        continues += number.isdigit() and f"{stem} {int(number) - 1}" in before
        popular += row["item_id"] in top
        before.add(title)
    assert continues / len(interactions) > 0.4
    assert popular / len(interactions) < 0.1


def test_chances_add_up_and_leave_out_what_is_owned_or_not_released() -> None:
    shelf = fill_shelf(np.random.default_rng(0))
    taste = np.full(len(SHELVES), 1 / len(SHELVES))
    bought = [0, 1]  # two instalments of the first series; the last item is another edition of the first
    chances = next_item_chances(bought, shelf, 200.0, taste)
    assert chances.sum() == pytest.approx(1.0)
    assert chances[[0, 1, len(chances) - 1]].tolist() == [0.0, 0.0, 0.0]
    assert not chances[shelf.released_day > 200.0].any()
    follower = 2 if shelf.released_day[2] <= 200.0 else None
    assert follower is None or chances[follower] == chances.max()
