"""An answer in the making: what the request path learns step by step, and what becomes of it on the wire."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.grounding import Ranking
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


def grounded_items(ranking: Ranking, candidates: Candidates, k: int) -> list[RecommendedItem]:
    """Spell a ranking of rows out as at most k items; the items of one title follow each other, each with its rank."""
    found = ranking.grounding
    items: list[RecommendedItem] = []
    for row, distance in zip(ranking.rows.tolist(), ranking.distances.tolist(), strict=True):
        exact = found.match == "exact" and row == found.row
        grounding = Grounding(
            generation=found.generation,
            match=Match.EXACT if exact else Match.NEAREST,
            distance=distance,
            margin=found.margin,
        )
        for item in candidates.items_of(row)[: k - len(items)]:
            items.append(
                RecommendedItem(
                    item_id=item.item_id,
                    title=item.title,
                    rank=len(items) + 1,
                    score=0.0 - distance,  # not -distance: an exact match has 0, not -0
                    score_type=ScoreType.NEGATIVE_L2_DISTANCE,
                    source=Source.GENERATED,
                    grounding=grounding,
                )
            )
    return items


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
