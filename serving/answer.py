"""An answer in progress: the request path fills a draft step by step; then it goes to the store and on the wire."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ranking.ranking import RankedRows, Written
from index.ranking.ranking_spec import RankingSpec
from serving.events.event_store import Decision
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
from serving.snapshots.candidates import Candidates
from serving.snapshots.known_history import KnownHistory

_STAGES = ("history", "prompt", "queue", "generate", "ground", "record")


@dataclass
class AnswerDraft:
    """State of one answer. Times in milliseconds."""

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

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the duration of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.note_time(stage, since=start)

    def note_time(self, stage: str, *, since: float) -> None:
        """Record that a stage ends now; `since` in seconds of `time.perf_counter`."""
        self._timings[stage] = (time.perf_counter() - since) * 1000

    def fall_back(self, items: list[RecommendedItem], reason: ArmReason, label: Degraded) -> None:
        """Answer without the model: no adapter and no arm served; both labels say why."""
        self.items = items
        self.adapter_id, self.served, self.reason, self.titles_used = None, None, reason, 0
        self.degraded.append(label)

    def decision(self) -> Decision:
        """Return the decision for the event store."""
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
        """Return the response for the caller."""
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


@dataclass(frozen=True)
class _Facts:
    """What an answer says about every item of a row."""

    score: float
    score_type: ScoreType
    source: Source
    grounding: Grounding | None


def ranked_items(
    ranked: RankedRows, written: Written, choice: RankingSpec, candidates: Candidates, k: int
) -> list[RecommendedItem]:
    """Return at most k items for ranked rows; the items of one title follow each other, each with its own rank."""
    best, texts = ranked.grounding, _texts_by_row(ranked, written, choice, candidates)
    by_distance = choice.mode == "l2" and not choice.popularity_gamma
    facts = (values.tolist() for values in (ranked.rows, ranked.scores, ranked.log_probs, ranked.distances))
    rows: list[tuple[int, _Facts]] = []
    for row, score, log_prob, distance in zip(*facts, strict=True):
        is_popular = row in ranked.only_popular
        is_neighbour = choice.mode == "likelihood" and math.isnan(log_prob)
        text = texts.get(row, best.generation)
        tied = Grounding(
            generation=text,
            match=_WRITTEN[written.rows is not None] if row in texts else Match.NEAREST,
            distance=0.0 if row in texts else distance,
            margin=best.margin if text == best.generation else None,
            log_prob=None if math.isnan(log_prob) else log_prob,
            ambiguity=candidates.items_in(row),
        )
        source = Source.POPULARITY if is_popular else Source.NEIGHBOUR if is_neighbour else Source.GENERATED
        score_type = _NEGATIVE_DISTANCE if by_distance or is_neighbour else _SCORE_TYPES[choice.mode]
        # an exact match has 0, not -0
        rows.append((row, _Facts(0.0 + score, score_type, source, None if is_popular else tied)))
    return _take_items(rows, candidates, k)


_NEGATIVE_DISTANCE = ScoreType.NEGATIVE_L2_DISTANCE
_SCORE_TYPES: Mapping[str, ScoreType] = {
    "l2": ScoreType.FUSION,  # with popularity in it
    "likelihood": ScoreType.LOG_PROBABILITY,
    "fusion": ScoreType.FUSION,
}
_WRITTEN = {False: Match.EXACT, True: Match.CONSTRAINED}  # by whether nothing else could be written


def _texts_by_row(ranked: RankedRows, written: Written, choice: RankingSpec, candidates: Candidates) -> dict[int, str]:
    """Map a row to the text that the model wrote for it; the other rows belong to the best text.

    Ranking by distance uses only the best text. Of two texts for one row the likelier counts.
    """
    if choice.mode == "l2":
        best = ranked.grounding
        return {best.row: best.generation} if best.match == "exact" else {}
    rows = written.rows or map(candidates.find_row, written.texts)
    texts: dict[int, str] = {}
    for row, text in zip(rows, written.texts, strict=True):
        if row is not None:
            texts.setdefault(row, text)
    return texts


def popular_items(
    order: Iterable[int], counts: NDArray[np.int64], candidates: Candidates, k: int
) -> list[RecommendedItem]:
    """Return the k most popular candidates.

    Args:
        order: rows, the most popular first.
        counts: int64 [number of rows], interactions per row.
    """
    rows = (
        (row, _Facts(float(counts[row]), ScoreType.INTERACTION_COUNT, Source.POPULARITY, None))
        for row in order
        if candidates.rows[row]
    )
    return _take_items(rows, candidates, k)


def _take_items(rows: Iterable[tuple[int, _Facts]], candidates: Candidates, k: int) -> list[RecommendedItem]:
    """Return the first k items of the rows; read no more rows than needed."""
    items: list[RecommendedItem] = []
    for row, facts in rows:
        for item in candidates.items_of(row)[: k - len(items)]:
            items.append(
                RecommendedItem(
                    item_id=item.item_id,
                    title=item.title,
                    rank=len(items) + 1,
                    score=facts.score,
                    score_type=facts.score_type,
                    source=facts.source,
                    grounding=facts.grounding,
                )
            )
        if len(items) == k:
            break
    return items
