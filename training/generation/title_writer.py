"""Titles out of a model in training: for self-distillation, the d_t probe, validation and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from training.data.dataset import Dataset
from training.data.windows import Window
from training.generation.beam import generate
from training.generation.generation import Generation
from training.parallel.processes import Processes
from training.progress import Progress
from training.settings import TrainSettings

WriterMode = Literal["greedy", "beam"]


class Generator(Protocol):
    """What `training.generation.beam.generate` does, and a vLLM engine as well."""

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        beams: int,
        max_new_tokens: int,
        end_id: int,
        length_penalty: float,
        batch_size: int,
        advance: Callable[[int], None],
    ) -> list[Generation]:
        """Write the best continuation of every prompt; see `training.generation.beam.generate`."""
        ...


class TitleWriter:
    """Lets a model write the next title after histories, divided among the processes of the run."""

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        processes: Processes,
        progress: Progress,
        generator: Generator = generate,
    ) -> None:
        self._dataset, self._settings, self._processes = dataset, settings, processes
        self._progress, self._generate = progress, generator

    def write(
        self, model: Any, windows: Sequence[Window], *, decoding: WriterMode, step: str
    ) -> list[tuple[str, Generation]]:
        """Write the next title for every window.

        Args:
            model: a causal language model, with or without LoRA; left in eval mode.
            decoding: "greedy", or "beam" with `settings.beams`.
            step: what progress calls it.

        Returns:
            (text, generation) in the order of windows, on every process.
        """
        model.eval()
        renderer, settings = self._dataset.renderer, self._settings
        mine = self._processes.share(windows)
        with self._progress.step(step, len(mine)) as advance:
            generations = self._generate(
                model,
                self._dataset.prompts(mine),
                beams=1 if decoding == "greedy" else settings.beams,
                max_new_tokens=renderer.max_new_tokens,
                end_id=renderer.end_id,
                length_penalty=settings.length_penalty,
                batch_size=settings.decode_batch_size,
                advance=advance,
            )
        return [(renderer.parse(generation.ids), generation) for generation in self._processes.gather(generations)]


@contextmanager
def open_writer(
    dataset: Dataset, settings: TrainSettings, processes: Processes, progress: Progress
) -> Iterator[TitleWriter]:
    """Open the writer that the settings name; a vLLM engine ends with the context."""
    if settings.generator == "torch":
        yield TitleWriter(dataset, settings, processes, progress)
        return
    from training.generation.vllm.engine import EngineOptions
    from training.generation.vllm.writer import VllmWriter

    options = EngineOptions(
        precision=settings.precision,
        max_model_len=settings.max_prompt_tokens + dataset.renderer.max_new_tokens,
        max_lora_rank=settings.lora_rank,
        merge=settings.precision == "fp32",
        device=processes.device,
        kv_cache_bytes=(1 if processes.device.type == "cpu" else 8) << 30,
    )
    with VllmWriter.open(dataset.base.path, options) as vllm:
        yield TitleWriter(dataset, settings, processes, progress, vllm.generate)
