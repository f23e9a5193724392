"""The contract of an inference engine: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from index.titles.beam import FoundTitles
from serving.engine.title_tries import StoredTitles


@dataclass(frozen=True)
class FreeGeneration:
    """What the engine wrote.

    Attributes:
        ids: generated token ids, the end token included where it was written.
        log_prob: summed natural log-probability of `ids` after the prompt.
    """

    ids: tuple[int, ...]
    log_prob: float


@dataclass(frozen=True)
class ConstrainedGeneration:
    """The titles that a constrained search found.

    Attributes:
        found: the titles, with the model's own summed log-probabilities.
        completion_tokens: of all beams together.
    """

    found: FoundTitles
    completion_tokens: int


class Engine(Protocol):
    """An engine with a base model and adapters.

    Every method raises EngineUnavailableError once the engine is dead. Cancelling a call stops its generation.
    """

    async def generate(
        self, prompt_ids: Sequence[int], *, adapter_id: str | None, max_new_tokens: int, request_id: str
    ) -> FreeGeneration:
        """Write at most `max_new_tokens` after the prompt, with an adapter or (None) the bare base.

        Raises:
            ValueError: ids outside the vocabulary, an empty prompt, or more tokens than the engine was opened for.
            UnknownAdapterError: the adapter is not loaded.
        """
        ...

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
        """Find the k most probable titles after the prompt by beam search; see `index.titles.beam`.

        Args:
            titles: those that may be given.
            width: beams of each length.
            max_new_tokens: of the longest title, with what ends it.

        Raises: as `generate` does.
        """
        ...

    async def log_prob(
        self, prompt_ids: Sequence[int], completion_ids: Sequence[int], *, adapter_id: str | None
    ) -> float:
        """Return the summed natural log-probability of a completion after a prompt. Raises as `generate` does."""
        ...

    async def ping(self) -> None:
        """Return if the engine is alive."""
        ...

    async def close(self) -> None:
        """Stop the engine and every process it started. Safe to call twice."""
        ...
