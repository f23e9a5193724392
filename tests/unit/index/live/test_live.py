"""The live index: one model of the catalog, whatever changes, merges, restarts and other processes do."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.catalog.catalog import Catalog, Item, read_catalog, write_catalog
from index.catalog.changes import Change
from index.errors import CorruptArtifactError, MismatchError, SoftrecError, UnknownItemError
from index.file_lock import file_lock
from index.live.live import LiveIndex
from index.live.snapshot import Snapshot, load_active
from index.live.versions import activate, build_index, list_versions
from index.workspace import Workspace
from tests.unit.index.letter_encoder import LetterEncoder
from tests.unit.index.live_shop import (
    ORIGIN,
    POPULARITY,
    TITLES,
    assert_shows,
    journal_of,
    make_shop,
    opened,
    settle,
)


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    return make_shop(tmp_path / "shop")


ids = st.sampled_from("abcdefgh")
operations = st.lists(
    st.builds(Change, st.just("put"), ids, st.sampled_from(TITLES), st.sampled_from(["", "x"]), st.booleans())
    | st.builds(Change, st.just("patch"), ids, st.none() | st.sampled_from(TITLES), st.none(), st.booleans())
    | st.builds(Change, st.just("remove"), ids)
    | st.sampled_from(["merge", "reopen", "other", "rebuild", "rollback"]),
    max_size=14,
)


@given(operations)
@settings(max_examples=25, deadline=None)
def test_whatever_happens_the_view_is_the_fold(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Change | str]
) -> None:
    """Two live indexes of one workspace stand for two processes; each change goes through one of them."""
    workspace = make_shop(tmp_path_factory.mktemp("shop"))
    done: list[Change] = []
    with opened(workspace) as first, opened(workspace) as second:
        live = first
        for step in steps:
            if isinstance(step, Change):
                before, now = live.snapshot, live.snapshot.catalog.find_item(step.item_id)
                if step.op != "put" and now is None:
                    with pytest.raises(UnknownItemError):
                        live.apply(step)
                    continue
                rows, items = len(before.catalog), before.catalog.items
                outcome = live.apply(step)
                done += [step] if outcome.state != "unchanged" else []
                assert (len(before.catalog), before.catalog.items) == (rows, items)  # who holds it goes on with it
                assert (outcome.state == "unchanged") == (live.snapshot is before)
                assert live.snapshot.catalog.recall_item_row(step.item_id) == outcome.row
            elif step == "merge":
                live.merge()
            elif step == "rebuild":
                journal = journal_of(workspace)
                build_index(workspace.index_dir, ORIGIN, LetterEncoder(), POPULARITY, journal=journal)
            elif step == "rollback":
                activate(workspace.index_dir, list_versions(workspace.index_dir)[0])
            elif step == "reopen":
                with opened(workspace) as again:
                    assert_shows(again, done)
            else:
                live = second if live is first else first
            live.refresh()
            settle(live)
            assert live.problem is None
            assert not live.is_stale()
            assert_shows(live, done)
            assert live.snapshot.version in list_versions(workspace.index_dir)


def test_what_becomes_of_an_item_is_told(shop: Workspace) -> None:
    with opened(shop) as live:
        added = live.apply(Change("put", "e", "abd", "y"))
        assert (added.state, added.row, added.item) == ("added", 3, Item("e", "abd", "y"))
        assert added.near is None
        assert live.apply(Change("put", "e", "abd", "y")).state == "unchanged"
        moved = live.apply(Change("patch", "e", title="Abc"))
        assert (moved.state, moved.row, moved.shares_title_with) == ("changed", 0, ("a", "c"))
        assert live.apply(Change("patch", "e", available=False)).item == Item("e", "Abc", "y", available=False)
        gone = live.apply(Change("remove", "e"))
        assert (gone.state, gone.row, gone.item.title) == ("removed", 0, "Abc")
        assert live.snapshot.label == f"{live.snapshot.version}+4"
        assert live.pending == 4
    assert len(journal_of(shop).read()[0]) == 4  # nothing was written for what the catalog said already


def test_a_title_that_only_its_letters_order_tells_apart_is_named(shop: Workspace) -> None:
    """The encoder counts letters, so anagrams lie at distance 0."""
    with opened(shop) as live:
        assert live.apply(Change("put", "e", "cab")).near == ("abc", 0.0)
        assert live.apply(Change("put", "f", "ed")).near == ("de", 0.0)
        assert live.apply(Change("put", "g", "ed")).near is None  # not new any more


def test_a_removed_title_is_not_found_and_its_row_stays_empty(shop: Workspace) -> None:
    with opened(shop) as live:
        live.apply(Change("remove", "b"))
        live.apply(Change("put", "e", "new"))
        for _ in range(2):
            snapshot = live.snapshot
            assert snapshot.catalog.items_of(1) == ()
            assert snapshot.catalog.find_title_row("de") is None
            assert snapshot.catalog.find_item_row("e") == 3
            ranking = snapshot.grounder.rank(["de"], 9)[0]
            assert (ranking.grounding.match, 1 in ranking.rows) == ("nearest", False)
            live.merge()
        assert live.apply(Change("put", "x", "DE")).row == 1  # the title is back, and so is its row


def test_texts_embedded_before_a_change_are_known_after_it(shop: Workspace) -> None:
    encoder = LetterEncoder()
    live = LiveIndex(shop, encoder, merge_at=0)
    live.snapshot.grounder.rank(["written again and again"], 1)
    live.apply(Change("put", "e", "new"))
    live.apply(Change("remove", "a"))
    write_catalog(shop.catalog_path, Catalog.from_items(replace(item, available=True) for item in ORIGIN.items))
    live.refresh()
    assert live.snapshot.catalog.find_item("d") == Item("d", "f")
    encoder.encoded.clear()
    live.snapshot.grounder.rank(["written again and again"], 1)
    assert encoder.encoded == []
    live.close()


def test_readers_see_whole_views_while_all_is_changed(shop: Workspace) -> None:
    """Threads rank while others change and merge: every snapshot fits together, and none goes back in time."""
    with opened(shop, merge_at=4) as live:
        over = threading.Event()
        faults: list[str] = []

        def read() -> None:
            last = 0
            while not over.is_set():
                snapshot = live.snapshot
                [ranking] = snapshot.grounder.rank(["abd"], 3)
                whole = len(snapshot.catalog) == len(snapshot.grounder.index) == len(snapshot.popularity)
                found = all(snapshot.catalog.items_of(row) for row in ranking.rows.tolist())
                if not (whole and found and snapshot.position.changes >= last):
                    faults.append(f"{snapshot.label}: {ranking}")
                last = snapshot.position.changes

        def change(name: str) -> None:
            for number in range(10):
                live.apply(Change("put", f"{name}{number}", f"{name * number} title"))
                live.apply(Change("remove", f"{name}{number}"))
                live.apply(Change("put", f"{name}{number}", "abc"))

        readers = [threading.Thread(target=read) for _ in range(2)]
        writers = [threading.Thread(target=change, args=(name,)) for name in "xy"]
        for thread in (*readers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        over.set()
        for thread in readers:
            thread.join()
        assert faults == []
        assert live.snapshot.position.changes == 60
        assert live.problem is None
    with opened(shop) as again:
        assert again.snapshot.catalog.digest == live.snapshot.catalog.digest


def test_a_change_waits_for_others_and_not_for_ever(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(shop) as live:
        with monkeypatch.context() as patch:
            patch.setattr("index.live.live._PATIENCE_S", 0.02)
            with journal_of(shop).locked(), pytest.raises(TimeoutError, match="another writer"):
                live.apply(Change("remove", "a"))
            with live._lock, ThreadPoolExecutor(1) as other, pytest.raises(TimeoutError, match="have been loading"):
                other.submit(live.apply, Change("remove", "a")).result()
        with file_lock(shop.index_dir / ".merge.lock"):
            live.apply(Change("remove", "a"))
            assert live.merge() is None  # another process is at it
        assert live.merge() is not None


class RefusingEncoder(LetterEncoder):
    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        if "bad" in titles:
            raise SoftrecError("out of memory")
        return super().encode(titles)


def test_a_title_that_cannot_be_embedded_changes_nothing(shop: Workspace) -> None:
    live = LiveIndex(shop, RefusingEncoder(), merge_at=0)
    before = live.snapshot
    with pytest.raises(SoftrecError, match="out of memory"):
        live.apply(Change("put", "e", "bad"))
    assert live.snapshot is before
    assert journal_of(shop).read()[0] == []
    live.close()


def test_another_availability_is_taken_up_and_another_catalog_is_not(shop: Workspace) -> None:
    with opened(shop) as live:
        live.apply(Change("put", "e", "new"))
        write_catalog(shop.catalog_path, Catalog.from_items(replace(item, available=True) for item in ORIGIN.items))
        assert live.is_stale()
        live.refresh()
        assert live.snapshot.catalog.find_item("d") == Item("d", "f")
        assert live.snapshot.catalog.find_item_row("e") == 3
        before = live.snapshot
        write_catalog(shop.catalog_path, Catalog.from_items(ORIGIN.items[:2]))
        live.refresh()
        assert live.snapshot is before
        with pytest.raises(MismatchError, match=r"replaced while it is in use: expected .*restart the server"):
            live.apply(Change("remove", "e"))
        assert not live.is_stale()
        write_catalog(shop.catalog_path, ORIGIN)
        live.refresh()
        assert live.problem is None
        assert live.snapshot.catalog.find_item("d") == Item("d", "f", available=False)


def test_another_availability_is_not_undone_by_a_version_that_was_loading(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(shop) as live:
        live.apply(Change("put", "e", "new"))
        build_index(shop.index_dir, ORIGIN, LetterEncoder(), POPULARITY)

        def load(*arguments: Any, **options: Any) -> Snapshot:
            loaded = load_active(*arguments, **options)
            monkeypatch.undo()
            write_catalog(shop.catalog_path, Catalog.from_items(replace(item, available=True) for item in ORIGIN.items))
            live.refresh()  # meanwhile
            return loaded

        monkeypatch.setattr("index.live.live.load_active", load)
        live.refresh()
        settle(live)
        assert live.snapshot.version.startswith("0002-")
        assert not live.is_stale()
        assert live.snapshot.catalog.find_item("d") == Item("d", "f")
        assert live.snapshot.catalog.find_item_row("e") == 3


def test_a_journal_that_is_damaged_or_gone_stops_changes_and_nothing_else(shop: Workspace) -> None:
    with opened(shop) as live:
        live.apply(Change("put", "e", "new"))
        before, whole = live.snapshot, shop.changes_path.read_bytes()
        for damage in (
            lambda: shop.changes_path.unlink(),
            lambda: shop.changes_path.write_bytes(whole[:-4096] + b"{}" * 2048),
        ):
            damage()
            live.refresh()
            assert live.snapshot is before
            assert live.problem is not None
            with pytest.raises((MismatchError, CorruptArtifactError), match="copy back"):
                live.apply(Change("remove", "e"))
        shop.changes_path.write_bytes(whole)
        assert live.apply(Change("remove", "e")).state == "removed"


@pytest.mark.parametrize("name", ["read_catalog", "Journal.read", "load_active"])
def test_what_cannot_be_read_once_is_read_the_next_time(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The process was out of file descriptors for a moment; meanwhile all three files were replaced."""
    notes: list[str] = []
    live = LiveIndex(shop, LetterEncoder(), merge_at=0, note=notes.append)
    write_catalog(shop.catalog_path, Catalog.from_items(replace(item, available=True) for item in ORIGIN.items))
    build_index(shop.index_dir, ORIGIN, LetterEncoder(), POPULARITY)
    with opened(shop) as other:
        other.apply(Change("put", "e", "new"))

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(f"index.live.live.{name}", fail)
        for _ in range(2):
            live.refresh()
            settle(live)
        assert "Too many open files" in str(live.problem)
        assert len([note for note in notes if "Too many" in note]) == 1  # not one per look
    live.refresh()
    settle(live)
    assert live.problem is None
    assert live.apply(Change("remove", "e")).state == "removed"
    live.refresh()
    assert not live.is_stale()
    assert live.snapshot.version.startswith("0002-")
    assert live.snapshot.catalog.find_item("d") == Item("d", "f")
    live.close()


def test_a_version_that_covers_what_the_journal_lacks_is_refused(shop: Workspace) -> None:
    with opened(shop) as live:
        live.apply(Change("put", "e", "new"))
        live.merge()
    journal_of(shop).set_aside()
    with pytest.raises(MismatchError, match=r"the first 1 changes.*softrec index"):
        LiveIndex(shop, LetterEncoder())


def test_an_index_of_another_catalog_is_refused(shop: Workspace) -> None:
    write_catalog(shop.catalog_path, Catalog.from_items(ORIGIN.items[:2]))
    with pytest.raises(MismatchError, match="catalog: expected"):
        LiveIndex(shop, LetterEncoder())
    assert read_catalog(shop.catalog_path).items == ORIGIN.items[:2]
