"""Large tables that never change, with a few changes laid over them: a change costs as much as those before it did,
not as much as the table. Nothing is ever taken out; a reader of an older layer does not see a newer one.
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
    """A tuple `under` that is shared, and values `over` some of its places or right behind its end.

    Example:
        >>> list(OverlayList(("a", "b"), {1: "B", 2: "c"}))
        ['a', 'B', 'c']
    """

    def __init__(self, under: tuple[V, ...], over: dict[int, V]) -> None:
        self.under = under
        self.over = over
        self._length = max(len(under), max(over, default=-1) + 1)

    @overload
    def __getitem__(self, place: int) -> V: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[V, ...]: ...

    def __getitem__(self, place: int | slice) -> V | tuple[V, ...]:
        if isinstance(place, slice):
            return tuple(self._at(at) for at in range(*place.indices(self._length)))
        if place < 0:
            place += self._length
        if not 0 <= place < self._length:
            raise IndexError(f"place {place} of {self._length}")
        return self._at(place)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[V]:
        return (self._at(place) for place in range(self._length))

    def _at(self, place: int) -> V:
        return self.over[place] if place in self.over else self.under[place]


class ListDraft(Generic[V]):
    """A `OverlayList` in the making: that of `now`, over the same `base`, and what is set in addition."""

    def __init__(self, base: Sequence[V], now: Sequence[V]) -> None:
        self._under = tuple(base)  # the same tuple, not a copy: a base is never layered
        self._over = dict(now.over) if isinstance(now, OverlayList) else {}
        self._length = len(now)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> V:
        return self._over[place] if place in self._over else self._under[place]

    def __setitem__(self, place: int, value: V) -> None:
        self._over[place] = value
        self._length = max(self._length, place + 1)

    def layered(self) -> OverlayList[V]:
        """Return what was made; the draft must not be changed afterwards."""
        return OverlayList(self._under, self._over)
