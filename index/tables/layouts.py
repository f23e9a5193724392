"""The known layouts of items and interactions, and how each names our columns."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.errors import InputError, Problem
from index.tables.rows import RowSource, open_rows, open_separated

ITEM_COLUMNS = ("item_id", "title", "category", "available")
INTERACTION_COLUMNS = ("user_id", "item_id", "timestamp", "rating")

_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
# What others call our columns, for the question «did you mean»: small letters and digits only.
_ALSO_CALLED = {
    "user_id": ("user", "customerid", "reviewerid", "memberid", "sessionid"),
    "item_id": ("item", "id", "movieid", "productid", "asin", "sku"),
    "title": ("name", "itemtitle", "itemname", "productname"),
    "timestamp": ("time", "date", "datetime", "ts", "createdat"),
}


@dataclass(frozen=True)
class Layout:
    """Where our columns are found in a file.

    Attributes:
        name: for people.
        picked: the file's columns to read.
        required: how many of `picked`, from the first, must exist. The others read as "".
        to_ours: makes our columns, in order, of the picked ones; None where they correspond one to one.
    """

    name: str
    picked: tuple[str, ...]
    required: int
    to_ours: Callable[[Sequence[str]], Sequence[str]] | None = None

    def missing(self, columns: Sequence[str]) -> list[str]:
        return [name for name in self.picked[: self.required] if name not in columns]


def _from_genre_flags(values: Sequence[str]) -> Sequence[str]:
    item_id, title, *flags = values
    genres = [genre for genre, flag in zip(_GENRES, flags, strict=True) if flag == "1" and genre != "unknown"]
    return item_id, title, "|".join(genres), ""


def _from_movielens(values: Sequence[str]) -> Sequence[str]:
    item_id, title, genres = values
    return item_id, title, "" if genres == "(no genres listed)" else genres, ""


def _from_amazon_metadata(values: Sequence[str]) -> Sequence[str]:
    item_id, title, main_category, categories = values
    return item_id, title, categories or main_category, ""


# The first is ours: where none fits, its columns are the ones asked for.
ITEM_LAYOUTS = (
    Layout("softrec items", ITEM_COLUMNS, 2),
    Layout("MovieLens 100K u.item", ("movieId", "title", *_GENRES), 2 + len(_GENRES), _from_genre_flags),
    Layout("MovieLens movies", ("movieId", "title", "genres"), 2, _from_movielens),
    Layout("Amazon 2023 metadata", ("parent_asin", "title", "main_category", "categories"), 3, _from_amazon_metadata),
)
INTERACTION_LAYOUTS = (
    Layout("softrec interactions", INTERACTION_COLUMNS, 3),
    Layout("MovieLens ratings", ("userId", "movieId", "timestamp", "rating"), 3),
    Layout("Amazon 2023 reviews", ("user_id", "parent_asin", "timestamp", "rating"), 3),
)

# Raw MovieLens files have no header; their names tell what they are.
_SEPARATED = {
    "u.item": ("|", ("movieId", "title", "release_date", "video_release_date", "url", *_GENRES)),
    "u.data": ("\t", ("userId", "movieId", "rating", "timestamp")),
    "movies.dat": ("::", ("movieId", "title", "genres")),
    "ratings.dat": ("::", ("userId", "movieId", "rating", "timestamp")),
}


def open_source(path: Path) -> RowSource:
    """Open a file for reading, with a header or as one of the raw MovieLens files.

    Raises:
        InputError: it cannot be read at all; with what to do.
    """
    separated = _SEPARATED.get(path.name.removesuffix(".gz"))
    return open_separated(path, *separated) if separated else open_rows(path)


def find_layout(path: Path, columns: Sequence[str], layouts: Sequence[Layout]) -> Layout:
    """Return the first layout whose required columns are all there.

    Raises:
        InputError: none is; names what is missing, what was seen, and a likely rename.
    """
    for layout in layouts:
        if not layout.missing(columns):
            return layout
    ours = layouts[0]
    seen = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
    missing = ours.missing(columns)
    problems = [Problem(1, f"no column {name!r}{_did_you_mean(name, columns)}") for name in missing]
    problems.append(Problem(None, f"columns seen: {seen}"))
    required, optional = ", ".join(ours.picked[: ours.required]), ", ".join(ours.picked[ours.required :])
    remedy = f"name the columns {required} (optional: {optional})"
    other = INTERACTION_LAYOUTS if layouts is ITEM_LAYOUTS else ITEM_LAYOUTS
    mistaken = [layout.name for layout in other if not layout.missing(columns)]
    if mistaken:
        remedy = f"this looks like {mistaken[0]}: were --items and --interactions exchanged?"
    elif missing == ["timestamp"]:
        remedy += "; a log that has only an order can number each user's rows 1, 2, 3, ..."
    raise InputError(path, problems, remedy=remedy)


def _did_you_mean(name: str, columns: Sequence[str]) -> str:
    ours = {*ITEM_COLUMNS, *INTERACTION_COLUMNS}
    plain = {"".join(filter(str.isalnum, column)).lower(): column for column in columns if column not in ours}
    guesses = [guess for guess in _ALSO_CALLED[name] if guess in plain]
    guesses += difflib.get_close_matches(name.replace("_", ""), plain, n=1, cutoff=0.5)
    return f" (did you mean {plain[guesses[0]]!r}? rename it)" if guesses else ""
