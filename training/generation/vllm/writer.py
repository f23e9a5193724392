"""Titles of a model in training, written by vLLM: what `training.generation.beam.generate` does, in an engine.

The engine holds a copy of the base in a process of its own (`training.generation.vllm.process`). Before each task it
is given the model's LoRA as it stands.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import torch

from index.kill_with_parent import KillWithParent
from training.errors import TrainingError
from training.generation.generation import Generation
from training.generation.vllm.engine import EngineOptions, Task
from training.generation.vllm.environment import prepare_environment, runs_on_cpu
from training.generation.vllm.process import Done, Failure, serve

_REMEDY = "train with --generator torch, or see vLLM's messages above; VLLM_LOGGING_LEVEL=INFO shows more of them"

# torchrun's, about training's process group: vLLM would take its engine for one of several
_LAUNCHER = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class VllmWriter:
    """A vLLM engine beside a model in training. Open one with `VllmWriter.open`, end it with `close` or `with`."""

    def __init__(
        self, process: BaseProcess, connection: Connection, folder: TemporaryDirectory[str], max_model_len: int
    ) -> None:
        self._process, self._connection, self._folder = process, connection, folder
        self._max_model_len = max_model_len
        assert process.pid is not None
        self._killer = KillWithParent([process.pid])

    @classmethod
    def open(cls, base: Path, options: EngineOptions) -> Self:
        """Start an engine on a base model's folder.

        Raises:
            TrainingError: vLLM is not installed or did not start; nothing is left running.
        """
        if importlib.util.find_spec("vllm") is None:
            raise TrainingError(
                "--generator vllm, but vLLM is not installed",
                remedy="pip install 'softrec[cpu]' or 'softrec[gpu]', or train with --generator torch",
            )
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit training's GPU and threads
        ours, theirs = spawn.Pipe()
        folder = TemporaryDirectory(prefix="softrec-vllm-")
        process = spawn.Process(target=serve, args=(theirs, base, options), daemon=True)
        with _environment(engine_environment(os.environ, options.device, Path(folder.name))):
            process.start()  # multiprocessing lets a child inherit its environment, but not be given one
        theirs.close()  # so that we notice when the process ends
        writer = cls(process, ours, folder, options.max_model_len)
        try:
            writer._answer()
        except BaseException:
            writer.close()
            raise
        return writer

    def generate(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        beams: int,
        max_new_tokens: int,
        end_id: int,
        length_penalty: float = 0.0,
        batch_size: int = 0,
        advance: Callable[[int], None] = lambda n: None,
    ) -> list[Generation]:
        """Write the best continuation of every prompt; see `training.generation.beam.generate`.

        Args:
            model: the engine's base, bare or with a LoRA, whose weights are taken as they are now.
            batch_size: not used: the engine fills its batches itself, up to `EngineOptions.max_running`.

        Raises:
            TrainingError: a prompt is too long for the engine, or the engine failed.
        """
        for row, prompt in enumerate(prompts):
            if not 0 < len(prompt) <= self._max_model_len - max_new_tokens:
                raise TrainingError(
                    f"prompt {row} has {len(prompt)} tokens and {max_new_tokens} are to be written, "
                    f"but the vLLM engine was opened for 1 to {self._max_model_len} in all",
                    remedy="lower max_prompt_tokens, or train with --generator torch",
                )
        with TemporaryDirectory(dir=self._folder.name) as lora:
            has_lora = hasattr(model, "get_base_model")
            if has_lora:
                model.save_pretrained(lora, save_embedding_layers=False)  # True would ask the hub
            task = Task(Path(lora) if has_lora else None, prompts, beams, max_new_tokens, end_id, length_penalty)
            answer = self._answer(task)
            while isinstance(answer, Done):
                advance(answer.prompts)
                answer = self._answer()
        generations: list[Generation] = answer
        return generations

    def close(self) -> None:
        """End the engine and its process, whatever it is doing. Safe to call twice."""
        self._connection.close()  # it ends when it notices
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._killer.dismiss()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, task: Task | None = None) -> Any:
        """Receive what the engine says next, after giving it a task."""
        try:
            if task is not None:
                self._connection.send(task)
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise TrainingError(
                f"the vLLM engine's process ended with exit code {self._process.exitcode}", remedy=_REMEDY
            ) from None
        if isinstance(answer, Failure):
            raise TrainingError(f"the vLLM engine failed: {answer.reason}", remedy=_REMEDY)
        return answer


def engine_environment(environ: Mapping[str, str], device: torch.device, folder: Path) -> dict[str, str]:
    """Return the environment of the engine's process.

    Args:
        environ: training's own. What the operator set of vLLM's variables stays.
        device: the engine shall use that GPU.
        folder: for temporary files.
    """
    chosen = {name: value for name, value in environ.items() if name not in _LAUNCHER}
    chosen["TMPDIR"] = str(folder)
    if device.type == "cuda":  # vLLM takes the first GPU that it sees
        visible, index = environ.get("CUDA_VISIBLE_DEVICES"), device.index or 0
        chosen["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)
    chosen["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # no process of vLLM's own
    prepare_environment(chosen, on_cpu=runs_on_cpu())
    return chosen


@contextmanager
def _environment(environ: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
