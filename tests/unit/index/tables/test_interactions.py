import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item
from index.errors import CorruptArtifactError, InputError, MismatchError, MissingArtifactError
from index.tables.interactions import (
    Interactions,
    has_only_order,
    load_interactions,
    read_interactions,
    write_interactions,
)
from index.tables.rejects import ImportReport

CATALOG = Catalog.from_items([Item("a", "Tetris"), Item("b", "Doom"), Item("c", "tetris"), Item("d", "Myst")])
events = st.tuples(st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(0, 5))


def read(path: Path, share: float = 1.0) -> tuple[Interactions, ImportReport]:
    return read_interactions(path, CATALOG, rejects_path=path.parent / "rejects.csv", max_reject_share=share)


def read_text(
    folder: Path, *rows: str, header: str = "user_id,item_id,timestamp,rating"
) -> tuple[Interactions, ImportReport]:
    path = folder / "interactions.csv"
    path.write_text("\n".join([header, *rows]), encoding="utf-8", errors="surrogateescape")
    return read(path)


def as_tuples(log: Interactions) -> list[tuple[str, str, int]]:
    return list(zip(log.user_ids.tolist(), log.item_ids.tolist(), log.timestamps.tolist(), strict=True))


def slow_order(rows: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """First of equal rows kept; users by first appearance; inside a user by time, then file order."""
    kept = list(dict.fromkeys(rows))
    users = list(dict.fromkeys(user for user, _, _ in rows))
    return [row for user in users for row in sorted((r for r in kept if r[0] == user), key=lambda r: r[2])]


@given(st.lists(events, min_size=1, max_size=40))
def test_order_and_duplicates_agree_with_the_obvious_version(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]]
) -> None:
    log, report = read_text(tmp_path_factory.mktemp("log"), *(f"{user},{item},{time}," for user, item, time in rows))
    assert as_tuples(log) == slow_order(rows)
    assert (report.rows_read, report.rows_kept) == (len(rows), len(set(rows)))
    assert report.rejected.total() == len(rows) - len(set(rows))
    assert log.item_rows.tolist() == [CATALOG.find_item_row(item) for item in log.item_ids]
    users = [(user, rows_.tolist(), times.tolist()) for user, rows_, times in log.by_user()]
    assert [user for user, _, _ in users] == list(dict.fromkeys(user for user, _, _ in rows))
    assert [row for _, rows_, _ in users for row in rows_] == log.item_rows.tolist()
    assert all(times == sorted(times) for _, _, times in users)
    assert log.count_users() == len(users)


def test_every_kind_of_bad_row_is_put_aside_with_its_reason(tmp_path: Path) -> None:
    log, report = read_text(
        tmp_path,
        "u,a,10,5",
        "u,zzz,11,5",
        ",a,11,5",
        "u,,11,5",
        "u,a,soon,5",
        "u,a,-3,5",
        "u,b,12,five",
        "u,a,10,5.0",
        "u,a,10,4",
        "u,a",
        "caf\udce9,a,13,",
        "x" * 257 + ",a,10,",
        "u,d,1500000000000,",
        "u,b,15,",
    )
    assert as_tuples(log) == [("u", "a", 10), ("u", "a", 10), ("u", "b", 15)]
    np.testing.assert_array_equal(log.ratings, np.array([5, 4, np.nan], dtype=np.float32))
    assert report.rejected == {
        "unknown item_id": 1,
        "empty user_id": 1,
        "empty item_id": 1,
        "unreadable timestamp": 2,
        "unreadable rating": 1,
        "repeats an earlier row exactly": 1,
        "wrong number of columns": 1,
        "bytes that are not UTF-8": 1,
        "user_id over 256 characters": 1,
        "timestamp is not in seconds like the others": 1,
    }
    lines = (tmp_path / "rejects.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[0]) for line in lines] == [3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14]


def test_too_many_unknown_items_show_what_ids_look_like(tmp_path: Path) -> None:
    path = tmp_path / "interactions.csv"
    path.write_text("user_id,item_id,timestamp\nu,1.0,1\nu,a,2\n")
    with pytest.raises(InputError, match=r"line 2: unknown item_id: u,1\.0,1,; .*ids look like 'a'"):
        read(path, share=0.01)


def test_what_was_mended_or_tolerated_is_noted(tmp_path: Path) -> None:
    """u's second row is earlier than the first; v has one row."""
    _, report = read_text(tmp_path, "u,a,9,", "u,b,3,", "v,a,1,", "u,c,4,")
    assert report.notes[1:] == (
        "rows earlier than the same user's row before: 1; sorted",
        "users with one interaction: 1; kept, but there is nothing to predict from",
    )


def test_milliseconds_order_rows_inside_a_second(tmp_path: Path) -> None:
    log, report = read_text(tmp_path, "u,a,1588687728923,", "u,b,1588687728922,", "u,d,2020-05-05T14:08:48.9225Z,")
    assert log.item_ids.tolist() == ["b", "d", "a"]
    assert log.timestamps.tolist() == [1588687728] * 3
    assert "timestamps were in milliseconds, kept in seconds" in report.notes


@pytest.mark.parametrize(
    "times",
    [
        ("1735843646.1", "1735843646.5", "1735843646.7"),
        ("1735843646.9999997", "1735843646.9999998", "1735843646.9999999"),  # a float has steps of 0.0000002 there
        ("1735843646123.000001", "1735843646123.000002", "1735843646123.5"),
        ("1735843646123456.25", "1735843646123456.5", "1735843646123456.75"),
        ("1735843646123456001", "1735843646123456002", "1735843646123456003"),  # inside a microsecond
        ("2025-01-02T18:47:26.1Z", "2025-01-02T18:47:26.100000001Z", "2025-01-02T18:47:26.2Z"),
        ("1735843646", "1735843646.0000001", "2025-01-02T18:47:26.1Z"),
    ],
)
def test_fractions_order_rows_inside_a_second_and_keep_neighbours_apart(tmp_path: Path, times: tuple[str, ...]) -> None:
    """Three times of one item are three choices; of three items they tell the order, whatever the file's."""
    first, second, third = times
    log, report = read_text(tmp_path, f"u,d,{third},", f"u,b,{second},", f"u,a,{first},")
    assert log.item_ids.tolist() == ["a", "b", "d"]
    assert log.timestamps.tolist() == [1735843646] * 3
    assert "rows earlier than the same user's row before: 2; sorted" in report.notes
    log, report = read_text(tmp_path, *(f"u,a,{time}," for time in times))
    assert (len(log), report.rejected.total()) == (3, 0)


def test_rows_put_aside_appear_as_they_were_written(tmp_path: Path) -> None:
    """Repeats in other words (5.0 is 5, an hour ahead of UTC is that much earlier) and a time of another unit."""
    _, report = read_text(
        tmp_path,
        "u,a,1735843646.50,5",
        "u,a,1735843646.5,5.0",
        "u,a,2025-01-02T19:47:26.5+01:00,5",
        "v,b,1735843647,",
        "v,b,0001735843647.000,nan",
        " v ,b, 1.735843647e9 ,",
        "w,d,1735843646123.25,4.123456789",
    )
    assert (tmp_path / "rejects.csv").read_text().splitlines() == [
        "line,reason,row",
        '3,repeats an earlier row exactly,"u,a,1735843646.5,5.0"',
        '4,repeats an earlier row exactly,"u,a,2025-01-02T19:47:26.5+01:00,5"',
        '6,repeats an earlier row exactly,"v,b,0001735843647.000,nan"',
        '7,repeats an earlier row exactly,"v,b,1.735843647e9,"',
        '8,timestamp is not in seconds like the others,"w,d,1735843646123.25,4.123456789"',
    ]
    assert (report.rows_read, report.rows_kept) == (7, 2)


def test_rows_put_aside_of_other_layouts_and_forms_appear_in_our_columns(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::a::4.50::978300760\n" * 2)
    times = ["1735843646.123456789", "1735843646.123456788", "1735843646.123456789"]
    rows = [f'{{"user_id": "U", "parent_asin": "a", "rating": 4.5, "timestamp": {time}}}\n' for time in times]
    (tmp_path / "Games.jsonl.gz").write_bytes(gzip.compress("".join(rows).encode()))
    table = pa.table({"user_id": ["u"] * 3, "item_id": ["a"] * 3, "timestamp": [1735843646.25, 1735843646.5, 0.0]})
    table = pa.concat_tables([table, table.slice(1, 1)])
    pq.write_table(table, tmp_path / "log.parquet")
    for name, expected in (
        ("ratings.dat", ['2,repeats an earlier row exactly,"1,a,978300760,4.50"']),
        ("Games.jsonl.gz", ['3,repeats an earlier row exactly,"U,a,1735843646.123456789,4.5"']),
        ("log.parquet", ['4,repeats an earlier row exactly,"u,a,1735843646.5,"']),
    ):
        read(tmp_path / name)
        assert (tmp_path / "rejects.csv").read_text().splitlines()[1:] == expected, name


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("u.data", "196\ta\t3\t881250949\n", [("196", "a", 881250949)]),
        ("ratings.dat", "1::a::5::978300760\n", [("1", "a", 978300760)]),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,a,4.0,964982703\n", [("1", "a", 964982703)]),
        ("Games.csv", "user_id,parent_asin,rating,timestamp\nU,a,5.0,1588687728923\n", [("U", "a", 1588687728)]),
    ],
)
def test_raw_layouts(tmp_path: Path, name: str, content: str, expected: list[tuple[str, str, int]]) -> None:
    (tmp_path / name).write_text(content)
    assert as_tuples(read(tmp_path / name)[0]) == expected


def test_raw_amazon_2023_reviews(tmp_path: Path) -> None:
    review = {
        "rating": 4.0,
        "title": "good",
        "asin": "x",
        "parent_asin": "a",
        "user_id": "U",
        "timestamp": 1588687728923,
    }
    path = tmp_path / "Video_Games.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(review).encode()))
    log, _ = read(path)
    assert as_tuples(log) == [("U", "a", 1588687728)]
    assert log.ratings.tolist() == [4.0]


@given(st.lists(events, min_size=1, max_size=20))
def test_write_then_load_is_identity(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    rating = random.Random(0)
    log, _ = read_text(folder, *(f"{user},{item},{time},{rating.choice(['', '3'])}" for user, item, time in rows))
    write_interactions(folder / "interactions.parquet", log)
    loaded = load_interactions(folder / "interactions.parquet", CATALOG)
    for name in ("user_ids", "item_ids", "item_rows", "timestamps", "ratings"):
        found, expected = getattr(loaded, name), getattr(log, name)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_a_log_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    path = tmp_path / "interactions.parquet"
    with pytest.raises(MissingArtifactError, match=r"init \S+ --items items.csv --interactions interactions.csv`"):
        load_interactions(path, CATALOG)
    path.write_bytes(b"PAR1 and then nothing")
    (tmp_path / "softrec.toml").touch()
    with pytest.raises(CorruptArtifactError, match=r"unreadable interactions.*interactions.csv --force`"):
        load_interactions(path, CATALOG)
    log, _ = read_text(tmp_path, "u,a,1,", "u,d,2,")
    write_interactions(path, log)
    with pytest.raises(MismatchError, match="found 'd'"):
        load_interactions(path, Catalog.from_items([Item("a", "Tetris")]))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["u,a,1,", "u,b,2,", "v,a,1,"], True),
        (["u,b,2,", "u,a,1,"], True),
        (["u,a,1,", "u,b,3,"], True),
        (["u,a,1,", "u,zzz,2,", "u,b,3,", "v,a,1,"], True),
        (["u,a,0,", "u,b,1,", "v,a,0,"], True),
        (["u,a,1,", "u,b,1,"], False),
        (["u,a,1,", "u,b,86399,"], True),
        (["u,a,1,", "u,b,86400,"], False),
        (["u,a,881250949,", "v,b,881250949,"], False),
        (["u,a,881250949,", "u,b,881250950,", "v,b,881250951,"], False),
        (["u,a,881250949,"], False),
        (["u,a,2025-01-03T10:00:00Z,", "u,b,2025-01-03T11:00:00Z,"], False),
    ],
)
def test_a_log_that_only_numbers_rows_is_recognised(tmp_path: Path, rows: list[str], expected: bool) -> None:
    assert has_only_order(read_text(tmp_path, *rows)[0]) is expected
