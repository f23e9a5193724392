"""Scoring every title at once, and finding the best by a beam, against each title scored alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import training.generation.title_scorer
import training.generation.titles
from index.titles.trie import TitleTrie
from tests.random_llama import random_llama
from training.generation.title_scorer import TitleScorer
from training.generation.titles import write_best_titles, write_titles

END = 0
LLAMA = random_llama(12, seed=3)

# unique, since two rows of the same tokens are tried by hand below
catalogs = st.lists(
    st.lists(st.integers(1, 11), min_size=1, max_size=5).map(lambda ids: (*ids, END)),
    min_size=1,
    max_size=25,
    unique=True,
)
prompts = st.lists(st.lists(st.integers(1, 11), min_size=1, max_size=6), min_size=1, max_size=4)


def score_alone(prompt: list[int], title: tuple[int, ...]) -> float:
    """Summed log-probability of a title after a prompt."""
    with torch.no_grad():
        logits = LLAMA(input_ids=torch.tensor([[*prompt, *title]])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(1)[torch.arange(len(title)), list(title)].sum())


def scores_alone(trie: TitleTrie, prompt: list[int], titles: list[tuple[int, ...]]) -> NDArray[np.float64]:
    return np.array([score_alone(prompt, titles[row]) for row in trie.rows])


@settings(max_examples=20)
@given(titles=catalogs, prompts=prompts, nodes=st.sampled_from([1, 7, 1000]))
def test_every_title_has_the_score_it_has_alone(titles, prompts, nodes):
    """Also where the trie is taken in pieces, and prompts of several lengths are read together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.generation.title_scorer, "_NODES", nodes)
        patch.setitem(training.generation.title_scorer._LOGITS, "cpu", 12 * nodes)
        trie = TitleTrie.build(titles, range(len(titles)))
        scores = list(TitleScorer(LLAMA, trie).score(prompts, batch_size=3))
    for prompt, found in zip(prompts, scores, strict=True):
        np.testing.assert_allclose(found, scores_alone(trie, prompt, titles), rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(titles=catalogs, prompts=prompts, k=st.integers(1, 30))
def test_a_beam_as_wide_as_the_catalog_finds_the_most_probable_titles_in_order(titles, prompts, k):
    trie = TitleTrie.build(titles, range(len(titles)))
    for prompt, found in zip(prompts, write_titles(LLAMA, prompts, trie, width=25, k=k, batch_size=2), strict=True):
        scores = scores_alone(trie, prompt, titles)
        best = np.argsort(-scores)[:k]
        assert found.rows.tolist() == trie.rows[best].tolist()
        np.testing.assert_allclose(found.log_probs, scores[best], rtol=1e-4, atol=1e-4)
        assert found.is_proven


@settings(max_examples=20)
@given(titles=catalogs, prompt=prompts.map(lambda rows: rows[0]), width=st.integers(1, 4), k=st.integers(1, 6))
def test_a_narrow_beam_gives_titles_with_their_own_scores_and_never_calls_a_wrong_list_proven(titles, prompt, width, k):
    trie = TitleTrie.build(titles, range(len(titles)))
    [found] = write_titles(LLAMA, [prompt], trie, width=width, k=k)
    scores = dict(zip(trie.rows.tolist(), scores_alone(trie, prompt, titles).tolist(), strict=True))
    assert len(set(found.rows.tolist())) == len(found.rows) <= k
    assert (np.diff(found.log_probs) <= 0).all()
    np.testing.assert_allclose(found.log_probs, [scores[row] for row in found.rows.tolist()], rtol=1e-4, atol=1e-4)
    if found.is_proven:
        best = sorted(scores.values(), reverse=True)[:k]
        np.testing.assert_allclose(found.log_probs, best, rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(titles=catalogs, prompts=prompts, width=st.integers(1, 4), k=st.integers(1, 30), most=st.sampled_from([1, 1024]))
def test_branch_and_bound_finds_the_most_probable_titles_whatever_beam_goes_first(titles, prompts, width, k, most):
    """Also where the beam gives no bound, or more beginnings matter than may be followed: then all are scored."""
    trie = TitleTrie.build(titles, range(len(titles)))
    done = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.generation.titles, "_MOST_BEAMS", most)
        found = write_best_titles(LLAMA, prompts, trie, k=k, width=width, batch_size=2, advance=done.append)
    assert sum(done) == len(prompts)
    for prompt, one in zip(prompts, found, strict=True):
        scores = scores_alone(trie, prompt, titles)
        np.testing.assert_allclose(one.log_probs, np.sort(scores)[::-1][:k], rtol=1e-4, atol=1e-4)
        assert one.is_proven
        assert len(set(one.rows.tolist())) == min(k, len(titles))


def test_rows_of_the_same_tokens_both_come():
    trie = TitleTrie.build([(5, END), (5, END), (7, END)], [4, 2, 9])
    [found] = write_titles(LLAMA, [[3]], trie, width=2, k=3)
    assert sorted(found.rows.tolist()) == [2, 4, 9]
    [scores] = TitleScorer(LLAMA, trie).score([[3]])
    assert scores[trie.rows == 2] == scores[trie.rows == 4]
