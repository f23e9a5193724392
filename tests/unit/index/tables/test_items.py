import gzip
import json
from pathlib import Path

import pytest

from index.catalog.catalog import Catalog, Item
from index.catalog.rules import clean_title
from index.errors import InputError
from index.tables.items import read_items
from index.tables.rejects import ImportReport


def read(path: Path, share: float = 0.01) -> tuple[Catalog, ImportReport]:
    return read_items(path, rejects_path=path.parent / "rejects.csv", max_reject_share=share)


def test_every_kind_of_bad_row_is_put_aside_with_its_reason(tmp_path: Path) -> None:
    """13 rows: three good (lines 2, 13 and 14), ten bad, each for its own reason but two."""
    path = tmp_path / "items.csv"
    rows = [
        "1,Doom,Shooter,yes",
        ",No id,,",
        "2,,,",
        "3,\x00\x01,,",
        "1,Doom again,,",
        "4," + "x" * 1001 + ",,",
        "y" * 257 + ",Long id,,",
        "5,Maybe,,perhaps",
        "6,a,b",
        '7,"a" b,,',
        "8,caf\udce9,,",
        "9," + "x" * 1000 + ",,0",
        "10, Tab\there ,,",
    ]
    path.write_text("item_id,title,category,available\n" + "\n".join(rows), errors="surrogateescape", encoding="utf-8")
    catalog, report = read(path, share=0.8)
    assert catalog.items == (
        Item("1", "Doom", "Shooter", True),
        Item("9", "x" * 1000, "", False),
        Item("10", "Tab here", "", True),
    )
    assert (report.rows_read, report.rows_kept) == (13, 3)
    assert report.rejected == {
        "empty item_id": 1,
        "empty title": 2,
        "item_id seen before": 1,
        "title over 1000 characters": 1,
        "item_id over 256 characters": 1,
        "available is neither true nor false": 1,
        "wrong number of columns": 1,
        "not CSV (',' expected after '\"')": 1,
        "bytes that are not UTF-8": 1,
    }
    lines = (tmp_path / "rejects.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["line", *map(str, range(3, 13))]
    with pytest.raises(InputError, match=r"line 3: empty item_id.*iconv.*--max-reject-share 0\.770"):
        read(path)


def test_shared_titles_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title,category\n1,Doom,a\n2,DOOM,b\n3,Myst,\n")
    catalog, report = read(path)
    assert catalog.titles == ("Doom", "Myst")
    assert report.notes == (
        "read as softrec items",
        "items with the title of an earlier one: 1; they share its row of the index",
    )


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\tb\r\nc", "a b c"),
        ("\u200ea\u200e", "\u200ea\u200e"),
        ("a\x7f\x00b", "ab"),
        ("👩‍🚀 x", "👩‍🚀 x"),
        ("\x1f", ""),
    ],
)
def test_control_characters_go_format_characters_stay(text: str, clean: str) -> None:
    assert clean_title(text) == clean


FLAGS = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"


def test_raw_movielens_100k(tmp_path: Path) -> None:
    """Flags 3, 4, 5 (from 0) are Animation, Children's and Comedy; the file is Latin-1."""
    path = tmp_path / "u.item"
    path.write_bytes(f"1|Café (1995)|01-Jan-1995||http://x/?a,b|{FLAGS}\n".encode("latin-1"))
    assert read(path)[0].items == (Item("1", "Café (1995)", "Animation|Children's|Comedy"),)


def test_raw_movielens_1m_and_latest(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("1::Heat (1995)::Action|Crime\n2::Sabrina, (x)::\n")
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n1,"Pianist, The",Drama\n2,B,(no genres listed)\n')
    assert read(tmp_path / "movies.dat")[0].items == (
        Item("1", "Heat (1995)", "Action|Crime"),
        Item("2", "Sabrina, (x)"),
    )
    assert read(tmp_path / "movies.csv")[0].items == (Item("1", "Pianist, The", "Drama"), Item("2", "B"))


def test_raw_amazon_2023_metadata(tmp_path: Path) -> None:
    path = tmp_path / "meta_Video_Games.jsonl.gz"
    rows = [
        {
            "main_category": "Games",
            "title": "Halo\u2028",
            "images": [{"a": 1}],
            "categories": ["A", "B"],
            "parent_asin": "B0",
        },
        {"main_category": "Games", "title": "Myst", "price": None, "categories": [], "parent_asin": "B1"},
        {"main_category": None, "title": "Ico", "categories": [], "parent_asin": "B2"},
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert read(path)[0].items == (Item("B0", "Halo", "A|B"), Item("B1", "Myst", "Games"), Item("B2", "Ico"))
