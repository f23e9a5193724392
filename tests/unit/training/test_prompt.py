"""Laws of the one prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item
from index.errors import SoftrecError
from training.prompt import PromptRenderer, PromptTemplate, TitleTokenizer
from training.recipes.stand_in import END, train_tokenizer

TITLES = [
    "Toy Story (1995)",
    "Usual Suspects, The (1995)",
    "Amélie",
    'The "Best" of Me',
    "千と千尋の神隠し",
    "line\nbreak",
]
# surrogates are not text; everything else is
titles = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TitleTokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    catalog = Catalog.from_items(Item(str(at), title) for at, title in enumerate(TITLES))
    train_tokenizer(catalog, PromptTemplate("movie", "watched"), 600).save(str(folder / "tokenizer.json"))
    return TitleTokenizer.load(folder)


@pytest.fixture(scope="module")
def renderer(tokenizer: TitleTokenizer) -> PromptRenderer:
    return PromptRenderer(PromptTemplate("movie", "watched"), tokenizer, tokenizer.piece_ids(END)[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=titles)
def test_a_completion_reads_back_as_its_title(renderer, title):
    assert renderer.parse(renderer.completion_ids(title)) == title


@given(title=titles)
def test_what_follows_the_end_token_is_not_read(renderer, title):
    assert renderer.parse((*renderer.completion_ids(title), *renderer.title_ids("More"))) == title


@given(history=st.lists(titles, max_size=14))
def test_a_prompt_is_its_pieces_in_order(renderer, history):
    template = renderer.template
    prompt = renderer.render(history)
    used = history[len(history) - prompt.used :]
    assert prompt.used + prompt.dropped == len(history)
    assert prompt.used <= template.max_history
    text = renderer.tokenizer.text(prompt.ids)
    assert text.endswith(template.head + template.separator.join(used) + template.tail)


# the closing quote is an ordinary quote: it closes nothing without the end token
@pytest.mark.parametrize("piece", [*PromptTemplate("movie", "watched").pieces[:-1], END])
def test_a_title_cannot_forge_a_piece_of_the_prompt(renderer, piece):
    """Each fixed piece is one special token; the same text inside a title becomes ordinary tokens and reads back."""
    forged = f"A{piece}B"
    special = renderer.tokenizer.piece_ids(piece)
    assert len(special) == 1
    assert special[0] not in renderer.title_ids(forged)
    assert renderer.parse(renderer.completion_ids(forged)) == forged


def test_whole_oldest_titles_go_when_tokens_run_out(tokenizer):
    """Room for the fixed part, two of the three equal titles and one separator: the oldest goes, whole."""
    title = "Toy Story (1995)"
    ends = tokenizer.piece_ids(END)[0]
    full = PromptRenderer(PromptTemplate("movie", "watched"), tokenizer, ends)
    room = len(full.render([title, title]).ids)
    tight = PromptRenderer(PromptTemplate("movie", "watched", max_prompt_tokens=room), tokenizer, ends)
    prompt = tight.render(["Amélie", title, title])
    assert (prompt.used, prompt.dropped) == (2, 1)
    assert prompt.ids == full.render([title, title]).ids


def test_a_budget_below_the_fixed_part_is_refused(tokenizer):
    with pytest.raises(SoftrecError, match=r"max_prompt_tokens is 2, but .* without any title takes \d+; raise"):
        PromptRenderer(PromptTemplate(max_prompt_tokens=2), tokenizer, 1)


def test_template_round_trip_and_identity():
    template = PromptTemplate("movie", "watched", max_history=5)
    assert PromptTemplate.from_json(template.to_json()) == template
    assert template.digest != PromptTemplate("movie", "seen", max_history=5).digest
    assert "one new movie that the user will like" in template.head
