"""`serving.engine.title_mask` as a logits processor of vLLM's: it runs in the engine's process, once per decoding step.

Needs the first of vLLM's model runners (`VLLM_USE_V2_MODEL_RUNNER=0`, see `serving.engine.environment`). By its code
that runner is correct under asynchronous scheduling and CUDA graphs too: it calls the processor after the forward pass,
once the previous step's tokens are back from the GPU. Measured on the CPU only.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.sample.logits_processor.interface import BatchUpdate, LogitsProcessor, MoveDirectionality

from serving.engine.title_mask import TitleMask


class TitleLogits(LogitsProcessor):  # type: ignore[misc]  # vLLM is not typed
    """The class that the engine's argument `logits_processors` names."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._mask = TitleMask()

    def is_argmax_invariant(self) -> bool:
        """False, so that vLLM applies it to greedy requests too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests through the batch, in vLLM's order: removed, added, moved."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._mask.remove(row)
        for row, params, _, written in batch_update.added:
            self._mask.add(row, params.extra_args, written)
        for source, target, direction in batch_update.moved:
            self._mask.move(source, target, swap=direction == MoveDirectionality.SWAP)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """See `TitleMask.apply`."""
        return self._mask.apply(logits)
