"""Tries where an engine's process finds them: what they cover, and how long their files live."""

import gc
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from index.catalog.catalog import Catalog, Item
from index.titles.trie import TitleTrie
from index.titles.trie_store import build_trie, map_trie, open_trie
from serving.engine import title_tries
from serving.engine.title_mask import TRIES
from serving.engine.title_tries import StoredTitles, TitleTries
from serving.errors import EngineUnavailableError
from tests.tiny_shop import ITEMS, TEMPLATE, tiny_catalog, write_tiny_tokenizer
from training.prompt import PromptRenderer

Renderer = PromptRenderer


@pytest.fixture
def renderer(tmp_path: Path) -> Renderer:
    return PromptRenderer(TEMPLATE, write_tiny_tokenizer(tmp_path / "base"), end_id=256)


@pytest.fixture
def tries(tmp_path: Path, renderer: Renderer) -> TitleTries:
    return TitleTries.open(tmp_path, tiny_catalog(), renderer)


def rows_of(stored: StoredTitles, renderer: Renderer, catalog: Catalog) -> list[int]:
    """Rows whose title can be written all through, and is theirs at its end."""
    found = []
    for row, title in enumerate(catalog.titles):
        position = stored.allowed.start
        try:
            for token in renderer.completion_ids(title):
                position = stored.allowed.follow(position, token)
        except KeyError:
            continue
        if row in stored.allowed.rows(position):
            found.append(row)
    return found


def files_of(stored: StoredTitles) -> list[Path]:
    return [Path(file) for _, file, _ in stored.at(stored.allowed.start)[TRIES] if file is not None]


def test_a_grown_catalog_gets_a_small_trie_beside_the_large_one(tries: TitleTries, renderer: Renderer) -> None:
    grown = Catalog.from_items([*ITEMS, Item("i9", "Portal 2"), Item("i10", "x" * 50), Item("i11", "Riven")])
    later = tries.grown(grown, renderer)
    old, new = tries.allowed_titles(), later.allowed_titles()
    assert rows_of(old, renderer, tiny_catalog()) == list(range(7))
    assert rows_of(new, renderer, grown) == [*range(8), 9]  # the title of fifty is too long to be written
    assert later.n_rows == 9
    assert new.folders[0] == old.folders[0]
    first, second = (
        tries.grown(tiny_catalog(), renderer).allowed_titles(),
        later.grown(grown, renderer).allowed_titles(),
    )
    assert (len(first.folders), len(second.folders)) == (1, 2)
    assert rows_of(second, renderer, grown) == [*range(8), 9]


def test_a_title_costs_the_same_however_many_came_before_it(
    tries: TitleTries, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 4, 8, 16 ... titles: counts the titles that are tokenized again, title by title, up to 24 added."""
    monkeypatch.setattr(title_tries, "_BLOCK", 4)
    tokenized: list[int] = []

    def build(catalog: Catalog, tokenization: Renderer, rows: Sequence[int]) -> TitleTrie:
        tokenized.append(len(rows))
        return build_trie(catalog, tokenization, rows)

    monkeypatch.setattr(title_tries, "build_trie", build)
    items = [Item(f"n{number}", f"New {number}") for number in range(24)]
    for n in range(25):
        catalog = Catalog.from_items([*ITEMS, *items[:n]])
        tokenized.clear()
        tries = tries.grown(catalog, renderer)
        assert tries.n_rows == 7 + n
        assert len(tries.allowed_titles().folders) <= 2 + (n // 4).bit_length()
        # n & -n, its largest power of two, is what is put together at a multiple of four; else the rest
        assert sum(tokenized) == (n & -n if n % 4 == 0 else n % 4)
        if n % 12 == 0:
            assert rows_of(tries.allowed_titles(), renderer, catalog) == list(range(7 + n))
    late = tries.grown(catalog, renderer).allowed_titles()
    assert [len(one.trie.rows) for one in late.allowed.tries] == [7, 16, 8]


def test_nothing_is_left_where_a_trie_cannot_be_written(
    tries: TitleTries, renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *arguments: object) -> None:
        path.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(title_tries, "write_trie", fail)
    with pytest.raises(OSError, match="No space"):
        tries.grown(Catalog.from_items([*ITEMS, Item("i9", "Portal 2")]), renderer)
    [home] = (tmp_path / "tries" / "served").iterdir()
    assert list(home.iterdir()) == []


def test_a_request_whose_files_cannot_be_written_is_refused(tries: TitleTries, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(title_tries.np, "save", fail)
    with pytest.raises(EngineUnavailableError, match=r"No space.*let the server write there"):
        tries.allowed_titles(np.arange(7) != 3)


def test_a_filter_that_a_full_disk_cut_off_is_written_again(tries: TitleTries, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_a_part(path: Path, counts: object) -> None:
        path.write_bytes(b"\x93NUMPY")
        raise OSError(28, "No space left on device")

    allowed = np.arange(7) != 3
    with monkeypatch.context() as full:
        full.setattr(title_tries.np, "save", save_a_part)
        with pytest.raises(EngineUnavailableError):
            tries.allowed_titles(allowed)
    titles = tries.allowed_titles(allowed)
    [one], [file] = titles.allowed.tries, files_of(titles)
    assert np.load(file).tolist() == one.title_filter.counts.tolist()


def test_lost_files_are_written_again_with_the_next_request(
    tries: TitleTries, renderer: Renderer, tmp_path: Path
) -> None:
    """A clean-up of the host removes all of `index/tries` while requests and snapshots hold files there."""
    grown = tries.grown(Catalog.from_items([*ITEMS, Item("i9", "Portal 2")]), renderer)
    allowed = np.arange(8) != 3
    held = grown.allowed_titles(allowed)
    shutil.rmtree(tmp_path / "tries")
    again = grown.allowed_titles(allowed)
    for titles in (held, again):
        assert [map_trie(folder).rows.tolist() for folder in titles.folders] == [
            one.trie.rows.tolist() for one in titles.allowed.tries
        ]
        assert [np.load(file).tolist() for file in files_of(titles)] == [
            one.title_filter.counts.tolist() for one in titles.allowed.tries
        ]
    assert (
        TitleTries.open(tmp_path, tiny_catalog(), renderer).n_rows == 7
    )  # the base trie is whole again, with its facts
    assert all(folder.is_dir() for folder in again.folders)  # and that server took nothing from this one


def test_the_folder_of_a_killed_server_is_removed_by_the_next(tmp_path: Path, renderer: Renderer) -> None:
    served = tmp_path / "tries" / "served"
    code = (
        "import os, signal, sys, pathlib; from index.titles.held_folder import HeldFolder; "
        "home = HeldFolder(pathlib.Path(sys.argv[1])); home.new_path().write_text('trie'); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(served)], check=False).returncode == -signal.SIGKILL
    [left] = served.iterdir()
    first = TitleTries.open(tmp_path, tiny_catalog(), renderer)
    second = TitleTries.open(tmp_path, tiny_catalog(), renderer)
    assert left not in served.iterdir()
    assert len(list(served.iterdir())) == 2  # two living ones leave each other alone
    del first, second
    gc.collect()
    assert list(served.iterdir()) == []


def test_the_trie_of_a_running_server_is_not_removed_by_who_makes_another(tmp_path: Path, renderer: Renderer) -> None:
    tries = TitleTries.open(tmp_path, tiny_catalog(), renderer)
    grown = tries.grown(tiny_catalog(), renderer)
    del tries
    open_trie(tmp_path, Catalog.from_items(ITEMS[:3]), renderer)
    [folder] = grown.allowed_titles().folders
    assert map_trie(folder).rows.tolist() == grown.allowed_titles().allowed.tries[0].trie.rows.tolist()
    del grown
    open_trie(tmp_path, Catalog.from_items(ITEMS[:5]), renderer)
    assert not folder.exists()


def test_a_filter_is_a_file_that_its_requests_share_and_no_filter_is_none(tries: TitleTries) -> None:
    some = np.arange(7) % 2 == 0
    assert files_of(tries.allowed_titles(some)) == files_of(tries.allowed_titles(some.copy(), excluded=[0]))
    assert files_of(tries.allowed_titles(~some)) != files_of(tries.allowed_titles(some))
    assert files_of(tries.allowed_titles(np.ones(7, dtype=bool))) == files_of(tries.allowed_titles()) == []


def test_a_filter_asked_for_again_outlives_the_request_that_brought_it_first(tries: TitleTries) -> None:
    first = tries.allowed_titles(np.arange(7) != 3)
    for number in range(40):  # more filters than are kept
        tries.allowed_titles(np.array([number >> at & 1 for at in range(7)], dtype=bool))
    again = tries.allowed_titles(np.arange(7) != 3)
    del first
    gc.collect()
    [file] = files_of(again)
    assert np.load(file).tolist() == again.allowed.tries[0].title_filter.counts.tolist()


def test_files_live_as_long_as_a_request_or_a_snapshot_holds_them(tries: TitleTries, renderer: Renderer) -> None:
    held = tries.allowed_titles(np.arange(7) != 3)
    forgotten = files_of(tries.allowed_titles(np.arange(7) != 4))
    for number in range(40):  # more filters than are kept
        tries.allowed_titles(np.array([number >> at & 1 for at in range(7)], dtype=bool))
    gc.collect()
    assert not forgotten[0].exists()
    [file] = files_of(held)
    assert file.is_file()
    grown = tries.grown(Catalog.from_items([*ITEMS, Item("i9", "Portal 2")]), renderer)
    request = grown.allowed_titles()
    added = request.folders[1]
    del grown
    gc.collect()
    assert added.is_dir()
    del request
    gc.collect()
    assert not added.exists()
