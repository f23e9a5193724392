"""The stand-in base reads the training part only, and its tokenizer spells everything."""

from __future__ import annotations

import pytest

from index.workspace import Workspace
from tests.shop import SETTINGS, STAND_IN
from training.base_model import locate_base
from training.data.dataset import load_split, template_of
from training.recipes.stand_in import _plan, training_lines


@pytest.fixture(scope="module")
def parts(based_shop: Workspace):
    catalog, split = load_split(based_shop, SETTINGS)
    renderer = locate_base(based_shop).renderer(template_of(based_shop, SETTINGS))
    return catalog, split, renderer, training_lines(catalog, split, renderer, STAND_IN)


def test_the_prompts_pieces_are_single_tokens(parts):
    _, _, renderer, _ = parts
    assert [len(renderer.tokenizer.piece_ids(piece)) for piece in renderer.template.pieces] == [1, 1, 1, 1]


def test_every_title_reads_back(parts):
    catalog, _, renderer, _ = parts
    assert [renderer.parse(renderer.completion_ids(title)) for title in catalog.titles] == list(catalog.titles)


def test_the_lines_hold_the_training_histories_and_nothing_later(parts):
    """Plain lists hold each history whole, in order; prompts are cut from them; every title has one line of its own."""
    catalog, split, renderer, lines = parts
    text, template = renderer.tokenizer.text, renderer.template
    about_titles = [text(line[1:-1]) for line in lines[len(lines) - len(catalog) :]]
    assert about_titles == [
        f"{title}{template.separator}{catalog.category_of(row)}" for row, title in enumerate(catalog.titles)
    ]
    histories = [text(line[1:-1]) for line in lines[: len(lines) - len(catalog)]]
    plain = [line for line in histories if not line.startswith(template.head)]
    prompts = [line for line in histories if line.startswith(template.head)]
    expected = [template.separator.join(catalog.titles[row] for row in history) for history in split.histories]
    remaining = iter(plain)
    for history in expected:
        joined = next(remaining)
        while joined != history:
            joined += template.separator + next(remaining)
    assert next(remaining, None) is None
    assert len(prompts) == pytest.approx(len(plain) / STAND_IN.prompt_every, abs=len(plain) / 20)
    for prompt in prompts:
        read, answer = prompt.removeprefix(template.head).split(template.tail)
        assert any(read + template.separator + answer.removesuffix(template.close) in history for history in expected)


def test_lines_are_cut_and_batches_filled_as_told(parts):
    _, _, _, lines = parts
    longest_title = max(map(len, lines[-400:]))
    assert max(map(len, lines)) <= STAND_IN.line_tokens + longest_title
    batches = _plan(lines, STAND_IN)
    # a batch is filled by its last line, and lines within 16 tokens count as of one length
    for batch in batches:
        assert (len(batch) - 1) * (max(len(lines[at]) for at in batch) - 16) <= STAND_IN.batch_tokens
    planned = sum(len(lines[at]) for batch in batches for at in batch)
    assert STAND_IN.max_tokens <= planned < STAND_IN.max_tokens + STAND_IN.batch_tokens


def test_a_plain_hugging_face_folder(based_shop):
    """transformers loads model and tokenizer, and its ids are ours."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = locate_base(based_shop)
    model = AutoModelForCausalLM.from_pretrained(base.path, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    assert model.config.eos_token_id == tokenizer.eos_token_id == base.end_id
    title = "The Salt Road, Book 2"
    assert tuple(tokenizer(title, add_special_tokens=False).input_ids) == base.tokenizer.title_ids(title)
    assert tokenizer(title).input_ids[0] == base.tokenizer.start_ids[0] == tokenizer.bos_token_id
