"""Every check on an index that has just what it looks for."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from index.catalog.catalog import Catalog, Item, Position
from index.catalog.changes import Change
from index.live.inspection import Check, inspect_index
from index.live.snapshot import Snapshot
from index.ranking.grounding import Grounder
from index.ranking.ranking import Ranker
from index.search.flat import FlatIndex
from index.search.search import TitleSearch
from tests.unit.index.letter_encoder import LetterEncoder

SOUND = ("abc", "deffff", "ghi", "jjj", "klmno", "pppq", "rstu", "vw", "xyz", "bdfhjl", "aeiou", "zzzz")


def make(titles: Sequence[str], index: TitleSearch | None = None) -> Snapshot:
    catalog = Catalog.from_items([Item(str(number), title) for number, title in enumerate(titles)])
    built = index or FlatIndex.build(LetterEncoder().encode(catalog.titles))
    ranker = Ranker(Grounder(catalog, built, LetterEncoder()), np.zeros(len(catalog), np.int64))
    return Snapshot("0001-00000000", catalog, ranker, "letters", catalog.imported_at)


def look(snapshot: Snapshot, pending: int = 0) -> dict[str, Check]:
    return {check.what: check for check in inspect_index(snapshot, pending=pending, rebuild="softrec index shop")}


def test_a_sound_index_has_nothing_to_be_done() -> None:
    checks = look(make(SOUND))
    assert {check.verdict for check in checks.values()} == {"ok"}
    assert not any(check.remedy for check in checks.values())
    assert "100.00% of all 12" in checks["self-retrieval"].found
    assert checks["recall@10"].found.startswith("1.000 against exact")
    assert "p95" in checks["search latency"].found


def test_changes_are_looked_at_as_well_and_empty_rows_are_not() -> None:
    snapshot = make(SOUND).advance([Change("remove", "0"), Change("put", "n", "Cab", "")], Position(2, ""))
    checks = look(snapshot, pending=2)
    assert checks["pending changes"].found == "2 since this version, 1 new titles; 1 rows without items"
    assert {check.verdict for check in checks.values()} == {
        "ok"
    }  # "Cab" is as near to "abc" as can be, but that is gone
    assert look(snapshot, pending=1000)["pending changes"].remedy == "merge them: `softrec index shop`"


def test_duplicate_and_near_titles_are_shown() -> None:
    checks = look(make([*SOUND, "ABC", "cab"]))
    assert checks["duplicate titles"].found == "titles that stand for several items: 1; 'abc' (0, 12)"
    assert checks["near-duplicate titles"].found == "pairs among all 13: 1; 'abc' and 'cab' (0.000)"
    assert checks["self-retrieval"].verdict == "ok"  # the very same vector is found
    assert {checks[what].verdict for what in ("duplicate titles", "near-duplicate titles")} == {"notice"}


def test_a_title_without_a_vector_is_shown() -> None:
    assert "zero" in look(make([*SOUND, "1984"]))["vectors"].found


def test_vectors_of_another_encoder_are_wrong() -> None:
    shuffled = FlatIndex.build(LetterEncoder().encode(SOUND)[::-1])
    checks = look(make(SOUND, shuffled))
    assert checks["encoder"].verdict == "wrong"
    assert "softrec index shop" in checks["encoder"].remedy


class Broken(FlatIndex):
    """Finds only the first five rows, and holds what no build lets in."""

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return super().search(queries, k, allowed=np.arange(len(self)) < 5)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        found = super().vectors(rows)
        found[rows == 2] *= self.factor
        return found

    factor = 1.0


def test_an_index_that_does_not_find_what_it_holds_is_wrong() -> None:
    checks = look(make(SOUND, Broken.build(LetterEncoder().encode(SOUND))))
    assert checks["self-retrieval"].verdict == checks["recall@10"].verdict == "wrong"
    assert "41.67% of all 12" in checks["self-retrieval"].found  # 5 of 12


def test_values_that_are_not_finite_end_the_inspection() -> None:
    index = Broken.build(LetterEncoder().encode(SOUND))
    index.factor = np.nan
    [check] = inspect_index(make(SOUND, index), pending=0, rebuild="softrec index shop")
    assert (check.what, check.verdict) == ("vectors", "wrong")
    assert "'ghi'" in check.found


def test_a_catalog_without_items_is_said() -> None:
    snapshot = make(SOUND[:2]).advance([Change("remove", "0"), Change("remove", "1")], Position(2, ""))
    [check] = inspect_index(snapshot, pending=2, rebuild="softrec index shop")
    assert check.found == "the catalog has no item left"


@pytest.mark.parametrize("rows", [1, 2])
def test_the_smallest_catalogs_pass(rows: int) -> None:
    assert {check.verdict for check in look(make(SOUND[:rows])).values()} == {"ok"}


def test_a_sample_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.live.inspection.SAMPLE", 5)
    assert "5 of 12" in look(replace(make(SOUND)))["self-retrieval"].found
