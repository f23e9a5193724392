"""A million vectors that lie as titles' embeddings do, made up: no catalog of that size could be had here.

Imitated are 16,403 real titles (Amazon's games, all-MiniLM-L6-v2, normalised). Medians; the last two lines are
recall@10 at 1/16, 1/8 and 1/4 of 256 inverted lists of FAISS, and of its HNSW at efSearch 16 and 32:

                                        real titles         16,403 made ones
    distance of two titles              1.25 +- 0.10        1.18 +- 0.09
    to neighbour 1, 10, 26, 100         .58 .84 .91 1.00    .57 .77 .84 .95
    dimensions of 50, 80, 95 % of it    35, 112, 214        34, 99, 218
    inverted lists                      .90 .94 .98         .89 .93 .98
    graph                               .984 .988           .959 .967

So a vector is a mean that all share, plus Gaussian parts: of its genre (100 titles on average), of its series within
the genre (8), of its platform (one of 50), and of its own, each of uneven size; popular groups hold more. All have one
falling spectrum, rotated at random; the sum is normalised. A larger catalog has more groups, and its popular ones grow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIMENSION = 384
_MEAN_SQUARE = 0.24
_GENRE_SIZE, _SERIES_SIZE, _PLATFORMS = 100, 8, 50
_GENRE, _SERIES, _PLATFORM, _OWN = 0.3, 0.3, 0.2, 0.2  # shares of the variance about the mean
_BLOCK = 50_000  # rows made at once


def make_vectors(n: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Make n unit vectors, float32 [n, 384]; the same ones for the same n and seed."""
    generator = np.random.default_rng(seed)
    spectrum = (1 + np.arange(DIMENSION) / 100) ** -2.5
    spectrum *= (1 - _MEAN_SQUARE) / spectrum.sum()
    rotation = np.linalg.qr(generator.normal(size=(DIMENSION, DIMENSION)))[0]
    shape = (np.sqrt(spectrum)[:, None] * rotation).astype(np.float32)  # [384, 384]: white noise to the spectrum
    mean = (_MEAN_SQUARE**0.5 * rotation[-1]).astype(np.float32)
    genres, series = max(n // _GENRE_SIZE, 1), max(n // _SERIES_SIZE, 1)
    genre_parts = _parts(generator, genres, _GENRE)
    series_parts = _parts(generator, series, _SERIES) + genre_parts[_popular(generator, genres, series)]
    platform_parts = _parts(generator, min(_PLATFORMS, n), 1.0, uneven=0.0)
    vectors = np.empty((n, DIMENSION), dtype=np.float32)
    for start in range(0, n, _BLOCK):
        rows = min(_BLOCK, n - start)
        white = _parts(generator, rows, _OWN)
        white += series_parts[_popular(generator, series, rows)]
        platform = platform_parts[_popular(generator, len(platform_parts), rows)]
        white += platform * _uneven(generator, rows, _PLATFORM)
        block = white @ shape + mean
        vectors[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def _parts(generator: np.random.Generator, n: int, variance: float, *, uneven: float = 1.0) -> NDArray[np.float32]:
    noise = generator.standard_normal((n, DIMENSION), dtype=np.float32)
    noise *= _uneven(generator, n, variance, uneven)
    return noise


def _uneven(generator: np.random.Generator, n: int, variance: float, uneven: float = 1.0) -> NDArray[np.float32]:
    """Scales [n, 1] whose squares are log-normal about the variance."""
    squares = variance * np.exp(uneven * generator.normal(size=(n, 1)) - uneven**2 / 2)
    scales: NDArray[np.float32] = np.sqrt(squares).astype(np.float32)
    return scales


def _popular(generator: np.random.Generator, groups: int, n: int) -> NDArray[np.int64]:
    """A group for each of n, the first ones more often: the density of group g falls as 1 / sqrt(g)."""
    return (generator.random(n) ** 2 * groups).astype(np.int64)
