"""The request path, on one screen: history -> prompt -> titles -> ranked items -> decision."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from index.live.snapshot import Snapshot
from index.ranking.ranking import Written
from serving.adapters.arms import ArmChooser
from serving.adapters.proof import ServedAdapter
from serving.admission import Admission
from serving.answer import AnswerDraft, popular_items, ranked_items
from serving.engine.decoding import AdapterDecoder, titles_ranked
from serving.engine.engine import Engine
from serving.engine.heartbeat import Heartbeat
from serving.engine.title_tries import StoredTitles, TitleTries
from serving.errors import DeadlineError, StoreUnavailableError
from serving.events.event_store import EventStore
from serving.events.history import Histories
from serving.schema import ArmReason, Degraded, HistorySource, RecommendedItem, RecommendRequest, RecommendResponse
from serving.snapshots.candidates import Candidates, select_candidates
from serving.snapshots.known_history import KnownHistory, know_history
from serving.snapshots.snapshots import Snapshots, index_used
from serving.threads import Threads
from training.prompt import Prompt

_RECORD_TIMEOUT_S = 2.0  # an answer that is ready waits no longer for the event store

_log = logging.getLogger(__name__)


class Recommender:
    """Answers requests with one engine and its adapters, each request from one snapshot of the catalog.

    Args:
        arms: chooses the adapter that answers.
        heartbeat: of the engine; notes each of its answers.
        snapshots: provide the newest one when a request arrives.
        admission: the queue in front of the engine.
        timeout_ms: deadline of a request that names none.
    """

    def __init__(
        self,
        *,
        arms: ArmChooser,
        engine: Engine,
        heartbeat: Heartbeat,
        snapshots: Snapshots,
        histories: Histories,
        store: EventStore,
        admission: Admission,
        timeout_ms: int,
    ) -> None:
        self._arms = arms
        self._engine = engine
        self._heartbeat = heartbeat
        self._snapshots = snapshots
        self._histories = histories
        self._store = store
        self._admission = admission
        self._timeout_ms = timeout_ms
        self._grounding_thread = Threads("ground", 1)  # one: the encoder fills a core

    async def recommend(self, request: RecommendRequest, *, request_id: str, record: bool = True) -> RecommendResponse:
        """Answer a request.

        Args:
            request_id: unique; events refer to it.
            record: store the decision, and with it the exposure, in the event store. If that fails, the answer says
                so. Batch scoring shows its answers to no user and passes False.

        Raises:
            AdapterForbiddenError, UnknownAdapterError: the request names an adapter that it may not use.
            OverloadedError, DeadlineError, EngineUnavailableError, StoreUnavailableError: try again later.
        """
        assignment = self._arms.choose(request)
        snapshot = await self._snapshots.current()
        draft = AnswerDraft(
            request_id=request_id,
            user_id=request.user_id,
            experiment_id=self._arms.experiment_id,
            assigned=assignment.assigned,
            served=assignment.served,
            reason=assignment.reason,
            adapter_id=assignment.adapter.adapter_id,
            index=index_used(snapshot),
        )
        if self._snapshots.outdated:
            draft.degraded.append(Degraded.INDEX_OUTDATED)
        timeout_ms = request.timeout_ms or self._timeout_ms
        try:
            async with asyncio.timeout(timeout_ms / 1000) as deadline:
                await self._answer(request, draft, assignment.adapter, snapshot)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise DeadlineError(f"no answer within {timeout_ms} ms", remedy="raise timeout_ms") from None
        if record:
            with draft.timed("record"):
                await self._record(draft)
        return draft.response()

    def close(self) -> None:
        """Wait for the grounding in progress."""
        self._grounding_thread.close()

    async def _record(self, draft: AnswerDraft) -> None:
        """Store the decision, even past the request's deadline. A failure only marks the answer, which is complete."""
        try:
            async with asyncio.timeout(_RECORD_TIMEOUT_S):
                await self._store.writes.run(self._store.record_decision, draft.decision())
        except (StoreUnavailableError, TimeoutError) as error:
            reason = str(error) or f"the event store took more than {_RECORD_TIMEOUT_S} s"
            _log.warning("the decision of %s is not recorded: %s", draft.request_id, reason)
            draft.degraded.append(Degraded.DECISION_NOT_RECORDED)
        except Exception:
            _log.exception("the decision of %s is not recorded", draft.request_id)
            draft.degraded.append(Degraded.DECISION_NOT_RECORDED)

    async def _answer(
        self, request: RecommendRequest, draft: AnswerDraft, adapter: ServedAdapter, snapshot: Snapshot
    ) -> None:
        with draft.timed("history"):
            history = draft.history = await self._read_history(request, draft, snapshot)
        seen = history.item_ids if request.exclude_seen else frozenset()
        candidates = select_candidates(snapshot.slots, request.filters, seen.union(request.exclude_item_ids))
        with draft.timed("prompt"):
            prompt = adapter.renderer.render(history.titles)
        if not prompt.used:
            is_unknown = history.unknown and not history.titles  # else titles are known, but none fits the prompt
            label = Degraded.UNKNOWN_HISTORY if is_unknown else Degraded.NO_HISTORY
            draft.fall_back(_most_popular(snapshot, candidates, request.k), ArmReason.NO_HISTORY, label)
        elif candidates.rows.any():  # else no title that the model could write is allowed
            waiting = time.perf_counter()
            async with self._admission.slot():
                draft.note_time("queue", since=waiting)
                written = await self._write(request, draft, adapter, prompt, candidates, snapshot)
                if written is not None:
                    draft.items = await self._rank(draft, written, adapter, candidates, request.k, snapshot)
                else:
                    popular = _most_popular(snapshot, candidates, request.k)
                    draft.fall_back(popular, ArmReason.EMPTY_GENERATION, Degraded.EMPTY_GENERATION)
        if len(draft.items) < request.k:
            draft.degraded.append(Degraded.FEWER_THAN_K)

    async def _read_history(self, request: RecommendRequest, draft: AnswerDraft, snapshot: Snapshot) -> KnownHistory:
        catalog = snapshot.catalog
        if request.history is not None:
            return know_history(catalog, request.history, HistorySource.INLINE)
        if request.user_id is None:
            return know_history(catalog, (), HistorySource.NONE)
        stored = await self._histories.read(request.user_id)
        if not stored.cache_available:
            draft.degraded.append(Degraded.HISTORY_CACHE_UNAVAILABLE)
        return know_history(catalog, stored.item_ids, HistorySource(stored.source))

    async def _write(
        self,
        request: RecommendRequest,
        draft: AnswerDraft,
        adapter: ServedAdapter,
        prompt: Prompt,
        candidates: Candidates,
        snapshot: Snapshot,
    ) -> Written | None:
        decoder = AdapterDecoder(
            self._engine, adapter.adapter_id, adapter.renderer, adapter.decoding, titles_ranked(adapter.ranking)
        )
        with draft.timed("generate"):
            decoded = await decoder.write(
                prompt.ids,
                k=request.k,
                catalog=snapshot.catalog,
                titles=_titles(adapter, candidates, self._snapshots.tries(snapshot)),
                request_id=draft.request_id,
            )
        self._heartbeat.answered()
        written = decoded.written
        if decoded.unconstrained:
            draft.degraded.append(Degraded.UNCONSTRAINED)
        draft.titles_used = prompt.used
        draft.prompt_tokens, draft.completion_tokens = len(prompt.ids), decoded.completion_tokens
        if request.explain:
            titles = [] if written is None else list(zip(written.texts, written.log_probs, strict=True))
            draft.details = {
                "prompt_ids": prompt.ids,
                "generated_ids": decoded.ids,
                "titles": titles,
                "is_proven": decoded.is_proven,
            }
        return written

    async def _rank(
        self,
        draft: AnswerDraft,
        written: Written,
        adapter: ServedAdapter,
        candidates: Candidates,
        k: int,
        snapshot: Snapshot,
    ) -> list[RecommendedItem]:
        with draft.timed("ground"):
            rank = snapshot.ranker.rank
            [ranked] = await self._grounding_thread.run(rank, [written], k, adapter.ranking, allowed=candidates.rows)
        if adapter.hallucinated(written, ranked.grounding):
            draft.degraded.append(Degraded.HALLUCINATED_TITLE)
        return ranked_items(ranked, written, adapter.ranking, candidates, k)


def _titles(adapter: ServedAdapter, candidates: Candidates, tries: Mapping[str, TitleTries]) -> StoredTitles | None:
    """What the adapter may write, if it is constrained to the catalog."""
    if not adapter.writes_in_catalog:
        return None
    return tries[adapter.renderer.tokenization_digest].allowed_titles(candidates.filtered, candidates.excluded)


def _most_popular(snapshot: Snapshot, candidates: Candidates, k: int) -> list[RecommendedItem]:
    return popular_items(map(int, snapshot.ranker.popular), snapshot.popularity, candidates, k)
