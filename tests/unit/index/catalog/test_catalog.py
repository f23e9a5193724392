from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item, normalise_title, read_catalog, write_catalog
from index.errors import CorruptArtifactError, MissingArtifactError

titles = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(titles)
def test_normalising_twice_is_normalising_once(title: str) -> None:
    assert normalise_title(normalise_title(title)) == normalise_title(title)


@given(titles)
def test_case_and_white_space_do_not_tell_titles_apart(title: str) -> None:
    assert normalise_title(f"  {title}\n") == normalise_title(title)
    assert normalise_title(title.lower()) == normalise_title(title.lower().casefold())


@pytest.mark.parametrize(
    ("one", "other"),
    [("STRASSE", "straße"), ("Pokémon", "Poke\u0301mon"), ("ﬁlm", "FILM"), ("Doom\u00a0 II", "doom ii"), ("Ⅳ", "iv")],
)
def test_unicode_spellings_of_one_title_are_one(one: str, other: str) -> None:
    assert normalise_title(one) == normalise_title(other)


def test_accents_tell_titles_apart() -> None:
    assert normalise_title("Pokémon") != normalise_title("Pokemon")


@given(st.lists(titles, min_size=1, max_size=30))
def test_rows_partition_the_items_by_title_in_file_order(names: list[str]) -> None:
    items = [Item(str(number), name) for number, name in enumerate(names)]
    catalog = Catalog.from_items(items)
    seen = [item for row in range(len(catalog)) for item in catalog.items_of(row)]
    assert sorted(seen, key=lambda item: int(item.item_id)) == items
    first_ids = [int(catalog.items_of(row)[0].item_id) for row in range(len(catalog))]
    assert first_ids == sorted(first_ids)
    for row, title in enumerate(catalog.titles):
        ids = [int(item.item_id) for item in catalog.items_of(row)]
        assert ids == sorted(ids)
        assert catalog.find_title_row(title) == row
        assert {catalog.find_item_row(str(number)) for number in ids} == {row}
        assert {normalise_title(item.title) for item in catalog.items_of(row)} == {normalise_title(title)}


def test_unknown_ids_and_titles_are_not_found() -> None:
    catalog = Catalog.from_items([Item("a", "Tetris")])
    assert catalog.find_item_row("b") is None
    assert catalog.find_title_row("Doom") is None


def test_an_id_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' occurs twice"):
        Catalog.from_items([Item("a", "Tetris"), Item("a", "Doom")])


def test_digest_follows_ids_titles_categories_and_order_but_not_availability() -> None:
    one, two = Item("a", "Tetris", "Puzzle"), Item("b", "Doom", "Shooter")
    digest = Catalog.from_items([one, two]).digest
    assert Catalog.from_items([one, Item("b", "Doom", "Shooter", available=False)]).digest == digest
    for other in ([two, one], [one], [one, Item("b", "Doom", "Action")], [one, Item("b", "Doom II", "Shooter")]):
        assert Catalog.from_items(other).digest != digest


@given(st.lists(st.tuples(titles, titles, st.booleans()), max_size=10))
def test_write_then_read_is_identity(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, bool]]
) -> None:
    path = tmp_path_factory.mktemp("shop") / "catalog.parquet"
    catalog = Catalog.from_items(Item(str(number), *row) for number, row in enumerate(rows))
    write_catalog(path, catalog)
    read = read_catalog(path)
    assert read.items == catalog.items
    assert (read.titles, read.digest) == (catalog.titles, catalog.digest)


def test_a_missing_catalog_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"init \S+ --items items.csv --interactions interactions.csv`"):
        read_catalog(tmp_path / "catalog.parquet")


def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    (tmp_path / "softrec.toml").touch()
    with pytest.raises(CorruptArtifactError, match=r"unreadable catalog.*--interactions interactions.csv --force`"):
        read_catalog(path)
