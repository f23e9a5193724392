"""Which decoding and ranking an adapter is served with: the mode that wins on validation, at the lowest cost.

Modes are tried from the cheapest to the dearest, on the same windows. The best has the highest mean NDCG@10; chosen is
the cheapest that lies within one standard error of it (the standard error of the paired difference, over users): the
one-standard-error rule (Breiman et al. 1984), by which a dearer mode has to be better by more than its own noise.
What is fitted, a fusion's weights and BIGRec's gamma, is fitted on one half of the users and tried on the other, both
ways round; the weights that are kept are then those of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.ranking.grounding import Grounder
from index.ranking.ranking import Ranker, Written
from index.ranking.ranking_spec import RankingSpec
from training.adapter import DecodingMode
from training.data.windows import Window
from training.measure.fusion import GAMMAS, fit_fusion
from training.measure.metrics import gains, hits
from training.measure.ranks import rank_targets

WIDTHS = (10, 20)  # beams of the constrained modes that are tried

_MOST_FOR_GAMMA = 20_000  # rows: BIGRec's form costs a pass over the catalog per request, about 1 ms per thousand

Decode = Callable[[DecodingMode, int], list[Written]]
Fit = Callable[[NDArray[np.int64]], RankingSpec]  # from the numbers of some windows


@dataclass(frozen=True)
class Trial:
    """A mode on the validation windows.

    Attributes:
        width: beams; 1 for greedy.
        hr10, ndcg10: means over the windows; of a fitted mode cross-fitted.
    """

    decoding: DecodingMode
    width: int
    ranking: RankingSpec
    hr10: float
    ndcg10: float

    @property
    def name(self) -> str:
        """For a table or a metric.

        Example:
            >>> Trial("constrained_beam", 10, RankingSpec("likelihood"), 0.0, 0.0).name
            'constrained_beam10_likelihood'
        """
        popularity = "_popularity" if self.ranking.popularity_gamma else ""
        return f"{self.decoding}{self.width if self.width > 1 else ''}_{self.ranking.mode}{popularity}"


def choose_mode(
    decode: Decode, windows: Sequence[Window], grounder: Grounder, popularity: NDArray[np.int64]
) -> tuple[Trial, list[Trial]]:
    """Try every mode on the validation windows.

    Args:
        decode: writes titles for the windows in a mode, with a width.
        popularity: int64 [len(catalog)], of what training may see.

    Returns:
        The chosen mode, with the weights of the fusion that was tried in its decoding; and all that were tried,
        cheapest first.
    """
    ranker = Ranker(grounder, popularity)
    targets = [window.target for window in windows]
    halves = _halves([window.user_id for window in windows])
    trials: list[Trial] = []
    gained: list[NDArray[np.float64]] = []

    def attempt(decoding: DecodingMode, width: int, written: Sequence[Written], fit: Fit) -> None:
        positions = np.empty(len(windows), dtype=np.int64)
        for inside, outside in ((halves, ~halves), (~halves, halves)):
            at = np.flatnonzero(outside)
            choice = fit(np.flatnonzero(inside))
            positions[at] = rank_targets([written[i] for i in at], [targets[i] for i in at], ranker, choice).positions
        kept = fit(np.arange(len(windows)))
        gained.append(gains(positions, 10))
        trials.append(Trial(decoding, width, kept, float(hits(positions, 10).mean()), float(gained[-1].mean())))

    def fused(written: Sequence[Written]) -> Fit:
        def fit(at: NDArray[np.int64]) -> RankingSpec:
            chosen = [written[i] for i in at], [targets[i] for i in at]
            return RankingSpec("fusion", fit_fusion(ranker, grounder, *chosen))

        return fit

    def with_popularity(written: Sequence[Written]) -> Fit:
        gain = np.array([gains(positions, 10) for positions in ranker.ranks_by_gamma(written, targets, GAMMAS)])

        def fit(at: NDArray[np.int64]) -> RankingSpec:
            best = int(np.argmax(gain[:, at].mean(axis=1))) if len(at) else 0
            return RankingSpec(popularity_gamma=GAMMAS[best])

        return fit

    greedy = decode("greedy", 1)
    attempt("greedy", 1, greedy, lambda at: RankingSpec())
    if len(grounder.catalog) <= _MOST_FOR_GAMMA:
        attempt("greedy", 1, greedy, with_popularity(greedy))
    attempt("greedy", 1, greedy, fused(greedy))
    for width in WIDTHS:
        constrained = decode("constrained_beam", width)
        attempt("constrained_beam", width, constrained, lambda at: RankingSpec("likelihood"))
        attempt("constrained_beam", width, constrained, fused(constrained))
    chosen = trials[cheapest_of_the_best(gained, [window.user_id for window in windows])]
    same = [trial for trial in trials if (trial.decoding, trial.width) == (chosen.decoding, chosen.width)]
    weights = next(trial.ranking.weights for trial in same if trial.ranking.mode == "fusion")
    return replace(chosen, ranking=replace(chosen.ranking, weights=weights)), trials


def cheapest_of_the_best(gained: Sequence[NDArray[np.float64]], users: Sequence[str]) -> int:
    """Return the first of some methods that is within one standard error of the best.

    Args:
        gained: one array [n] per method, cheapest first: its gain per window.
        users: of each window; a user's windows are not independent, so the error is over users.

    Example:
        >>> sure = np.ones(4)
        >>> cheapest_of_the_best([sure, sure], ["a", "b", "c", "d"])
        0
        >>> cheapest_of_the_best([sure - 1, sure], ["a", "b", "c", "d"])
        1
    """
    best = gained[int(np.argmax([gain.mean() for gain in gained]))]
    _, owners = np.unique(np.asarray(users, dtype=np.str_), return_inverse=True)
    for at, gain in enumerate(gained):
        behind = best - gain
        of_users = np.bincount(owners, weights=behind - behind.mean())  # a ratio estimate's linearised sums
        n_users = len(of_users)
        error = np.sqrt((of_users**2).sum() * n_users / max(n_users - 1, 1)) / len(behind)
        if behind.mean() <= error:
            return at
    raise AssertionError("the best is within any error of itself")


def _halves(users: Sequence[str]) -> NDArray[np.bool_]:
    """Divide windows into two halves by user."""
    _, owners = np.unique(np.asarray(users, dtype=np.str_), return_inverse=True)
    odd: NDArray[np.bool_] = owners % 2 == 1
    return odd


def describe_trials(trials: Sequence[Trial], chosen: Trial) -> dict[str, float]:
    """What the manifest's metrics say of the choice: the HR@10 and NDCG@10 of every mode."""
    figures: dict[str, float] = {}
    for trial in trials:
        figures |= {f"mode_{trial.name}_hr10": trial.hr10, f"mode_{trial.name}_ndcg10": trial.ndcg10}
    return figures | {"mode_chosen_hr10": chosen.hr10, "mode_chosen_ndcg10": chosen.ndcg10}
