"""Tries on disk: made once, found again, refused when damaged and then made anew."""

from pathlib import Path

import numpy as np
import pytest

from index.catalog import Catalog, Item
from index.errors import CorruptArtifactError, MissingArtifactError, SoftrecError
from index.trie_store import build_trie, open_trie, read_trie, trie_dir, unreachable_rows


class LetterSpelling:
    """A token per letter, 0 at the end; at most six letters."""

    spelling_digest = "letters" * 4

    def completion_ids(self, title: str) -> tuple[int, ...]:
        return (*title.encode(), 0)

    def fits(self, title: str) -> bool:
        return len(title) <= 6


CATALOG = Catalog.from_items([Item("a", "Tetris"), Item("b", "Doom"), Item("c", "A long title"), Item("d", "Dota")])


def test_an_opened_trie_is_the_built_one_and_is_kept(tmp_path: Path) -> None:
    opened = open_trie(tmp_path, CATALOG, LetterSpelling())
    again = read_trie(trie_dir(tmp_path, CATALOG, LetterSpelling()))
    built = build_trie(CATALOG, LetterSpelling())
    for name, array in vars(built).items():
        assert (array == getattr(opened, name)).all()
        assert (array == getattr(again, name)).all()
    assert again.rows_below(1).tolist() == [1, 3]  # of the root's first child: D, before T


def test_titles_too_long_to_be_written_have_no_place(tmp_path: Path) -> None:
    trie = open_trie(tmp_path, CATALOG, LetterSpelling())
    assert unreachable_rows(trie, len(CATALOG)).tolist() == [2]
    with pytest.raises(SoftrecError, match="raise max_title_tokens"):
        build_trie(CATALOG, LetterSpelling(), rows=[2])


def test_a_damaged_trie_is_never_read_but_made_again(tmp_path: Path) -> None:
    open_trie(tmp_path, CATALOG, LetterSpelling())
    directory = trie_dir(tmp_path, CATALOG, LetterSpelling())
    file = directory / "rows.npy"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(CorruptArtifactError, match=r"rows\.npy"):
        read_trie(directory)
    assert (open_trie(tmp_path, CATALOG, LetterSpelling()).rows >= 0).all()
    assert len(read_trie(directory)) > 0


def test_another_catalog_has_another_trie_but_another_category_has_not(tmp_path: Path) -> None:
    spelling = LetterSpelling()
    same = Catalog.from_items([Item(item.item_id, item.title, "x") for item in CATALOG.items])
    other = Catalog.from_items(CATALOG.items[:2])
    assert trie_dir(tmp_path, CATALOG, spelling) == trie_dir(tmp_path, same, spelling)
    assert trie_dir(tmp_path, CATALOG, spelling) != trie_dir(tmp_path, other, spelling)
    with pytest.raises(MissingArtifactError):
        read_trie(trie_dir(tmp_path, other, spelling))


def test_a_trie_read_back_looks_up_in_plain_arrays(tmp_path: Path) -> None:
    open_trie(tmp_path, CATALOG, LetterSpelling())
    trie = open_trie(tmp_path, CATALOG, LetterSpelling())
    assert all(type(array) is np.ndarray for array in vars(trie).values())
