"""Which windows are left out, and when the lot is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers

from index.catalog.catalog import Catalog, Item
from tests.tiny_shop import TEMPLATE, write_tiny_tokenizer
from training.data.window_filter import LeftOut, select_evaluation_windows, select_training_windows
from training.data.windows import Window
from training.errors import EmptyDataError, TrainingError
from training.prompt import PromptRenderer, PromptTemplate, TitleTokenizer

# one token per byte; TEMPLATE takes titles of 40 tokens, and prompts of 400, of which the empty one takes most
LONG = "x" * 41
TITLES = ("Doom", "Myst", LONG, "Café")
DOOM, MYST, TOO_LONG, CAFE = range(4)
CATALOG = Catalog.from_items(Item(str(at), title) for at, title in enumerate(TITLES))


def window(target: int, *history: int) -> Window:
    return Window("ann", history or (DOOM,), target, 0)


@pytest.fixture
def renderer(tmp_path: Path) -> PromptRenderer:
    return PromptRenderer(TEMPLATE, write_tiny_tokenizer(tmp_path), 256)


def with_normalizer(folder: Path, normalizer: normalizers.Normalizer) -> PromptRenderer:
    write_tiny_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizer
    tokenizer.save(str(folder / "tokenizer.json"))
    return PromptRenderer(TEMPLATE, TitleTokenizer.load(folder), 256)


@pytest.fixture
def accentless(tmp_path: Path) -> PromptRenderer:
    """A tokenizer that drops accents: Café comes back as Cafe, which the catalog does not know."""
    return with_normalizer(tmp_path, normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]))


def test_what_can_be_learned_is_kept_in_order(renderer):
    windows = [window(MYST), window(DOOM, MYST), window(CAFE)]
    assert select_training_windows(windows, CATALOG, renderer) == (tuple(windows), LeftOut())


def test_targets_that_are_too_long_are_left_out_however_many(renderer):
    windows = [window(TOO_LONG)] * 9 + [window(DOOM)]
    kept, left_out = select_training_windows(windows, CATALOG, renderer)
    assert kept == (window(DOOM),)
    assert left_out == LeftOut(too_long=9)
    assert left_out.notes(TEMPLATE) == [
        "9 training windows left out: their title is longer than 40 tokens (max_title_tokens)"
    ]


def test_nothing_but_targets_that_are_too_long_is_refused(renderer):
    with pytest.raises(EmptyDataError, match=rf"at most 40 tokens long: user ann -> '{LONG}', .*; --set max_title"):
        select_training_windows([window(TOO_LONG)] * 3, CATALOG, renderer)


def test_one_garbled_target_in_a_hundred_is_left_out_and_two_are_refused(accentless):
    sound = [window(DOOM)] * 98
    kept, left_out = select_training_windows([*sound, window(CAFE), window(MYST)], CATALOG, accentless)
    assert len(kept) == 99
    assert left_out == LeftOut(garbled=1)
    assert left_out.notes(TEMPLATE) == ["1 training windows left out: this base's tokenizer cannot spell their title"]
    with pytest.raises(
        TrainingError, match=r"2 of 100 .*cannot spell it: user ann -> 'Café', user ann.*; choose a base"
    ):
        select_training_windows([*sound, window(CAFE), window(CAFE)], CATALOG, accentless)


def test_a_title_that_comes_back_in_lower_case_is_sound(tmp_path):
    """The catalog takes "doom" for Doom, so nothing is lost by it."""
    uncased = with_normalizer(tmp_path, normalizers.Lowercase())
    assert uncased.parse(uncased.completion_ids("Doom")) == "doom"
    assert select_training_windows([window(DOOM)], CATALOG, uncased) == ((window(DOOM),), LeftOut())


def tight_renderer(folder: Path) -> PromptRenderer:
    """Room for 20 tokens beside the instruction: Doom fits, a title of 41 does not."""
    instruction = len(TEMPLATE.head + TEMPLATE.tail)
    template = PromptTemplate(noun="game", verb="played", max_prompt_tokens=instruction + 20)
    return PromptRenderer(template, write_tiny_tokenizer(folder), 256)


def test_a_history_without_a_title_that_fits_is_left_out_or_refused(tmp_path):
    """A title that is too long hides nothing: what is older than it is learned from."""
    renderer = tight_renderer(tmp_path)
    hidden, open_ = window(DOOM, TOO_LONG, TOO_LONG), window(DOOM, MYST, TOO_LONG)
    kept, left_out = select_training_windows([hidden] + [open_] * 99, CATALOG, renderer)
    assert kept == (open_,) * 99
    assert left_out == LeftOut(without_history=1)
    assert left_out.notes(renderer.template) == [
        "1 training windows left out: no title of their history fits a prompt of "
        f"{renderer.template.max_prompt_tokens} tokens (max_prompt_tokens)"
    ]
    with pytest.raises(TrainingError, match=r"1 of 2 .*no title of the history fits max_prompt_.*; --set max_prompt"):
        select_training_windows([hidden, open_], CATALOG, renderer)


def test_no_part_is_measured_on_an_empty_prompt(tmp_path):
    """Targets may be too long to be written, and count as missed; without a history there is no question to answer."""
    renderer = tight_renderer(tmp_path)
    hidden, open_, unwritable = window(DOOM, TOO_LONG), window(DOOM, MYST, TOO_LONG), window(TOO_LONG, DOOM)
    assert select_evaluation_windows([open_, unwritable], "test", CATALOG, renderer) == ((open_, unwritable), [])
    kept, [note] = select_evaluation_windows([hidden, open_, hidden], "test", CATALOG, renderer)
    assert kept == (open_,)
    assert note.startswith("2 test windows left out: no title of their history fits a prompt of ")
    with pytest.raises(EmptyDataError, match=r"no validation window is left: no title .*; --set max_prompt_tokens=N"):
        select_evaluation_windows([hidden], "validation", CATALOG, renderer)


def test_the_reasons_add_up():
    assert LeftOut(3, 2, 1).total == 6
    assert len(LeftOut(3, 2, 1).notes(TEMPLATE)) == 3
    assert LeftOut().notes(TEMPLATE) == []
