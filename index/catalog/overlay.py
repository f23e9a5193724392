"""Large tables that never change, under overlays of a few changes: a change costs as much as the changes before it, not
as much as the table. Nothing is ever removed; a reader of an older overlay does not see a newer one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")


class OverlayDict(Mapping[K, V]):
    """A dict `under` that is shared, and one `over` it that wins. Neither may be changed afterwards."""

    def __init__(self, under: dict[K, V], over: dict[K, V]) -> None:
        self.under = under
        self.over = over

    def __getitem__(self, key: K) -> V:
        return self.over[key] if key in self.over else self.under[key]

    def __iter__(self) -> Iterator[K]:
        yield from self.under
        yield from (key for key in self.over if key not in self.under)

    def __len__(self) -> int:
        return len(self.under) + sum(key not in self.under for key in self.over)


class OverlayList(Sequence[V]):
    """A tuple `under` that is shared, and values `over` some of its positions or right behind its end.

    Example:
        >>> list(OverlayList(("a", "b"), {1: "B", 2: "c"}))
        ['a', 'B', 'c']
    """

    def __init__(self, under: tuple[V, ...], over: dict[int, V]) -> None:
        self.under = under
        self.over = over
        self._length = max(len(under), max(over, default=-1) + 1)

    @overload
    def __getitem__(self, position: int) -> V: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[V, ...]: ...

    def __getitem__(self, position: int | slice) -> V | tuple[V, ...]:
        if isinstance(position, slice):
            return tuple(self._at(at) for at in range(*position.indices(self._length)))
        if position < 0:
            position += self._length
        if not 0 <= position < self._length:
            raise IndexError(f"position {position} of {self._length}")
        return self._at(position)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[V]:
        return (self._at(position) for position in range(self._length))

    def _at(self, position: int) -> V:
        return self.over[position] if position in self.over else self.under[position]


class ListDraft(Generic[V]):
    """An `OverlayList` being made: the overlay of `now` over `base`, and what is set in addition."""

    def __init__(self, base: Sequence[V], now: Sequence[V]) -> None:
        self._under = tuple(base)  # the same tuple, not a copy: what is overlaid is no overlay itself
        self._over = dict(now.over) if isinstance(now, OverlayList) else {}
        self._length = len(now)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> V:
        return self._over[position] if position in self._over else self._under[position]

    def __setitem__(self, position: int, value: V) -> None:
        self._over[position] = value
        self._length = max(self._length, position + 1)

    def finish(self) -> OverlayList[V]:
        """Return the list; the draft must not be changed afterwards."""
        return OverlayList(self._under, self._over)
