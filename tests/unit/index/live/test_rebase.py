"""Changes folded into the imported catalog, whatever happens meanwhile."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item, read_catalog, write_catalog
from index.catalog.changes import Change, change_catalog
from index.errors import MismatchError, SoftrecError
from index.file_lock import file_lock
from index.live.live import MERGE_LOCK, LiveIndex
from index.live.rebase import Rebase, fold, rebase_catalog
from index.live.snapshot import load_imported
from index.live.versions import activate, list_versions, read_active
from index.workspace import Workspace
from tests.unit.index.letter_encoder import LetterEncoder
from tests.unit.index.live_shop import ORIGIN, TITLES, journal_of, make_shop, opened, settle

CHANGES = [
    Change("put", "e", "new", "y"),
    Change("remove", "b"),
    Change("patch", "c", title="renamed"),
    Change("remove", "d"),
    Change("patch", "e", available=False),
]
FOLDED = [Item("a", "abc", "x"), Item("b", "de", available=False), Item("c", "renamed"), Item("e", "new", "y", False)]


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    return changed_shop(tmp_path / "shop")


def changed_shop(root: Path) -> Workspace:
    """Users chose a five times and b once; d was never chosen."""
    workspace = make_shop(root)
    ids = ["a"] * 5 + ["b"]
    users, times = [f"u{number}" for number in range(6)], np.arange(6)
    log = {"user_id": users, "item_id": ids, "timestamp": times, "rating": np.full(6, np.nan, dtype=np.float32)}
    pq.write_table(pa.table(log), workspace.interactions_path)
    with opened(workspace) as live:
        for change in CHANGES:
            live.apply(change)
    return workspace


def rebase(workspace: Workspace, encoder: LetterEncoder | None = None) -> Rebase:
    return rebase_catalog(workspace, encoder or LetterEncoder())


def assert_folded(live: LiveIndex) -> None:
    snapshot = live.snapshot
    assert live.problem is None
    assert list(snapshot.catalog.items) == FOLDED
    assert snapshot.popularity.tolist() == [5, 1, 0, 0]
    assert snapshot.grounder.rank(["new"], 1)[0].rows.tolist() == [3]
    np.testing.assert_array_equal(
        snapshot.grounder.index.vectors(np.arange(4)), LetterEncoder().encode(snapshot.catalog.titles)
    )
    assert snapshot.position.changes == len(CHANGES)


def test_training_sees_the_current_items_and_the_journal_is_short(shop: Workspace) -> None:
    """b was removed, but users chose it: it stays, hidden. d goes: nobody chose it. Nothing old is embedded again."""
    encoder = LetterEncoder()
    done = rebase(shop, encoder)
    assert [title for batch in encoder.encoded for title in batch] == ["new", "renamed"]
    assert (done.folded, done.hidden) == (5, ("b",))
    catalog = read_catalog(shop.catalog_path)
    assert list(catalog.items) == FOLDED
    assert (catalog.imported_at.changes, catalog.earlier_digests) == (5, (ORIGIN.digest,))
    assert journal_of(shop).read() == ([], catalog.imported_at)
    assert read_active(shop.index_dir) == done.version
    loaded = load_imported(shop.index_dir, catalog, journal_of(shop), encoder=encoder)
    assert loaded.catalog is catalog
    with opened(shop) as live:
        assert_folded(live)
        assert live.apply(Change("put", "f", "later")).state == "added"
    assert journal_of(shop).read()[1].changes == 6
    assert (rebase(shop).folded, rebase(shop).folded) == (1, 0)
    assert read_catalog(shop.catalog_path).earlier_digests == (ORIGIN.digest, catalog.digest)


def test_a_running_server_takes_it_up_and_loses_no_change(shop: Workspace) -> None:
    with opened(shop) as up_to_date, opened(shop) as behind:
        held = up_to_date.snapshot
        up_to_date.apply(Change("put", "f", "zzz"))  # `behind` has not seen it
        up_to_date.apply(Change("remove", "f"))
        rebase(shop)
        assert up_to_date.is_stale()
        outcome = behind.apply(Change("put", "g", "ggg"))
        assert (outcome.state, outcome.row) == ("added", 4)
        for live in (up_to_date, behind):
            live.refresh()
            settle(live)
            assert (live.problem, live.pending) == (None, 1)
            assert list(live.snapshot.catalog.items) == [*FOLDED, Item("g", "ggg")]
            assert live.snapshot.imported.earlier_digests == (ORIGIN.digest,)
        assert held.catalog.find_item("b") is None  # an old snapshot stays as it was
        assert behind.merge() is not None


class KilledError(BaseException):
    pass


@pytest.mark.parametrize(
    ("step", "is_done"),
    [
        ("index.live.rebase.encode_titles", False),
        ("index.live.versions.build_search", False),
        ("index.live.rebase.write_catalog", False),
        ("index.live.versions._point_to", True),
        ("index.live.rebase.Journal.forget", True),
    ],
)
def test_killed_at_any_step_all_is_as_before_or_done(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch, step: str, is_done: bool
) -> None:
    def kill(*arguments: Any, **options: Any) -> None:
        raise KilledError

    with opened(shop) as running:
        with monkeypatch.context() as patch:
            patch.setattr(step, kill)
            with pytest.raises(KilledError):
                rebase(shop)
        assert (read_catalog(shop.catalog_path).digest != ORIGIN.digest) == is_done
        current = FOLDED if is_done else change_catalog(ORIGIN, CHANGES).items
        running.refresh()
        settle(running)
        with opened(shop) as started:
            for live in (running, started):
                assert live.problem is None
                assert list(live.snapshot.catalog.items) == list(current)
            started.apply(Change("put", "f", "later"))
            started.apply(Change("remove", "f"))
        assert rebase(shop).folded == (2 if is_done else 7)
        running.refresh()
        settle(running)
        assert list(running.snapshot.catalog.items) == FOLDED
        assert read_active(shop.index_dir) == running.snapshot.version
        assert len(journal_of(shop).read()[0]) == 0


def test_a_rebase_without_changes_finishes_one_that_was_killed(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*arguments: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("index.live.versions._point_to", kill)
        with pytest.raises(KilledError):
            rebase(shop)
    old = read_active(shop.index_dir)
    done = rebase(shop)
    assert (done.folded, read_active(shop.index_dir)) == (0, done.version)
    assert done.version != old
    assert journal_of(shop).path.stat().st_size <= 8192


def test_a_change_of_availability_alone_keeps_the_digest_and_is_folded(tmp_path: Path) -> None:
    """The old version has the digest too, and is still not of this import: its rows may be others."""
    workspace = changed_shop(tmp_path)
    rebase(workspace)
    with opened(workspace) as running:
        running.apply(Change("put", "z", "brief"))
        running.apply(Change("remove", "z"))
        running.apply(Change("patch", "a", available=False))
        before = read_catalog(workspace.catalog_path)
        rebase(workspace)
        after = read_catalog(workspace.catalog_path)
        assert after.digest == before.digest
        running.refresh()
        settle(running)
        assert (len(running.snapshot.catalog), running.problem) == (4, None)
        assert running.snapshot.catalog.find_item("a") == Item("a", "abc", "x", available=False)


def test_the_way_back_ends_at_a_rebase(shop: Workspace) -> None:
    [old] = list_versions(shop.index_dir)
    new = rebase(shop).version
    activate(shop.index_dir, old)  # `softrec index rollback` refuses it
    with opened(shop) as live:
        assert live.snapshot.version == new


def test_only_one_process_merges_or_rebases(shop: Workspace) -> None:
    with file_lock(shop.index_dir / MERGE_LOCK), pytest.raises(SoftrecError, match="run it again"):
        rebase(shop)


def test_a_catalog_that_is_imported_meanwhile_is_not_overwritten(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Catalog.from_items(ORIGIN.items[:2])
    monkeypatch.setattr(
        "index.live.rebase.count_popularity",
        lambda catalog, ids: (write_catalog(shop.catalog_path, other), np.zeros(len(catalog), dtype=np.int64))[1],
    )
    with pytest.raises(MismatchError, match="replaced during the rebase"):
        rebase(shop)
    assert read_catalog(shop.catalog_path).items == other.items
    assert len(list_versions(shop.index_dir)) <= 2


ids = st.sampled_from("abcdefg")
operations = st.lists(
    st.builds(Change, st.just("put"), ids, st.sampled_from(TITLES), st.sampled_from(["", "x"]), st.booleans())
    | st.builds(Change, st.just("patch"), ids, st.none() | st.sampled_from(TITLES), st.none(), st.booleans())
    | st.builds(Change, st.just("remove"), ids),
    max_size=14,
)


@given(operations, st.sets(ids))
@settings(max_examples=60)
def test_the_fold_is_the_current_catalog_and_what_must_stay(steps: list[Change], kept: set[str]) -> None:
    current, done = ORIGIN, []
    for step in steps:
        if step.op == "put" or current.find_item(step.item_id) is not None:
            current = change_catalog(current, [step])
            done.append(step)
    items, hidden = fold(ORIGIN, done, keep_removed=kept)
    assert [item for item in items if item.item_id not in hidden] == list(current.items)
    assert set(hidden) == {name for name in kept if current.find_slot(name) is not None} - {
        item.item_id for item in current.items
    }
    slots = [current.find_slot(item.item_id) for item in items]
    assert slots == sorted(slot for slot in slots if slot is not None)
    assert not any(item.available for item in items if item.item_id in hidden)


def test_a_journal_that_others_hold_is_named_as_what_it_is(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.catalog.journal._READ_WAIT_S", 0.05)
    with closing(sqlite3.connect(shop.changes_path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TimeoutError, match=r"catalog_changes\.db: another writer has held it"):
            rebase(shop)
    assert rebase(shop).folded == len(CHANGES)
