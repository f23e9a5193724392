"""The parts of a server, real but small: SQLite, Redis, FAISS; the engine is a fake and the encoder counts letters."""

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from index.catalog.catalog import write_catalog
from index.live.live import LiveIndex
from index.ranking.ranking_spec import RankingSpec
from index.workspace import ShopSettings, Workspace
from serving.adapters.arms import ArmChooser
from serving.adapters.proof import ServedAdapter
from serving.admission import Admission
from serving.engine.heartbeat import Heartbeat
from serving.events.embedded_redis import EmbeddedRedis
from serving.events.event_store import EventStore
from serving.events.history import Histories
from serving.events.history_cache import HistoryCache
from serving.events.intake import EventIntake
from serving.experiments.assignment import plan_experiment
from serving.recommender import Recommender
from serving.service import Service
from serving.snapshots.item_editor import ItemEditor
from serving.snapshots.snapshots import Snapshots
from tests.fake_engine import FakeEngine
from tests.tiny_shop import LOG, TEMPLATE, tiny_catalog, write_tiny_index, write_tiny_tokenizer
from training.adapter import Decoding
from training.prompt import PromptRenderer

ADAPTER_IDS = {"sft": "sft@111111111111", "soft": "soft@222222222222"}


class LetterEncoder:
    """A vector per title: how often each letter occurs. Distances can be worked out by hand."""

    name = "letters"
    fingerprint = "letters-1"
    dimension = 26

    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(titles), 26), dtype=np.float32)
        for row, title in enumerate(titles):
            for letter in title.lower():
                if "a" <= letter <= "z":
                    vectors[row, ord(letter) - ord("a")] += 1
        return vectors


def find_decision(path: Path, request_id: str) -> dict[str, Any] | None:
    """What lies in a store's file of one answer, with its JSON columns read."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        row = connection.execute("SELECT * FROM decisions WHERE request_id = ?", (request_id,)).fetchone()
    if row is None:
        return None
    return dict(row) | {name: json.loads(row[name]) for name in ("items", "degraded", "details")}


@dataclass
class Rig:
    """A service, and what tests turn about it. `decode` sets how its adapters write and rank from now on."""

    service: Service
    engine: FakeEngine
    heartbeat: Heartbeat
    store: EventStore
    renderer: PromptRenderer
    admission: Admission
    live: LiveIndex

    def decode(self, decoding: Decoding, ranking: RankingSpec) -> None:
        adapters = self.service.arms.adapters
        for name, adapter in adapters.items():
            adapters[name] = replace(adapter, decoding=decoding, ranking=ranking)
        self.service.arms._default = adapters["soft"]

    def make_room(self, tokens: int) -> None:
        """Let the adapters' prompts hold so many tokens of titles from now on."""
        template = replace(TEMPLATE, max_prompt_tokens=len(TEMPLATE.head + TEMPLATE.tail) + tokens)
        renderer = PromptRenderer(template, self.renderer.tokenizer, self.renderer.end_id)
        adapters = self.service.arms.adapters
        for name, adapter in adapters.items():
            adapters[name] = replace(adapter, renderer=renderer)
        self.service.arms._default = adapters["soft"]

    def write(self, adapter: str, title: str) -> None:
        """Let an adapter write a title from now on."""
        ids = self.renderer.completion_ids(title)
        self.engine.writers[ADAPTER_IDS[adapter]] = lambda prompt: ids


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis()
    yield server
    server.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveIndex]:
    root = tmp_path / "shop"
    root.mkdir()
    workspace = Workspace.create(root, ShopSettings())
    write_catalog(workspace.catalog_path, tiny_catalog())
    write_tiny_index(workspace, tiny_catalog(), LetterEncoder())
    opened = LiveIndex(workspace, LetterEncoder(), merge_at=0)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = EventStore.open_file(tmp_path / "events.db")
    opened.import_log("digest", [list(LOG)])
    yield opened
    opened.close()


@pytest.fixture
async def cache(redis_server: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[HistoryCache]:
    opened = HistoryCache(redis_server.url, namespace=tmp_path.name, ttl_s=60, timeout_s=2.0)
    yield opened
    await opened.close()


@pytest.fixture
def rig(tmp_path: Path, live: LiveIndex, store: EventStore, cache: HistoryCache) -> Iterator[Rig]:
    renderer = PromptRenderer(TEMPLATE, write_tiny_tokenizer(tmp_path / "base"), end_id=256)
    adapters = {
        name: ServedAdapter(name, adapter_id, renderer, Decoding("greedy", 42))
        for name, adapter_id in ADAPTER_IDS.items()
    }
    engine = FakeEngine({adapter_id: lambda prompt: () for adapter_id in ADAPTER_IDS.values()})
    histories = Histories(store, cache, limit=1000)
    arms = ArmChooser(
        adapters,
        default_adapter=None,
        experiment=plan_experiment("sft-vs-soft", ("sft", "soft"), (), served=list(adapters)),
        allow_override=True,
    )
    admission = Admission(max_running=2, max_waiting=1, retry_after_s=3)
    snapshots = Snapshots(live, {renderer.tokenization_digest: renderer})
    heartbeat = Heartbeat(engine, adapter_id=ADAPTER_IDS["sft"], prompt_ids=[1], hung_after_s=0.05)
    recommender = Recommender(
        arms=arms,
        engine=engine,
        heartbeat=heartbeat,
        snapshots=snapshots,
        histories=histories,
        store=store,
        admission=admission,
        timeout_ms=5000,
    )
    events, items = EventIntake(snapshots, histories), ItemEditor(live, snapshots, allowed=True)
    service = Service(recommender, events, items, arms, snapshots, engine, heartbeat, store, cache)
    made = Rig(service, engine, heartbeat, store, renderer, admission, live)
    made.write("sft", "Portal")
    made.write("soft", "Zork")
    yield made
    items.close()
    recommender.close()
