"""Titles to embed where no catalog is given: as many words as real titles have, out of the demo shop's titles."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

from clients.demo_shop import fill_shelf

_WORDS_MEDIAN, _WORDS_SPREAD = 6.0, 0.55  # Amazon's games: 3, 5, 6, 9 and 12 words at 10, 25, 50, 75 and 90 %


def make_titles(n: int, *, seed: int = 0) -> list[str]:
    """Make n titles of 1 to 60 words."""
    generator = np.random.default_rng(seed)
    words = sorted({word for title in fill_shelf(generator).titles for word in title.split()})
    counts = np.exp(generator.normal(np.log(_WORDS_MEDIAN), _WORDS_SPREAD, size=n)).round().clip(1, 60).astype(int)
    return [" ".join(words[at] for at in generator.integers(len(words), size=count)) for count in counts]


def read_titles(path: Path) -> list[str]:
    """Read the distinct titles of an items file (CSV or CSV.gz with a column `title`), in a random order."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
        titles = sorted({row["title"] for row in csv.DictReader(file) if row["title"]})
    return [titles[at] for at in np.random.default_rng(0).permutation(len(titles))]
