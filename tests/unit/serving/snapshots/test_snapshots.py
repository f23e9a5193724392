"""Which snapshot a request gets, and what happens where the newest cannot be prepared."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from index.catalog.changes import Change
from index.errors import SoftrecError
from index.live.live import LiveIndex
from index.live.rebase import rebase_catalog
from serving.engine.title_tries import TitleTries
from serving.snapshots import snapshots as module
from serving.snapshots.snapshots import Snapshots
from tests.tiny_shop import TEMPLATE, write_tiny_log, write_tiny_tokenizer
from tests.unit.serving.conftest import LetterEncoder
from training.prompt import PromptRenderer


class Disk:
    """What the tries of a grown catalog meet: nothing, or an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.tries = 0
        grown = TitleTries.grown

        def grow(*arguments: object) -> TitleTries:
            self.tries += 1
            if self.error is not None:
                raise self.error
            return grown(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(TitleTries, "grown", grow)
        monkeypatch.setattr(module, "_RETRY_S", 0.0)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
async def snapshots(tmp_path: Path, live: LiveIndex, disk: Disk) -> AsyncIterator[Snapshots]:
    renderer = PromptRenderer(TEMPLATE, write_tiny_tokenizer(tmp_path / "base"), end_id=256)
    opened = Snapshots(live, {renderer.tokenization_digest: renderer})
    yield opened
    await opened.close()


async def test_a_view_is_the_newest_and_the_same_until_something_changes(snapshots: Snapshots, live: LiveIndex) -> None:
    first = await snapshots.current()
    assert await snapshots.current() is first
    live.apply(Change("put", "n1", "Riven"))
    second = await snapshots.current()
    assert second is live.snapshot
    [tries] = snapshots.tries(second).values()
    assert tries.n_rows == len(live.snapshot.catalog)
    assert list(second.ranker.popular) == [*first.ranker.popular, len(first.catalog)]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SoftrecError("no title is short enough")])
async def test_where_the_newest_cannot_be_prepared_the_one_before_goes_on(
    snapshots: Snapshots, live: LiveIndex, disk: Disk, error: Exception
) -> None:
    first, disk.error = await snapshots.current(), error
    live.apply(Change("put", "n1", "Riven"))
    for _ in range(2):
        assert await snapshots.current() is first
        assert (snapshots.outdated, snapshots.failure) == (True, error)
    disk.error = None
    assert await snapshots.current() is live.snapshot
    assert not snapshots.outdated


async def test_a_failing_renewal_is_not_tried_for_every_request(
    snapshots: Snapshots, live: LiveIndex, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 3600.0)
    disk.error, disk.tries = OSError("full"), 0
    live.apply(Change("put", "n1", "Riven"))
    for _ in range(5):
        await snapshots.current()
    assert disk.tries == 1


async def test_catching_up_ends_after_one_failure(snapshots: Snapshots, live: LiveIndex, disk: Disk) -> None:
    disk.error, disk.tries = OSError("full"), 0
    live.apply(Change("put", "n1", "Riven"))
    await snapshots.catch_up()
    assert (disk.tries, snapshots.failure) == (1, disk.error)
    disk.error = None
    await snapshots.catch_up()
    assert snapshots.served is live.snapshot
    assert snapshots.failure is None


async def test_a_bug_in_a_renewal_is_raised_and_not_waited_out(
    snapshots: Snapshots, live: LiveIndex, disk: Disk
) -> None:
    disk.error = ZeroDivisionError()
    live.apply(Change("put", "n1", "Riven"))
    with pytest.raises(ZeroDivisionError):
        await snapshots.catch_up()
    with pytest.raises(ZeroDivisionError):
        await snapshots.current()


async def test_a_rebase_is_taken_up_with_tries_of_the_new_catalog(snapshots: Snapshots, live: LiveIndex) -> None:
    """A removed title that nobody chose goes, so the rows behind it move; an added one is no longer in a small trie."""
    live.apply(Change("remove", "i7"))
    live.apply(Change("put", "n1", "Riven"))
    await snapshots.catch_up()
    before = await snapshots.current()
    write_tiny_log(live._workspace.interactions_path)
    rebase_catalog(live._workspace, LetterEncoder())
    after = await snapshots.current()
    assert after.imported.earlier_digests == (before.imported.digest,)
    assert list(after.catalog.titles) == [title for title in before.catalog.titles if title != "Zork"]
    [tries] = snapshots.tries(after).values()
    assert tries.n_rows == len(after.catalog)
    found = tries.allowed_titles().allowed.tries
    assert [sorted(one.trie.rows.tolist()) for one in found] == [list(range(len(after.catalog)))]
    assert not snapshots.outdated
