"""How good written titles are: ground each, look where the target came.

Validation during training and the final evaluation both go through here, so the epoch that is kept is chosen by the
very measure that is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.grounding import Grounder
from training.metrics import CUTOFFS


@dataclass(frozen=True)
class Verdict:
    """What came of a list of windows, in their order.

    Attributes:
        titles: as written.
        positions: int64 [n], 0-based place of the target in the ranked catalog; -1 beyond the deepest cut-off.
        on_catalog: bool [n], whether the title exists word for word.
    """

    titles: list[str]
    positions: NDArray[np.int64]
    on_catalog: NDArray[np.bool_]


def judge(titles: Sequence[str], targets: Sequence[int], grounder: Grounder) -> Verdict:
    """Rank the whole catalog by L2 distance to each title and find the targets (SOFT, section 4.1).

    Nothing is excluded from the ranking, the history neither: that is the paper's measure.
    """
    rankings = grounder.rank(titles, max(CUTOFFS))
    positions = np.array(
        [find_position(ranking.rows, target) for ranking, target in zip(rankings, targets, strict=True)], dtype=np.int64
    )
    exact = np.array([ranking.grounding.match == "exact" for ranking in rankings], dtype=np.bool_)
    return Verdict(list(titles), positions, exact)


def find_position(rows: NDArray[np.int64], target: int) -> int:
    """0-based place of `target` among `rows`; -1 when it is not there."""
    found = np.flatnonzero(rows == target)
    return int(found[0]) if len(found) else -1
