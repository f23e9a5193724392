"""The mode that is chosen: the cheapest that is as good as the best, on figures that nothing was fitted on."""

from __future__ import annotations

import numpy as np

from index.catalog.catalog import Catalog, Item
from index.ranking.grounding import Grounder
from index.ranking.ranking import Written
from index.search.flat import FlatIndex
from tests.unit.index.letter_encoder import LetterEncoder
from training.data.windows import Window
from training.measure.mode_choice import cheapest_of_the_best, choose_mode, describe_trials

TITLES = tuple("abcdefghijklmnopqrstuvwxyz")


def grounder() -> Grounder:
    catalog = Catalog.from_items(Item(title, title) for title in TITLES)
    return Grounder(catalog, FlatIndex.build(LetterEncoder().encode(TITLES)), LetterEncoder())


def windows(n: int) -> list[Window]:
    return [Window(f"u{number % 12}", (0,), number % 26, number) for number in range(n)]


def choose():
    """Modes on 60 windows; a constrained beam has the target first in its list, greedy writes «q»."""
    chosen_windows = windows(60)

    def decode(mode, width):
        if mode == "greedy":
            return [Written(("q",), (-1.0,)) for _ in chosen_windows]
        lists = []
        for window in chosen_windows:
            others = [row for row in range(26) if row != window.target][: width - 1]
            others.insert(0, window.target)
            texts = tuple(TITLES[row] for row in others)
            lists.append(Written(texts, tuple(-1.0 - place for place in range(len(texts))), tuple(others)))
        return lists

    return choose_mode(decode, chosen_windows, grounder(), np.ones(26, dtype=np.int64))


def test_a_model_whose_own_ranking_is_right_is_ranked_by_likelihood_with_the_narrowest_beam():
    chosen, trials = choose()
    assert (chosen.decoding, chosen.width, chosen.ranking.mode) == ("constrained_beam", 10, "likelihood")
    assert chosen.hr10 == 1
    assert [trial.name for trial in trials] == [
        "greedy_l2",
        "greedy_l2_popularity",
        "greedy_fusion",
        "constrained_beam10_likelihood",
        "constrained_beam10_fusion",
        "constrained_beam20_likelihood",
        "constrained_beam20_fusion",
    ]
    figures = describe_trials(trials, chosen)
    assert figures["mode_constrained_beam10_likelihood_hr10"] == figures["mode_chosen_hr10"] == 1


def test_where_all_modes_are_alike_the_cheapest_is_taken():
    """Everyone writes «q» alone, all other letters are equally far from it and equally popular."""
    chosen_windows = windows(60)
    chosen, trials = choose_mode(
        lambda mode, width: [Written(("q",), (-1.0,)) for _ in chosen_windows],
        chosen_windows,
        grounder(),
        np.ones(26, dtype=np.int64),
    )
    assert chosen.name == trials[0].name == "greedy_l2"
    assert chosen.ranking.weights == trials[2].ranking.weights  # ready for whoever asks for the fusion


def test_a_difference_within_its_own_noise_does_not_pay_for_a_dearer_mode():
    """Two users of ten gain 1 and one loses 1: 0.1 on average, with a standard error of 0.18."""
    cheap, a_few = np.zeros(10), np.array([1.0, 1.0, -1.0, *[0.0] * 7])
    assert cheapest_of_the_best([cheap, a_few], list("abcdefghij")) == 0
    everyone = np.full(10, 0.1)
    assert cheapest_of_the_best([cheap, everyone], list("abcdefghij")) == 1


def test_windows_of_one_user_are_no_independent_evidence():
    """0.2125 on average. Over eight users the error is sqrt(1.729 * 8 / 7) / 8 = 0.18, over four it is 0.26."""
    cheap, gained = np.zeros(8), np.array([1.0, 1.0, -0.3, 0, 0, 0, 0, 0])
    assert cheapest_of_the_best([cheap, gained], list("aabbccdd")) == 0
    assert cheapest_of_the_best([cheap, gained], list("abcdefgh")) == 1


def test_a_fitted_mode_is_tried_on_users_it_was_not_fitted_on():
    """Two users of opposite taste: what suits one fails the other, so no hit is left; windows of both would give some.

    Title r is r + 1 times «a», and everyone writes «a»: row r lies at distance r. Rows 16 to 25 are popular. «far»
    always chooses row 16, so its fit puts the popular rows before row 6, which «near» always chooses; the fit of «near»
    ranks by distance, and row 16 is the seventeenth.
    """
    titles = ["a" * (row + 1) for row in range(26)]
    catalog = Catalog.from_items(Item(title, title) for title in titles)
    nearest = Grounder(catalog, FlatIndex.build(LetterEncoder().encode(titles)), LetterEncoder())
    both = [Window(user, (0,), row, number) for number in range(15) for user, row in (("far", 16), ("near", 6))]
    _, trials = choose_mode(
        lambda mode, width: [Written(("a",), (-1.0,)) for _ in both],
        both,
        nearest,
        np.array([0] * 16 + [1000] * 10, dtype=np.int64),
    )
    found = {trial.name: trial.hr10 for trial in trials}
    assert (found["greedy_l2"], found["greedy_l2_popularity"], found["greedy_fusion"]) == (0.5, 0, 0)


def test_with_one_user_the_fusion_falls_back_to_the_order_of_likelihood():
    """There is no other half to fit on."""
    chosen_windows = [Window("u", (0,), 3, number) for number in range(12)]
    chosen, _ = choose_mode(
        lambda mode, width: [Written(("d", "c"), (-1.0, -2.0), (3, 2)) for _ in chosen_windows],
        chosen_windows,
        grounder(),
        np.ones(26, dtype=np.int64),
    )
    assert chosen.hr10 == 1
