"""The real engine: vLLM on the CPU, a tiny random Llama, two random LoRA adapters, beside transformers and PEFT."""

import asyncio
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.titles.filtered_trie import TitleOrder
from index.titles.held_folder import HeldFolder
from index.titles.trie import TitleTrie
from index.titles.trie_store import write_trie
from serving.adapters.proof import FLOAT32_TOLERANCE, prove_adapter
from serving.engine.heartbeat import Heartbeat
from serving.engine.title_tries import StoredTitles, StoredTrie, TitleTries
from serving.errors import (
    AdapterProofError,
    EngineHungError,
    EngineStartError,
    EngineUnavailableError,
    UnknownAdapterError,
)
from training.adapter import Adapter, AdapterFacts, Decoding, GoldenPrompt
from training.generation.vllm.environment import prepare_environment
from training.prompt import PromptTemplate

VOCABULARY = 512
END = 2
MAX_LEN = 256
PROMPT = tuple(range(10, 110))
COMPLETION = (200, 201, 202, END)
ADAPTERS = ("a@1", "b@1")


@dataclass
class TinyModel:
    """Folders of a base and its adapters, and what transformers says of COMPLETION after PROMPT."""

    base: Path
    adapters: dict[str, Path]
    log_probs: dict[str | None, float]
    first_tokens: dict[str | None, int]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    from tests.random_llama import random_llama

    root = tmp_path_factory.mktemp("model")
    ids = torch.tensor([[*PROMPT, *COMPLETION]])

    def measure(model: torch.nn.Module) -> tuple[float, int]:
        with torch.no_grad():
            scores = model(ids).logits[0].log_softmax(-1)
        places = range(len(PROMPT) - 1, len(PROMPT) + len(COMPLETION) - 1)
        return (
            sum(scores[place, token].item() for place, token in zip(places, COMPLETION, strict=True)),
            int(scores[len(PROMPT) - 1].argmax()),
        )

    base = random_llama(
        VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        eos_token_id=END,
    )
    base.save_pretrained(root / "base")
    measured: dict[str | None, tuple[float, int]] = {None: measure(base)}
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for adapter_id in ADAPTERS:
        fresh = LlamaForCausalLM.from_pretrained(root / "base")
        lora = LoraConfig(r=12, lora_alpha=24, target_modules=linear, task_type="CAUSAL_LM")  # 12 is no rank of vLLM's
        model = get_peft_model(fresh, lora).eval()
        for name, weights in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weights, std=0.1)
        model.save_pretrained(root / adapter_id)
        measured[adapter_id] = measure(model)
    return TinyModel(
        root / "base",
        {adapter_id: root / adapter_id for adapter_id in ADAPTERS},
        {key: value[0] for key, value in measured.items()},
        {key: value[1] for key, value in measured.items()},
    )


async def open_engine(model: TinyModel):
    prepare_environment(os.environ, on_cpu=True)
    from serving.engine.vllm_engine import VllmEngine, VllmOptions

    options = VllmOptions(
        dtype="float32",
        max_model_len=MAX_LEN,
        max_lora_rank=12,
        max_running=4,
        kv_cache_bytes=64 << 20,
        enforce_eager=True,
        block_size=32,
    )
    return await VllmEngine.open(str(model.base), model.adapters, end_id=END, options=options)


@pytest.fixture(scope="module")
async def engine(tiny_model: TinyModel) -> AsyncIterator:
    opened = await open_engine(tiny_model)
    yield opened
    await opened.close()
    assert [child for child in multiprocessing.active_children() if "Engine" in child.name] == []


def adapter_of(adapter_id: str, golden: Sequence[GoldenPrompt]) -> Adapter:
    name, _, digest = adapter_id.partition("@")
    facts = AdapterFacts(
        method=name,
        base_name="tiny",
        base_digest="",
        tokenizer_digest="",
        catalog_digest="",
        training_data="",
        split="time",
        template=PromptTemplate(),
        decoding=Decoding("greedy", 8),
        lora_rank=12,
        code_version="test",
        parents=(),
        settings={},
        metrics={},
    )
    return Adapter(name, Path(), digest, "", facts, tuple(golden))


@pytest.mark.parametrize("adapter_id", [None, *ADAPTERS])
async def test_log_prob_and_first_token_agree_with_transformers(engine, tiny_model: TinyModel, adapter_id) -> None:
    for _ in range(2):  # the second time the prompt is in the prefix cache
        found = await engine.log_prob(PROMPT, COMPLETION, adapter_id=adapter_id)
        assert found == pytest.approx(tiny_model.log_probs[adapter_id], abs=1e-3)
    generation = await engine.generate(PROMPT, adapter_id=adapter_id, max_new_tokens=8, request_id=f"g-{adapter_id}")
    assert generation.ids[0] == tiny_model.first_tokens[adapter_id]
    again = await engine.log_prob(PROMPT, generation.ids, adapter_id=adapter_id)
    assert generation.log_prob == pytest.approx(again, abs=1e-3)


async def test_adapters_differ_from_the_base_and_from_each_other_even_at_the_same_time(engine, tiny_model) -> None:
    """Log-probabilities and generations of all three, asked at once. Let in together, the base's would be an
    adapter's.
    """
    models = (None, *ADAPTERS)
    asked = [engine.log_prob(PROMPT, COMPLETION, adapter_id=adapter_id) for adapter_id in models * 2]
    written = [
        engine.generate(PROMPT, adapter_id=adapter_id, max_new_tokens=8, request_id=f"mixed-{number}")
        for number, adapter_id in enumerate(models * 2)
    ]
    values = await asyncio.gather(*asked[:3], *written[:3], *asked[3:], *written[3:])
    for start in (0, 6):
        assert values[start : start + 3] == pytest.approx([tiny_model.log_probs[name] for name in models], abs=1e-3)
    first_tokens = [generation.ids[0] for generation in values[3:6]]
    assert first_tokens == [tiny_model.first_tokens[name] for name in models]
    assert len({generation.ids for generation in values[3:6] + values[9:]}) == 3


async def test_an_adapter_proves_itself_and_an_impostor_does_not(engine, tiny_model: TinyModel) -> None:
    golden = GoldenPrompt(PROMPT, COMPLETION, tiny_model.log_probs["a@1"], tiny_model.log_probs[None])
    proof = await prove_adapter(engine, adapter_of("a@1", [golden]), tolerance=FLOAT32_TOLERANCE)
    assert proof.gap < 1e-4 < 0.01 < proof.effect
    with pytest.raises(AdapterProofError, match="golden log-probability") as caught:  # b in the place of a
        await prove_adapter(engine, adapter_of("b@1", [golden]), tolerance=FLOAT32_TOLERANCE)
    assert f"{golden.log_prob:.3f}" in str(caught.value)
    assert f"{tiny_model.log_probs['b@1']:.3f}" in str(caught.value)
    other_base = replace(golden, base_log_prob=golden.base_log_prob - 1)
    with pytest.raises(AdapterProofError, match="the base under adapter a@1"):
        await prove_adapter(engine, adapter_of("a@1", [other_base]), tolerance=FLOAT32_TOLERANCE)


async def test_generation_stops_at_the_end_token_or_at_the_limit(engine) -> None:
    """What a@1 writes after PROMPT is random: call its second token the end token."""
    generation = await engine.generate(PROMPT, adapter_id="a@1", max_new_tokens=3, request_id="limit")
    assert len(generation.ids) == 3
    engine._end_id, end = generation.ids[1], engine._end_id
    stopped = await engine.generate(PROMPT, adapter_id="a@1", max_new_tokens=8, request_id="stop")
    engine._end_id = end
    first = generation.ids.index(generation.ids[1])
    assert stopped.ids == generation.ids[: first + 1]


@pytest.mark.parametrize("ids", [(), (-1,), (VOCABULARY,), (10**9,), tuple([5] * MAX_LEN)])
async def test_ids_that_would_kill_the_engine_are_refused_before_it(engine, ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"token ids must lie in 0\.\.511|but the engine takes 256"):
        await engine.generate(ids, adapter_id=None, max_new_tokens=1, request_id="bad")
    with pytest.raises(ValueError, match=r"token ids|the engine takes"):
        await engine.log_prob(PROMPT, ids or (-1,), adapter_id=None)
    await engine.ping()


async def test_an_adapter_that_is_not_loaded_is_refused(engine) -> None:
    with pytest.raises(UnknownAdapterError, match="loaded: a@1, b@1"):
        await engine.generate(PROMPT, adapter_id="c@1", max_new_tokens=1, request_id="unknown")


async def cancel_midway(engine, *calls: Coroutine[Any, Any, object]) -> None:
    """Cancel calls while the engine has requests of theirs. Its process stands still, so none can end before."""
    [child] = engine._children
    os.kill(child.pid, signal.SIGSTOP)
    try:
        tasks = [asyncio.create_task(call) for call in calls]
        while not engine._llm.get_num_unfinished_requests():
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        os.kill(child.pid, signal.SIGCONT)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)


async def test_cancellation_reaches_the_engine(engine) -> None:
    calls = (
        engine.generate(PROMPT, adapter_id="a@1", max_new_tokens=150, request_id=f"long-{number}")
        for number in range(8)
    )
    await cancel_midway(engine, *calls)
    assert engine._llm.get_num_unfinished_requests() == 0
    assert (await engine.generate(PROMPT, adapter_id="a@1", max_new_tokens=2, request_id="after")).ids


@pytest.fixture(scope="module")
def titles() -> list[tuple[int, ...]]:
    """Thirty titles of 1 to 4 tokens out of few, so that they branch everywhere; some of their ends are forced."""
    draw = random.Random(3)
    found: set[tuple[int, ...]] = set()
    while len(found) < 30:
        found.add((*(draw.choice((200, 201, 202, 203)) for _ in range(draw.randint(1, 4))), END))
    return sorted(found)


@pytest.fixture(scope="module")
def tries(titles: list[tuple[int, ...]], tmp_path_factory: pytest.TempPathFactory) -> TitleTries:
    """Rows 0 to 24 in one trie, the others in another, as a living catalog has them."""
    folder = tmp_path_factory.mktemp("tries")
    made = []
    for name, rows in (("base", range(25)), ("added", range(25, 30))):
        trie = TitleTrie.build([titles[row] for row in rows], rows)
        write_trie(folder / name, trie)
        made.append(StoredTrie(TitleOrder.of(trie), folder / name))
    return TitleTries(made, 25, HeldFolder(folder / "files"))


async def search(
    engine, titles: StoredTitles, adapter_id: str | None, *, width: int = 30, k: int = 30, name: str = "s"
):
    constrained = await engine.write_titles(
        PROMPT, titles, adapter_id=adapter_id, width=width, k=k, max_new_tokens=8, request_id=f"{name}-{adapter_id}"
    )
    assert (constrained.completion_tokens > 0) == bool(constrained.found.titles)
    return constrained.found


async def test_a_wide_search_ranks_the_catalog_as_scoring_every_title_does(engine, titles, tries) -> None:
    """Two adapters and the base at the same time, beside greedy requests; each title scored alone by `log_prob`."""
    models = (*ADAPTERS, None)
    greedy = [
        engine.generate(PROMPT, adapter_id=name, max_new_tokens=8, request_id=f"beside-{name}") for name in models
    ]
    searches = [search(engine, tries.allowed_titles(), name) for name in models]
    found, beside = await asyncio.gather(asyncio.gather(*searches), asyncio.gather(*greedy))
    for adapter_id, result, free in zip(models, found, beside, strict=True):
        scores = await asyncio.gather(*(engine.log_prob(PROMPT, title, adapter_id=adapter_id) for title in titles))
        best = sorted(range(30), key=lambda row: -scores[row])
        assert [title.rows for title in result.titles] == [(row,) for row in best]
        assert [title.log_prob for title in result.titles] == pytest.approx([scores[row] for row in best], abs=1e-3)
        assert result.is_proven
        assert free.log_prob == pytest.approx(await engine.log_prob(PROMPT, free.ids, adapter_id=adapter_id), abs=1e-3)
    assert found[0].titles != found[1].titles


async def test_a_search_stays_inside_its_request_and_gives_k(engine, titles, tries) -> None:
    """A narrow filter and exclusions, several searches at the same time; the wide one is the oracle."""
    allowed = np.arange(30) % 3 != 0
    every = [title.rows[0] for title in (await search(engine, tries.allowed_titles(), "a@1", name="oracle")).titles]
    excluded = [every[0], *(row for row in every if allowed[row])][:3]
    left = [row for row in every if allowed[row] and row not in excluded]
    asked = [(width, tries.allowed_titles(allowed, excluded)) for width in (30, 3)]
    wide, narrow = await asyncio.gather(
        *(search(engine, allowed_titles, "a@1", width=width, k=3, name=f"f{width}") for width, allowed_titles in asked)
    )
    assert [title.rows[0] for title in wide.titles] == left[:3]
    assert len(narrow.titles) == 3
    assert {title.rows[0] for title in narrow.titles} <= set(left)
    nothing = await search(engine, tries.allowed_titles(np.zeros(30, dtype=bool)), "a@1", name="nothing")
    assert nothing.titles == ()
    for bad, message in (((), "token ids"), (tuple([5] * MAX_LEN), "the engine takes")):
        with pytest.raises(ValueError, match=message):
            await engine.write_titles(
                bad, tries.allowed_titles(), adapter_id="a@1", width=2, k=2, max_new_tokens=8, request_id="bad"
            )


async def test_a_search_finds_its_titles_again_after_their_files_were_deleted(engine, tries) -> None:
    """The engine's process has mapped what it has seen; a new filter it must read from a folder that is gone."""
    allowed = np.arange(30) != 7
    before = await search(engine, tries.allowed_titles(allowed), "a@1", name="before")
    shutil.rmtree(tries._home.path)
    for one in tries._tries:
        shutil.rmtree(one.folder)
    after = await search(engine, tries.allowed_titles(allowed), "a@1", name="after")
    assert [title.rows for title in after.titles] == [title.rows for title in before.titles]
    other = await search(engine, tries.allowed_titles(np.arange(30) != 8), "a@1", name="other")
    assert (8,) not in [title.rows for title in other.titles]
    assert len(other.titles) == 29


async def test_a_cancelled_search_leaves_nothing_running(engine, tries) -> None:
    searches = (
        search(engine, tries.allowed_titles(), name, name=f"c{number}") for number, name in enumerate((*ADAPTERS, None))
    )
    await cancel_midway(engine, *searches)
    assert engine._llm.get_num_unfinished_requests() == 0
    assert (await search(engine, tries.allowed_titles(), "a@1", width=1, k=1, name="after")).titles


async def test_a_search_cancelled_while_a_request_is_handed_over_leaves_none(engine, tries, monkeypatch) -> None:
    """The engine has the request already, the search does not know it yet."""
    add_request, handed_over = engine._llm.add_request, asyncio.Event()

    async def add_slowly(*args, **kwargs):
        outputs = await add_request(*args, **kwargs)
        handed_over.set()
        await asyncio.Event().wait()
        return outputs

    monkeypatch.setattr(engine._llm, "add_request", add_slowly)
    searching = asyncio.create_task(search(engine, tries.allowed_titles(), "a@1", name="handed-over"))
    await handed_over.wait()
    searching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await searching
    assert engine._llm.get_num_unfinished_requests() == 0


async def test_a_stopped_engine_hangs_until_it_goes_on(engine) -> None:
    """Its process is alive and its connections are open, so `ping` finds nothing."""
    heartbeat = Heartbeat(engine, adapter_id="a@1", prompt_ids=PROMPT[:1], hung_after_s=0.5)

    async def seen(hangs: bool) -> None:
        async with asyncio.timeout(60):
            while hangs != (heartbeat.silent_s() >= 0.5):
                await asyncio.sleep(0.05)

    [child] = engine._children
    async with heartbeat.beating():
        await seen(hangs=False)
        os.kill(child.pid, signal.SIGSTOP)
        try:
            await seen(hangs=True)
            await engine.ping()
            with pytest.raises(EngineHungError, match="wrote none for"):
                heartbeat.check()
        finally:
            os.kill(child.pid, signal.SIGCONT)
        await seen(hangs=False)
    heartbeat.check()
    assert (await engine.generate(PROMPT, adapter_id="a@1", max_new_tokens=2, request_id="goes on")).ids
    assert engine._llm.get_num_unfinished_requests() == 0


async def test_a_killed_engine_is_named_and_a_bad_adapter_leaves_no_process(
    engine, tiny_model: TinyModel, tries: TitleTries
) -> None:
    """Last in this file: it starts a second engine, whose adapter folder is empty, and then kills the first."""
    empty = tiny_model.base.parent / "empty"
    empty.mkdir()
    with pytest.raises(EngineStartError, match="c@1"):
        await open_engine(replace(tiny_model, adapters={"c@1": empty}))
    await engine.ping()  # the first engine is none of the second's business
    [child] = engine._children
    os.kill(child.pid, signal.SIGSTOP)  # so that neither call ends before the kill
    running = asyncio.create_task(
        engine.generate(PROMPT, adapter_id="a@1", max_new_tokens=150, request_id="interrupted")
    )
    searching = asyncio.create_task(search(engine, tries.allowed_titles(), "b@1", name="interrupted"))
    while engine._llm.get_num_unfinished_requests() < 2:
        await asyncio.sleep(0)
    os.kill(child.pid, signal.SIGKILL)
    for task in (running, searching):
        with pytest.raises(EngineUnavailableError):
            await asyncio.wait_for(task, 20)
    end = time.monotonic() + 10
    while child.is_alive() and time.monotonic() < end:
        await asyncio.sleep(0.05)
    with pytest.raises(EngineUnavailableError, match="dead"):
        await engine.ping()
    with pytest.raises(EngineUnavailableError):
        await asyncio.wait_for(engine.log_prob(PROMPT, COMPLETION, adapter_id=None), 20)
