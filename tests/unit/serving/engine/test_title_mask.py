"""The engine's mask on logits, on plain tensors."""

import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from index.titles.filtered_trie import TitleOrder
from index.titles.held_folder import HeldFolder
from index.titles.trie import TitleTrie
from index.titles.trie_store import write_trie
from serving.engine.title_mask import TitleMask
from serving.engine.title_tries import StoredTrie, TitleTries

END = 0
TITLES = [(3, 4, END), (3, 5, END), (6, END), (3, 4, 7, END)]
VOCABULARY = 8


@pytest.fixture
def tries(tmp_path: Path) -> TitleTries:
    """Rows 0 to 2 in one trie, row 3 in another."""
    made = []
    for name, rows in (("base", range(3)), ("added", range(3, 4))):
        trie = TitleTrie.build([TITLES[row] for row in rows], rows)
        write_trie(tmp_path / name, trie)
        made.append(StoredTrie(TitleOrder.of(trie), tmp_path / name))
    return TitleTries(made, 3, HeldFolder(tmp_path / "files"))


def asked(tries: TitleTries, path: tuple[int, ...] = (), **closed: object) -> dict[str, object]:
    """A request's extra arguments as they arrive in the engine's process: lists where tuples were sent."""
    titles = tries.allowed_titles(**closed)  # type: ignore[arg-type]
    position = titles.allowed.start
    for token in path:
        position = titles.allowed.follow(position, token)
    tries_asked = [[folder, file, list(nodes)] for folder, file, nodes in titles.at(position)["tries"]]
    return {"titles": {"tries": tries_asked, "position": list(position)}}


def finite(row: torch.Tensor) -> list[int]:
    return torch.isfinite(row).nonzero().flatten().tolist()


def test_a_bound_row_keeps_its_own_log_probabilities_and_another_all_of_them(tries: TitleTries) -> None:
    mask, written = TitleMask(), list[int]()
    mask.add(1, asked(tries), written)
    mask.add(2, None, [])
    logits = torch.randn(3, VOCABULARY)
    expected = logits.log_softmax(-1)
    for path, allowed in (((), [3, 6]), ((3,), [4, 5]), ((4,), [END, 7]), ((7,), [END]), ((END,), range(VOCABULARY))):
        written += path
        found = mask.apply(logits)
        assert finite(found[1]) == list(allowed)  # after the end anything, if the engine asks once more
        assert torch.equal(found[1, list(allowed)], expected[1, list(allowed)])
        assert torch.equal(found[[0, 2]], expected[[0, 2]])


def test_a_request_begins_anywhere_in_the_titles_and_goes_on_after_a_pause(tries: TitleTries) -> None:
    mask = TitleMask()
    mask.add(0, asked(tries, (3,)), [])
    mask.add(1, asked(tries), [3, 4])  # was put aside and comes back with what it wrote
    assert [tokens.tolist() for tokens in mask.allowed_tokens()[1]] == [[4, 5], [END, 7]]


def test_filters_and_exclusions_close_what_leads_nowhere(tries: TitleTries) -> None:
    mask = TitleMask()
    mask.add(0, asked(tries, allowed=np.array([True, True, False, False])), [])
    mask.add(1, asked(tries, (3,), excluded=[1]), [])
    mask.add(2, asked(tries, (3, 4), allowed=np.array([True, True, False, True]), excluded=[0]), [])
    assert [tokens.tolist() for tokens in mask.allowed_tokens()[1]] == [[3], [4], [7]]


def test_rows_follow_their_requests_through_the_batch(tries: TitleTries) -> None:
    mask = TitleMask()
    mask.add(0, asked(tries), [])
    mask.add(1, asked(tries, (3,)), [])
    mask.move(0, 1, swap=True)
    assert {row: tokens.tolist() for row, tokens in zip(*mask.allowed_tokens(), strict=True)} == {0: [4, 5], 1: [3, 6]}
    mask.move(1, 0, swap=False)
    assert {row: tokens.tolist() for row, tokens in zip(*mask.allowed_tokens(), strict=True)} == {0: [3, 6]}
    mask.add(0, {"of": "another"}, [])  # a free request takes the row
    assert not len(mask.allowed_tokens()[0])
    mask.add(5, asked(tries), [])
    mask.remove(5)
    assert not len(mask.allowed_tokens()[0])


def test_a_forced_request_writes_just_that(tries: TitleTries) -> None:
    mask, written = TitleMask(), list[int]()
    mask.add(0, {"titles": {"forced": [5, 1]}}, written)
    logits = torch.randn(1, VOCABULARY)
    assert finite(mask.apply(logits)[0]) == [5]
    written.append(5)
    assert finite(mask.apply(logits)[0]) == [1]


def test_a_file_that_is_gone_leaves_the_request_unbound_and_the_engine_alive(tries: TitleTries) -> None:
    mask, lost = TitleMask(), asked(tries)
    lost["titles"]["tries"][0][0] += "-gone"  # type: ignore[index]
    mask.add(0, lost, [])
    assert finite(mask.apply(torch.zeros(1, VOCABULARY))[0]) == list(range(VOCABULARY))


def test_a_request_that_left_the_titles_goes_unbound(tries: TitleTries) -> None:
    mask = TitleMask()
    mask.add(0, asked(tries), [7])
    mask.add(1, asked(tries), [3])
    assert {row: tokens.tolist() for row, tokens in zip(*mask.allowed_tokens(), strict=True)} == {1: [4, 5]}


def test_filters_are_kept_up_to_a_bound_and_tries_no_longer_than_their_folders(
    tries: TitleTries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for one filter: 3 + 1 and 1 + 1 numbers of 4 bytes for two tries. The next one takes it, the first goes."""
    monkeypatch.setattr("serving.engine.title_mask._MOST_FILTER_BYTES", 24)
    load, read = np.load, list[weakref.ref[np.ndarray]]()

    def watched(path: Path, **options: bool) -> np.ndarray:
        found = load(path, **options)
        if Path(path).parent.parent == tmp_path / "files":
            read.append(weakref.ref(found))
        return found

    monkeypatch.setattr("serving.engine.title_mask.np.load", watched)
    mask = TitleMask()
    for number in range(3):
        mask.add(0, asked(tries, allowed=np.arange(4) != number, excluded=[3]), [])
        mask.remove(0)
        assert [counts() is not None for counts in read] == [False, False] * number + [True, True]
    mapped = [weakref.ref(trie) for trie in mask._tries.values()]
    shutil.rmtree(tmp_path / "added")
    shutil.copytree(tmp_path / "base", tmp_path / "later")
    mask.add(0, {"titles": {"tries": [[str(tmp_path / "later"), None, []]], "position": [0]}}, [])
    assert [trie() is not None for trie in mapped] == [True, False]
