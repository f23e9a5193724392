"""A real, tiny encoder: how often each letter occurs. What a test expects of it can be worked out by hand."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class LetterEncoder:
    """Counts of a ... z in a title, whatever the case; anagrams share a vector."""

    name = "letters"
    dimension = 26

    def __init__(self, fingerprint: str = "letters-1") -> None:
        self.fingerprint = fingerprint
        self.encoded: list[list[str]] = []

    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        self.encoded.append(list(titles))
        vectors = np.zeros((len(titles), 26), dtype=np.float32)
        for row, title in enumerate(titles):
            for letter in title.lower():
                if "a" <= letter <= "z":
                    vectors[row, ord(letter) - ord("a")] += 1
        return vectors
