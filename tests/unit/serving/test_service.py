"""Opening a workspace: what does not belong together is refused by name, and what is sold out stays at home."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from index.artifact import write_artifact
from index.catalog.catalog import Catalog, write_catalog
from index.catalog.changes import Change
from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError
from index.live.live import LiveIndex
from index.live.rebase import rebase_catalog
from index.workspace import Workspace
from serving.errors import SettingsError
from serving.events.embedded_redis import EmbeddedRedis
from serving.schema import Degraded, Event, EventsRequest, EventType, ItemBody, RecommendRequest, RecommendResponse
from serving.service import open_service
from serving.settings import ServingSettings
from tests.fake_engine import FakeEngine
from tests.tiny_shop import ITEMS, make_tiny_shop
from tests.unit.serving.conftest import LetterEncoder
from training.adapter import ADAPTER_KIND, Adapter, read_adapter, write_adapter_files
from training.base_model import BaseModel


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr("serving.service.open_encoder", lambda name, *, base_dir: LetterEncoder())
    return make_tiny_shop(tmp_path / "shop", LetterEncoder())


async def open_fake(base: BaseModel, adapters: Sequence[Adapter], _: ServingSettings) -> FakeEngine:
    ids = base.renderer(adapters[0].facts.template).completion_ids("Zork")
    return FakeEngine({adapter.adapter_id: lambda prompt: ids for adapter in adapters})


async def answer(shop: Workspace, settings: ServingSettings | None = None, **request: object) -> RecommendResponse:
    async with open_service(shop, settings or ServingSettings(), open_engine=open_fake) as service:
        asked = RecommendRequest.model_validate(request)
        return await service.recommender.recommend(asked, request_id="r", record=False)


async def test_an_item_made_unavailable_is_not_served_after_a_restart(shop: Workspace) -> None:
    assert (await answer(shop, history=["i8"], k=1)).items[0].item_id == "i7"
    sold_out = [replace(item, available=item.item_id != "i7") for item in ITEMS]
    write_catalog(shop.catalog_path, Catalog.from_items(sold_out))
    assert "i7" not in {item.item_id for item in (await answer(shop, history=["i8"], k=8)).items}


async def test_changes_outlive_the_server_and_the_adapters_of_the_imported_catalog_go_on(shop: Workspace) -> None:
    settings = ServingSettings(allow_item_changes=True)
    async with open_service(shop, settings, open_engine=open_fake) as service:
        await service.items.put("i9", ItemBody(title="Zork II"))
        await service.items.remove("i7")
    again = await answer(shop, history=["i8"], k=8)
    assert again.items[0].item_id == "i9"
    assert "i7" not in {item.item_id for item in again.items}
    assert again.index.version.endswith("+2")


async def test_a_truncated_index_is_refused_and_names_the_command(shop: Workspace) -> None:
    [vectors] = shop.index_dir.glob("*/vectors.faiss")
    vectors.write_bytes(vectors.read_bytes()[:-4])
    with pytest.raises(CorruptArtifactError, match=r"vectors\.faiss: changed since.* with `softrec index \S+/shop`"):
        await answer(shop, history=["i1"])


async def test_an_index_of_another_catalog_is_refused(shop: Workspace) -> None:
    write_catalog(shop.catalog_path, Catalog.from_items(ITEMS[:-1]))
    with pytest.raises(MismatchError, match=r"catalog: expected .* again with `softrec index \S+/shop`"):
        await answer(shop, history=["i1"])


async def test_adapters_are_served_after_a_rebase_of_the_catalog_that_they_were_trained_on(shop: Workspace) -> None:
    live = LiveIndex(shop, LetterEncoder(), merge_at=0)
    live.apply(Change("put", "n1", "Riven"))
    live.close()
    rebase_catalog(shop, LetterEncoder())
    items = (await answer(shop, history=["i8"], k=1)).items
    assert [item.item_id for item in items] == ["i7"]


async def test_settings_decide_how_titles_are_written_and_ranked(shop: Workspace) -> None:
    settings = ServingSettings(decoding="constrained_beam", ranking="likelihood")
    items = (await answer(shop, settings, history=["i8"], k=3)).items
    assert items[0].item_id == "i7"
    assert {item.score_type.value for item in items} == {"log_probability"}
    with pytest.raises(SettingsError, match="SOFTREC_RANKING=fusion"):
        await answer(shop, ServingSettings(ranking="fusion"), history=["i8"])


def _remove(path: Path) -> None:
    path.unlink()


def _scribble(path: Path) -> None:
    path.write_bytes(b"PAR1 no PAR1")


def _other_columns(path: Path) -> None:
    path.write_bytes((path.parent / "catalog.parquet").read_bytes())


@pytest.mark.parametrize(
    ("damage", "error"),
    [(_remove, MissingArtifactError), (_scribble, CorruptArtifactError), (_other_columns, CorruptArtifactError)],
)
async def test_a_missing_or_damaged_log_names_the_command(
    shop: Workspace, damage: Callable[[Path], None], error: type[Exception]
) -> None:
    damage(shop.interactions_path)
    with pytest.raises(error, match=r"with `softrec init \S+/shop --items"):
        await answer(shop, history=["i1"])


async def test_an_adapter_of_another_tokenizer_is_refused(shop: Workspace) -> None:
    soft = read_adapter(shop.adapter_dir("soft"))
    with write_artifact(shop.adapter_dir("soft"), kind=ADAPTER_KIND) as draft:
        write_adapter_files(draft, replace(soft.facts, tokenizer_digest="0" * 64), soft.golden)
    with pytest.raises(MismatchError, match=r"digest of its tokenizer: .* found 000000000000"):
        await answer(shop, history=["i1"])


@pytest.mark.parametrize(("encoder", "labels"), [("letters-1", ["hallucinated_title"]), ("minilm", [])])
async def test_a_hallucination_is_named_under_the_encoder_that_measured_it(
    shop: Workspace, encoder: str, labels: list[str]
) -> None:
    """An exact title lies at distance 0: beyond -1."""
    soft = read_adapter(shop.adapter_dir("soft"))
    facts = replace(soft.facts, hallucination_distance=-1.0, index_encoder=encoder)
    with write_artifact(shop.adapter_dir("soft"), kind=ADAPTER_KIND) as draft:
        write_adapter_files(draft, facts, soft.golden)
    assert (await answer(shop, history=["i8"], k=1)).degraded == labels


async def test_only_arms_that_somebody_chose_must_be_served(shop: Workspace) -> None:
    soft = await answer(shop, ServingSettings(adapters=("soft",)), user_id="ann")
    assert (soft.experiment.id, soft.experiment.reason) == (None, "no_experiment")
    with pytest.raises(SettingsError, match="arm sft is not served; served: soft"):
        await answer(shop, ServingSettings(adapters=("soft",), arms=("sft", "soft")), user_id="ann")


async def test_the_embedded_redis_is_started_again_after_it_died(shop: Workspace) -> None:
    """The store answers meanwhile; what was bought meanwhile is in the history before and after."""
    before = set(psutil.Process().children())
    async with asyncio.timeout(60), open_service(shop, ServingSettings(), open_engine=open_fake) as service:
        [server] = [child for child in set(psutil.Process().children()) - before if child.name() == "redis-server"]
        request = RecommendRequest(user_id="ann", k=1)
        recommend = partial(service.recommender.recommend, request, record=False)
        sources = [(await recommend(request_id=f"r{number}")).history.source for number in range(2)]
        server.kill()
        server.wait(20)
        bought = Event(event_id="e", user_id="ann", item_id="i1", type=EventType.PURCHASE)
        taken = await service.events.add(EventsRequest(events=[bought]))
        assert taken.degraded == [Degraded.HISTORY_CACHE_UNAVAILABLE]
        while (answer := await recommend(request_id="later")).history.source == "store":
            assert (answer.history.used, answer.history.dropped) == (2, 2)
            await asyncio.sleep(0.05)
    assert [*sources, answer.history.source] == ["store", "cache", "cache"]
    assert (answer.history.used, answer.history.dropped) == (2, 2)
    assert answer.degraded == []
    assert set(psutil.Process().children()) <= before


async def test_a_store_that_begins_anew_finds_no_old_history_in_redis(
    shop: Workspace, redis_server: EmbeddedRedis
) -> None:
    settings = ServingSettings(redis_url=redis_server.url)
    sources = [(await answer(shop, settings, user_id="ann")).history.source for _ in range(2)]
    for path in shop.root.glob("events.db*"):
        path.unlink()
    sources.append((await answer(shop, settings, user_id="ann")).history.source)
    assert sources == ["store", "cache", "store"]
