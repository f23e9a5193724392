"""An answer in the making: what the request path learns step by step, and what becomes of it on the wire."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ranking import RankedRows, Written
from index.ranking_choice import RankingChoice
from serving.arms import Choice
from serving.candidates import Candidates
from serving.event_store import Decision
from serving.known_history import KnownHistory
from serving.schema import (
    ArmReason,
    Degraded,
    Experiment,
    Grounding,
    HistoryUsed,
    IndexUsed,
    Match,
    RecommendedItem,
    RecommendResponse,
    ScoreType,
    Source,
    Timings,
    Usage,
)

_STAGES = ("history", "prompt", "queue", "generate", "ground", "record")


@dataclass
class AnswerDraft:
    """What is known of one answer so far. Times in milliseconds."""

    request_id: str
    user_id: str | None
    experiment_id: str | None
    assigned: str | None
    served: str | None
    reason: ArmReason
    adapter_id: str | None
    index: IndexUsed
    history: KnownHistory | None = None
    items: list[RecommendedItem] = field(default_factory=list)
    degraded: list[Degraded] = field(default_factory=list)
    titles_used: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    details: dict[str, Any] | None = None
    _started: float = field(default_factory=time.perf_counter)
    _timings: dict[str, float] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, choice: Choice, *, request_id: str, user_id: str | None, experiment_id: str | None, index: IndexUsed
    ) -> AnswerDraft:
        """Start from the choice of who answers."""
        return cls(
            request_id=request_id,
            user_id=user_id,
            experiment_id=experiment_id,
            assigned=choice.assigned,
            served=choice.served,
            reason=choice.reason,
            adapter_id=choice.adapter.adapter_id,
            index=index,
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long a stage takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.note_time(stage, since=start)

    def note_time(self, stage: str, *, since: float) -> None:
        """Note that a stage ends now; `since` in seconds of `time.perf_counter`."""
        self._timings[stage] = (time.perf_counter() - since) * 1000

    def fall_back(self, items: list[RecommendedItem], reason: ArmReason, label: Degraded) -> None:
        """Answer with other items than the model's: no adapter and no arm served, and both labels say why."""
        self.items = items
        self.adapter_id, self.served, self.reason, self.titles_used = None, None, reason, 0
        self.degraded.append(label)

    def decision(self) -> Decision:
        """What the event store keeps."""
        return Decision(
            request_id=self.request_id,
            user_id=self.user_id,
            experiment=self.experiment_id,
            arm_assigned=self.assigned,
            arm_served=self.served,
            reason=self.reason.value,
            adapter_id=self.adapter_id,
            index_version=self.index.version,
            items=[
                {"item_id": item.item_id, "rank": item.rank, "score": item.score, "source": item.source.value}
                for item in self.items
            ],
            degraded=[label.value for label in self.degraded],
            details=self.details,
        )

    def response(self) -> RecommendResponse:
        """What the caller gets."""
        assert self.history is not None
        stages = {stage: round(self._timings.get(stage, 0.0), 3) for stage in _STAGES}
        return RecommendResponse(
            request_id=self.request_id,
            items=self.items,
            adapter=self.adapter_id,
            experiment=Experiment(
                id=self.experiment_id, arm_assigned=self.assigned, arm_served=self.served, reason=self.reason
            ),
            index=self.index,
            history=HistoryUsed(
                source=self.history.source,
                used=self.titles_used,
                dropped=len(self.history.titles) - self.titles_used,
                unknown=self.history.unknown,
            ),
            degraded=self.degraded,
            usage=Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens),
            timings_ms=Timings(**stages, total=round((time.perf_counter() - self._started) * 1000, 3)),
        )


def ranked_items(
    ranked: RankedRows, written: Written, choice: RankingChoice, candidates: Candidates, k: int
) -> list[RecommendedItem]:
    """Spell ranked rows out as at most k items; the items of one title follow each other, each with its rank."""
    items: list[RecommendedItem] = []
    facts = (values.tolist() for values in (ranked.rows, ranked.scores, ranked.log_probs, ranked.distances))
    for row, score, log_prob, distance in zip(*facts, strict=True):
        was_written = not math.isnan(log_prob)
        by_distance = choice.mode == "l2" and not choice.popularity_gamma
        is_neighbour = choice.mode == "likelihood" and not was_written
        grounding = _ground(row, log_prob if was_written else None, distance, ranked, written, candidates)
        for item in candidates.items_of(row)[: k - len(items)]:
            items.append(
                RecommendedItem(
                    item_id=item.item_id,
                    title=item.title,
                    rank=len(items) + 1,
                    score=0.0 + score,  # an exact match has 0, not -0
                    score_type=_NEGATIVE_DISTANCE if by_distance or is_neighbour else _SCORE_TYPES[choice.mode],
                    source=Source.NEIGHBOUR if is_neighbour else Source.GENERATED,
                    grounding=grounding,
                )
            )
    return items


_NEGATIVE_DISTANCE = ScoreType.NEGATIVE_L2_DISTANCE
_SCORE_TYPES: Mapping[str, ScoreType] = {
    "l2": ScoreType.FUSION,  # with popularity in it
    "likelihood": ScoreType.LOG_PROBABILITY,
    "fusion": ScoreType.FUSION,
}


def _ground(
    row: int,
    log_prob: float | None,
    distance: float,
    ranked: RankedRows,
    written: Written,
    candidates: Candidates,
) -> Grounding:
    """How one row is tied to what was written: to its own title where it was written, else to the best one."""
    best, ambiguity = ranked.grounding, candidates.items_in(row)
    is_best = row == best.row and best.match == "exact"
    if log_prob is None and not is_best:
        return Grounding(
            generation=best.generation,
            match=Match.NEAREST,
            distance=distance,
            margin=best.margin,
            log_prob=None,
            ambiguity=ambiguity,
        )
    return Grounding(
        generation=best.generation if is_best else candidates.title(row),
        match=Match.EXACT if written.rows is None else Match.CONSTRAINED,
        distance=0.0,
        margin=best.margin if is_best else None,
        log_prob=log_prob,
        ambiguity=ambiguity,
    )


def popular_items(
    order: Iterable[int], counts: NDArray[np.int64], candidates: Candidates, k: int
) -> list[RecommendedItem]:
    """Return the k most popular candidates.

    Args:
        order: rows, the most popular first.
        counts: int64 [number of rows], interactions per row.
    """
    items: list[RecommendedItem] = []
    for row in order:
        if len(items) == k:
            break
        if not candidates.rows[row]:
            continue
        for item in candidates.items_of(row)[: k - len(items)]:
            items.append(
                RecommendedItem(
                    item_id=item.item_id,
                    title=item.title,
                    rank=len(items) + 1,
                    score=float(counts[row]),
                    score_type=ScoreType.INTERACTION_COUNT,
                    source=Source.POPULARITY,
                    grounding=None,
                )
            )
    return items
