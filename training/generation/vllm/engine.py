"""A vLLM engine that writes as a model in training would, and takes over its weights before each task.

The only module of training that imports vllm, and it lives in `training.generation.vllm.process`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from transformers import GenerationConfig

from training.generation.generation import Generation
from training.generation.vllm.environment import runs_on_cpu
from training.generation.vllm.path_search import NextTokens, RunAhead, Search, next_tokens_per_beam, search_paths
from training.model.language_model import DTYPES, load_base, read_lora
from training.settings import Precision


@dataclass(frozen=True)
class EngineOptions:
    """How to run vLLM beside a model in training.

    Attributes:
        precision: of the base.
        max_model_len: most tokens of a prompt and its continuation together.
        max_lora_rank: the largest LoRA rank that will come.
        merge: add the LoRA to the engine's weights; else vLLM computes it beside them, as training does. Merged it
            costs nothing per token, and vLLM's CPU build is slow beside; but in bf16 the sum is rounded to 8 bits, and
            much of a young LoRA is lost. So: merge in fp32.
        device: of the model in training; a GPU is shared with it.
        kv_cache_bytes: size of the KV cache; too small a one makes requests wait. Beside it the engine takes the base's
            weights and a batch's activations.
        max_running: most requests in one batch.
    """

    precision: Precision
    max_model_len: int
    max_lora_rank: int
    merge: bool
    device: torch.device
    kv_cache_bytes: int = 1 << 30
    max_running: int = 128


@dataclass(frozen=True)
class Task:
    """What to write. `lora` is a PEFT folder, None the bare base; the rest as `training.generation.beam` takes it."""

    lora: Path | None
    prompts: Sequence[Sequence[int]]
    beams: int
    max_new_tokens: int
    end_id: int
    length_penalty: float


class TaskEngine:
    """An engine for one task after the other. It starts when it is made."""

    def __init__(self, base: Path, options: EngineOptions) -> None:
        from vllm import EngineArgs
        from vllm.config.lora import MaxLoRARanks
        from vllm.v1.engine.llm_engine import LLMEngine

        chosen: dict[str, Any] = {"enforce_eager": True, "block_size": 32} if runs_on_cpu() else {}
        if not options.merge:
            rank = min(rank for rank in get_args(MaxLoRARanks) if rank >= options.max_lora_rank)
            chosen |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
        self._llm = LLMEngine.from_engine_args(
            EngineArgs(
                model=str(base),
                skip_tokenizer_init=True,  # ids go in and out
                dtype=str(DTYPES[options.precision]).removeprefix("torch."),
                generation_config="vllm",  # nothing of the model's own sampling settings
                max_model_len=options.max_model_len,
                max_num_seqs=options.max_running,
                kv_cache_memory_bytes=options.kv_cache_bytes,
                gpu_memory_utilization=0.01,  # only what must be free at the start: the cache's size is given
                enable_prefix_caching=True,  # where a beam branches, the new request finds its beginning there
                async_scheduling=False,  # a request is stopped before its next token
                max_logprobs=-1,  # no limit
                logprobs_mode="raw_logprobs",  # the model's own
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **chosen,
            )
        )
        self._base, self._options = base, options
        self._numbers = itertools.count(1)
        self._is_merged = False  # the engine's weights are the base's own
        self._lora: Any = None  # the LoRARequest that is computed beside them

    def write(self, task: Task, advance: Callable[[int], None]) -> list[Generation]:
        """Write the best continuation of every prompt, in their order; see `training.generation.beam.generate`."""
        self._take_weights(task.lora)
        waiting = deque(range(len(task.prompts)))
        owners: dict[str, tuple[int, RunAhead]] = {}  # request -> its prompt's position and search
        results: dict[int, Generation] = {}

        def stop(search: RunAhead, requests: Sequence[str]) -> None:
            self._llm.abort_request(list(requests))
            for request in requests:
                del search.requests[request], owners[request]

        def follow(at: int, search: RunAhead) -> None:
            """Let the engine write on from every beam, and from nothing else."""
            stop(search, search.superfluous)
            for path in search.missing:
                request = self._start([*task.prompts[at], *path], task, most=task.max_new_tokens - len(path))
                search.requests[request] = path
                owners[request] = at, search

        while len(results) < len(task.prompts):
            while waiting and len(owners) < self._options.max_running:
                follow(waiting.popleft(), RunAhead(_search(task)))
            recorded: dict[int, RunAhead] = {}
            for output in self._llm.step():
                at, search = owners[output.request_id]
                written = output.outputs[0]
                search.record(output.request_id, written.token_ids, list(map(_probable, written.logprobs)))
                recorded[at] = search
                if output.finished:
                    if written.finish_reason not in ("stop", "length"):
                        raise RuntimeError(f"vLLM ended a request with {written.finish_reason!r}")
                    del search.requests[output.request_id], owners[output.request_id]
            for at, search in recorded.items():
                result = search.advance()
                if result is None:
                    follow(at, search)
                else:
                    results[at] = result
                    stop(search, list(search.requests))
                    advance(1)
        return [results[at] for at in range(len(task.prompts))]

    def _start(self, ids: list[int], task: Task, *, most: int) -> str:
        """Start a request that writes greedily on from `ids`, at most so many tokens; return its id."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        request = str(next(self._numbers))
        params = SamplingParams(
            temperature=0.0,
            max_tokens=most,
            stop_token_ids=[task.end_id],
            logprobs=next_tokens_per_beam(task.beams),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            skip_clone=True,  # nobody else has these
        )
        self._llm.add_request(request, TokensPrompt(prompt_token_ids=ids), params, lora_request=self._lora)
        return request

    def _take_weights(self, lora: Path | None) -> None:
        """Be the base with this LoRA, or the bare base."""
        if self._options.merge:
            self._merge(lora)
        else:
            self._put_beside(lora)
        if not self._llm.reset_prefix_cache():  # the old weights' keys and values
            raise RuntimeError("vLLM keeps its prefix cache")

    def _merge(self, lora: Path | None) -> None:
        if lora is None and not self._is_merged:
            return
        with TemporaryDirectory() as merged:
            if lora is not None:
                model = read_lora(load_base(self._base, precision=self._options.precision), lora).merge_and_unload()
                model.generation_config = GenerationConfig()  # none cannot be saved; nothing reads it
                model.save_pretrained(merged)
            weights = str(self._base if lora is None else merged)
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": weights})
        self._is_merged = lora is not None

    def _put_beside(self, lora: Path | None) -> None:
        from vllm.lora.request import LoRARequest

        if self._lora is not None:
            self._llm.remove_lora(self._lora.lora_int_id)
            self._lora = None
        if lora is not None:
            number = next(self._numbers)  # never used before: vLLM looks weights up by id and cached keys by name
            self._lora = LoRARequest(f"lora-{number}", number, str(lora))
            if not self._llm.add_lora(self._lora):
                raise RuntimeError(f"vLLM did not load the LoRA in {lora}")


def _search(task: Task) -> Search:
    return search_paths(
        beams=task.beams,
        max_new_tokens=task.max_new_tokens,
        end_id=task.end_id,
        length_penalty=task.length_penalty,
    )


def _probable(entries: Mapping[int, Any]) -> NextTokens:
    return {token: entry.logprob for token, entry in entries.items()}
