"""Tries on disk: made once, found again, refused when damaged and then made again."""

import os
from pathlib import Path

import numpy as np
import pytest

from index.artifact import text_digest
from index.catalog.catalog import Catalog, Item
from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError, SoftrecError
from index.titles.held_folder import hold_folder
from index.titles.trie_store import build_trie, open_trie, read_trie, trie_dir, write_trie


class LetterTokenization:
    """A token per letter, 0 at the end; at most six letters."""

    tokenization_digest = "letters" * 4

    def completion_ids(self, title: str) -> tuple[int, ...]:
        return (*title.encode(), 0)

    def fits(self, title: str) -> bool:
        return len(title) <= 6


CATALOG = Catalog.from_items([Item("a", "Tetris"), Item("b", "Doom"), Item("c", "A long title"), Item("d", "Dota")])


def test_an_opened_trie_is_the_built_one_and_is_kept(tmp_path: Path) -> None:
    opened = open_trie(tmp_path, CATALOG, LetterTokenization())
    again = read_trie(trie_dir(tmp_path, CATALOG, LetterTokenization()))
    built = build_trie(CATALOG, LetterTokenization())
    for name, array in vars(built).items():
        assert (array == getattr(opened, name)).all()
        assert (array == getattr(again, name)).all()
    assert again.rows[again.begin[1] : again.end[1]].tolist() == [1, 3]  # of the root's first child: D, before T


def test_titles_too_long_to_be_written_have_no_place(tmp_path: Path) -> None:
    trie = open_trie(tmp_path, CATALOG, LetterTokenization())
    assert sorted(trie.rows.tolist()) == [0, 1, 3]
    with pytest.raises(SoftrecError, match="raise max_title_tokens"):
        build_trie(CATALOG, LetterTokenization(), rows=[2])


def test_a_damaged_trie_is_never_read_but_made_again(tmp_path: Path) -> None:
    open_trie(tmp_path, CATALOG, LetterTokenization())
    directory = trie_dir(tmp_path, CATALOG, LetterTokenization())
    file = directory / "rows.npy"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(CorruptArtifactError, match=r"rows\.npy"):
        read_trie(directory)
    built = build_trie(CATALOG, LetterTokenization())
    assert (open_trie(tmp_path, CATALOG, LetterTokenization()).rows == built.rows).all()
    assert (read_trie(directory).rows == built.rows).all()


def test_another_catalog_has_another_trie_but_another_category_has_not(tmp_path: Path) -> None:
    tokenization = LetterTokenization()
    same = Catalog.from_items([Item(item.item_id, item.title, "x") for item in CATALOG.items])
    other = Catalog.from_items(CATALOG.items[:2])
    assert trie_dir(tmp_path, CATALOG, tokenization) == trie_dir(tmp_path, same, tokenization)
    assert trie_dir(tmp_path, CATALOG, tokenization) != trie_dir(tmp_path, other, tokenization)
    with pytest.raises(MissingArtifactError):
        read_trie(trie_dir(tmp_path, other, tokenization))


@pytest.mark.parametrize("fact", ["titles_digest", "tokenization_digest"])
def test_a_trie_of_something_else_under_this_name_is_refused_and_made_again(tmp_path: Path, fact: str) -> None:
    """The folder's name holds eight digits of each digest, so another's may come to lie there."""
    right = open_trie(tmp_path, CATALOG, LetterTokenization())
    directory = trie_dir(tmp_path, CATALOG, LetterTokenization())
    facts = {
        "titles_digest": text_digest(*CATALOG.titles),
        "tokenization_digest": LetterTokenization.tokenization_digest,
    }
    write_trie(directory, build_trie(CATALOG, LetterTokenization(), [0]), **facts | {fact: facts[fact][:8] + "another"})
    with pytest.raises(MismatchError, match=f"{fact}: expected .*, found .*another; remove the folder"):
        read_trie(directory, **facts)
    assert open_trie(tmp_path, CATALOG, LetterTokenization()).rows.tolist() == right.rows.tolist()
    assert read_trie(directory, **facts).rows.tolist() == right.rows.tolist()


class OtherTokenization(LetterTokenization):
    tokenization_digest = "capitals" * 4


def test_tries_of_replaced_titles_go_unless_they_are_held(tmp_path: Path) -> None:
    catalogs = [Catalog.from_items(CATALOG.items[:n]) for n in (2, 3, 4)]
    first, second, third = (trie_dir(tmp_path, catalog, LetterTokenization()) for catalog in catalogs)
    mapped = [open_trie(tmp_path, catalogs[0], LetterTokenization()) for _ in range(2)][1]
    open_trie(tmp_path, catalogs[0], OtherTokenization())
    assert len(list((tmp_path / "tries").iterdir())) == 2  # the same titles in another tokenization
    open_trie(tmp_path, catalogs[1], LetterTokenization())
    assert [path.resolve() for path in (tmp_path / "tries").iterdir()] == [second.resolve()]
    assert sorted(mapped.rows.tolist()) == [0, 1]  # who has mapped it goes on with it
    held = hold_folder(second)
    open_trie(tmp_path, catalogs[2], LetterTokenization())
    assert (first.exists(), second.exists(), third.exists()) == (False, True, True)
    os.close(held)
    open_trie(tmp_path, catalogs[0], LetterTokenization())
    assert (first.exists(), second.exists(), third.exists()) == (True, False, False)


def test_a_trie_read_back_looks_up_in_plain_arrays(tmp_path: Path) -> None:
    open_trie(tmp_path, CATALOG, LetterTokenization())
    trie = open_trie(tmp_path, CATALOG, LetterTokenization())
    assert all(type(array) is np.ndarray for array in vars(trie).values())
