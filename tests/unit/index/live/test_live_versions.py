"""Versions of a live index: merged, activated by others, rolled back, damaged."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.catalog.catalog import Catalog, Item, write_catalog
from index.catalog.changes import Change
from index.errors import CorruptArtifactError
from index.live.live import LiveIndex
from index.live.snapshot import Snapshot, load_active
from index.live.versions import activate, build_index, check_version, list_versions, read_active
from index.search.kind import build_search
from index.workspace import ShopSettings, Workspace
from tests.unit.index.letter_encoder import LetterEncoder
from tests.unit.index.live_shop import ORIGIN, POPULARITY, journal_of, make_shop, opened, settle


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    return make_shop(tmp_path / "shop")


def test_a_merge_embeds_nothing_and_covers_all(shop: Workspace) -> None:
    encoder = LetterEncoder()
    live = LiveIndex(shop, encoder, merge_at=0)
    live.apply(Change("put", "e", "new"))
    live.apply(Change("remove", "a"))
    held, first = live.snapshot, live.snapshot.version
    encoder.encoded.clear()
    merged = live.merge()
    assert encoder.encoded == []
    assert (live.snapshot.version, live.pending) == (merged, 0)
    assert live.snapshot.label == f"{merged}+2"
    assert merged is not None
    assert merged.startswith("0002-")
    assert list_versions(shop.index_dir) == [first, merged]
    assert live.merge() is None
    assert held.grounder.rank(["new"], 1)[0].rows.tolist() == [3]  # an old snapshot stays as it was
    loaded = load_active(shop.index_dir, ORIGIN, journal_of(shop), encoder=encoder)
    assert (loaded.catalog.items, loaded.position) == (live.snapshot.catalog.items, live.snapshot.position)
    live.close()


def test_a_merge_gives_way_to_what_was_made_active_meanwhile(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    [first] = list_versions(shop.index_dir)
    second = build_index(shop.index_dir, ORIGIN, LetterEncoder(), POPULARITY)
    notes: list[str] = []
    live = LiveIndex(shop, LetterEncoder(), merge_at=0, note=notes.append)
    live.apply(Change("put", "e", "new"))

    def build(*arguments: Any, **options: Any) -> Any:
        activate(shop.index_dir, first)  # somebody goes back, while the merge runs
        return build_search(*arguments, **options)

    monkeypatch.setattr("index.live.versions.build_search", build)
    assert live.merge() is None
    assert read_active(shop.index_dir) == first
    assert list_versions(shop.index_dir) == [first, second]
    assert f"{first} was made active meanwhile" in notes[-1]
    live.refresh()
    settle(live)
    assert live.snapshot.label == f"{first}+1"
    live.close()


def test_a_merge_asks_for_the_same_kind_of_search(tmp_path: Path) -> None:
    """Of 1 200 random titles; an approximate search finds a title's own row, added or not, and no removed one."""
    letters = np.random.default_rng(0).integers(97, 123, (1200, 12), dtype=np.uint8)
    catalog = Catalog.from_items(Item(str(number), bytes(row).decode()) for number, row in enumerate(letters))
    workspace = Workspace.create(tmp_path, ShopSettings())
    write_catalog(workspace.catalog_path, catalog)
    counts = np.zeros(len(catalog), dtype=np.int64)
    build_index(workspace.index_dir, catalog, LetterEncoder(), counts, kind="pq", recall_floor=0.9)
    with opened(workspace) as live:
        live.apply(Change("remove", "7"))
        live.apply(Change("put", "new", "zzzyyyxxx"))
        for _ in range(2):
            texts = [catalog.titles[7], "zzzyyyxxx", catalog.titles[3]]
            found = [ranking.rows[0] for ranking in live.snapshot.grounder.rank(texts, 3)]
            assert found[0] != 7
            assert found[1:] == [1200, 3]
            live.merge()
    manifest = check_version(workspace.index_dir, live.snapshot.version)
    assert manifest.body["search"]["kind"] == "pq"
    assert manifest.body["asked_for"] == {"kind": "pq", "recall_floor": 0.9}
    assert manifest.body["rows"] == 1201


def test_many_changes_are_merged_in_the_background(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.live.live._KEEP", 2)
    with opened(shop, merge_at=3) as live:
        for number in range(12):
            live.apply(Change("put", f"n{number}", f"title {'x' * number}"))
    assert live.pending < 12
    assert len(list_versions(shop.index_dir)) == 2
    with opened(shop) as again:
        assert again.snapshot.catalog.items == live.snapshot.catalog.items


def test_a_merge_that_is_due_while_a_version_is_loaded_is_made_after_it(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last change finds the background busy, and nothing comes after it."""
    with opened(shop, merge_at=2) as live:
        loading, go_on = threading.Event(), threading.Event()

        def load(*arguments: Any, **options: Any) -> Snapshot:
            loading.set()
            assert go_on.wait(10)
            return load_active(*arguments, **options)

        monkeypatch.setattr("index.live.live.load_active", load)
        build_index(shop.index_dir, ORIGIN, LetterEncoder(), POPULARITY)
        live.refresh()
        assert loading.wait(10)
        for name in ("x", "y", "z"):
            live.apply(Change("put", name, f"title {name}"))
        go_on.set()
        settle(live)
        settle(live)
        assert live.pending == 0
        assert [name[:4] for name in list_versions(shop.index_dir)] == ["0001", "0002", "0003"]


def test_a_rollback_undoes_an_index_and_no_change(shop: Workspace) -> None:
    with opened(shop) as live:
        first = live.snapshot.version
        live.apply(Change("put", "e", "new"))
        live.merge()
        activate(shop.index_dir, first)
        live.refresh()
        settle(live)
        assert live.snapshot.label == f"{first}+1"
        assert live.snapshot.catalog.find_item_row("e") == 3


def test_a_damaged_version_that_was_made_active_is_a_problem_until_another_one_is(shop: Workspace) -> None:
    with opened(shop) as live:
        first = live.snapshot.version
        live.apply(Change("put", "e", "new"))
        second = live.merge()
        assert second is not None
        path = shop.index_dir / first / "vectors.faiss"
        path.write_bytes(path.read_bytes()[:-4])
        activate(shop.index_dir, first)
        live.refresh()
        settle(live)
        assert live.snapshot.version == second
        with pytest.raises(CorruptArtifactError, match=r"vectors\.faiss: changed since"):
            live.apply(Change("remove", "e"))
        activate(shop.index_dir, second)
        live.refresh()
        settle(live)
        assert (live.snapshot.version, live.problem) == (second, None)
