"""The paper's title embedding: the frozen base LLM's last hidden state at the title's last token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModel

from index.artifact import file_digest, text_digest
from index.errors import SoftrecError

_BATCH = 32
_MAX_TOKENS = 512  # of one title; a longer one is cut at its end


class LastTokenEncoder:
    """Embed a title as the base model's normed last-layer state at its last token (arXiv:2505.20771, section 3.2).

    One begin-of-text token, if the model has one, precedes the title; no end token follows. Attention is causal, so
    padding on the right changes nothing.

    Args:
        base_dir: folder of a causal language model with `tokenizer.json`.
        device: a torch device. On the CPU the model runs in float32.

    Raises:
        SoftrecError: the folder holds no such model.
    """

    name = "base"

    def __init__(self, base_dir: Path, *, device: str = "cpu") -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(base_dir / "tokenizer.json"))
            dtype = torch.float32 if device == "cpu" else "auto"
            model = AutoModel.from_pretrained(base_dir, dtype=dtype, local_files_only=True, use_safetensors=True)
            self._model = model.to(device).eval()
        except Exception as error:  # tokenizers raises bare Exception; whatever it was, the folder is unusable
            raise SoftrecError(
                f"no base model can be loaded from {base_dir} ({str(error).splitlines()[0]})",
                remedy="make it with `softrec base`, or name a folder with config.json, tokenizer.json and weights",
            ) from error
        config = self._model.config
        begin = config.bos_token_id
        self._begin = [] if begin is None else [int(begin)]
        self._max_tokens = min(_MAX_TOKENS, int(config.max_position_embeddings))
        self.dimension = int(config.hidden_size)
        files = sorted([*base_dir.glob("*.safetensors"), base_dir / "config.json", base_dir / "tokenizer.json"])
        self.fingerprint = text_digest("last-token", str(self._max_tokens), *map(file_digest, files))

    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        """Embed titles: float32 [len(titles), dimension], batched by length."""
        vectors = np.empty((len(titles), self.dimension), dtype=np.float32)
        encoded = [self._ids(title) for title in titles]
        by_length = sorted(range(len(titles)), key=lambda number: len(encoded[number]))
        for start in range(0, len(titles), _BATCH):
            batch = by_length[start : start + _BATCH]
            vectors[batch] = self._encode_batch([encoded[number] for number in batch])
        return vectors

    def _ids(self, title: str) -> list[int]:
        ids = self._begin + self._tokenizer.encode(title, add_special_tokens=False).ids
        return ids[: self._max_tokens] or [0]  # an empty text without a begin token still gets a vector

    @torch.inference_mode()
    def _encode_batch(self, batch: Sequence[list[int]]) -> NDArray[np.float32]:
        lengths = torch.tensor([len(ids) for ids in batch])
        padded = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
        for number, ids in enumerate(batch):
            padded[number, : len(ids)] = torch.tensor(ids)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        device = self._model.device
        states = self._model(input_ids=padded.to(device), attention_mask=mask.to(device)).last_hidden_state
        last = states[torch.arange(len(batch)), lengths - 1]  # [batch, dimension]
        return np.asarray(last.float().cpu().numpy(), dtype=np.float32)
