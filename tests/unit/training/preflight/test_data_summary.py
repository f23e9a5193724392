"""Counts, histograms and rendered samples, on a shop that can be worked out by hand."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_shop import END, tiny_catalog, write_tiny_tokenizer
from training.base_model import BaseModel
from training.data.dataset import Dataset
from training.data.window_filter import LeftOut
from training.data.windows import DataSplit, Window
from training.model.batches import Sample
from training.preflight.data_summary import RenderedCompletion, count_lengths, render_completions, summarise_data
from training.prompt import PromptRenderer, PromptTemplate

# rows of the tiny catalog: Tetris, Doom, Myst, Portal, Quake, Zork, Pong; one token per byte
TETRIS, DOOM, MYST, PORTAL = range(4)
TEMPLATE = PromptTemplate(noun="game", verb="played", max_prompt_tokens=0, max_title_tokens=40)
EMPTY_PROMPT = len(TEMPLATE.head + TEMPLATE.tail)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_a_histogram_counts_every_length_once(lengths):
    found = count_lengths("prompt", lengths)
    assert 1 <= len(found.bins) <= 10
    assert len({entry.last - entry.first for entry in found.bins}) == 1
    assert all(before.last + 1 == after.first for before, after in itertools.pairwise(found.bins))
    assert [entry.count for entry in found.bins] == [
        sum(entry.first <= length <= entry.last for length in lengths) for entry in found.bins
    ]
    assert sum(entry.count for entry in found.bins) == len(lengths)
    assert (found.shortest, found.longest) == (min(lengths), max(lengths))


@pytest.mark.parametrize(("share", "name"), [(0.5, "median"), (0.95, "p95")])
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_a_percentile_is_the_least_length_that_so_many_do_not_exceed(share, name, lengths):
    found = getattr(count_lengths("prompt", lengths), name)
    reaches = [
        length for length in sorted(set(lengths)) if sum(other <= length for other in lengths) >= share * len(lengths)
    ]
    assert found == reaches[0]


def test_a_completion_is_shown_as_the_loss_gets_it(tmp_path):
    """ "Hi" is two bytes, then come the quote and the end token; the prompt's letter "p" is in neither."""
    tokenizer = write_tiny_tokenizer(tmp_path)
    hi, no = ((*tokenizer.title_ids(title), *tokenizer.piece_ids(f'"{END}')) for title in ("Hi", "No"))
    sample = Sample(tokenizer.title_ids("p"), (hi, no))
    assert render_completions(sample, ("first", "second"), tokenizer) == (
        RenderedCompletion("first", f'Hi"{END}', ("H", "i", '"', END)),
        RenderedCompletion("second", f'No"{END}', ("N", "o", '"', END)),
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Prompts have room for 10 tokens of titles: `Myst", "Doom` would take 12, so the older one goes."""
    template = PromptTemplate(noun="game", verb="played", max_prompt_tokens=EMPTY_PROMPT + 10, max_title_tokens=40)
    renderer = PromptRenderer(template, write_tiny_tokenizer(tmp_path), 256)
    train = (
        Window("ann", (DOOM,), PORTAL, 1),
        Window("bob", (MYST, DOOM), TETRIS, 2),
        Window("cay", (MYST, DOOM, TETRIS), DOOM, 3),
        Window("dan", (TETRIS,), MYST, 4),
    )
    split = DataSplit(train, train[:2], train[:1], (), (40, 20, 10))
    return Dataset(tiny_catalog(), split, BaseModel("tiny", tmp_path, ""), renderer)


def test_what_is_shortened_and_dropped_is_what_the_prompt_dropped(dataset):
    """bob loses one title of two, cay two of three. Completions: Portal 6 + 2, Tetris 6 + 2, Doom 4 + 2, Myst 4 + 2."""
    samples = dataset.samples(dataset.split.train, dataset.titles(dataset.split.train))
    found = summarise_data(dataset, samples, ("true title",), LeftOut(too_long=2))
    assert (found.shortened_prompts, found.dropped_items) == (2, 3)
    assert found.windows == {"training": 4, "validation": 2, "test": 1}
    assert found.available_windows == {"training": 40, "validation": 20, "test": 10}
    assert found.left_out.total == 2
    prompt, title = found.lengths
    assert (prompt.shortest, prompt.longest) == (EMPTY_PROMPT + 4, EMPTY_PROMPT + 6)
    assert (title.of, title.shortest, title.median, title.longest) == ("true title", 6, 6, 8)


def test_the_shortest_the_median_and_the_longest_sample_are_shown(dataset):
    """Letters of history and target: ann and bob 4 + 6, cay and dan 6 + 4; all alike, so in the windows' order."""
    samples = dataset.samples(dataset.split.train, dataset.titles(dataset.split.train))
    found = summarise_data(dataset, samples, ("true title",), LeftOut()).samples
    assert [(sample.user_id, sample.items, sample.dropped_items) for sample in found] == [
        ("ann", 1, 0),
        ("cay", 1, 2),
        ("dan", 1, 0),
    ]
    assert found[1].prompt.endswith('"Tetris"\n\n### Response:\n"')
    assert found[1].completions[0].text == f'Doom"{END}'


def test_one_sample_is_shown_once(dataset):
    samples = dataset.samples(dataset.split.train[:1], ["Portal"])
    assert len(summarise_data(dataset, samples, ("true title",), LeftOut()).samples) == 1
