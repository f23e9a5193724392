"""Which training windows a model can learn from under this base and this prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from index.catalog.catalog import Catalog, normalise_title
from training.data.windows import Window, describe_window
from training.errors import EmptyDataError, TrainingError, name_rows
from training.prompt import PromptRenderer, PromptTemplate

MOST_UNUSABLE = 0.01  # share of the training windows; as much as `softrec init` tolerates of bad rows


@dataclass(frozen=True)
class LeftOut:
    """Training windows that cannot be learned from, by reason.

    Attributes:
        too_long: the target has more than `max_title_tokens` tokens.
        garbled: the target's tokens decode to another text, which the catalog does not match to this title either.
        without_history: no title of the history fits into `max_prompt_tokens`, not even alone.
    """

    too_long: int = 0
    garbled: int = 0
    without_history: int = 0

    @property
    def total(self) -> int:
        return self.too_long + self.garbled + self.without_history

    def notes(self, template: PromptTemplate) -> list[str]:
        """One sentence per reason that applies."""
        reasons = (
            (self.too_long, f"their title is longer than {template.max_title_tokens} tokens (max_title_tokens)"),
            (self.garbled, "this base's tokenizer cannot spell their title"),
            (self.without_history, _no_history(template)),
        )
        return [f"{count} training windows left out: {reason}" for count, reason in reasons if count]


def select_training_windows(
    windows: Sequence[Window], catalog: Catalog, renderer: PromptRenderer
) -> tuple[tuple[Window, ...], LeftOut]:
    """Leave out the windows that a model cannot learn from, or refuse them all.

    Targets that are too long are a matter of a setting, and are left out however many they are. The other two reasons
    say that base and catalog do not suit each other. A title in a thousand that this tokenizer cannot spell is
    tolerable: no model could ever write it, and learning its garbled form would teach a title that does not exist. Many
    of them mean the wrong base (one without this catalog's script, say), and a run would look sound and write nonsense;
    so beyond `MOST_UNUSABLE` of the windows it is refused. A title that comes back in lower case, say, is sound: the
    catalog knows it by `normalise_title`, as it does what a served model writes.

    Returns:
        The windows to learn from, in their order, and how many were left out and why.

    Raises:
        EmptyDataError: all targets are too long.
        TrainingError: too many are garbled or without history.
    """

    @cache  # by catalog row: there are fewer of them than windows
    def fits(row: int) -> bool:
        return renderer.fits(catalog.titles[row])

    @cache
    def is_faithful(row: int) -> bool:
        title = catalog.titles[row]
        return normalise_title(renderer.parse(renderer.completion_ids(title))) == normalise_title(title)

    has_history = _history_test(catalog, renderer)
    kept: list[Window] = []
    too_long: list[Window] = []
    garbled: list[Window] = []
    without_history: list[Window] = []
    for window in windows:
        if not fits(window.target):
            too_long.append(window)
        elif not is_faithful(window.target):
            garbled.append(window)
        elif not has_history(window):
            without_history.append(window)
        else:
            kept.append(window)

    template = renderer.template
    if len(too_long) == len(windows):
        raise EmptyDataError(
            f"no training target is at most {template.max_title_tokens} tokens long: {_named(too_long, catalog)}",
            remedy="--set max_title_tokens=N",
        )
    _tolerate(
        garbled,
        windows,
        catalog,
        "the target does not come back from its tokens: this base's tokenizer cannot spell it",
        remedy="choose a base whose tokenizer knows this script, or mend these titles and import again",
    )
    _tolerate(
        without_history,
        windows,
        catalog,
        f"no title of the history fits max_prompt_tokens ({template.max_prompt_tokens})",
        remedy="--set max_prompt_tokens=N, or shorten these titles and import again",
    )
    return tuple(kept), LeftOut(len(too_long), len(garbled), len(without_history))


def select_evaluation_windows(
    windows: Sequence[Window], part: str, catalog: Catalog, renderer: PromptRenderer
) -> tuple[tuple[Window, ...], list[str]]:
    """Leave out the windows of validation or test that give a model nothing to read: a server answers by popularity.

    Args:
        part: "validation" or "test".

    Returns:
        The windows with a history, in their order, and a sentence on those that are left out, if there are any.

    Raises:
        EmptyDataError: none is left.
    """
    kept = tuple(filter(_history_test(catalog, renderer), windows))
    if not kept:
        raise EmptyDataError(
            f"no {part} window is left: {_no_history(renderer.template)}",
            remedy="--set max_prompt_tokens=N, or shorten these titles and import again",
        )
    left_out = len(windows) - len(kept)
    return kept, [f"{left_out} {part} windows left out: {_no_history(renderer.template)}"] if left_out else []


def _history_test(catalog: Catalog, renderer: PromptRenderer) -> Callable[[Window], bool]:
    """Return a function that says of a window whether a prompt can hold at least one title of its history."""

    @cache  # by catalog row
    def fits_prompt(row: int) -> bool:
        return renderer.fits_prompt(catalog.titles[row])

    return lambda window: any(map(fits_prompt, window.history))


def _no_history(template: PromptTemplate) -> str:
    return f"no title of their history fits a prompt of {template.max_prompt_tokens} tokens (max_prompt_tokens)"


def _tolerate(
    unusable: Sequence[Window], windows: Sequence[Window], catalog: Catalog, what: str, *, remedy: str
) -> None:
    if len(unusable) > MOST_UNUSABLE * len(windows):
        raise TrainingError(
            f"{len(unusable)} of {len(windows)} training windows: {what}: {_named(unusable, catalog)}", remedy=remedy
        )


def _named(windows: Sequence[Window], catalog: Catalog) -> str:
    return name_rows(range(len(windows)), lambda at: describe_window(windows[at], catalog))
