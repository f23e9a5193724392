"""Trained adapters behind the real engine: they do what they did in training, and SFT, SOFT and the base differ."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from index.titles.trie_store import open_trie
from index.workspace import Workspace
from serving.adapters.proof import choose_adapters
from serving.engine.engine import Engine
from serving.engine.title_tries import TitleTries
from serving.errors import AdapterProofError
from serving.schema import RecommendRequest
from serving.service import Service, open_service, open_vllm
from serving.settings import ServingSettings
from tests.shop import SETTINGS
from training.adapter import Adapter
from training.data.dataset import load_dataset
from training.generation.beam import generate
from training.generation.titles import write_titles
from training.model.language_model import load_base, read_lora
from training.progress import Silence

ROUNDING = 1e-3  # nats per title

SERVING = ServingSettings(kv_cache_gib=0.25, allow_adapter_override=True)


@pytest.fixture(scope="module")
async def served(
    trained_shop: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Service, Engine]]:
    """An open service on a copy of the trained shop, and the engine in it."""
    root: Path = tmp_path_factory.mktemp("served") / "shop"
    shutil.copytree(trained_shop.root, root)
    engines: list[Engine] = []

    async def open_engine(base, adapters, settings) -> Engine:
        engines.append(await open_vllm(base, adapters, settings))
        return engines[0]

    async with open_service(Workspace.open(root), SERVING, open_engine=open_engine) as service:
        yield service, engines[0]


async def test_sft_soft_and_base_differ_on_the_same_prompts(served, trained_adapters):
    """The engine's log-probabilities of the golden completions: as in training, and three different functions."""
    _, engine = served
    sft, soft = trained_adapters["sft"], trained_adapters["soft"]
    for golden_sft, golden_soft in zip(sft.golden, soft.golden, strict=True):
        prompt, completion = golden_sft.prompt_ids, golden_sft.completion_ids
        found = [
            await engine.log_prob(prompt, completion, adapter_id=adapter_id)
            for adapter_id in (sft.adapter_id, soft.adapter_id, None)
        ]
        assert found == pytest.approx([golden_sft.log_prob, golden_soft.log_prob, golden_sft.base_log_prob], abs=0.01)
        assert min(abs(found[0] - found[2]), abs(found[1] - found[2])) > 0.5
    gaps = [abs(a.log_prob - b.log_prob) for a, b in zip(sft.golden, soft.golden, strict=True)]
    assert max(gaps) > 0.05


async def test_the_engine_writes_what_training_writes(served, trained_shop, trained_adapters):
    """The same prompt ids, greedily: vLLM with LoRA and our decoder on transformers give the same tokens."""
    _, engine = served
    dataset = load_dataset(trained_shop, SETTINGS, Silence())
    prompts = dataset.prompts(dataset.split.test[:8])
    adapter: Adapter = trained_adapters["sft"]
    model = read_lora(load_base(dataset.base.path, precision="fp32"), adapter.path).eval()
    steps, end_id = dataset.renderer.max_new_tokens, dataset.renderer.end_id
    expected = generate(model, prompts, beams=1, max_new_tokens=steps, end_id=end_id)
    for number, (prompt, generation) in enumerate(zip(prompts, expected, strict=True)):
        served_generation = await engine.generate(
            prompt, adapter_id=adapter.adapter_id, max_new_tokens=steps, request_id=f"parity-{number}"
        )
        assert tuple(served_generation.ids) == generation.ids


@pytest.mark.parametrize("width", [3, 10])
async def test_offline_and_served_lists_are_equal_title_for_title(served, trained_shop, trained_adapters, width):
    """What validation measures is what is served: one search on one model, driven in step and by vLLM.

    Both compute in float32, in batches of other shapes, so a title's log-probability may differ by ROUNDING. Titles
    nearer to each other than that may change places; all others stand at the same place.
    """
    _, engine = served
    dataset = load_dataset(trained_shop, SETTINGS, Silence())
    prompts = dataset.prompts(dataset.split.test[:24])
    adapter: Adapter = trained_adapters["sft"]
    model = read_lora(load_base(dataset.base.path, precision="fp32"), adapter.path).eval()
    tries = TitleTries.open(trained_shop.index_dir, dataset.catalog, dataset.renderer)
    trie = open_trie(trained_shop.index_dir, dataset.catalog, dataset.renderer)
    offline = write_titles(model, prompts, trie, width=width, k=10)
    for number, (prompt, listed) in enumerate(zip(prompts, offline, strict=True)):
        written = await engine.write_titles(
            prompt,
            tries.allowed_titles(),
            adapter_id=adapter.adapter_id,
            width=width,
            k=10,
            max_new_tokens=dataset.renderer.max_new_tokens,
            request_id=f"law-{number}",
        )
        rows = [row for title in written.found.titles for row in title.rows]
        log_probs = np.array([title.log_prob for title in written.found.titles for _ in title.rows])
        assert len(rows) == len(listed.rows) >= min(width, 10)
        np.testing.assert_allclose(log_probs, listed.log_probs, atol=ROUNDING)
        gaps = np.abs(np.diff(listed.log_probs, prepend=np.inf, append=-np.inf))
        is_clear = np.minimum(gaps[:-1], gaps[1:]) > ROUNDING
        assert [row for row, clear in zip(rows, is_clear, strict=True) if clear] == listed.rows[is_clear].tolist()


async def test_both_arms_answer_with_items_that_exist(served, trained_adapters):
    service, _ = served
    catalog = {"sft": set(), "soft": set()}
    for user in range(1, 41):
        answer = await service.recommender.recommend(
            RecommendRequest(user_id=str(user), k=5), request_id=f"arms-{user}"
        )
        assert len({item.item_id for item in answer.items}) == 5
        assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]
        assert answer.experiment.arm_served == answer.experiment.arm_assigned
        assert answer.adapter == trained_adapters[answer.experiment.arm_served].adapter_id
        catalog[answer.experiment.arm_served].update(item.item_id for item in answer.items)
    assert all(catalog.values())  # of 40 users some are in either arm: all in one has probability 2 ** -39


async def test_an_adapter_that_is_another_than_its_manifest_says_is_refused(trained_shop, trained_adapters, tmp_path):
    """SOFT weights under SFT's golden values: whole, but not what was trained: no start."""
    from index.artifact import write_artifact
    from training.adapter import ADAPTER_KIND, write_adapter_files

    shutil.copytree(trained_shop.root, tmp_path / "shop")
    workspace = Workspace.open(tmp_path / "shop")
    sft, soft = trained_adapters["sft"], trained_adapters["soft"]
    with write_artifact(workspace.adapter_dir("sft"), kind=ADAPTER_KIND) as draft:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(soft.path / name, draft.path / name)
        write_adapter_files(draft, sft.facts, sft.golden)
    with pytest.raises(AdapterProofError, match=r"adapter sft@\w+: golden log-probability .* served"):
        async with open_service(workspace, SERVING.model_copy(update={"adapters": ("sft",), "arms": ("sft",)})):
            pass


def test_the_adapters_of_the_shop_are_what_is_served(trained_shop, trained_adapters):
    chosen = choose_adapters(trained_shop.adapters_dir, ())
    assert {adapter.name: adapter for adapter in chosen} == trained_adapters
