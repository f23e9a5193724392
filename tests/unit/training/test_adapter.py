"""The adapter artifact: what it must not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from index.errors import CorruptArtifactError
from tests.tiny_shop import make_tiny_shop
from tests.unit.index.letter_encoder import LetterEncoder
from training.adapter import read_adapter


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_pickled_weights_are_refused_even_beside_the_manifest(name: str, tmp_path: Path) -> None:
    """PEFT takes adapter_model.bin where there are no safetensors; no digest of ours covers a file beside."""
    folder = make_tiny_shop(tmp_path / "shop", LetterEncoder()).adapter_dir("sft")
    (folder / name).write_bytes(b"pickle")
    with pytest.raises(CorruptArtifactError, match=f"weights must be safetensors, found {name}; remove"):
        read_adapter(folder)
