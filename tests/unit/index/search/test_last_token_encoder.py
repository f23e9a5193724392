from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM

from index.errors import SoftrecError
from index.search.encoder import open_encoder
from index.search.last_token_encoder import LastTokenEncoder
from tests.random_llama import random_llama

BEGIN = 1
LETTERS = {letter: 2 + place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}


def write_base(folder: Path, *, seed: int = 0, begin: int | None = BEGIN) -> Path:
    """A real, tiny Llama whose tokens are single letters."""
    random_llama(32, seed=seed, max_position_embeddings=24, bos_token_id=begin, eos_token_id=None).save_pretrained(
        folder
    )
    tokenizer = Tokenizer(models.WordLevel({"?": 0, **LETTERS}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def test_a_vector_is_the_normed_last_layers_state_at_the_last_token(base_dir: Path) -> None:
    """One title at a time, without padding, straight through the model: [begin, letters ...]."""
    titles = ["tetris", "a", "", "zz top", "doom"]
    found = LastTokenEncoder(base_dir).encode(titles)
    model = LlamaForCausalLM.from_pretrained(base_dir).eval()
    for title, vector in zip(titles, found, strict=True):
        ids = torch.tensor([[BEGIN, *(LETTERS.get(letter, 0) for letter in title)]])
        with torch.inference_mode():
            expected = model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        np.testing.assert_allclose(vector, expected.numpy(), rtol=0, atol=1e-5)


def test_order_and_batch_do_not_matter(base_dir: Path) -> None:
    encoder = LastTokenEncoder(base_dir)
    titles = ["ab" * (number % 7) + "c" for number in range(70)]
    together = encoder.encode(titles)
    assert together.shape == (70, 32)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together[::-1], encoder.encode(titles[::-1]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(together[3], encoder.encode([titles[3]])[0], rtol=0, atol=1e-5)
    assert encoder.encode([]).shape == (0, 32)


def test_titles_longer_than_the_model_are_cut_at_their_end(base_dir: Path) -> None:
    """24 positions: the begin token and 23 letters."""
    encoder = LastTokenEncoder(base_dir)
    long, cut = encoder.encode(["a" * 23 + "b" * 100, "a" * 23])
    np.testing.assert_allclose(long, cut, rtol=0, atol=1e-5)


def test_a_model_without_a_begin_token_gives_even_an_empty_text_a_vector(tmp_path: Path) -> None:
    vectors = LastTokenEncoder(write_base(tmp_path, begin=None)).encode(["", "a"])
    assert np.isfinite(vectors).all()


def test_the_fingerprint_follows_the_weights(base_dir: Path, tmp_path: Path) -> None:
    fingerprint = LastTokenEncoder(base_dir).fingerprint
    assert LastTokenEncoder(write_base(tmp_path / "same")).fingerprint == fingerprint
    assert LastTokenEncoder(write_base(tmp_path / "other", seed=1)).fingerprint != fingerprint


def test_open_encoder_finds_it_by_name(base_dir: Path) -> None:
    assert isinstance(open_encoder("base", base_dir=base_dir), LastTokenEncoder)
    with pytest.raises(SoftrecError, match="softrec base"):
        open_encoder("base")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SoftrecError, match=r"no base model can be loaded from .*softrec base"):
        LastTokenEncoder(tmp_path)
