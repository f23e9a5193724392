import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.artifact import write_artifact
from index.catalog.catalog import Catalog, Item
from index.catalog.journal import Journal
from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError
from index.live.snapshot import Snapshot, load_active
from index.live.versions import ACTIVE, activate, build_index, encode_titles, list_versions, read_encoder_name
from index.search.encoder import TitleEncoder
from index.search.kind import SearchRequest, build_search, write_search
from tests.unit.index.letter_encoder import LetterEncoder

CATALOG = Catalog.from_items(
    [Item("1", "abc", "x"), Item("2", "de"), Item("3", "ABC"), Item("4", "f", available=False)]
)
POPULARITY = np.array([5, 0, 2])


def build(index_dir: Path, **options: int) -> str:
    return build_index(index_dir, CATALOG, LetterEncoder(), POPULARITY, **options)


def load(index_dir: Path, catalog: Catalog = CATALOG, encoder: TitleEncoder | None = None) -> Snapshot:
    journal = Journal(index_dir / "none.db", catalog.imported_at)
    return load_active(index_dir, catalog, journal, encoder=encoder or LetterEncoder())


def test_build_then_load_is_identity(tmp_path: Path) -> None:
    told: list[int] = []
    version = build_index(tmp_path, CATALOG, LetterEncoder(), POPULARITY, advance=told.append)
    loaded = load(tmp_path)
    assert (loaded.version, loaded.encoder_name, read_encoder_name(tmp_path)) == (version, "letters", "letters")
    assert loaded.catalog.items == CATALOG.items
    assert loaded.popularity.tolist() == [5, 0, 2]
    np.testing.assert_array_equal(loaded.grounder.index.vectors(np.arange(3)), LetterEncoder().encode(CATALOG.titles))
    assert loaded.grounder.rank(["ed"], 1)[0].rows.tolist() == [1]
    assert sum(told) == len(CATALOG)


def test_versions_count_up_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    versions = [build(tmp_path, keep=3) for _ in range(5)]
    assert [version[:5] for version in versions] == ["0001-", "0002-", "0003-", "0004-", "0005-"]
    assert list_versions(tmp_path) == versions[2:]
    assert load(tmp_path).version == versions[4]


def test_the_way_back_to_an_older_version(tmp_path: Path) -> None:
    older, _ = build(tmp_path), build(tmp_path)
    activate(tmp_path, older)
    assert load(tmp_path).version == older
    with pytest.raises(MissingArtifactError, match="0009-00000000"):
        activate(tmp_path, "0009-00000000")


def test_a_build_after_a_rollback_keeps_the_version_that_was_in_use(tmp_path: Path) -> None:
    """The bad version, left by the rollback, is newer than the good one, and still goes first."""
    good, bad = build(tmp_path), build(tmp_path)
    activate(tmp_path, good)
    newest = build(tmp_path, keep=2)
    assert list_versions(tmp_path) == [good, newest]
    assert bad not in list_versions(tmp_path)


class KilledEncoder(LetterEncoder):
    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        raise KeyboardInterrupt


def test_a_killed_build_leaves_the_active_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while embedding, and killed between the files and the manifest."""
    version = build(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build_index(tmp_path, CATALOG, KilledEncoder(), POPULARITY)
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path)
    assert load(tmp_path).version == version
    assert list_versions(tmp_path) == [version]


def test_a_folder_without_a_manifest_is_no_version(tmp_path: Path) -> None:
    version = build(tmp_path)
    half = tmp_path / "0002-00000000"
    half.mkdir()
    (half / "vectors.faiss").write_bytes((tmp_path / version / "vectors.faiss").read_bytes())
    assert list_versions(tmp_path) == [version]
    (tmp_path / ACTIVE).write_text("0002-00000000\n")
    with pytest.raises(MissingArtifactError):
        load(tmp_path)
    assert build(tmp_path).startswith("0003-")  # a number is never used twice


@pytest.mark.parametrize("name", ["vectors.faiss", "popularity.npy", "manifest.json"])
def test_any_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / build(tmp_path) / name
    data = bytearray(path.read_bytes())
    place = data.index(b'"rows": 3') + 8 if name == "manifest.json" else len(data) // 2
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError, match="changed"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["vectors.faiss", "popularity.npy"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / build(tmp_path) / name).unlink()
    with pytest.raises(CorruptArtifactError, match=f"{name}: the file is missing"):
        load(tmp_path)


def test_another_encoder_is_refused_with_both_named(tmp_path: Path) -> None:
    build(tmp_path)
    with pytest.raises(MismatchError, match=r"expected letters \(letters-1\), found letters \(letters-2\)"):
        load(tmp_path, encoder=LetterEncoder("letters-2"))


def test_another_catalog_is_refused_with_both_named(tmp_path: Path) -> None:
    build(tmp_path)
    other = Catalog.from_items(CATALOG.items[:1])
    with pytest.raises(MismatchError, match=f"expected 0-{other.digest[:12]}, found 0-{CATALOG.digest[:12]}"):
        load(tmp_path, other)


def test_no_index_yet_names_the_command(tmp_path: Path) -> None:
    for index_dir in (tmp_path / "index", tmp_path):
        with pytest.raises(MissingArtifactError, match="softrec index"):
            load(index_dir)


def test_an_active_file_that_names_no_version_is_refused(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / ACTIVE).write_text("../../etc\n")
    with pytest.raises(CorruptArtifactError, match="names no version"):
        load(tmp_path)


def test_popularity_of_another_catalog_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"popularity must be \[3\]"):
        build_index(tmp_path, CATALOG, LetterEncoder(), np.zeros(4, dtype=np.int64))
    with pytest.raises(ValueError, match="keep must be at least 1"):
        build(tmp_path, keep=0)


def big_catalog() -> Catalog:
    letters = np.random.default_rng(0).integers(97, 123, size=(1200, 12), dtype=np.uint8)
    return Catalog.from_items(Item(str(row), bytes(title).decode()) for row, title in enumerate(letters))


def test_the_kind_of_search_and_its_recall_are_in_the_manifest(tmp_path: Path) -> None:
    catalog = big_catalog()
    version = build_index(
        tmp_path, catalog, LetterEncoder(), np.zeros(len(catalog), dtype=np.int64), kind="pq", recall_floor=0.8
    )
    facts = json.loads((tmp_path / version / "manifest.json").read_text())["body"]["search"]
    assert (facts["kind"], facts["queries"]) == ("pq", 256)
    assert 0.8 <= facts["recall_at_10"] <= 1
    ranking = load(tmp_path, catalog).grounder.rank([catalog.titles[700]], 3)[0]
    assert ranking.rows[0] == 700
    with pytest.raises(ValueError, match="recall_floor must be in"):
        build_index(tmp_path, CATALOG, KilledEncoder(), POPULARITY, recall_floor=0)


def test_a_search_file_of_other_rows_is_corrupt_even_if_its_digest_fits(tmp_path: Path) -> None:
    """Two versions' files exchanged, and the manifest written for it: the sizes say so."""
    catalog = big_catalog()
    vectors = LetterEncoder().encode(catalog.titles)
    _, facts = build_search(vectors, SearchRequest("pq", 0.5))
    other, _ = build_search(vectors[:1100], SearchRequest("pq", 0.5))
    version = build_index(tmp_path, catalog, LetterEncoder(), np.zeros(len(catalog), dtype=np.int64))
    with write_artifact(tmp_path / "0002-00000000", kind="index") as draft:
        write_search(draft.path, other)
        for name in ("vectors.faiss", "popularity.npy"):
            (draft.path / name).write_bytes((tmp_path / version / name).read_bytes())
        manifest = json.loads((tmp_path / version / "manifest.json").read_text())
        draft.body.update(manifest["body"] | {"search": facts})
    activate(tmp_path, "0002-00000000")
    with pytest.raises(CorruptArtifactError, match="hold 1100 vectors"):
        load(tmp_path, catalog)


@pytest.mark.parametrize(
    "changed", [{"search": {"kind": "hnsw", "breadth": 16}}, {"asked_for": {"kind": "hnsw", "recall_floor": 0.9}}]
)
def test_a_version_of_a_kind_that_is_gone_is_refused_with_the_command_that_builds_it_again(
    changed: dict[str, object], tmp_path: Path
) -> None:
    version = build(tmp_path)
    with write_artifact(tmp_path / "0002-00000000", kind="index") as draft:
        for name in ("vectors.faiss", "popularity.npy"):
            (draft.path / name).write_bytes((tmp_path / version / name).read_bytes())
        draft.body.update(json.loads((tmp_path / version / "manifest.json").read_text())["body"] | changed)
    activate(tmp_path, "0002-00000000")
    with pytest.raises(CorruptArtifactError, match=r"hnsw.*build the index again with `softrec index"):
        load(tmp_path, CATALOG)


@given(st.lists(st.text("abc", max_size=9), max_size=30))
def test_titles_are_encoded_by_length_and_returned_as_given(titles: list[str]) -> None:
    encoder, told = LetterEncoder(), list[int]()
    np.testing.assert_array_equal(encode_titles(titles, encoder, told.append), LetterEncoder().encode(titles))
    assert [len(title) for batch in encoder.encoded for title in batch] == sorted(map(len, titles))
    assert sum(told) == len(titles)
