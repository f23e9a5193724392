"""Drawn titles, each once."""

from hypothesis import given
from hypothesis import strategies as st

from training.generation.decoding import distinct_titles

drawn = st.lists(st.tuples(st.sampled_from(["", " ", "a", "b", "c"]), st.floats(-9, 0)), min_size=1, max_size=9)


@given(drawn)
def test_titles_are_distinct_and_in_order_and_blank_only_where_there_is_nothing_else(
    titles: list[tuple[str, float]],
) -> None:
    written = distinct_titles(titles)
    expected = {text for text, _ in titles if text.strip()}
    if expected:
        assert set(written.texts) == expected
    else:
        assert not written.texts[0].strip()
    assert len(set(written.texts)) == len(written.texts) == max(len(expected), 1)
    assert list(written.log_probs) == sorted(written.log_probs, reverse=True)
    for text, log_prob in zip(written.texts, written.log_probs, strict=True):
        assert log_prob == max(other for same, other in titles if same == text)
