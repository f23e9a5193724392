"""The engine on vLLM: `AsyncLLM` in this process, its engine core in a process of its own.

Of serving, only `serving.engine.{vllm_engine,titles,logits}` import vllm. Call
`training.generation.vllm.environment.prepare_environment` before importing one of them.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch and vllm, about themselves
    from vllm import SamplingParams, TokensPrompt
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.lora.request import LoRARequest
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from index.kill_with_parent import KillWithParent
from serving.engine.engine import ConstrainedGeneration, FreeGeneration
from serving.engine.environment import starting_engine
from serving.engine.shared_exclusive_lock import SharedExclusiveLock
from serving.engine.title_mask import ARGUMENT, FORCED
from serving.engine.title_tries import StoredTitles
from serving.engine.titles import TitleWriting
from serving.errors import EngineStartError, EngineUnavailableError, UnknownAdapterError

LOGITS_PROCESSOR = "serving.engine.logits:TitleLogits"

# A fresh integer per load in this process: vLLM tells loaded adapters apart by it
_fresh_lora_ids = itertools.count(1)


@dataclass(frozen=True)
class VllmOptions:
    """How to run vLLM.

    Attributes:
        dtype: "float32", "bfloat16", or "auto" (the model's own).
        max_model_len: most tokens of a prompt and its completion together.
        max_lora_rank: largest rank among the adapters.
        max_running: most requests in one batch.
        kv_cache_bytes: size of the KV cache; None lets vLLM take what the GPU has left.
        enforce_eager: no compilation and no CUDA graphs.
        block_size: tokens per KV block, the grain of the prefix cache; None takes vLLM's default.
        threads: OpenMP threads of the engine's process; None: as the environment says.
    """

    dtype: str
    max_model_len: int
    max_lora_rank: int
    max_running: int
    kv_cache_bytes: int | None
    enforce_eager: bool
    block_size: int | None
    threads: int | None = None


class VllmEngine:
    """An `Engine` on vLLM. Open one with `VllmEngine.open`, end it with `close`."""

    def __init__(
        self,
        llm: AsyncLLM,
        children: Sequence[BaseProcess],
        sockets: Path,
        loras: Mapping[str, LoRARequest],
        end_id: int,
        max_model_len: int,
    ) -> None:
        self._llm = llm
        self._loras = dict(loras)
        self._end_id = end_id
        self._max_model_len = max_model_len
        self._vocab_size = int(llm.model_config.get_vocab_size())
        self._children = tuple(children)
        self._sockets = sockets
        self._kill_with_parent = KillWithParent([child.pid for child in self._children if child.pid is not None])
        self._lock = SharedExclusiveLock()

    @classmethod
    async def open(cls, base: str, adapters: Mapping[str, Path], *, end_id: int, options: VllmOptions) -> VllmEngine:
        """Start the engine and load every adapter. Blocks the event loop for the seconds this takes.

        Args:
            base: folder or hub name of the base model.
            adapters: adapter id to PEFT folder; all of them stay loaded.
            end_id: the token that ends a completion.

        Raises:
            EngineStartError: the engine did not start or refused an adapter; nothing is left running.
        """
        earlier = set(multiprocessing.active_children())
        try:
            with starting_engine(os.environ, threads=options.threads) as sockets:
                llm = AsyncLLM.from_engine_args(_engine_args(base, len(adapters), options))
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineStartError(
                f"vLLM did not start: {error}",
                remedy="see its messages above; set VLLM_LOGGING_LEVEL=INFO for more of them",
            ) from error
        loras = {
            adapter_id: LoRARequest(adapter_id, next(_fresh_lora_ids), str(path.resolve()))
            for adapter_id, path in adapters.items()
        }
        children = [child for child in multiprocessing.active_children() if child not in earlier]
        engine = cls(llm, children, sockets, loras, end_id, options.max_model_len)
        try:
            for adapter_id, lora in loras.items():
                await engine._load(adapter_id, lora)
        except BaseException:
            await engine.close()
            raise
        return engine

    async def generate(
        self, prompt_ids: Sequence[int], *, adapter_id: str | None, max_new_tokens: int, request_id: str
    ) -> FreeGeneration:
        """See `Engine.generate`."""
        params = _params(max_tokens=max_new_tokens, stop_token_ids=[self._end_id])
        output = await self._run(prompt_ids, params, adapter_id, request_id)
        return _generation(output.outputs[0])

    async def write_titles(
        self,
        prompt_ids: Sequence[int],
        titles: StoredTitles,
        *,
        adapter_id: str | None,
        width: int,
        k: int,
        max_new_tokens: int,
        request_id: str,
    ) -> ConstrainedGeneration:
        """See `Engine.write_titles`. Without an adapter it waits as `generate` does."""
        self._check(prompt_ids, max_new_tokens)
        writing = TitleWriting(
            self._llm,
            prompt_ids,
            titles,
            lora=None if adapter_id is None else self._lora(adapter_id),
            end_id=self._end_id,
            width=width,
            k=k,
            most_tokens=max_new_tokens,
            request_id=request_id,
        )
        async with self._turn(adapter_id):
            with _naming_failures():
                return ConstrainedGeneration(await writing.run(), writing.tokens)

    async def log_prob(
        self, prompt_ids: Sequence[int], completion_ids: Sequence[int], *, adapter_id: str | None
    ) -> float:
        """See `Engine.log_prob`. The engine writes the completion, token by token, because it may write nothing else.

        It does not ask for `prompt_logprobs`: with LoRA vLLM 0.32 on the CPU mixes up tokens and requests when it
        computes those in a batch of several, and dies of it («einsum(): subscript b has size 4 …»).
        """
        self._check([*prompt_ids, *completion_ids], 0)
        forced = {ARGUMENT: {FORCED: list(completion_ids)}}
        params = _params(max_tokens=len(completion_ids), ignore_eos=True, extra_args=forced)
        output = await self._run(prompt_ids, params, adapter_id, f"log-prob-{uuid.uuid4().hex}")
        written = _generation(output.outputs[0])
        if written.ids != tuple(completion_ids):
            raise EngineUnavailableError(f"vLLM wrote {written.ids} where only {tuple(completion_ids)} was allowed")
        return written.log_prob

    async def ping(self) -> None:
        """See `Engine.ping`."""
        if self._llm.errored or not all(child.is_alive() for child in self._children):
            raise EngineUnavailableError("the vLLM engine is dead", remedy="restart the server")

    async def close(self) -> None:
        """See `Engine.close`."""
        self._llm.shutdown(timeout=5)
        for child in self._children:
            await asyncio.to_thread(child.join, 10)
            if child.is_alive():
                child.kill()
        self._kill_with_parent.dismiss()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _turn(self, adapter_id: str | None) -> AbstractAsyncContextManager[None]:
        """Without an adapter, wait until no other request is in the engine.

        In a batch with LoRA requests vLLM 0.32 on the CPU gives a request without LoRA the adapter of its last slot,
        silently. Requests with adapters mix correctly.
        """
        return self._lock.alone() if adapter_id is None else self._lock.shared()

    async def _run(
        self, ids: Sequence[int], params: SamplingParams, adapter_id: str | None, request_id: str
    ) -> RequestOutput:
        """Run one request to its end."""
        self._check(ids, params.max_tokens or 0)
        lora = None if adapter_id is None else self._lora(adapter_id)
        output: RequestOutput | None = None
        async with self._turn(adapter_id):
            with _naming_failures():
                # Leaving this loop early (cancellation, deadline) makes vLLM abort the request in its engine too
                async for latest in self._llm.generate(
                    TokensPrompt(prompt_token_ids=list(ids)), params, request_id, lora_request=lora
                ):
                    output = latest
        if output is None:
            raise EngineUnavailableError("the vLLM engine ended a request without an answer")
        return output

    def _check(self, ids: Sequence[int], max_new_tokens: int) -> None:
        """Refuse ids that crash the engine: without a tokenizer vLLM looks up any id, and one too large kills it."""
        if not ids or min(ids) < 0 or max(ids) >= self._vocab_size:
            raise ValueError(f"token ids must lie in 0..{self._vocab_size - 1} and there must be at least one")
        if len(ids) + max_new_tokens > self._max_model_len:
            raise ValueError(f"{len(ids)} + {max_new_tokens} tokens, but the engine takes {self._max_model_len}")

    def _lora(self, adapter_id: str) -> LoRARequest:
        try:
            return self._loras[adapter_id]
        except KeyError:
            raise UnknownAdapterError(f"adapter {adapter_id} is not loaded; loaded: {', '.join(self._loras)}") from None

    async def _load(self, adapter_id: str, lora: LoRARequest) -> None:
        # Loaded by a call of its own, because a bad adapter met inside a batch kills the engine
        try:
            loaded = await self._llm.add_lora(lora)
        except Exception as error:  # whatever the engine process raised comes back as a bare Exception
            raise EngineStartError(f"vLLM refused adapter {adapter_id}: {error}", remedy="train it again") from error
        if not loaded:
            raise EngineStartError(f"vLLM did not load adapter {adapter_id}", remedy="train it again")


def _engine_args(base: str, adapters: int, options: VllmOptions) -> AsyncEngineArgs:
    chosen: dict[str, Any] = {}
    if options.block_size is not None:
        chosen["block_size"] = options.block_size
    if adapters:
        chosen |= {"enable_lora": True, "max_loras": adapters, "max_cpu_loras": adapters}
        chosen["max_lora_rank"] = _allowed_rank(options.max_lora_rank)
    return AsyncEngineArgs(
        model=base,
        skip_tokenizer_init=True,  # ids go in and out; vLLM's tokenizer would never be asked
        dtype=options.dtype,
        generation_config="vllm",  # nothing of the model's own sampling settings
        enforce_eager=options.enforce_eager,
        max_model_len=options.max_model_len,
        max_num_seqs=options.max_running,
        kv_cache_memory_bytes=options.kv_cache_bytes,
        enable_prefix_caching=True,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        logits_processors=[LOGITS_PROCESSOR],
        logprobs_mode="processed_logits",  # the processor makes them log-probabilities
        max_logprobs=-1,  # no limit
        **chosen,
    )


def _params(**settings: Any) -> SamplingParams:
    """Greedy, with the log-probability of every token, reported once at the end; `settings` override that."""
    usual = {"temperature": 0.0, "logprobs": 0, "detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY}
    return SamplingParams(**(usual | settings))


def _allowed_rank(lora_rank: int) -> int:
    """The smallest maximal rank that vLLM takes and that is large enough."""
    return next(rank for rank in (8, 16, 32, 64, 128, 256, 320, 512, max(512, lora_rank)) if rank >= lora_rank)


def _generation(written: CompletionOutput) -> FreeGeneration:
    return FreeGeneration(tuple(written.token_ids), float(written.cumulative_logprob or 0.0))


@contextmanager
def _naming_failures() -> Iterator[None]:
    try:
        yield
    except (EngineDeadError, EngineGenerateError) as error:
        raise EngineUnavailableError(f"the vLLM engine failed: {error}", remedy="restart the server") from error
