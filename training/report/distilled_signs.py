"""What the self-distilled titles are like, each figure beside what chance would give.

SOFT leaves it to its user to look at them (arXiv:2505.20771: hallucination rate, category signal). A share says nothing
alone: 8 % category accuracy is much with a hundred categories and nothing with twelve.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from index.catalog.catalog import Catalog, normalise_title
from training.errors import EmptyDataError

TOP = 10
DISTINCT_TRUE = "distinct true titles"
TOP_TRUE = f"the {TOP} most frequent true titles"
RANDOM_PAIR = "random pair"

Categories = frozenset[str]
Agreement = Callable[[Categories, Categories], bool]


@dataclass(frozen=True)
class Sign:
    """One share of the distilled titles.

    Attributes:
        name: its key in the adapter's metrics.
        label: the same for people.
        share: in [0, 1].
        n: the titles that it is a share of.
        beside: label to share: what chance, or something else worth comparing with, gives on the same titles.
    """

    name: str
    label: str
    share: float
    n: int
    beside: Mapping[str, float]


@dataclass(frozen=True)
class DistilledSigns:
    """All that is said of the distilled titles.

    Attributes:
        n: the distilled titles.
        notes: what was left out, and why.
    """

    n: int
    signs: tuple[Sign, ...]
    notes: tuple[str, ...] = ()

    def find(self, name: str) -> Sign | None:
        """Return the sign of that name; None where it does not apply."""
        return next((sign for sign in self.signs if sign.name == name), None)

    def metrics(self) -> dict[str, float]:
        """The shares by name, and `distilled_titles`, the number that they are shares of."""
        return {sign.name: sign.share for sign in self.signs} | {"distilled_titles": float(self.n)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DistilledSigns:
        signs = tuple(Sign(**sign) for sign in content["signs"])
        return cls(content["n"], signs, tuple(content["notes"]))


def describe_distilled(titles: Sequence[str], truths: Sequence[str], catalog: Catalog) -> DistilledSigns:
    """Describe self-distilled titles beside their chance levels.

    Two titles are the same when the catalog takes them for the same (`index.catalog.catalog.normalise_title`). "Random
    pair" is the chance that a distilled and a true title, drawn independently from all of them, agree:

        sum over t of p_distilled(t) * p_true(t)

    Args:
        titles: what the SFT model wrote for each training prompt.
        truths: the true next titles, in the same order.

    Raises:
        EmptyDataError: there are no titles.
        ValueError: not as many titles as truths.

    Example:
        >>> from index.catalog.catalog import Item
        >>> shop = Catalog.from_items([Item("a", "Doom"), Item("b", "Myst")])
        >>> signs = describe_distilled(["Doom", "Doom", "Dom", "Doom"], ["Doom", "Myst", "Myst", "Myst"], shop)
        >>> sign = signs.find("distilled_true")
        >>> sign.share, sign.beside["random pair"]  # 3/4 * 1/4
        (0.25, 0.1875)
    """
    if not titles:
        raise EmptyDataError("there are no distilled titles", remedy="train on more windows")
    written, true = list(map(normalise_title, titles)), list(map(normalise_title, truths))
    n = len(written)
    n_written, n_true = Counter(written), Counter(true)
    on_catalog = sum(catalog.find_title_row(title) is not None for title in titles)
    signs = [
        Sign(
            "distilled_unique",
            "distinct titles",
            len(n_written) / n,
            n,
            {DISTINCT_TRUE: len(n_true) / n, "one title for everybody": 1 / n},
        ),
        Sign(
            "distilled_top10",
            f"the {TOP} most frequent titles together",
            _top_share(n_written),
            n,
            {TOP_TRUE: _top_share(n_true), "no title twice": min(TOP, n) / n},
        ),
        Sign(
            "distilled_true",
            "equal to the true title",
            sum(a == b for a, b in zip(written, true, strict=True)) / n,
            n,
            {
                RANDOM_PAIR: sum(count * n_true[title] for title, count in n_written.items()) / n**2,
                "always the most popular true title": max(n_true.values()) / n,
            },
        ),
        Sign("distilled_off_catalog", "not in the catalog", 1 - on_catalog / n, n, {}),
    ]
    category_signs, notes = _category_signs(titles, truths, catalog)
    return DistilledSigns(n, (*signs, *category_signs), notes)


def _top_share(counts: Counter[str]) -> float:
    return sum(count for _, count in counts.most_common(TOP)) / counts.total()


@dataclass(frozen=True)
class _Pair:
    """A distilled and a true title, and the categories of both; those of a title off the catalog are none."""

    title: str
    truth: str
    written: Categories
    wanted: Categories


def _category_signs(
    titles: Sequence[str], truths: Sequence[str], catalog: Catalog
) -> tuple[tuple[Sign, ...], tuple[str, ...]]:
    """Category accuracy, over the windows whose true title has a category; a title off the catalog is wrong.

    Where items have several categories (`Drama|Comedy`) they must all agree, and a second sign asks for one in common.
    """
    pairs = [
        _Pair(normalise_title(title), normalise_title(truth), _categories(title, catalog), wanted)
        for title, truth in zip(titles, truths, strict=True)
        if (wanted := _categories(truth, catalog))
    ]
    if not pairs:
        return (), ("category accuracy, since the catalog has no categories",)
    without = len(titles) - len(pairs)
    notes = (f"{without} true titles without a category, from category accuracy",) if without else ()
    whole = Counter(pair.wanted for pair in pairs)
    same = _category_sign("distilled_category", "same category as the true title", pairs, operator.eq, whole)
    if all(len(pair.wanted) == 1 and len(pair.written) <= 1 for pair in pairs):
        return (same,), notes
    single = Counter(frozenset({category}) for pair in pairs for category in pair.wanted)
    label = "a category in common with the true title"
    shared = _category_sign("distilled_category_shared", label, pairs, lambda a, b: not a.isdisjoint(b), single)
    return (same, shared), notes


def _category_sign(
    name: str, label: str, pairs: Sequence[_Pair], agree: Agreement, frequency: Counter[Categories]
) -> Sign:
    """How often the categories agree.

    Args:
        frequency: of what one could always answer, to how many true titles agree with it.
    """
    n = len(pairs)
    popular = Counter(pair.truth for pair in pairs).most_common(1)[0][0]
    categories_of_popular = next(pair.wanted for pair in pairs if pair.truth == popular)
    written, wanted = Counter(pair.written for pair in pairs), Counter(pair.wanted for pair in pairs)
    return Sign(
        name,
        label,
        sum(agree(pair.written, pair.wanted) for pair in pairs) / n,
        n,
        {
            "exactly the true title": sum(pair.title == pair.truth for pair in pairs) / n,
            RANDOM_PAIR: sum(i * j for a, i in written.items() for b, j in wanted.items() if agree(a, b)) / n**2,
            "always the most frequent category": max(frequency.values()) / n,
            "always the most popular true title": sum(agree(categories_of_popular, pair.wanted) for pair in pairs) / n,
        },
    )


def _categories(title: str, catalog: Catalog) -> Categories:
    row = catalog.find_title_row(title)
    return frozenset() if row is None else frozenset(filter(None, catalog.category_of(row).split("|")))
