"""The parts of a running server, opened in order, closed in reverse. `softrec score` uses it without HTTP."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from index.live.live import LiveIndex
from index.live.versions import read_encoder_name
from index.search.encoder import open_encoder
from index.titles.trie_store import TitleTokenization
from index.workspace import Workspace
from serving.adapters.arms import ArmChooser
from serving.adapters.proof import ServedAdapter, choose_adapters, proof_tolerance, prove_adapter
from serving.admission import Admission
from serving.engine.decoding import choose_decoding, choose_ranking
from serving.engine.engine import Engine
from serving.engine.environment import engine_threads
from serving.engine.heartbeat import Heartbeat
from serving.errors import NotReadyError, ServingError
from serving.events.embedded_redis import EmbeddedRedis
from serving.events.event_store import EventStore
from serving.events.history import Histories
from serving.events.history_cache import HistoryCache
from serving.events.intake import EventIntake
from serving.events.interaction_log import digest_log, read_log
from serving.experiments.assignment import plan_experiment
from serving.recommender import Recommender
from serving.schema import Degraded, ReadyResponse
from serving.settings import ServingSettings
from serving.snapshots.item_editor import ItemEditor
from serving.snapshots.snapshots import Snapshots, index_used
from training.adapter import Adapter, check_adapter
from training.base_model import BaseModel, locate_base
from training.generation.vllm.environment import prepare_environment, runs_on_cpu

_STORE_TIMEOUT_S = 5.0  # of the readiness probe

MOST_RUNNING = 256  # requests of vLLM in one batch; a beam search is several

EngineOpener = Callable[[BaseModel, Sequence[Adapter], ServingSettings], Awaitable[Engine]]
Note = Callable[[str], None]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Service:
    """An open server without its HTTP."""

    recommender: Recommender
    events: EventIntake
    items: ItemEditor
    arms: ArmChooser
    snapshots: Snapshots
    _engine: Engine
    _heartbeat: Heartbeat
    _store: EventStore
    _cache: HistoryCache

    async def ready(self) -> ReadyResponse:
        """Return if `/recommend` works.

        Raises:
            NotReadyError: the engine or the store does not answer. A missing Redis and an outdated index are only
                labels in `degraded`.
            EngineHungError: the engine runs but writes nothing.
        """
        try:
            await self._engine.ping()
            async with asyncio.timeout(_STORE_TIMEOUT_S):
                await self._store.reads.run(self._store.ping)
        except TimeoutError:
            raise NotReadyError(f"the event store does not answer within {_STORE_TIMEOUT_S} s") from None
        except ServingError as error:
            raise NotReadyError(str(error)) from error
        self._heartbeat.check()
        snapshot = await self.snapshots.current()
        degraded = [] if await self._cache.ping() else [Degraded.HISTORY_CACHE_UNAVAILABLE]
        return ReadyResponse(
            adapters=[adapter.adapter_id for adapter in self.arms.adapters.values()],
            experiment=self.arms.experiment_id,
            index=index_used(snapshot),
            degraded=[*degraded, Degraded.INDEX_OUTDATED] if self.snapshots.outdated else degraded,
        )


async def open_vllm(base: BaseModel, adapters: Sequence[Adapter], settings: ServingSettings) -> Engine:
    """Start the real engine, sized by what the adapters need."""
    on_cpu = runs_on_cpu()
    prepare_environment(os.environ, on_cpu=on_cpu)
    from serving.engine.vllm_engine import VllmEngine, VllmOptions  # vLLM reads its environment at import

    golden = [prompt for adapter in adapters for prompt in adapter.golden]
    longest_golden = max(len(prompt.prompt_ids) + len(prompt.completion_ids) + 1 for prompt in golden)
    width = max(choose_decoding(a.facts.decoding, settings.decoding, settings.width).width for a in adapters)
    longest_request = max(a.facts.template.max_prompt_tokens + a.facts.decoding.max_new_tokens for a in adapters)
    return await VllmEngine.open(
        str(base.path),
        {adapter.adapter_id: adapter.path for adapter in adapters},
        end_id=base.end_id,
        options=VllmOptions(
            dtype=resolve_dtype(settings),
            max_model_len=max(longest_golden, longest_request),
            max_lora_rank=max(adapter.facts.lora_rank for adapter in adapters),
            max_running=min(settings.max_running * width, MOST_RUNNING),
            kv_cache_bytes=int(settings.kv_cache_gib * 2**30) if on_cpu else None,
            enforce_eager=on_cpu,
            block_size=32 if on_cpu else None,
            threads=(settings.engine_threads or engine_threads(os.environ)) if on_cpu else None,
        ),
    )


@asynccontextmanager
async def open_service(
    workspace: Workspace,
    settings: ServingSettings,
    *,
    open_engine: EngineOpener = open_vllm,
    note: Note = lambda text: None,
) -> AsyncIterator[Service]:
    """Open a workspace for recommendations; close everything when the context ends.

    Args:
        workspace: must hold a catalog, a base, at least one adapter, an index and an interaction log.
        open_engine: starts the engine.
        note: receives a line about each part: its name and the seconds it took.

    Raises:
        ArtifactError: an artifact is missing, damaged or belongs to another; the message names the command.
        AdapterProofError: an adapter's log-probabilities in this engine differ from training's.
        ServingError: a part does not start.
    """
    async with AsyncExitStack() as stack:
        base = locate_base(workspace)
        adapters = choose_adapters(workspace.adapters_dir, settings.adapters)
        live = await _opened(note, "index", asyncio.to_thread(_open_index, workspace, base, note))
        stack.callback(live.close)
        for adapter in adapters:
            check_adapter(
                adapter,
                base_digest=base.digest,
                tokenizer_digest=base.tokenizer.digest,
                catalog_digest=live.snapshot.imported.digest,
                earlier_catalogs=live.snapshot.imported.earlier_digests,
            )

        log_digest = await asyncio.to_thread(digest_log, workspace.interactions_path)
        store = await _opened(note, "event store", asyncio.to_thread(_open_store, workspace, settings))
        stack.callback(store.close)
        log = read_log(workspace.interactions_path)
        await _opened(note, "interaction log", asyncio.to_thread(store.import_log, log_digest, log))
        cache = _open_cache(settings, stack, namespace=await asyncio.to_thread(store.token), note=note)
        stack.push_async_callback(cache.close)
        histories = Histories(store, cache, limit=settings.history_limit)

        arms = _choose_arms(base, adapters, settings, encoder=live.snapshot.grounder.encoder.fingerprint)
        snapshots = await _opened(note, "title tries", asyncio.to_thread(Snapshots, live, _tokenizations(arms)))
        stack.push_async_callback(snapshots.close)
        engine = await _opened(note, "engine", open_engine(base, adapters, settings))
        stack.push_async_callback(engine.close)
        tolerance = proof_tolerance(settings.proof_tolerance, dtype=resolve_dtype(settings))
        for adapter in adapters:
            proof = await prove_adapter(engine, adapter, tolerance=tolerance)
            note(
                f"{proof.adapter_id} proven: {proof.gap:.1e} nats per token from its golden values, "
                f"{proof.effect:.3f} from the base"
            )

        heartbeat = Heartbeat(
            engine,
            adapter_id=adapters[0].adapter_id,
            prompt_ids=adapters[0].golden[0].prompt_ids[:1],
            hung_after_s=settings.hung_after_ms / 1000,
        )
        await stack.enter_async_context(heartbeat.beating())
        recommender = Recommender(
            arms=arms,
            engine=engine,
            heartbeat=heartbeat,
            snapshots=snapshots,
            histories=histories,
            store=store,
            admission=Admission(
                max_running=settings.max_running, max_waiting=settings.max_waiting, retry_after_s=settings.retry_after_s
            ),
            timeout_ms=settings.timeout_ms,
        )
        stack.callback(recommender.close)
        items = ItemEditor(live, snapshots, allowed=settings.allow_item_changes)
        stack.callback(items.close)
        yield Service(
            recommender, EventIntake(snapshots, histories), items, arms, snapshots, engine, heartbeat, store, cache
        )


def resolve_dtype(settings: ServingSettings) -> str:
    """Return the weights' dtype: as set; else float32 on the CPU, where it is fastest, and the model's own on a GPU."""
    return "float32" if settings.dtype == "auto" and runs_on_cpu() else settings.dtype


def _choose_arms(
    base: BaseModel, adapters: Sequence[Adapter], settings: ServingSettings, *, encoder: str
) -> ArmChooser:
    served = {
        adapter.name: ServedAdapter(
            name=adapter.name,
            adapter_id=adapter.adapter_id,
            renderer=base.renderer(adapter.facts.template),
            decoding=choose_decoding(adapter.facts.decoding, settings.decoding, settings.width),
            ranking=choose_ranking(adapter.adapter_id, adapter.facts.ranking, settings.ranking),
            hallucination_distance=adapter.facts.hallucination_distance_in(encoder),
        )
        for adapter in adapters
    }
    experiment = plan_experiment(
        settings.experiment,
        settings.arms,
        settings.weights,
        served=list(served),
        arms_are_chosen="arms" in settings.model_fields_set,
    )
    return ArmChooser(
        served,
        default_adapter=settings.default_adapter,
        experiment=experiment,
        allow_override=settings.allow_adapter_override,
    )


def _tokenizations(arms: ArmChooser) -> dict[str, TitleTokenization]:
    """Return the title tokenizations of the adapters with constrained decoding, by digest."""
    renderers = (adapter.renderer for adapter in arms.adapters.values() if adapter.writes_in_catalog)
    return {renderer.tokenization_digest: renderer for renderer in renderers}


def _open_index(workspace: Workspace, base: BaseModel, note: Note) -> LiveIndex:
    return LiveIndex(workspace, open_encoder(read_encoder_name(workspace.index_dir), base_dir=base.path), note=note)


def _open_store(workspace: Workspace, settings: ServingSettings) -> EventStore:
    if settings.database_url:
        return EventStore.open(settings.database_url)
    return EventStore.open_file(workspace.events_path)


def _open_cache(settings: ServingSettings, stack: AsyncExitStack, *, namespace: str, note: Note) -> HistoryCache:
    open_cache = partial(
        HistoryCache, namespace=namespace, ttl_s=settings.history_ttl_s, timeout_s=settings.redis_timeout_ms / 1000
    )
    if settings.redis_url:
        return open_cache(settings.redis_url)
    try:
        embedded = EmbeddedRedis()
    except ServingError as error:  # serve without a cache; answers say so
        note(f"history cache: {error}")
        return open_cache("unix:///nonexistent/softrec-redis.sock")
    stack.callback(embedded.close)
    return open_cache(embedded.url, revive=embedded.revive)


async def _opened(note: Note, what: str, opening: Awaitable[_T]) -> _T:
    start = time.perf_counter()
    result = await opening
    note(f"{what} ready after {time.perf_counter() - start:.1f} s")
    return result
