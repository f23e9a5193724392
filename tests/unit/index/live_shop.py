"""A small shop whose catalog changes, and what its live index must show."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from index.catalog.catalog import Catalog, Item, read_catalog, write_catalog
from index.catalog.changes import Change, change_catalog
from index.catalog.journal import Journal
from index.live.live import LiveIndex
from index.live.versions import build_index
from index.workspace import ShopSettings, Workspace
from tests.unit.index.letter_encoder import LetterEncoder

ORIGIN = Catalog.from_items([Item("a", "abc", "x"), Item("b", "de"), Item("c", "ABC"), Item("d", "f", available=False)])
POPULARITY = np.array([5, 0, 2])
TITLES = ("abc", "de", "ed", "fg", "hij", "hi")


def make_shop(root: Path) -> Workspace:
    root.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.create(root, ShopSettings())
    write_catalog(workspace.catalog_path, ORIGIN)
    build_index(workspace.index_dir, ORIGIN, LetterEncoder(), POPULARITY)
    return workspace


def journal_of(workspace: Workspace) -> Journal:
    return Journal(workspace.changes_path, read_catalog(workspace.catalog_path).imported_at)


@contextmanager
def opened(workspace: Workspace, **options: int) -> Iterator[LiveIndex]:
    live = LiveIndex(workspace, LetterEncoder(), **{"merge_at": 0, **options})
    yield live
    live.close()


def settle(live: LiveIndex) -> None:
    """Return when what was started in the background is through."""
    live._background._pool.submit(lambda: None).result()


def assert_shows(live: LiveIndex, changes: Sequence[Change]) -> None:
    """The snapshot is the fold of all changes, and a search over it is brute force over the fold."""
    fold = change_catalog(ORIGIN, changes)
    snapshot = live.snapshot
    assert snapshot.position.changes == len(changes)
    assert list(snapshot.catalog.titles) == list(fold.titles)
    assert (snapshot.catalog.items, snapshot.catalog.digest) == (fold.items, fold.digest)
    assert snapshot.popularity.tolist() == [*POPULARITY, *[0] * (len(fold) - len(POPULARITY))]
    vectors = LetterEncoder().encode(fold.titles)
    alive = [row for row in range(len(fold)) if fold.items_of(row)]
    for text in ("abcd", "hij"):
        distances = np.linalg.norm(vectors - LetterEncoder().encode([text]), axis=1)
        expected = sorted(alive, key=lambda row: (distances[row], row))
        if fold.find_title_row(text) in expected:
            expected.remove(row := fold.find_title_row(text))
            expected.insert(0, row)
        if alive:
            assert snapshot.grounder.rank([text], len(fold))[0].rows.tolist() == expected
