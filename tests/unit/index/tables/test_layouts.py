from pathlib import Path

import pytest

from index.errors import InputError
from index.tables.layouts import INTERACTION_LAYOUTS, ITEM_LAYOUTS, find_layout

FILE = Path("shop.csv")


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (("item_id", "title"), "softrec items"),
        (("price", "title", "item_id", "available"), "softrec items"),
        (("movieId", "title", "genres"), "MovieLens movies"),
        (("main_category", "title", "images", "parent_asin", "categories"), "Amazon 2023 metadata"),
    ],
)
def test_item_layouts_are_told_from_their_columns(columns: tuple[str, ...], name: str) -> None:
    assert find_layout(FILE, columns, ITEM_LAYOUTS).name == name


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (("user_id", "item_id", "timestamp"), "softrec interactions"),
        (("userId", "movieId", "rating", "timestamp"), "MovieLens ratings"),
        (("user_id", "parent_asin", "rating", "timestamp"), "Amazon 2023 reviews"),
        (("rating", "title", "text", "asin", "parent_asin", "user_id", "timestamp"), "Amazon 2023 reviews"),
    ],
)
def test_interaction_layouts_are_told_from_their_columns(columns: tuple[str, ...], name: str) -> None:
    assert find_layout(FILE, columns, INTERACTION_LAYOUTS).name == name


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("ItemID", "title"), "no column 'item_id' (did you mean 'ItemID'? rename it)"),
        (("item_id", "Title"), "no column 'title' (did you mean 'Title'? rename it)"),
        (("movie_id", "name"), "no column 'item_id' (did you mean 'movie_id'? rename it)"),
        (("movie_id", "name"), "no column 'title' (did you mean 'name'? rename it)"),
        (("item_id", "zzz"), "line 1: no column 'title'; columns seen: item_id, zzz; name the columns item_id, title"),
    ],
)
def test_a_missing_column_is_named_with_what_was_seen_and_a_guess(columns: tuple[str, ...], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        find_layout(FILE, columns, ITEM_LAYOUTS)
    assert expected in str(caught.value)
    assert f"columns seen: {', '.join(columns)}" in str(caught.value)


def test_exchanged_files_are_recognised() -> None:
    with pytest.raises(InputError, match="looks like softrec interactions: were --items and --interactions exchanged"):
        find_layout(FILE, ("user_id", "item_id", "timestamp"), ITEM_LAYOUTS)
    with pytest.raises(InputError, match="looks like softrec items"):
        find_layout(FILE, ("item_id", "title"), INTERACTION_LAYOUTS)


def test_a_log_without_times_is_told_how_to_number_its_rows() -> None:
    with pytest.raises(InputError, match="number each user's rows 1, 2, 3"):
        find_layout(FILE, ("user_id", "item_id"), INTERACTION_LAYOUTS)
