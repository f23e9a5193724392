"""Laws of the one prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item
from index.errors import SoftrecError
from training.prompt import Prompt, PromptRenderer, PromptTemplate, TitleTokenizer
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


def test_a_title_that_alone_exceeds_the_prompt_is_skipped_wherever_it_stands(tokenizer):
    """Room for two titles and their separator: the long title goes, and takes no older one and no place with it."""
    old, new, long = "Amélie", "Toy Story (1995)", "千と千尋の神隠し" * 40
    ends = tokenizer.piece_ids(END)[0]
    full = PromptRenderer(PromptTemplate("movie", "watched"), tokenizer, ends)
    both = full.render([old, new])
    template = PromptTemplate("movie", "watched", max_history=2, max_prompt_tokens=len(both.ids))
    tight = PromptRenderer(template, tokenizer, ends)
    assert [tight.fits_prompt(title) for title in (old, new, long)] == [True, True, False]
    for history in ([old, new, long], [old, long, new], [long, old, new], [old, long, long, new, long]):
        prompt = tight.render(history)
        assert prompt.ids == both.ids
        assert (prompt.used, prompt.dropped) == (2, len(history) - 2)
    nothing = tight.render([long, long])
    assert (nothing.ids, nothing.used, nothing.dropped) == (tight.render([]).ids, 0, 2)


@given(history=st.lists(st.sampled_from(["a", "bb", "ccc", "d" * 9, "e" * 30]), max_size=8), room=st.integers(1, 30))
def test_what_alone_is_too_long_might_as_well_not_be_there(tokenizer, renderer, history, room):
    """The obvious version: take those titles out first, then drop the oldest until the rest fits."""
    empty = len(renderer.render([]).ids)
    template = PromptTemplate("movie", "watched", max_history=4, max_prompt_tokens=empty + room)
    tight = PromptRenderer(template, tokenizer, renderer.end_id)
    left = [title for title in history if len(tight.title_ids(title)) <= room][-4:]
    while len(renderer.render(left).ids) > empty + room:
        left = left[1:]
    prompt = tight.render(history)
    assert prompt.ids == renderer.render(left).ids
    assert (prompt.used, prompt.dropped) == (len(left), len(history) - len(left))


def test_a_title_that_fits_alone_and_not_beside_the_newer_ones_ends_the_history(tokenizer):
    """It is not jumped over: what is older than it goes with it, as ever."""
    ends = tokenizer.piece_ids(END)[0]
    full = PromptRenderer(PromptTemplate("movie", "watched"), tokenizer, ends)
    room = len(full.render(["a", "Toy Story (1995)"]).ids) - 1
    tight = PromptRenderer(PromptTemplate("movie", "watched", max_prompt_tokens=room), tokenizer, ends)
    assert tight.render(["b", "Toy Story (1995)", "a"]) == Prompt(full.render(["a"]).ids, used=1, dropped=2)


def test_a_budget_below_the_fixed_part_is_refused(tokenizer):
    with pytest.raises(SoftrecError, match=r"max_prompt_tokens is 2, but .* without any title takes \d+; raise"):
        PromptRenderer(PromptTemplate(max_prompt_tokens=2), tokenizer, 1)


def test_template_round_trip_and_identity():
    template = PromptTemplate("movie", "watched", max_history=5)
    assert PromptTemplate.from_json(template.to_json()) == template
    assert template.digest != PromptTemplate("movie", "seen", max_history=5).digest
    assert "one new movie that the user will like" in template.head
