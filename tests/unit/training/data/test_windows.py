"""Laws of windows and splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.windows import count_rows, sliding_windows, split_windows
from training.errors import EmptyDataError

times = st.lists(st.integers(0, 50), min_size=0, max_size=30).map(sorted)


def log_of(*users: list[int]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Users whose interactions happen at the given times, with rows counted on from user to user."""
    sequences, row = [], 0
    for number, when in enumerate(users):
        sequences.append((f"u{number}", np.arange(row, row + len(when)), np.array(when, dtype=np.int64)))
        row += len(when)
    return sequences


@given(when=times, max_history=st.integers(1, 12), data=st.data())
def test_a_history_is_what_came_just_before_the_target(when, max_history, data):
    min_history = data.draw(st.integers(1, max_history))
    rows = list(range(len(when)))
    for window in sliding_windows("u", rows, when, max_history=max_history, min_history=min_history):
        assert 1 <= len(window.history) <= max_history
        assert window.history == tuple(range(window.target - len(window.history), window.target))
        assert window.timestamp == when[window.target]


@given(n=st.integers(0, 30))
def test_the_papers_rule(n):
    """11 interactions give one window, each further one more; 2 to 10 give one shorter window; fewer give none."""
    windows = sliding_windows("u", list(range(n)), list(range(n)))
    assert len(windows) == (0 if n < 2 else max(1, n - 10))
    assert all(len(window.history) == min(10, n - 1) for window in windows)


@given(users=st.lists(times, min_size=1, max_size=8), min_history=st.integers(1, 4), seed=st.integers(0, 3))
def test_time_split_never_shows_training_the_future(users, min_history, seed):
    try:
        split = split_windows(log_of(*users), split="time", max_history=4, min_history=min_history, seed=seed)
    except EmptyDataError:
        return
    last_train = max(window.timestamp for window in split.train)
    assert last_train < min(window.timestamp for window in split.validation)
    assert max(w.timestamp for w in split.validation) < min(w.timestamp for w in split.test)
    when = np.concatenate([np.array(user) for user in users])
    assert all(when[row] <= last_train for history in split.histories for row in history)


@given(users=st.lists(times, min_size=1, max_size=8))
def test_leave_last_out_takes_each_users_last_two(users):
    try:
        split = split_windows(log_of(*users), split="leave-last-out", max_history=3, min_history=1)
    except EmptyDataError:
        return
    sequences = {user_id: rows.tolist() for user_id, rows, _ in log_of(*users)}
    for part, position in ((split.test, -1), (split.validation, -2)):
        assert all(window.target == sequences[window.user_id][position] for window in part)
    held_out = {w.target for w in split.test} | {w.target for w in split.validation}
    assert held_out.isdisjoint(window.target for window in split.train)
    assert held_out.isdisjoint(row for history in split.histories for row in history)


def test_sampling_is_seeded_keeps_time_order_and_reports_what_there_was():
    users = [list(range(user, user + 60, 3)) for user in range(5)]
    first, again, other = (
        split_windows(log_of(*users), split="time", min_history=1, sizes=(20, 5, 5), seed=seed) for seed in (1, 1, 2)
    )
    assert first.train == again.train != other.train
    assert [w.timestamp for w in first.train] == sorted(w.timestamp for w in first.train)
    assert (len(first.train), len(first.validation), len(first.test)) == (20, 5, 5)
    assert sum(first.available) == 5 * 19


def test_a_log_without_windows_names_the_part_and_the_remedy():
    with pytest.raises(EmptyDataError, match=r"no training window .*at least three interactions"):
        split_windows(log_of([1], [2]), split="leave-last-out")


def test_count_rows():
    assert count_rows([(0, 2, 2), (2,)], 4).tolist() == [1, 0, 3, 0]
