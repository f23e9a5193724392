"""One change of the catalog: put an item, patch some of its fields, remove it. Hiding is a patch of `available`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from index.catalog.catalog import Catalog, Item
from index.catalog.rules import clean_title, fault_of_id, fault_of_title
from index.errors import UnknownItemError
from index.limits import MAX_TITLE_CHARACTERS

Op = Literal["put", "patch", "remove"]

_FIELDS: dict[str, type] = {"title": str, "category": str, "available": bool}


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one item. Make one from a user's fields with `parse_change`.

    Attributes:
        op: "put" gives the whole item, "patch" the fields that are not None, "remove" none.
        item_id: which item.
    """

    op: Op
    item_id: str
    title: str | None = None
    category: str | None = None
    available: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """A flat object without the fields that are None; `parse_change` reads it."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def apply_to(self, item: Item | None) -> Item | None:
        """Return the item after the change, given the item before it; None: no item.

        Raises:
            UnknownItemError: it patches or removes an item that does not exist.
        """
        if self.op == "put":
            available = True if self.available is None else self.available
            return Item(self.item_id, self.title or "", self.category or "", available)
        if item is None:
            raise UnknownItemError(self.item_id)
        if self.op == "remove":
            return None
        given = {name: getattr(self, name) for name in _FIELDS if getattr(self, name) is not None}
        return replace(item, **given)


def parse_change(fields: Mapping[str, Any]) -> Change:
    """Check a change as `softrec init` checks an item; its title is cleaned likewise.

    Args:
        fields: op, item_id and, as the op needs or allows them, title, category, available.

    Raises:
        ValueError: a field is missing, unknown or not allowed; the message is a reason to be counted.
    """
    op: Op | None = next((known for known in get_args(Op) if known == fields.get("op")), None)
    if op is None:
        raise ValueError(f"op must be one of {', '.join(get_args(Op))}")
    item_id = fields.get("item_id")
    if not isinstance(item_id, str):
        raise ValueError("item_id must be a string")
    if fault := fault_of_id(item_id):
        raise ValueError(fault)
    given = {name: value for name, value in fields.items() if name not in ("op", "item_id") and value is not None}
    for name, value in given.items():
        if name not in _FIELDS:
            raise ValueError("unknown field")
        if not isinstance(value, _FIELDS[name]):
            raise ValueError(f"{name} must be {'true or false' if name == 'available' else 'a string'}")
    if op == "remove" and given:
        raise ValueError("remove takes an item_id alone")
    if op == "patch" and not given:
        raise ValueError("patch changes nothing: give title, category or available")
    if op == "put" and "title" not in given:
        raise ValueError("put needs a title")
    if "title" in given:
        given["title"] = clean_title(given["title"])
        if fault := fault_of_title(given["title"]):
            raise ValueError(fault)
    if len(given.get("category", "")) > MAX_TITLE_CHARACTERS:
        raise ValueError(f"category over {MAX_TITLE_CHARACTERS} characters")
    try:
        "".join([item_id, *(value for value in given.values() if isinstance(value, str))]).encode()
    except UnicodeEncodeError:  # "\ud800" in JSON
        raise ValueError("invalid Unicode (unpaired surrogate)") from None
    return Change(op, item_id, **given)


def change_catalog(catalog: Catalog, changes: Iterable[Change]) -> Catalog:
    """Return the catalog after some changes, in order; all of them or, on an error, none.

    Raises:
        UnknownItemError: one patches or removes an item that does not exist at that point.
    """
    now: dict[str, Item | None] = {}

    def steps() -> Iterable[tuple[str, Item | None]]:
        for change in changes:
            item_id = change.item_id
            before = now[item_id] if item_id in now else catalog.find_item(item_id)
            now[item_id] = change.apply_to(before)
            yield item_id, now[item_id]

    return catalog.changed(steps())
